//! What a server knows. The time comes in as an argument, and nothing takes longer because there is much of it.

mod chunks;
mod expiry;
mod fence;
mod index;
mod lock;
mod room;
mod session;
mod sharded;
mod store;

pub use fence::Fences;
pub use lock::{
    Claimant, Effect, HeldLock, IdleKey, LockSettings, LockStats, LockTotals, Locks, Outcome, Reply, Ticket,
    UsedSemaphore,
};
pub use session::{Added, SessionLimits, SessionTable, SessionTotals};
pub use sharded::ShardedSessions;
pub use store::{Expired, SessionStore};

#[cfg(test)]
mod model;
