//! The side of a supervisor that is told what its service is doing, as systemd is.

use crate::harness::patience::PATIENCE;
use crate::harness::test_dir::TestDir;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// A socket for `NOTIFY_SOCKET`. What it waits for must come within the harness's patience.
#[derive(Debug)]
pub struct NotifyReceiver {
    socket: UnixDatagram,
    place: TestDir,
}

impl NotifyReceiver {
    /// A supervisor that has been told nothing.
    #[must_use]
    pub fn start() -> Self {
        let place = TestDir::new();
        let socket = UnixDatagram::bind(place.file("notify")).expect("a socket in a directory of ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of a socket");
        Self { socket, place }
    }

    /// The value of `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.file("notify")
    }

    /// Leaves no room for another message, until somebody hears these.
    pub fn overwhelm(&self) {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("an option of a socket");
        while sender.send_to(b"X_NOTHING=1", self.path()).is_ok() {}
    }

    /// The next message.
    #[must_use]
    pub fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no message: {error}"));
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Passes over messages up to the first with `text`, and returns that.
    pub fn expect(&self, text: &str) -> String {
        loop {
            let message = self.hears();
            if message.contains(text) {
                return message;
            }
        }
    }
}
