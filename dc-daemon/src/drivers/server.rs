//! State shared by all connections of a server: the service, the clock, the settings and the mailboxes.

mod expiry_timer;
mod progress;
mod task;
mod turn;

use crate::drivers::mailbox::Mailboxes;
use crate::drivers::server::expiry_timer::ExpiryTimer;
use crate::drivers::server::progress::ProgressSignal;
use crate::drivers::server::task::ServerTask;
use crate::listen::limiter::ConnectionPermit;
use libdc::id::ConnectionId;
use libdc::limits::DRAIN_GRACE_MS;
use libdc::net::clock::DriverClock;
use libdc::net::socket::Socket;
use libdc::net::tls::error::TlsError;
use libdc::net::tls::server::{ServerTls, handshake};
use libdc::proto::server::{Notification, ServerTimeouts};
use libdc::service::{Effects, RequestCounters, Service};
use libdc::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Serves connections from one service.
pub struct ServerDriver {
    pub(super) service: Arc<Service>,
    pub(super) clock: DriverClock,
    pub(super) timeouts: ServerTimeouts,
    pub(super) mailboxes: Mailboxes,
    /// For TLS handshakes, which have no mailbox yet.
    draining: CancellationToken,
    connections: AtomicU64,
    tls: Option<ServerTls>,
    first_link: Mutex<Option<FirstLinkHook>>,
    expiry: ExpiryTimer,
    progress: ProgressSignal,
}

/// A TLS handshake in progress; `None` if it failed. In a box, since most connections have none.
pub(super) type PendingHandshake = Pin<Box<dyn Future<Output = Option<Socket>> + Send>>;

/// Runs before the first HELLO is answered.
type FirstLinkHook = Box<dyn FnOnce() + Send>;

/// The settings of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Time limit for a request, from its first byte to its last, and for an idle peer of the line protocol
    /// that holds no lock. In milliseconds; 0 is no limit.
    pub read_timeout_ms: u64,
    /// How long a peer may leave output unread, in milliseconds; 0 is no limit.
    pub write_timeout_ms: u64,
    /// After how many requests [`ServerDriver::progress`] returns; 0 is never.
    pub progress: u64,
}

impl ServerDriver {
    /// A server that answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>, clock: DriverClock, settings: ServerSettings) -> Self {
        let (read_ms, write_ms) = (settings.read_timeout_ms, settings.write_timeout_ms);
        Self {
            service,
            clock,
            timeouts: ServerTimeouts { read_ms, write_ms },
            mailboxes: Mailboxes::new(),
            draining: CancellationToken::new(),
            connections: AtomicU64::new(0),
            tls: None,
            first_link: Mutex::default(),
            expiry: ExpiryTimer::new(),
            progress: ProgressSignal::new(settings.progress),
        }
    }

    /// The same server, accepting nothing but TLS over TCP.
    #[must_use]
    pub fn with_tls(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// Sets a callback that runs before the first HELLO is answered: from then on a client may rely on a
    /// grant beyond the end of the server. The call delays a request, so it should be short.
    #[must_use]
    pub fn before_first_link(self, act: impl FnOnce() + Send + 'static) -> Self {
        Self { first_link: Mutex::new(Some(Box::new(act))), ..self }
    }

    /// Waits until as many more requests were answered as the settings say. For one caller. Cancel-safe.
    pub async fn progress(&self) {
        self.progress.reached().await;
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The time that the service is given.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Begins the shutdown. No lock is granted any more, blocked requests are answered at once, and a
    /// connection closes once nothing is in flight on it. A connection that has received no byte closes
    /// [`DRAIN_GRACE_MS`] after it was accepted.
    pub fn drain(&self) {
        // In this order: a connection that is opened meanwhile sees the first or receives the second.
        self.service.shut_down();
        self.mailboxes.broadcast(Notification::Drain);
        self.draining.cancel();
    }

    /// Advances the locks as time passes: leases, waits and links without a connection expire. Never returns.
    pub async fn keep_time(&self) {
        let mut effects = Effects::new();
        loop {
            let now = self.clock.now();
            let next = self.service.advance_locks(now, &mut effects);
            self.mailboxes.deliver(&mut effects);
            if next.is_some_and(|next| next <= now) {
                // More work is left; connections go first.
                tokio::task::yield_now().await;
                continue;
            }
            self.expiry.set(next);
            // An earlier expiry may have been added meanwhile.
            if self.expiry.is_before(self.service.locks().soonest()) {
                match next {
                    Some(next) => {
                        tokio::select! {
                            () = tokio::time::sleep_until(self.clock.instant(next).into()) => {}
                            () = self.expiry.woken() => {}
                        }
                    }
                    None => self.expiry.woken().await,
                }
            }
        }
    }

    /// Serves a connection to its end. The future has to stay on the thread where it is polled first.
    pub fn serve(
        self: Arc<Self>,
        socket: Socket,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> + Send + Unpin {
        let id = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        debug!(connection = %id, "connected");
        ServerTask::new(self, id, socket, permit)
    }

    /// The TLS handshake of a connection, if there has to be one.
    pub(super) fn handshake(
        self: &Arc<Self>,
        id: ConnectionId,
        socket: Socket,
    ) -> Result<Socket, PendingHandshake> {
        if self.tls.is_none() || !matches!(socket, Socket::Tcp(_)) {
            return Ok(socket);
        }
        let server = Arc::clone(self);
        Err(Box::pin(async move {
            let tls = server.tls.as_ref()?;
            let peer = socket.peer();
            let within = Duration::from_millis(server.timeouts.read_ms);
            let made = tokio::select! {
                biased;
                made = handshake(tls, socket, within) => made,
                () = server.drain_grace_passed() => return None,
            };
            match made {
                Ok(socket) => return Some(socket),
                Err(error @ TlsError::Closed(_)) => debug!(connection = %id, peer, "lost: {error}"),
                Err(error) => warn!(connection = %id, peer, "closed: {error}"),
            }
            None
        }))
    }

    async fn drain_grace_passed(&self) {
        self.draining.cancelled().await;
        tokio::time::sleep(Duration::from_millis(DRAIN_GRACE_MS)).await;
    }

    /// Carries out the effects of a step, and empties both.
    pub(super) fn apply_effects(&self, effects: &mut Effects, counters: &mut RequestCounters) {
        if effects.is_empty() && counters.is_empty() {
            return;
        }
        self.service.record(counters);
        let has_locking = counters.locking() > 0;
        *counters = RequestCounters::default();
        if std::mem::take(&mut effects.link_opened) {
            let hook = self.first_link.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(hook) = hook {
                hook();
            }
        }
        self.mailboxes.deliver(effects);
        let expiry_changed = std::mem::take(&mut effects.expiry_changed);
        if expiry_changed || (has_locking && !self.expiry.is_before(self.service.locks().soonest())) {
            self.expiry.wake();
        }
        self.progress.advance(|| self.service.totals().total());
    }
}
