//! Decoding of distcache traffic: messages as people read them, and connections observed from outside.

pub mod decode;
pub mod observe;
