//! The harness of the whole-system tests: the programs as processes, the network between them, and the
//! applications.
//!
//! - [`programs`] builds the programs; [`process`] starts them, captures their logs and waits for their exit.
//! - [`server`], [`agent`] and [`snoop`] run the programs on separate addresses; [`daemon`] is a detached
//!   program; [`master`] runs any program under `dc_master`.
//! - [`notify_receiver`] receives `sd_notify` messages, as systemd does.
//! - [`require`] skips or fails a test where the system lacks a requirement.
//! - [`connection`] is an application, well-behaved or not; [`callers`] is a load in which every request must
//!   be answered; [`relay`] is a network with faults; [`fake`] is a fake session server, [`fake_locks`] a
//!   lock server with a chosen fault.
//!
//! Every wait is for an event (a log line, bytes, the end of a connection or a process), never for time to
//! pass, and ends after [`PATIENCE`](patience::PATIENCE). A failure panics with its reason, so a test needs
//! no error handling. Dropping a process kills it, and prints its log if the test has failed.
//! test has failed.
#![allow(clippy::missing_panics_doc, reason = "every function here panics to fail the test")]

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
