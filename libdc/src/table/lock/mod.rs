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

pub use answer::{Claimant, Effect, LockSettings, Outcome, Reply, Ticket};
pub use shards::Locks;
pub use stats::{HeldLock, IdleKey, LockStats, LockTotals, UsedSemaphore};

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
