//! `dc_snoop` over real sockets: relayed bytes, printed output, written captures.
#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod capture;
mod output;
mod program;
mod relay;
#[path = "../../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;
