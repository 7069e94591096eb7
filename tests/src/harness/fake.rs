//! A fake server that imitates distcache 1.x or a current server, or never answers. It is written without
//! libdc, so that it has none of libdc's bugs.

use crate::harness::loopback::own_loopback;
use crate::harness::patience::PATIENCE;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

const HEADER_BYTES: usize = 14;
const ADD: u8 = 0;
const GET: u8 = 1;
const REMOVE: u8 = 2;
const LINK_CLASS: u8 = 2;
const HELLO: u8 = 0;
const PING: u8 = 3;
const GOAWAY: u8 = 6;

/// Answers for this id are withheld until [`FakeServer::answer_held`].
pub const HELD_ID: &[u8] = b"held";

/// A server that never expires sessions and records its requests.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<FakeShared>,
}

#[derive(Debug)]
struct FakeShared {
    kind: FakeKind,
    state: Mutex<FakeState>,
    changed: Condvar,
}

/// Which server it imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeKind {
    /// A distcache 1.x server: patch level 0; closes the connection at an unknown class.
    Original,
    /// Patch level 1; also accepts links and answers pings.
    Current,
    /// Accepts connections and reads, but never answers.
    Silent,
}

#[derive(Debug, Default)]
struct FakeState {
    sessions: HashMap<Vec<u8>, Vec<u8>>,
    /// Class and operation of every request received.
    requests: Vec<(u8, u8)>,
    accepted: usize,
    /// Answers for [`HELD_ID`], each with its connection.
    held: Vec<(TcpStream, Vec<u8>)>,
    ended: bool,
    open: Vec<TcpStream>,
}

impl FakeServer {
    /// Starts a server on a free port.
    #[must_use]
    pub fn start(kind: FakeKind) -> Self {
        let listener = TcpListener::bind((own_loopback(), 0)).expect("a port");
        let address = listener.local_addr().expect("the address of a listener");
        let shared = Arc::new(FakeShared { kind, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// The TCP address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Class and operation of every request received, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<(u8, u8)> {
        self.shared.lock().requests.clone()
    }

    /// Sends the withheld answers. Returns their number.
    pub fn answer_held(&self) -> usize {
        let held = std::mem::take(&mut self.shared.lock().held);
        for (stream, answer) in &held {
            let mut stream: &TcpStream = stream;
            stream.write_all(answer).expect("to write to the link");
        }
        held.len()
    }

    /// Sends GOAWAY to every peer.
    pub fn send_goaway(&self) {
        for mut stream in &self.shared.lock().open {
            // It may be closed already.
            stream.write_all(&[0, 0x11, 0, 1, 0, 0, 0, 0, 1, LINK_CLASS, GOAWAY, 1, 0, 0]).ok();
        }
    }

    /// Waits until it has received `count` pings.
    pub fn wait_for_pings(&self, count: usize) {
        let pings = |state: &FakeState| {
            state.requests.iter().filter(|requests| **requests == (LINK_CLASS, PING)).count()
        };
        self.wait("a ping", |state| pings(state) >= count);
    }

    /// Waits until `count` connections have been made since its start.
    pub fn wait_for_connections(&self, count: usize) {
        self.wait(&format!("connection {count}"), |state| state.accepted >= count);
    }

    fn wait(&self, what: &str, reached: impl Fn(&FakeState) -> bool) {
        let waiting =
            self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE, |state| !reached(state));
        let timed_out = waiting.map_or(true, |(_, waited)| waited.timed_out());
        assert!(!timed_out, "{what} did not happen within {PATIENCE:?}");
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        for stream in state.open.drain(..) {
            // It may be closed already.
            stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        // Wakes the accepting thread, which then ends.
        TcpStream::connect(self.address).ok();
    }
}

impl FakeShared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let mut state = self.lock();
            if state.ended {
                return;
            }
            state.accepted += 1;
            state.open.push(stream.try_clone().expect("a second descriptor of a socket"));
            drop(state);
            self.changed.notify_all();
            let serving = Arc::clone(self);
            thread::spawn(move || {
                // An error of a connection does not end the server.
                serving.serve(&stream).ok();
                stream.shutdown(Shutdown::Both).ok();
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        if self.kind == FakeKind::Silent {
            io::copy(&mut stream, &mut io::sink())?;
            return Ok(());
        }
        let mut message = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header)?;
            let (class, operation) = (header[9], header[10]);
            let start = message.len();
            message.resize(start + usize::from(u16::from_be_bytes([header[12], header[13]])), 0);
            stream.read_exact(&mut message[start..])?;
            self.lock().requests.push((class, operation));
            self.changed.notify_all();
            if class != 0 && self.kind == FakeKind::Original {
                return Ok(());
            }
            if header[11] == 1 {
                let data = std::mem::take(&mut message);
                let answer = self.answer(class, operation, &data);
                // Tests send it only sessions that fit into one frame.
                header[3] = u8::from(self.kind == FakeKind::Current);
                header[4] = 1;
                header[12..].copy_from_slice(&u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes());
                let answer = [&header[..], &answer].concat();
                if data == HELD_ID {
                    self.lock().held.push((stream.try_clone()?, answer));
                } else {
                    stream.write_all(&answer)?;
                }
            }
        }
    }

    fn answer(&self, class: u8, operation: u8, data: &[u8]) -> Vec<u8> {
        if class == LINK_CLASS {
            return match operation {
                // OK, a grace period of 10 s, and no state of an earlier link.
                HELLO => vec![0, 0, 0, 0x27, 0x10, 0, 0, 0, 0],
                PING => Vec::new(),
                _ => vec![0],
            };
        }
        let sessions = &mut self.lock().sessions;
        let status = |ok: bool| vec![u8::from(!ok)];
        match operation {
            ADD => {
                let (id, session) = data[8..].split_at(usize::from(data[7]));
                status(sessions.insert(id.to_vec(), session.to_vec()).is_none())
            }
            GET => sessions.get(data).cloned().unwrap_or_else(|| status(false)),
            REMOVE => status(sessions.remove(data).is_some()),
            _ => status(sessions.contains_key(data)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
