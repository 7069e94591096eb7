//! The blocking client: no threads, no runtime, nothing left behind by a fork.
//!
//! An operation that connects, writes and reads has one deadline for all of it. Only a host name is outside
//! it: the system resolves names as long as it is set up to. Connecting to a Unix socket whose backlog is full
//! waits in the kernel, bounded by the same deadline.

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

/// A client that blocks.
///
/// Every method waits at most [`SessionOptions::timeout`]; its [`Error`] says what happened to the connection.
#[derive(Debug)]
pub struct Client {
    address: Address,
    options: SessionOptions,
    exchange: Exchange,
    connection: Option<BlockingConnection>,
}

impl Client {
    /// A client of `address` that connects when it is first used.
    #[must_use]
    pub const fn new(address: Address, options: SessionOptions) -> Self {
        Self { address, options, exchange: Exchange::new(), connection: None }
    }

    /// A client of `address` that is connected already, if its connection is persistent.
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

    /// Changes how long operations may take from now on.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.options.timeout = timeout;
    }

    /// Stores `session` under `id` for `timeout`, of which parts of a millisecond are cut off.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is stored already or can't be; [`Error`] has the rest.
    pub fn add(&mut self, id: &[u8], session: &[u8], timeout: Duration) -> Result<(), Error> {
        self.ask(&SessionRequest::add(id, session, timeout)?)?.stored()
    }

    /// The session stored under `id`, or `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.ask(&SessionRequest::get(id)?)?.session()
    }

    /// Removes the session stored under `id`; whether there was one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.ask(&SessionRequest::remove(id)?)?.was_there()
    }

    /// Whether a session is stored under `id`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn have(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.ask(&SessionRequest::have(id)?)?.was_there()
    }

    fn ask(&mut self, request: &SessionRequest<'_>) -> Result<SessionReply, Error> {
        let deadline = OperationDeadline::after(self.options.timeout);
        self.exchange.begin(request);
        // Whatever goes wrong from here on, the connection is dropped: it comes back only behind an answer.
        let kept = self.connection.take();
        if let Some(connection) = kept.filter(|it| self.may_use(it)) {
            match self.converse(connection, deadline) {
                Err(error) if self.is_worth_a_retry(&error) => {}
                result => return result,
            }
        }
        let connection = self.open(deadline)?;
        self.converse(connection, deadline)
    }

    fn may_use(&self, connection: &BlockingConnection) -> bool {
        self.options.connections.may_use(connection.owner, process::id())
    }

    fn is_worth_a_retry(&self, error: &Error) -> bool {
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

    /// Sends the request and reads the answer; keeps the connection then, if it is to be kept.
    fn converse(
        &mut self,
        mut connection: BlockingConnection,
        deadline: OperationDeadline,
    ) -> Result<SessionReply, Error> {
        connection
            .send(self.exchange.request(), deadline)
            .map_err(|error| failure(OperationPhase::Sending, error))?;
        let reply = loop {
            let read = connection.receive(self.exchange.room(), deadline);
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

/// A connection and the process that opened it. Dropping it closes this process's descriptor and no more, so
/// a forked child that drops it takes nothing from its parent.
#[derive(Debug)]
struct BlockingConnection {
    stream: BlockingStream,
    owner: u32,
    /// The timeouts that the socket has; 0 is none yet. They are set only when they change.
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

/// The end of an operation; `None` is never, for a timeout beyond what the clock can say.
#[derive(Clone, Copy, Debug)]
struct OperationDeadline(Option<Instant>);

impl OperationDeadline {
    fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// Milliseconds left, rounded up: at least 1.
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

/// The longest wait that is handed to the system, which refuses or cuts off what does not fit its types.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// std knows no timeout for connecting to a Unix socket; the kernel applies that of writing.
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

/// Tries the addresses in turn, each with its share of the time that is left.
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

/// A socket whose timeout is over says `WouldBlock`, everything else `TimedOut`.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
