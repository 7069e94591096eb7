//! The asynchronous client, on tokio.
//!
//! Cancel-safety: while an operation is under way its connection belongs to the future. A future that is
//! dropped drops the connection with it, so no answer half read or late is ever taken for another's; the next
//! operation opens a new connection. What a dropped ADD or REMOVE did at the server is unknown.
//!
//! Forks: a runtime does not survive one. A forked child needs a runtime of its own, and may then go on with
//! the client it inherited, if that notices forks.

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
/// Every method waits at most [`SessionOptions::timeout`]; its [`Error`] says what happened to the connection. All
/// may be cancelled at any time by dropping their futures: the connection is closed then.
#[derive(Debug)]
pub struct Client {
    address: Address,
    options: SessionOptions,
    exchange: Exchange,
    connection: Option<ClientStream>,
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
    pub async fn connect(address: Address, options: SessionOptions) -> Result<Self, Error> {
        let mut client = Self::new(address, options);
        if options.connections.keep() {
            let opened = timeout(options.timeout, client.open()).await;
            client.connection =
                Some(opened.unwrap_or(Err(Error::Timeout { phase: OperationPhase::Connecting }))?);
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
    pub async fn add(&mut self, id: &[u8], session: &[u8], timeout: Duration) -> Result<(), Error> {
        self.ask(&SessionRequest::add(id, session, timeout)?).await?.stored()
    }

    /// The session stored under `id`, or `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.ask(&SessionRequest::get(id)?).await?.session()
    }

    /// Removes the session stored under `id`; whether there was one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.ask(&SessionRequest::remove(id)?).await?.was_there()
    }

    /// Whether a session is stored under `id`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn have(&mut self, id: &[u8]) -> Result<bool, Error> {
        self.ask(&SessionRequest::have(id)?).await?.was_there()
    }

    async fn ask(&mut self, request: &SessionRequest<'_>) -> Result<SessionReply, Error> {
        self.exchange.begin(request);
        let mut phase = OperationPhase::Connecting;
        let answered = timeout(self.options.timeout, self.try_twice(&mut phase)).await;
        answered.unwrap_or(Err(Error::Timeout { phase }))
    }

    async fn try_twice(&mut self, phase: &mut OperationPhase) -> Result<SessionReply, Error> {
        // Whatever goes wrong from here on, the connection is dropped: it comes back only behind an answer.
        let kept = self.connection.take();
        if let Some(connection) = kept.filter(|it| self.may_use(it)) {
            match self.converse(connection, phase).await {
                Err(error) if self.is_worth_a_retry(&error) => {}
                result => return result,
            }
        }
        *phase = OperationPhase::Connecting;
        let connection = self.open().await?;
        self.converse(connection, phase).await
    }

    fn may_use(&self, connection: &ClientStream) -> bool {
        self.options.connections.may_use(connection.owner(), process::id())
    }

    fn is_worth_a_retry(&self, error: &Error) -> bool {
        self.options.connections.retry() && error.is_peer_gone() && self.exchange.is_untouched()
    }

    async fn open(&self) -> Result<ClientStream, Error> {
        let opened = ClientStream::connect(&self.address, self.options.timeout).await;
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => Error::Timeout { phase: OperationPhase::Connecting },
            _ => Error::Connect { address: self.address.clone(), source },
        })
    }

    /// Sends the request and reads the answer; keeps the connection then, if it is to be kept.
    async fn converse(
        &mut self,
        mut connection: ClientStream,
        phase: &mut OperationPhase,
    ) -> Result<SessionReply, Error> {
        *phase = OperationPhase::Sending;
        let sent = connection.send(self.exchange.request()).await;
        sent.map_err(|source| Error::Io { phase: *phase, source })?;
        *phase = OperationPhase::Receiving;
        let reply = loop {
            match connection.receive(self.exchange.room()).await {
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
