//! The blocking client, without threads or a runtime, for processes that fork.
//!
//! One deadline applies to a whole operation: connecting, writing and reading. Only the resolution of a host
//! name is not covered: the system's resolver has its separate limits. Connecting to a Unix socket with a
//! full backlog waits in the kernel, bounded by the same deadline.

use crate::client::session::error::{Error, OperationPhase};
use crate::client::session::exchange::{Exchange, SessionReply, SessionRequest};
use crate::client::session::options::SessionOptions;
use crate::net::address::Address;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

/// A blocking client.
///
/// Every method waits at most [`SessionOptions::timeout`]. Its [`Error`] tells the state of the connection.
#[derive(Debug)]
pub struct Client {
    address: Address,
    options: SessionOptions,
    exchange: Exchange,
    connection: Option<BlockingConnection>,
}

impl Client {
    /// A client of `address` that connects on its first operation.
    #[must_use]
    pub const fn new(address: Address, options: SessionOptions) -> Self {
        Self { address, options, exchange: Exchange::new(), connection: None }
    }

    /// A client of `address`. If its connections are persistent, it connects at once.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::Timeout`].
    pub fn connect(address: Address, options: SessionOptions) -> Result<Self, Error> {
        let mut client = Self::new(address, options);
        if options.connections.keep() {
            client.connection = Some(client.open(OperationDeadline::after(options.timeout))?);
        }
        Ok(client)
    }

