//! `dc_snoop` over real sockets: what it relays, what it prints, what it writes.
#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod capture;
mod output;
mod program;
mod relay;
