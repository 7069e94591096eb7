//! The lock table: who holds what, who waits for it, and until when.

mod admission;
mod answer;
mod deadline;
mod departure;
mod event;
mod finder;
mod key;
mod owner;
mod record;
mod shards;
mod stats;
mod table;

pub use answer::{Completion, LockOutcome, LockSettings, OwnerKey, ReplyTo, WaiterId};
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
