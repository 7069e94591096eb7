//! `dc_client`, on a Unix socket of its own.

use crate::harness::connection::TestConnection;
use crate::harness::process::{ProgramLaunch, TestProcess};
use crate::harness::test_dir::TestDir;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A running agent.
#[derive(Debug)]
pub struct AgentProcess {
    // Ends before its directory goes.
    /// The process.
    pub process: TestProcess,
    launch: ProgramLaunch,
    socket: PathBuf,
    place: TestDir,
}

impl AgentProcess {
    /// An agent of the server at `upstream`, with these options besides `-listen` and `-server`. It serves, and has
    /// made its first attempt to reach the server.
    #[must_use]
    pub fn start(upstream: SocketAddr, options: &[&str]) -> Self {
        Self::launch(ProgramLaunch::new("dc_client").with(options), upstream)
    }

    /// An agent started in a way of its own.
    #[must_use]
    pub fn launch(launch: ProgramLaunch, upstream: SocketAddr) -> Self {
        let place = TestDir::new();
        let socket = place.file("agent");
        let launch = launch.with(["-listen", &unix(&socket), "-server", &format!("IP:{upstream}")]);
        let process = launch.start();
        process.log.expect("serving server=");
        Self { process, launch, socket, place }
    }

    /// Kills it, and starts it again on the same socket.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = self.launch.start();
        self.process.log.expect("serving server=");
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of its socket, where nothing else is.
    #[must_use]
    pub const fn dir(&self) -> &TestDir {
        &self.place
    }

    /// A connection to it.
    #[must_use]
    pub fn connect(&self) -> TestConnection {
        TestConnection::unix(&self.socket)
    }
}

/// The address of a Unix socket.
#[must_use]
pub fn unix(path: &Path) -> String {
    format!("UNIX:{}", path.display())
}
