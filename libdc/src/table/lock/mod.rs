//! The lock table: holders, waiters and their deadlines.

mod admission;
mod deadline;
mod event;
mod key;
mod outcome;
mod owner;
mod record;
mod record_index;
mod release;
mod shards;
mod stats;
mod table;

pub use outcome::{Completion, LockOutcome, LockSettings, OwnerKey, ReplyTo, WaiterId};
pub use shards::ShardedLocks;
pub use stats::{HeldLockStats, IdleKeyStats, LockStats, LockTotals, SemaphoreStats};

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
