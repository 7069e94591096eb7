//! A scripted server with a thread for each connection.

use libdc::net::address::Address;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use libdc::wire::session::{AddRequest, SessionStatus};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A listening server. It stops when it is dropped, which must happen after its clients are dropped.
pub(crate) struct FakeClientPeer {
    pub(crate) address: Address,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

/// An unused path, in a directory that is created for it.
pub(crate) struct FakePlace(PathBuf);

impl FakePlace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("libdc-client-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("socket")
    }

    pub(crate) fn address(&self) -> Address {
        format!("UNIX:{}", self.path().display()).parse().unwrap()
    }
}

impl Drop for FakePlace {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

enum FakeListener {
    Unix { listener: UnixListener, _place: FakePlace },
    Tcp(TcpListener),
}

impl FakeListener {
    fn accept(&self) -> FakePeer {
        match self {
            Self::Unix { listener, .. } => {
                let stream = listener.accept().unwrap().0;
                FakePeer::new(Box::new(stream.try_clone().unwrap()), Box::new(stream))
            }
            Self::Tcp(listener) => {
                let stream = listener.accept().unwrap().0;
                FakePeer::new(Box::new(stream.try_clone().unwrap()), Box::new(stream))
            }
        }
    }
}

impl FakeClientPeer {
    /// Serves each connection with `script`, whose argument is the number of previous connections. The
    /// connection is closed when the script returns.
    pub(crate) fn start(
        transport: Transport,
        script: impl Fn(usize, &mut FakePeer) + Send + Sync + 'static,
    ) -> Self {
        match transport {
            Transport::Unix => Self::at(FakePlace::new(), script),
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = format!("IP:{}", listener.local_addr().unwrap()).parse().unwrap();
                Self::serve(address, FakeListener::Tcp(listener), script)
            }
        }
    }

    /// Like [`start`](Self::start), on the Unix socket of `place`.
    pub(crate) fn at(
        place: FakePlace,
        script: impl Fn(usize, &mut FakePeer) + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(place.path()).unwrap();
        Self::serve(place.address(), FakeListener::Unix { listener, _place: place }, script)
    }

    /// A server that follows the protocol.
    pub(crate) fn honest(transport: Transport) -> Self {
        let store = FakeStore::default();
        Self::start(transport, move |_, peer| store.serve(peer))
    }

    /// The number of accepted connections.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn serve(
        address: Address,
        listener: FakeListener,
        script: impl Fn(usize, &mut FakePeer) + Send + Sync + 'static,
    ) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped, script) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::new(script));
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            loop {
                let mut peer = listener.accept();
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                connections.push(thread::spawn(move || script(number, &mut peer)));
            }
            connections.into_iter().for_each(|connection| connection.join().unwrap());
        });
        Self { address, accepted, stop, thread: Some(thread) }
    }
}

impl Drop for FakeClientPeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept call. If it fails, no thread is left to wake.
        match self.address.path() {
            Some(path) => drop(UnixStream::connect(path)),
            None => drop(TcpStream::connect(&*self.address.resolve().unwrap())),
        }
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The server's end of a connection.
pub(crate) struct FakePeer {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    reader: MessageReader,
    read: Vec<u8>,
}

impl FakePeer {
    fn new(input: Box<dyn Read + Send>, output: Box<dyn Write + Send>) -> Self {
        Self { input, output, reader: MessageReader::new(Some(Direction::Request)), read: Vec::new() }
    }

    /// The next request; `None` if the client has closed the connection.
    pub(crate) fn request(&mut self) -> Option<Message> {
        loop {
            let mut rest = self.read.as_slice();
            let message = self.reader.next(&mut rest).unwrap().map(Message::from);
            let used = self.read.len() - rest.len();
            self.read.drain(..used);
            if message.is_some() {
                return message;
            }
            let mut buffer = [0; 4096];
            match self.input.read(&mut buffer) {
                Ok(n) if n > 0 => self.read.extend_from_slice(&buffer[..n]),
                _ => return None,
            }
        }
    }

    /// Waits until the client closes the connection.
    pub(crate) fn wait_for_close(&mut self) {
        while self.request().is_some() {}
    }

    /// Sends bytes, and returns whether the client is still connected.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.output.write_all(bytes).is_ok()
    }

    /// Sends a status as the answer.
    pub(crate) fn answer(&mut self, request: &Message, status: SessionStatus) -> bool {
        self.send(&answer(request.head, &[status as u8]))
    }
}

/// The encoded answer to a request.
pub(crate) fn answer(request: MessageHead, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, request.response(), data);
    bytes
}

/// A store of sessions without expiry.
#[derive(Default)]
struct FakeStore(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl FakeStore {
    fn serve(&self, peer: &mut FakePeer) {
        while let Some(request) = peer.request() {
            let data = self.handle(&request);
            if !peer.send(&answer(request.head, &data)) {
                return;
            }
        }
    }

    fn handle(&self, request: &Message) -> Vec<u8> {
        let mut sessions = self.0.lock().unwrap();
        let Operation::Session(operation) = request.head.operation else {
            panic!("{request:?}");
        };
        let there = |is: bool| vec![if is { SessionStatus::Ok } else { SessionStatus::NotOk } as u8];
        match operation {
            SessionOperation::Add => match AddRequest::parse(&request.data).unwrap() {
                Err(status) => vec![status as u8],
                Ok(add) if sessions.contains_key(add.id.as_bytes()) => {
                    vec![SessionStatus::MatchingSession as u8]
                }
                Ok(add) => {
                    sessions.insert(add.id.as_bytes().to_vec(), add.session.to_vec());
                    there(true)
                }
            },
            SessionOperation::Get => sessions.get(&request.data).cloned().unwrap_or_else(|| there(false)),
            SessionOperation::Remove => there(sessions.remove(&request.data).is_some()),
            SessionOperation::Have => there(sessions.contains_key(&request.data)),
        }
    }
}
