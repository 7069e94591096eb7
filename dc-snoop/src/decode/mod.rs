//! Messages, lines and link traffic in readable form.

mod lines;
mod link;
mod lock;
mod message;
mod values;

pub use lines::{DecodedLines, DisplayLines};
pub use link::DecodedLink;
pub use lock::{InvalidLockRequest, LockFields, short_digest, show_key};
pub use message::*;
pub use values::{Redaction, digest, show_data, show_hex, show_id};
