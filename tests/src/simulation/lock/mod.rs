//! Locks in the simulation: applications that acquire locks, through an agent or directly from the server,
//! and the checker of their answers.
//!
//! ```text
//!   Locker ◀─ LockConversation: lines, frames, a separate link ─▶ (an agent, the server)
//!     │ requests, answers
//!     ▼
//!   LockHistory ─▶ Verdict: are these answers possible?
//! ```

mod conversation;
mod history;
mod locker;
mod verdict;
mod violation;

pub(crate) use history::{LockHistory, LockOpKind, ObservedLockReply};
pub(crate) use locker::{Locker, LockerEnv, LockerPlan, LockerProtocol};
pub use violation::{Ended, LockViolation};
