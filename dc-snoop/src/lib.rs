//! Decoding of distcache traffic: messages in readable form, and passively observed connections.

pub mod decode;
pub mod observe;
