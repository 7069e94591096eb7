//! What a server knows. Time comes in as an argument, nothing here waits, and nothing takes longer because there is much of it.

mod chunks;
mod expiry;
mod index;
mod session;

pub use session::{Added, SessionLimits, SessionTable, SessionTotals};
