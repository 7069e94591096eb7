//! An application's connection to an agent or a server. It can send arbitrary bytes, and need not read.

use crate::harness::patience::PATIENCE;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The status OK, as an answer's data.
pub const OK: &[u8] = &[0];
/// The status of a session that is not there.
pub const NOTOK: &[u8] = &[1];
/// The status that an agent sends while it cannot reach the server.
pub const DISCONNECTED: &[u8] = &[2];
/// The timeout of sessions unless a test sets another, in milliseconds.
const KEPT_MS: u32 = 600_000;

/// A connection. Each blocking call panics after [`PATIENCE`].
#[derive(Debug)]
pub struct TestConnection {
    stream: TestStream,
    reader: MessageReader,
    unread: Vec<u8>,
    uid: u32,
}

#[derive(Debug)]
enum TestStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl TestConnection {
    /// Connects to a server over TCP.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_nodelay(true).expect("to set a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("to set a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("to set a socket option");
        Self::new(TestStream::Tcp(stream))
    }

    /// Connects to an agent's socket.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::try_unix(path).unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()))
    }

    /// Connects to an agent that may not be listening.
    ///
    /// # Errors
    /// The errors of `connect()` and of setting socket options.
    pub fn try_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::new(TestStream::Unix(stream)))
    }

    fn new(stream: TestStream) -> Self {
        Self { stream, reader: MessageReader::new(Some(Direction::Response)), unread: Vec::new(), uid: 0 }
    }

    // ---- operations, each waiting for its answer

    /// Stores a session for ten minutes. Returns the status.
    pub fn add(&mut self, id: &[u8], session: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Add, &add_data(id, session))
    }

    /// Returns the session, or the status.
    pub fn get(&mut self, id: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Get, id)
    }

    /// Removes a session. Returns the status.
    pub fn remove(&mut self, id: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Remove, id)
    }

    /// Returns the status of a session: [`OK`] or [`NOTOK`].
    pub fn have(&mut self, id: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Have, id)
    }

    fn ask(&mut self, operation: SessionOperation, data: &[u8]) -> Vec<u8> {
        let uid = self.send(operation, data);
        let answer = self.receive();
        assert_eq!((answer.head.uid, answer.head.operation), (uid, Operation::Session(operation)));
        answer.data
    }

    // ---- requests and answers

    /// Sends a request without waiting for the answer. Returns its uid.
    pub fn send(&mut self, operation: SessionOperation, data: &[u8]) -> u32 {
        self.uid += 1;
        self.write(&request(self.uid, operation, data));
        self.uid
    }

    /// Waits for the next answer.
    pub fn receive(&mut self) -> Message {
        loop {
            let mut input = self.unread.as_slice();
            let message = self.reader.next(&mut input).unwrap_or_else(|error| panic!("an answer: {error}"));
            let message = message.map(Message::from);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            if let Some(message) = message {
                return message;
            }
            let mut bytes = [0; 16_384];
            let count = self.read_some(&mut bytes).unwrap_or_else(|error| panic!("no answer: {error}"));
            assert!(count > 0, "the connection was closed before the answer");
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    // ---- lines

    /// Sends a request of the line protocol, and waits for its answer.
    pub fn request(&mut self, request: &str) -> String {
        self.write(request.as_bytes());
        self.line()
    }

    /// Waits for the next line, and returns it without its newline.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return String::from_utf8(line[..end].to_vec()).expect("text");
            }
            let mut bytes = [0; 4096];
            let count = self.read_some(&mut bytes).unwrap_or_else(|error| panic!("no answer: {error}"));
            assert!(count > 0, "the connection was closed before the answer");
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    // ---- bytes

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The peer has closed the connection, or has not read for [`PATIENCE`].
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            TestStream::Tcp(stream) => stream.write_all(bytes),
            TestStream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Reads `count` bytes; fewer if the peer closes the connection first.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            match self.read_some(&mut bytes[have..]) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) => panic!("after {have} of {count} bytes: {error}"),
            }
        }
        bytes.truncate(have);
        bytes
    }

    /// Reads until the peer closes the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.unread);
        let mut bytes = [0; 16_384];
        loop {
            match self.read_some(&mut bytes) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(error) => panic!("the connection was not closed: {error}"),
            }
        }
    }

    /// Whether there is unread input or end of input.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let socket = self.socket();
        socket.set_nonblocking(true).expect("to set a socket option");
        let peeked = peek(&socket);
        socket.set_nonblocking(false).expect("to set a socket option");
        !self.unread.is_empty() || !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits for input or end of input.
    pub fn wait_for_input(&self) {
        if self.unread.is_empty() {
            peek(&self.socket()).unwrap_or_else(|error| panic!("no answer: {error}"));
        }
    }

    /// Shuts down the sending direction.
    pub fn finish(&self) {
        self.socket().shutdown(Shutdown::Write).expect("to close one direction");
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.stream {
            TestStream::Tcp(stream) => SockRef::from(stream),
            TestStream::Unix(stream) => SockRef::from(stream),
        }
    }

    /// A reset counts as end of input: the kernel sends it when a peer closes with input unread.
    fn read_some(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.stream {
                TestStream::Tcp(stream) => stream.read(bytes),
                TestStream::Unix(stream) => stream.read(bytes),
            };
            return match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
                read => read,
            };
        }
    }
}

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

/// The bytes of a request.
#[must_use]
pub fn request(uid: u32, operation: SessionOperation, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, MessageHead::request(uid, Operation::Session(operation)), data);
    bytes
}

/// The data of an ADD, with a timeout of ten minutes.
#[must_use]
pub fn add_data(id: &[u8], session: &[u8]) -> Vec<u8> {
    let id_len = u32::try_from(id.len()).expect("an id");
    [&KEPT_MS.to_be_bytes()[..], &id_len.to_be_bytes(), id, session].concat()
}
