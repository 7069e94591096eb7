//! `dc_server`, on a port that the system gives.

use crate::harness::connection::TestConnection;
use crate::harness::loopback::own_loopback;
use crate::harness::process::{ProgramLaunch, TestProcess};
use std::net::SocketAddr;

/// A running server.
#[derive(Debug)]
pub struct ServerProcess {
    launch: ProgramLaunch,
    address: SocketAddr,
    /// The process.
    pub process: TestProcess,
}

impl ServerProcess {
    /// A server that serves, with these options besides `-listen`.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::launch(ProgramLaunch::new("dc_server").with(options))
    }

    /// A server that serves, started in a way of its own.
    #[must_use]
    pub fn launch(launch: ProgramLaunch) -> Self {
        let address = SocketAddr::new(own_loopback().into(), 0);
        let process = launch.clone().with(["-listen", &format!("IP:{address}")]).start();
        let line = process.log.expect("listening address=IP:");
        let address = line.rsplit_once("IP:").and_then(|(_, address)| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        process.log.expect("serving");
        Self { launch, address, process }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it.
    #[must_use]
    pub fn connect(&self) -> TestConnection {
        TestConnection::tcp(self.address)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after its end, on the same port. Returns the line that says since when it listens.
    pub fn restart(&mut self) -> String {
        self.kill();
        self.process = self.launch.clone().with(["-listen", &format!("IP:{}", self.address)]).start();
        let line = self.process.log.expect("listening address=IP:");
        self.process.log.expect("serving");
        line
    }
}
