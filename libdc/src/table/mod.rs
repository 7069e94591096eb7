//! The data of a server: sessions, locks and fences. The time is an argument, and no operation slows down as
//! a table grows.

mod chunked_vec;
mod expiry;
mod fence;
mod hash_index;
mod lock;
mod quota;
mod session;
mod sharded;
mod store;

pub use fence::FenceSource;
pub use lock::{
    Completion, HeldLockStats, IdleKeyStats, LockOutcome, LockSettings, LockStats, LockTotals, OwnerKey,
    ReplyTo, SemaphoreStats, ShardedLocks, WaiterId,
};
pub use session::{AddOutcome, SessionLimits, SessionTable, SessionTotals};
pub use sharded::ShardedSessions;
pub use store::{ExpiryStep, SessionStore};

#[cfg(test)]
mod model;
