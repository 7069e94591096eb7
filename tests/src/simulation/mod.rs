//! The simulation: agents, a server and applications in one thread, on a virtual clock, with a network that
//! does everything a network may do. All of it comes from a seed, so a failure can be had again.
//!
//! What is simulated is the sockets, the clock and what processes do; the machines are the real ones:
//!
//! ```text
//!   Application ◀─ pipes ─▶ AgentHost (Multiplexer) ◀─ pipes ─▶ SimServer (ServerConnection, Service)
//!       │ asks, is answered        │ what it had when                      ▲
//!       ▼                          ▼                                       │
//!   History ─▶ verify: can that be true?                      World: what breaks when
//! ```
//!
//! Nothing here knows what an answer should be from having looked into a machine: the history is that of
//! the applications. `PlantedBug` plants bugs, to show that they are found.

mod agent;
mod application;
mod conversation;
mod direct;
mod event_queue;
mod faults;
mod history;
mod lock;
mod network;
mod original;
mod pipe;
mod planted_bug;
mod random;
mod request;
mod run;
mod scenario;
mod server;
mod server_connection;
mod tampering;
mod timeline;
mod trace;
mod turn_env;
mod verify;
mod violation;
mod world;

pub use lock::{Ended, LockViolation};
pub use planted_bug::PlantedBug;
pub use run::{SeedRun, Summary, simulate, simulate_all};
pub use violation::{Absence, Remnant, Violation};
