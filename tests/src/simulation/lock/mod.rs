//! Locks in the simulation: applications that want them, through an agent or straight from the server, and what must be
//! true of what they were answered.
//!
//! ```text
//!   Locker ◀─ Conversation: text, frames, a link of its own ─▶ (an agent, the server)
//!     │ asks, is answered
//!     ▼
//!   LockHistory ─▶ Verdict: can that be true?
//! ```

mod conversation;
mod history;
mod locker;
mod verdict;
mod violation;

pub(crate) use history::{LockHistory, LockOpKind, ObservedLockReply};
pub(crate) use locker::{Locker, LockerEnv, LockerPlan, LockerProtocol};
pub use violation::{Ended, LockViolation};
