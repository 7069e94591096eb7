//! `dc_server`, on a port chosen by the system.

use crate::harness::connection::TestConnection;
use crate::harness::loopback::own_loopback;
use crate::harness::process::{ProgramLaunch, TestProcess};
use std::net::SocketAddr;

/// A running `dc_server`; dropping it kills the process.
#[derive(Debug)]
pub struct ServerProcess {
    launch: ProgramLaunch,
    address: SocketAddr,
    /// The child process, with its log.
    pub process: TestProcess,
}

impl ServerProcess {
    /// Starts a server with these options besides `-listen`. It serves on return.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::launch(ProgramLaunch::new("dc_server").with(options))
    }

    /// Like [`start`](Self::start), with variables, a shell prelude or another program directory.
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

    /// The TCP address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection to it over TCP.
    #[must_use]
    pub fn connect(&self) -> TestConnection {
        TestConnection::tcp(self.address)
    }

    /// Kills the process, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it if it runs, and starts it again on the same port. Returns the log line that says since when
    /// it listens.
    pub fn restart(&mut self) -> String {
        self.kill();
        self.process = self.launch.clone().with(["-listen", &format!("IP:{}", self.address)]).start();
        let line = self.process.log.expect("listening address=IP:");
        self.process.log.expect("serving");
        line
    }
}
