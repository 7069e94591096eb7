//! The driver of the agent: a task for the link and a task for each local connection, all on one thread.
//!
//! The tasks share the [`Multiplexer`] and the sockets behind one lock, taken once for each turn of a task.
//! On one thread it is never contended. All decisions are those of the multiplexer and the
//! [`ReconnectPolicy`].

mod attempt;
mod core;
mod link;
mod local;

use self::core::AgentCore;
use libdc::id::LinkId;
use libdc::net::address::Address;
use libdc::net::clock::DriverClock;
use libdc::net::tls::client::ClientTls;
use libdc::proto::agent::multiplexer::{Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::LinkState;
use libdc::proto::reconnect::{ReconnectPolicy, ReconnectSettings};
use libdc::secret::AuthToken;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Options of the agent.
#[derive(Clone, Copy, Debug)]
pub struct AgentSettings {
    /// Timeouts of requests and connections.
    pub multiplexer: MultiplexerSettings,
    /// Pauses between attempts to reach the server.
    pub reconnect: ReconnectSettings,
    /// Longest time for an attempt to connect.
    pub connect_timeout: Duration,
}

/// The agent: local connections on one side, one link to the server on the other.
#[derive(Debug)]
pub struct AgentDriver {
    connect_timeout: Duration,
    clock: DriverClock,
    core: Mutex<AgentCore>,
    connections: AtomicU64,
    tls: Option<ClientTls>,
    is_up: watch::Sender<bool>,
    attempted: Notify,
    left: Notify,
}

impl AgentDriver {
    /// An agent without connections. It presents `auth_token` to the server, if there is one.
    ///
    /// # Errors
    /// If the system has no random bytes for the id of the link.
    pub fn new(
        settings: AgentSettings,
        auth_token: Option<AuthToken>,
        clock: DriverClock,
    ) -> io::Result<Self> {
        let mut link_id = [0; LinkId::BYTES];
        getrandom::fill(&mut link_id).map_err(io::Error::other)?;
        let identity = LinkIdentity { link_id: LinkId::new(link_id), auth_token };
        let multiplexer = Multiplexer::new(settings.multiplexer, identity);
        let core = AgentCore::new(multiplexer, ReconnectPolicy::new(settings.reconnect));
        Ok(Self {
            connect_timeout: settings.connect_timeout,
            clock,
            core: Mutex::new(core),
            connections: AtomicU64::new(0),
            tls: None,
            is_up: watch::Sender::new(false),
            attempted: Notify::new(),
            left: Notify::new(),
        })
    }

    /// The same agent, with TLS to the server.
    #[must_use]
    pub fn with_tls(self, tls: Option<ClientTls>) -> Self {
        Self { tls, ..self }
    }

    /// Starts draining: a local connection closes as soon as it has no request in flight. A connection
    /// without a request so far has [`DRAIN_GRACE_MS`](libdc::limits::DRAIN_GRACE_MS).
    pub fn drain(&self) {
        let now = self.clock.now();
        let mut core = self.lock();
        core.multiplexer.drain(now);
        core.deliver(now);
    }

    /// How far the link has come.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.lock().multiplexer.link_phase()
    }

    /// Whether the link is up, now and whenever that changes.
    #[must_use]
    pub fn watch_link(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// Waits until the first attempt to reach the server has succeeded or failed. Has one caller at a time.
    /// Cancel-safe.
    pub async fn first_attempt(&self) {
        self.attempted.notified().await;
    }

    /// Shuts the agent down: asks the server to release all held locks, and waits for its answer or the loss
    /// of the link. No further attempt is made to reach the server. Has one caller at a time. Cancel-safe.
    pub async fn shut_down(&self) {
        let is_asked = {
            let mut core = self.lock();
            core.reconnect.shut_down();
            let is_asked = core.multiplexer.send_bye(self.clock.now());
            core.wake_link();
            is_asked
        };
        if is_asked {
            self.left.notified().await;
        }
    }

    /// Keeps a link to the server until the agent [shuts down](Self::shut_down).
    pub async fn keep_link(&self, upstream: &Address) {
        while let Some(next) = self.attempt(upstream).await {
            tokio::time::sleep_until(self.clock.instant(next).into()).await;
        }
        self.left.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, AgentCore> {
        // A task that panicked in its turn left at worst its own connection in an incomplete state.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
