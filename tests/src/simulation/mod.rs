//! The simulation: agents, a server and applications in one thread, on a virtual clock, with a network that
//! shows all behaviour allowed to a network. Everything is derived from a seed, so failures are reproducible.
//!
//! Sockets, the clock and processes are simulated; the protocol machines are the real ones:
//!
//! ```text
//!   Application ◀─ pipes ─▶ AgentHost (Multiplexer) ◀─ pipes ─▶ SimServer (ServerConnection, Service)
//!       │ asks, is answered        │ what it had when                      ▲
//!       ▼                          ▼                                       │
//!   History ─▶ verify: can that be true?                      World: what breaks when
//! ```
//!
//! No check depends on the internal state of a machine: the history contains only the observations of the
//! applications. `PlantedBug` plants bugs, to show that the checks find them.

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
