//! `dc_client`, on a separate Unix socket for each test.

use crate::harness::connection::TestConnection;
use crate::harness::process::{ProgramLaunch, TestProcess};
use crate::harness::test_dir::TestDir;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A running `dc_client`; dropping it kills the process.
#[derive(Debug)]
pub struct AgentProcess {
    // Dropped before the directory of its socket.
    /// The child process, with its log.
    pub process: TestProcess,
    launch: ProgramLaunch,
    socket: PathBuf,
    dir: TestDir,
}

impl AgentProcess {
    /// Starts an agent of the server at `upstream`, with these options besides `-listen` and `-server`. On
    /// return it serves, and has made its first attempt to reach the server.
    #[must_use]
    pub fn start(upstream: SocketAddr, options: &[&str]) -> Self {
        Self::launch(ProgramLaunch::new("dc_client").with(options), upstream)
    }

    /// Like [`start`](Self::start), with variables, a shell prelude or another program directory.
    #[must_use]
    pub fn launch(launch: ProgramLaunch, upstream: SocketAddr) -> Self {
        let dir = TestDir::new();
        let socket = dir.file("agent");
        let launch = launch.with(["-listen", &unix(&socket), "-server", &format!("IP:{upstream}")]);
        let process = launch.start();
        process.log.expect("serving server=");
        Self { process, launch, socket, dir }
    }

    /// Kills it, and starts it again on the same socket.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = self.launch.start();
        self.process.log.expect("serving server=");
    }

    /// The path of its Unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of its socket, which holds nothing else.
    #[must_use]
    pub const fn dir(&self) -> &TestDir {
        &self.dir
    }

    /// Opens a connection to its socket.
    #[must_use]
    pub fn connect(&self) -> TestConnection {
        TestConnection::unix(&self.socket)
    }
}

/// The address of a Unix socket, as options take it.
#[must_use]
pub fn unix(path: &Path) -> String {
    format!("UNIX:{}", path.display())
}
