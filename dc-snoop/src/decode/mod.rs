//! Messages, lines and link traffic in a form for people.

mod lines;
mod link;
mod lock;
mod message;

pub use lines::{DecodedLines, DisplayLines};
pub use link::DecodedLink;
pub use lock::{InvalidLockRequest, LockFields, short_digest, show_key};
pub use message::*;
