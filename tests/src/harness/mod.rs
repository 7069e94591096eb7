//! The harness of the whole-system tests: the programs as processes, the network between them, and what
//! applications do to them.
//!
//! - [`programs`] builds what is started; [`process`] starts it, follows what it logs and sees it end.
//! - [`server`], [`agent`] and [`snoop`] are ours, on addresses of their own; [`daemon`] is one of them detached;
//!   [`master`] is ours and runs any of them.
//! - [`notify_receiver`] is told what a program is doing, as systemd is.
//! - [`require`] skips a test where the system lacks what it needs, or fails it.
//! - [`connection`] is an application, well-behaved or not; [`callers`] are many that must all be answered;
//!   [`relay`] a network with faults; [`fake`] a server of another kind, [`fake_locks`] one that breaks its promises
//!   about locks.
//!
//! Everything waits for events (a line of a log, bytes, the end of a connection or a process), never for time
//! to pass, and no longer than [`PATIENCE`](patience::PATIENCE). What can't go on panics and says why, so a
//! test needs no more than to be written down. Dropped, a process is killed, and what it logged is shown if the
//! test has failed.
#![allow(clippy::missing_panics_doc, reason = "every function here panics when a test can't go on")]

pub mod agent;
pub mod callers;
pub mod connection;
pub mod daemon;
pub mod fake;
pub mod fake_locks;
pub mod log;
pub mod loopback;
pub mod master;
pub mod notify_receiver;
pub mod patience;
pub mod process;
pub mod programs;
pub mod relay;
pub mod require;
pub mod server;
pub mod snoop;
pub mod test_dir;
