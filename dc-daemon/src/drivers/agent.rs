//! The driver of the agent: one task for the link, one for each local connection, all on one thread.
//!
//! They share a [`Multiplexer`] and the sockets behind one lock, which is taken once for each turn of a
//! task and, on one thread, never contended.

use crate::drivers::switchboard::{LinkEnd, LocalEnd, Switchboard};
use crate::listen::limiter::ConnectionPermit;
use libdc::id::{ConnectionId, LinkId};
use libdc::net::address::Address;
use libdc::net::clock::DriverClock;
use libdc::net::connect::connect;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::net::tls::client::ClientTls;
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::{Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::{LinkError, LinkState};
use libdc::secret::AuthToken;
use libdc::time::Time;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

/// The pause before the attempt that follows on a link that was up for less than the pause between attempts. It doubles with every
/// such link: a server may be restarted again and again, and one that always fails in the same way is not to be pressed.
const BRIEF_PAUSE_MIN: Duration = Duration::from_millis(10);

/// What an operator chooses of the agent's behaviour.
#[derive(Clone, Copy, Debug)]
pub struct AgentSettings {
    /// Timeouts of requests and connections.
    pub multiplexer: MultiplexerSettings,
    /// Pause between two attempts to reach the server.
    pub retry: Duration,
    /// Longest time for an attempt to connect.
    pub connect_timeout: Duration,
}

/// The agent: local connections on one side, one link to the server on the other.
#[derive(Debug)]
pub struct AgentDriver {
    settings: AgentSettings,
    clock: DriverClock,
    switchboard: Mutex<Switchboard>,
    connections: AtomicU64,
    tls: Option<ClientTls>,
    is_up: watch::Sender<bool>,
    attempted: Notify,
    left: Notify,
}

impl AgentDriver {
    /// An agent without connections, which presents `auth_token` to the server, if there is one.
    ///
    /// # Errors
    /// If the system has no random bytes: the link is named by some.
    pub fn new(
        settings: AgentSettings,
        auth_token: Option<AuthToken>,
        clock: DriverClock,
    ) -> std::io::Result<Self> {
        let mut link_id = [0; LinkId::BYTES];
        getrandom::fill(&mut link_id).map_err(std::io::Error::other)?;
        let introduction = LinkIdentity { link_id: LinkId::new(link_id), auth_token };
        let switchboard = Switchboard::new(Multiplexer::new(settings.multiplexer, introduction));
        Ok(Self {
            settings,
            clock,
            switchboard: Mutex::new(switchboard),
            connections: AtomicU64::new(0),
            tls: None,
            is_up: watch::Sender::new(false),
            attempted: Notify::new(),
            left: Notify::new(),
        })
    }

    /// The same agent, which speaks TLS with the server.
    #[must_use]
    pub fn with_tls(self, tls: Option<ClientTls>) -> Self {
        Self { tls, ..self }
    }

    /// From now on a local connection ends as soon as nothing is under way on it; one that has just begun, and never asked,
    /// within [`DRAIN_GRACE_MS`](libdc::limits::DRAIN_GRACE_MS).
    pub fn drain(&self) {
        self.lock().drain();
    }

    /// Where the link stands.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        self.lock().multiplexer.link_state()
    }

    /// Whether there is a link that requests go over, now and whenever that changes.
    #[must_use]
    pub fn watch_link(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// Waits until it is known whether the server can be reached: the first attempt has succeeded or failed.
    /// For one caller. Cancel-safe.
    pub async fn first_attempt(&self) {
        self.attempted.notified().await;
    }

    /// Serves a local connection to its end.
    pub async fn serve_local(self: Arc<Self>, socket: Socket, place: ConnectionPermit) {
        let number = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        debug!(connection = %number, "connected");
        let id = self.lock().open_local(self.clock.now(), socket);
        let connection = OpenLocal { agent: &self, id };
        let mut timer = Timer::default();
        let end = poll_fn(|cx| self.poll_local(cx, id, &mut timer)).await;
        // A peer that is told off is named; for all others it is not worth the system call.
        let told_off = matches!(end, Err(LocalEnd::Fault(fault)) if fault != LocalCloseReason::Idle);
        let peer = if told_off { self.lock().peer(id) } else { String::new() };
        drop((connection, place));
        match end {
            Ok(()) => debug!(connection = %number, "closed"),
            Err(LocalEnd::Socket(error)) => debug!(connection = %number, %error, "lost"),
            Err(LocalEnd::Fault(LocalCloseReason::Idle)) => debug!(connection = %number, "closed: idle"),
            Err(LocalEnd::Fault(fault)) => warn!(connection = %number, peer, "closed: {fault}"),
        }
    }

    /// The agent ends: tells the server to release everything that is held, and waits until it has done so, or the
    /// link is gone. No link is made any more. For one caller. Cancel-safe.
    pub async fn shut_down(&self) {
        let is_heard = self.lock().send_bye(self.clock.now());
        if is_heard {
            self.left.notified().await;
        }
    }

    /// Keeps a link to the server until the agent [leaves](Self::shut_down): connects, serves, and tries again when it is
    /// lost.
    pub async fn keep_link(&self, upstream: &Address) {
        let mut lost_at = None;
        let mut said = String::new();
        let mut brief = BRIEF_PAUSE_MIN;
        loop {
            let pause = match self.attempt(upstream, &mut lost_at).await {
                // A server that was there for a while may be again at once, and is where it was restarted on the same socket.
                Ok(lasted) if lasted >= self.settings.retry => {
                    said.clear();
                    brief = BRIEF_PAUSE_MIN;
                    Duration::ZERO
                }
                Ok(_) => {
                    said.clear();
                    let pause = brief.min(self.settings.retry);
                    brief = pause * 2;
                    pause
                }
                Err(error) => {
                    let error = error.to_string();
                    if said == error {
                        debug!(server = %upstream, "{error}");
                    } else {
                        warn!(server = %upstream, "{error}; requests are answered DISCONNECTED");
                        said = error;
                    }
                    self.settings.retry
                }
            };
            lost_at.get_or_insert_with(|| self.clock.now());
            self.attempted.notify_one();
            if self.lock().is_shutting_down() {
                self.left.notify_one();
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt to have a link, and all of the link's life. Returns how long it was up.
    async fn attempt(&self, upstream: &Address, lost_at: &mut Option<Time>) -> Result<Duration, LinkEnd> {
        let mut socket = connect(upstream, self.settings.connect_timeout).await?;
        if let Some(tls) = &self.tls {
            socket = tls.connect(socket, upstream, self.settings.connect_timeout).await?;
        }
        let mut probe_id = [0; 32];
        getrandom::fill(&mut probe_id).map_err(std::io::Error::other)?;
        let mut proven_at = None;
        let end = self.serve_link(&mut socket, &probe_id, |patch_level| {
            proven_at = Some(self.clock.now());
            let outage_ms = lost_at.take().map_or(0, |since| self.clock.now().ms_since(since));
            info!(server = %upstream, patch_level, outage_ms, "the link is up");
            self.is_up.send_replace(true);
            self.attempted.notify_one();
        });
        let end = end.await;
        let Some(proven_at) = proven_at else {
            return Err(end);
        };
        self.is_up.send_replace(false);
        match end {
            LinkEnd::Left => info!(server = %upstream, "the link has ended"),
            LinkEnd::Fault(LinkError::GoAway) => {
                info!(server = %upstream, "the link is made anew: {end}");
                return Ok(self.settings.retry);
            }
            end => warn!(server = %upstream, "the link is lost: {end}; requests are answered DISCONNECTED"),
        }
        Ok(Duration::from_millis(self.clock.now().ms_since(proven_at)))
    }

    async fn serve_link(
        &self,
        socket: &mut Socket,
        probe_id: &[u8; 32],
        proven: impl FnOnce(u16),
    ) -> LinkEnd {
        self.lock().multiplexer.link_connected(self.clock.now(), probe_id);
        let link = OpenLink { agent: self };
        let mut timer = Timer::default();
        let mut proven = Some(proven);
        let end = poll_fn(|cx| {
            let end = self.poll_link(cx, socket, &mut timer);
            if proven.is_some()
                && let LinkState::Up { patch_level } = self.link_state()
                && let Some(proven) = proven.take()
            {
                proven(patch_level);
            }
            end
        });
        let end = end.await;
        drop(link);
        end
    }

    fn poll_local(&self, cx: &mut Context<'_>, id: LocalId, timer: &mut Timer) -> Poll<Result<(), LocalEnd>> {
        let now = self.clock.now();
        let mut switchboard = self.lock();
        if let Poll::Ready(end) = switchboard.poll_local(cx, now, id) {
            return Poll::Ready(end);
        }
        // With -idle there is always a timer: the connection may become idle without a turn of its task.
        let idle_ms = self.settings.multiplexer.idle_ms;
        let next_look = (idle_ms > 0).then(|| now.after_ms(idle_ms));
        let deadline = switchboard.multiplexer.local_deadline(id).or(next_look);
        let newcomer = switchboard.drain_grace_deadline(now, id);
        let deadline = deadline.into_iter().chain(newcomer).min();
        if timer.poll(cx, &self.clock, deadline) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_link(&self, cx: &mut Context<'_>, socket: &mut Socket, timer: &mut Timer) -> Poll<LinkEnd> {
        let mut switchboard = self.lock();
        if let Poll::Ready(end) = switchboard.poll_link(cx, self.clock.now(), socket) {
            return Poll::Ready(end);
        }
        if timer.poll(cx, &self.clock, switchboard.multiplexer.link_deadline()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Switchboard> {
        // A task that panicked in its turn left its own connection half served at worst.
        self.switchboard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A local connection that is open; closed when dropped, also when its task is cancelled.
struct OpenLocal<'a> {
    agent: &'a AgentDriver,
    id: LocalId,
}

impl Drop for OpenLocal<'_> {
    fn drop(&mut self) {
        self.agent.lock().close_local(self.agent.clock.now(), self.id);
    }
}

/// A link that is open; everybody who waits for it is answered when it is dropped.
struct OpenLink<'a> {
    agent: &'a AgentDriver,
}

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        self.agent.lock().link_lost(self.agent.clock.now());
    }
}
