//! An application's connection, to an agent or a server. It may say anything, and need not listen.

use crate::harness::patience::PATIENCE;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The status bytes.
pub const OK: &[u8] = &[0];
/// It is not there.
pub const NOTOK: &[u8] = &[1];
/// The agent could not reach the server.
pub const DISCONNECTED: &[u8] = &[2];
/// How long sessions are kept unless a test says otherwise, in milliseconds.
const KEPT_MS: u32 = 600_000;

/// A connection. What it waits for must come within the harness's patience.
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
    /// Connects to a server.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("can't connect to {address}: {error}"));
        stream.set_nodelay(true).expect("an option of a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option of a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option of a socket");
        Self::new(TestStream::Tcp(stream))
    }

    /// Connects to an agent.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::try_unix(path).unwrap_or_else(|error| panic!("can't connect to {}: {error}", path.display()))
    }

    /// Connects to an agent that may not be there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn try_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::new(TestStream::Unix(stream)))
    }

    fn new(stream: TestStream) -> Self {
        Self { stream, reader: MessageReader::new(Some(Direction::Response)), unread: Vec::new(), uid: 0 }
    }

    // ---- operations, each with its answer

    /// Stores a session for ten minutes. Returns the status.
    pub fn add(&mut self, id: &[u8], session: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Add, &add_data(id, session))
    }

    /// The session, or the status.
    pub fn get(&mut self, id: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Get, id)
    }

    /// Removes a session. Returns the status.
    pub fn remove(&mut self, id: &[u8]) -> Vec<u8> {
        self.ask(SessionOperation::Remove, id)
    }

    /// The status.
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

    /// Sends a request, and does not wait for the answer. Returns its uid.
    pub fn send(&mut self, operation: SessionOperation, data: &[u8]) -> u32 {
        self.uid += 1;
        self.write(&request(self.uid, operation, data));
        self.uid
    }

    /// The next answer.
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

    /// Sends a request of the text protocol, and waits for its answer.
    pub fn request(&mut self, request: &str) -> String {
        self.write(request.as_bytes());
        self.line()
    }

    /// The next line, without its newline.
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
        self.try_write(bytes).unwrap_or_else(|error| panic!("can't send: {error}"));
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The peer has closed the connection; or it reads nothing, for as long as the harness has patience.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            TestStream::Tcp(stream) => stream.write_all(bytes),
            TestStream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// The next `count` bytes; fewer where the connection is closed before.
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

    /// What comes until the peer closes the connection.
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

    /// Whether the peer has sent anything, or closed, that has not been read.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let socket = self.socket();
        socket.set_nonblocking(true).expect("an option of a socket");
        let peeked = peek(&socket);
        socket.set_nonblocking(false).expect("an option of a socket");
        !self.unread.is_empty() || !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits until the peer has sent anything, or closed, that has not been read.
    pub fn wait_for_input(&self) {
        if self.unread.is_empty() {
            peek(&self.socket()).unwrap_or_else(|error| panic!("no answer: {error}"));
        }
    }

    /// Says that nothing more will be asked.
    pub fn finish(&self) {
        self.socket().shutdown(Shutdown::Write).expect("to close one direction");
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.stream {
            TestStream::Tcp(stream) => SockRef::from(stream),
            TestStream::Unix(stream) => SockRef::from(stream),
        }
    }

    /// A peer that closes with input unread resets the connection: that is an end as well.
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

/// The data of an ADD.
#[must_use]
pub fn add_data(id: &[u8], session: &[u8]) -> Vec<u8> {
    let id_len = u32::try_from(id.len()).expect("an id");
    [&KEPT_MS.to_be_bytes()[..], &id_len.to_be_bytes(), id, session].concat()
}