    /// Sets the timeout of later operations.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.options.timeout = timeout;
    }

    /// Stores `session` under `id` for `timeout`, truncated to whole milliseconds.
    ///
    /// # Errors
    /// [`Error::Refused`] if the id is already stored or the session cannot be stored; otherwise see
    /// [`Error`].
    pub fn add(&mut self, id: &[u8], session: &[u8], timeout: Duration) -> Result<(), Error> {
        self.perform(&SessionRequest::add(id, session, timeout)?)?.stored()
    }

    /// The session stored under `id`, or `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.perform(&SessionRequest::get(id)?)?.session()
    }

    /// Removes the session stored under `id`, and returns whether it existed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.perform(&SessionRequest::remove(id)?)?.was_there()
    }

    /// Whether a session is stored under `id`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn have(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.perform(&SessionRequest::have(id)?)?.was_there()
    }

    fn perform(&mut self, request: &SessionRequest<'_>) -> Result<SessionReply, Error> {
        let deadline = OperationDeadline::after(self.options.timeout);
        self.exchange.begin(request);
        // The connection is dropped on any error from here on; it is kept only after a complete answer.
        let kept = self.connection.take();
        if let Some(connection) = kept.filter(|it| self.may_use(it)) {
            match self.send_and_receive(connection, deadline) {
                Err(error) if self.can_retry(&error) => {}
                result => return result,
            }
        }
        let connection = self.open(deadline)?;
        self.send_and_receive(connection, deadline)
    }

    fn may_use(&self, connection: &BlockingConnection) -> bool {
        self.options.connections.may_use(connection.owner, process::id())
    }

    fn can_retry(&self, error: &Error) -> bool {
        self.options.connections.retry() && error.is_peer_gone() && self.exchange.is_untouched()
    }

    fn open(&self, deadline: OperationDeadline) -> Result<BlockingConnection, Error> {
        let opened = match &self.address {
            Address::Unix(path) => connect_unix(path.as_path(), deadline).map(BlockingStream::Unix),
            address => {
                address.resolve().and_then(|found| connect_tcp(&found, deadline)).map(BlockingStream::Tcp)
            }
        };
        match opened {
            Ok(stream) => Ok(BlockingConnection { stream, owner: process::id(), read_ms: 0, write_ms: 0 }),
            Err(error) if is_timeout(&error) => Err(Error::Timeout { phase: OperationPhase::Connecting }),
            Err(source) => Err(Error::Connect { address: self.address.clone(), source }),
        }
    }

    /// Sends the request and reads the answer. Afterwards keeps the connection if it is persistent.
    fn send_and_receive(
        &mut self,
        mut connection: BlockingConnection,
        deadline: OperationDeadline,
    ) -> Result<SessionReply, Error> {
        connection
            .send(self.exchange.request(), deadline)
            .map_err(|error| failure(OperationPhase::Sending, error))?;
        let reply = loop {
            let read = connection.receive(self.exchange.read_buffer(), deadline);
            match read.map_err(|error| failure(OperationPhase::Receiving, error))? {
                0 => return Err(Error::Closed),
                n => {
                    if let Some(reply) = self.exchange.receive(n)? {
                        break reply;
                    }
                }
            }
        };
        if self.options.connections.keep() && self.exchange.is_clean() {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}

/// A connection and the process that opened it. Dropping it closes only this process's descriptor, so that a
/// forked child does not affect its parent's connection.
#[derive(Debug)]
struct BlockingConnection {
    stream: BlockingStream,
    owner: u32,
    /// The timeouts set on the socket; 0 means not set yet. They are set only when they change.
    read_ms: u64,
    write_ms: u64,
}

#[derive(Debug)]
enum BlockingStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl BlockingConnection {
    fn send(&mut self, mut bytes: &[u8], deadline: OperationDeadline) -> io::Result<()> {
        while !bytes.is_empty() {
            let left_ms = deadline.left_ms()?;
            if left_ms != self.write_ms {
                let timeout = Some(Duration::from_millis(left_ms));
                match &self.stream {
                    BlockingStream::Unix(stream) => stream.set_write_timeout(timeout)?,
                    BlockingStream::Tcp(stream) => stream.set_write_timeout(timeout)?,
                }
                self.write_ms = left_ms;
            }
            let written = match &mut self.stream {
                BlockingStream::Unix(stream) => stream.write(bytes),
                BlockingStream::Tcp(stream) => stream.write(bytes),
            };
            match written {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: OperationDeadline) -> io::Result<usize> {
        loop {
            let left_ms = deadline.left_ms()?;
            if left_ms != self.read_ms {
                let timeout = Some(Duration::from_millis(left_ms));
                match &self.stream {
                    BlockingStream::Unix(stream) => stream.set_read_timeout(timeout)?,
                    BlockingStream::Tcp(stream) => stream.set_read_timeout(timeout)?,
                }
                self.read_ms = left_ms;
            }
            let read = match &mut self.stream {
                BlockingStream::Unix(stream) => stream.read(buffer),
                BlockingStream::Tcp(stream) => stream.read(buffer),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// The end of an operation; `None` is never, for timeouts beyond the range of the clock.
#[derive(Clone, Copy, Debug)]
struct OperationDeadline(Option<Instant>);

impl OperationDeadline {
    fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// The remaining time in milliseconds, rounded up: at least 1.
    fn left_ms(self) -> io::Result<u64> {
        let left = self.left()?;
        Ok(u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
    }

    fn left(self) -> io::Result<Duration> {
        let Some(end) = self.0 else {
            return Ok(LONGEST_WAIT);
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left.min(LONGEST_WAIT)) }
    }
}

/// The maximum timeout passed to the system, which rejects or truncates values that exceed its types.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// std has no timeout for connecting to a Unix socket; the kernel applies the write timeout.
fn connect_unix(path: &Path, deadline: OperationDeadline) -> io::Result<UnixStream> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    loop {
        socket.set_write_timeout(Some(Duration::from_millis(deadline.left_ms()?)))?;
        match socket.connect(&address) {
            Ok(()) => return Ok(OwnedFd::from(socket).into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tries the addresses in sequence, each with its share of the remaining time.
fn connect_tcp(addresses: &[std::net::SocketAddr], deadline: OperationDeadline) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let share = deadline.left()? / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failure(phase: OperationPhase, source: io::Error) -> Error {
    if is_timeout(&source) { Error::Timeout { phase } } else { Error::Io { phase, source } }
}

/// A socket reports an expired timeout as `WouldBlock`, everything else as `TimedOut`.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
