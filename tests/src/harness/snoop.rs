//! `dc_snoop`, between an agent and its server.

use crate::harness::loopback::own_loopback;
use crate::harness::process::{ProgramLaunch, TestProcess};
use std::net::SocketAddr;

/// A running relay that prints the traffic.
#[derive(Debug)]
pub struct SnoopProcess {
    address: SocketAddr,
    /// The process; the printed traffic is in its log.
    pub process: TestProcess,
}

impl SnoopProcess {
    /// Starts a relay to the server at `upstream`, with these options besides `-listen` and `-server`.
    #[must_use]
    pub fn start(upstream: SocketAddr, options: &[&str]) -> Self {
        let listen = format!("IP:{}:0", own_loopback());
        let launch =
            ProgramLaunch::new("dc_snoop").with(["-listen", &listen, "-server", &format!("IP:{upstream}")]);
        let process = launch.with(options).start();
        let line = process.log.expect("listening on");
        let address = line.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        let address = address.and_then(|address| address.parse().ok());
        Self { address: address.unwrap_or_else(|| panic!("no address in {line:?}")), process }
    }

    /// The TCP address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
