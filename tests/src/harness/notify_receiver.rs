//! The receiving side of `sd_notify`, as in systemd.

use crate::harness::patience::PATIENCE;
use crate::harness::test_dir::TestDir;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// A socket for `NOTIFY_SOCKET`. Each blocking call panics after [`PATIENCE`].
#[derive(Debug)]
pub struct NotifyReceiver {
    socket: UnixDatagram,
    dir: TestDir,
}

impl NotifyReceiver {
    /// Creates a receiver without messages in a temporary directory.
    #[must_use]
    pub fn start() -> Self {
        let dir = TestDir::new();
        let socket = UnixDatagram::bind(dir.file("notify")).expect("to bind a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("to set a socket option");
        Self { socket, dir }
    }

    /// The value for the variable `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.file("notify")
    }

    /// Fills the socket's queue, so that no message fits until some are received.
    pub fn overwhelm(&self) {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("an option of a socket");
        while sender.send_to(b"X_NOTHING=1", self.path()).is_ok() {}
    }

    /// Waits for the next message.
    #[must_use]
    pub fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no message: {error}"));
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Skips messages up to the first with `text`, and returns that.
    pub fn expect(&self, text: &str) -> String {
        loop {
            let message = self.hears();
            if message.contains(text) {
                return message;
            }
        }
    }
}
