//! The asynchronous client, on tokio.
//!
//! Cancel safety: while an operation is in flight, its future owns the connection. Dropping the future drops
//! the connection, so that a partial or late answer is never taken for another operation's. The next
//! operation opens a new connection. The effect of a dropped ADD or REMOVE at the server is unknown.
//!
//! Forks: a runtime does not survive a fork. A forked child needs a new runtime and may then continue to use
//! the inherited client, if `notice_fork` is set.

use crate::client::session::error::{Error, OperationPhase};
use crate::client::session::exchange::{Exchange, SessionReply, SessionRequest};
use crate::client::session::options::SessionOptions;
use crate::client::session::stream::ClientStream;
use crate::net::address::Address;
use std::io;
use std::process;
use std::time::Duration;
use tokio::time::timeout;

/// An asynchronous client.
///
/// Every method waits at most [`SessionOptions::timeout`]. Its [`Error`] tells the state of the connection.
/// Every future may be dropped at any time, which closes the connection.
#[derive(Debug)]
pub struct Client {
    address: Address,
    options: SessionOptions,
    exchange: Exchange,
    connection: Option<ClientStream>,
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
    pub async fn connect(address: Address, options: SessionOptions) -> Result<Self, Error> {
        let mut client = Self::new(address, options);
        if options.connections.keep() {
            let opened = timeout(options.timeout, client.open()).await;
            client.connection =
                Some(opened.unwrap_or(Err(Error::Timeout { phase: OperationPhase::Connecting }))?);
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
    pub async fn add(&mut self, id: &[u8], session: &[u8], timeout: Duration) -> Result<(), Error> {
        self.perform(&SessionRequest::add(id, session, timeout)?).await?.stored()
    }

    /// The session stored under `id`, or `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.perform(&SessionRequest::get(id)?).await?.session()
    }

    /// Removes the session stored under `id`, and returns whether it existed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.perform(&SessionRequest::remove(id)?).await?.was_there()
    }

    /// Whether a session is stored under `id`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn have(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.perform(&SessionRequest::have(id)?).await?.was_there()
    }

    async fn perform(&mut self, request: &SessionRequest<'_>) -> Result<SessionReply, Error> {
        self.exchange.begin(request);
        let mut phase = OperationPhase::Connecting;
        let answered = timeout(self.options.timeout, self.exchange_with_retry(&mut phase)).await;
        answered.unwrap_or(Err(Error::Timeout { phase }))
    }

    async fn exchange_with_retry(&mut self, phase: &mut OperationPhase) -> Result<SessionReply, Error> {
        // The connection is dropped on any error from here on; it is kept only after a complete answer.
        let kept = self.connection.take();
        if let Some(connection) = kept.filter(|it| self.may_use(it)) {
            match self.send_and_receive(connection, phase).await {
                Err(error) if self.can_retry(&error) => {}
                result => return result,
            }
        }
        *phase = OperationPhase::Connecting;
        let connection = self.open().await?;
        self.send_and_receive(connection, phase).await
    }

    fn may_use(&self, connection: &ClientStream) -> bool {
        self.options.connections.may_use(connection.owner(), process::id())
    }

    fn can_retry(&self, error: &Error) -> bool {
        self.options.connections.retry() && error.is_peer_gone() && self.exchange.is_untouched()
    }

    async fn open(&self) -> Result<ClientStream, Error> {
        let opened = ClientStream::connect(&self.address, self.options.timeout).await;
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => Error::Timeout { phase: OperationPhase::Connecting },
            _ => Error::Connect { address: self.address.clone(), source },
        })
    }

    /// Sends the request and reads the answer. Afterwards keeps the connection if it is persistent.
    async fn send_and_receive(
        &mut self,
        mut connection: ClientStream,
        phase: &mut OperationPhase,
    ) -> Result<SessionReply, Error> {
        *phase = OperationPhase::Sending;
        let sent = connection.send(self.exchange.request()).await;
        sent.map_err(|source| Error::Io { phase: *phase, source })?;
        *phase = OperationPhase::Receiving;
        let reply = loop {
            match connection.receive(self.exchange.read_buffer()).await {
                Err(source) => return Err(Error::Io { phase: *phase, source }),
                Ok(0) => return Err(Error::Closed),
                Ok(n) => {
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
