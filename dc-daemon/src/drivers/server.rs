//! The driver of the server's connections: moves bytes between a socket and its
//! [`ServerConnection`], and keeps the times.

use crate::drivers::buffers::ThreadBuffers;
use crate::drivers::mailbox::{Mailbox, Mailboxes, Notification};
use crate::listen::limiter::ConnectionPermit;
use libdc::id::ConnectionId;
use libdc::limits::{DRAIN_GRACE_MS, READ_BUDGET_BYTES};
use libdc::net::clock::DriverClock;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::net::tls::error::TlsError;
use libdc::net::tls::server::{ServerTls, handshake};
use libdc::proto::outbox::Outbox;
use libdc::proto::server::{ServerCloseReason, ServerConnection, ServerContext};
use libdc::service::{Effects, RequestCounters, Service};
use libdc::time::Time;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// What all connections of a server share.
pub struct ServerDriver {
    service: Arc<Service>,
    clock: DriverClock,
    settings: ServerSettings,
    draining: CancellationToken,
    connections: AtomicU64,
    tls: Option<ServerTls>,
    first_link: Mutex<Option<FirstLinkHook>>,
    postboxes: Mailboxes,
    alarm: ExpiryTimer,
    progress: ProgressSignal,
}

/// What is to be done before the first link is told that it is open.
type FirstLinkHook = Box<dyn FnOnce() + Send>;

/// What an operator chooses of the server's behaviour.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// A request that has begun to arrive must be whole within this time, in milliseconds, and who speaks text
    /// and holds nothing must ask within it; 0 is for ever.
    pub read_timeout_ms: u64,
    /// Some of the answers must be read within this time, in milliseconds; 0 is for ever.
    pub write_timeout_ms: u64,
    /// After how many requests [`ServerDriver::progress`] returns; 0 is never.
    pub progress: u64,
}

#[derive(Debug, Default)]
struct ProgressSignal {
    next: AtomicU64,
    reached: Notify,
}

impl ServerDriver {
    /// A server that answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>, clock: DriverClock, settings: ServerSettings) -> Self {
        let progress = ProgressSignal { next: AtomicU64::new(settings.progress), reached: Notify::new() };
        let draining = CancellationToken::new();
        let alarm = ExpiryTimer { at_ms: AtomicU64::new(u64::MAX), moved: Notify::new() };
        Self {
            service,
            clock,
            settings,
            draining,
            connections: AtomicU64::new(0),
            tls: None,
            first_link: Mutex::default(),
            postboxes: Mailboxes::new(),
            alarm,
            progress,
        }
    }

    /// The same server, which speaks nothing but TLS over TCP.
    #[must_use]
    pub fn with_tls(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// The same server, which does `act` before the first link is told that it is open. What an agent is granted
    /// then it may believe in beyond the server's end. It is called on the way of a request, so it should not
    /// take longer than it must.
    #[must_use]
    pub fn before_first_link(self, act: impl FnOnce() + Send + 'static) -> Self {
        Self { first_link: Mutex::new(Some(Box::new(act))), ..self }
    }

    /// Waits until as many requests more were answered as the settings say. For one caller. Cancel-safe.
    pub async fn progress(&self) {
        self.progress.reached.notified().await;
    }

    fn signal_progress(&self) {
        let every = self.settings.progress;
        if every == 0 {
            return;
        }
        let requests = self.service.totals().total();
        let next = self.progress.next.load(Ordering::Relaxed);
        if requests >= next {
            let passed = (requests - next) / every + 1;
            self.progress.next.store(next + passed * every, Ordering::Relaxed);
            self.progress.reached.notify_one();
        }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The time that the service is told.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// From now on a connection ends as soon as nothing is under way on it; one that has just begun, and never asked, within
    /// [`DRAIN_GRACE_MS`]. No lock is granted any more, and who waits for one is told at once.
    pub fn drain(&self) {
        self.service.shut_down();
        self.draining.cancel();
    }

    async fn drain_grace_passed(&self) {
        self.draining.cancelled().await;
        tokio::time::sleep(Duration::from_millis(DRAIN_GRACE_MS)).await;
    }

    /// Does what the time brings for locks, for ever: leases and waits that end, links that are not resumed.
    pub async fn keep_time(&self) {
        let mut effects = Effects::new();
        loop {
            let now = self.clock.now();
            let next = self.service.advance_locks(now, &mut effects);
            self.postboxes.deliver(&mut effects);
            if next.is_some_and(|next| next <= now) {
                // There is more to do; the connections have their turn first.
                tokio::task::yield_now().await;
                continue;
            }
            self.alarm.set(next);
            // Something that ends sooner may have come since.
            if self.alarm.is_before(self.service.locks().soonest()) {
                match next {
                    Some(next) => {
                        tokio::select! {
                            () = tokio::time::sleep_until(self.clock.instant(next).into()) => {}
                            () = self.alarm.moved.notified() => {}
                        }
                    }
                    None => self.alarm.moved.notified().await,
                }
            }
        }
    }

    /// Serves a connection to its end.
    pub async fn serve(self: Arc<Self>, socket: Socket, place: ConnectionPermit) {
        let id = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        debug!(connection = %id, "connected");
        let Some(socket) = self.prepare(id, socket).await else { return };
        let mut connection = OpenConnection::open(&self, id, socket);
        let end = tokio::select! {
            biased;
            end = connection.run() => Some(end),
            () = self.draining.cancelled() => None,
        };
        let end = match end {
            Some(end) => end,
            None => connection.run().await,
        };
        // A peer that is told off is named; for all others it is not worth the system call.
        let told_off = end.as_ref().err().is_some_and(ServerConnectionEnd::is_violation);
        let peer = if told_off { connection.socket.peer() } else { String::new() };
        drop((connection, place));
        match end {
            Ok(()) => debug!(connection = %id, "closed"),
            Err(ServerConnectionEnd::Socket(error)) => debug!(connection = %id, %error, "lost"),
            Err(end) if told_off => warn!(connection = %id, peer, "closed: {end}"),
            Err(end) => debug!(connection = %id, "closed: {end}"),
        }
    }

    /// Makes the handshake of TLS where there is to be one.
    async fn prepare(&self, id: ConnectionId, socket: Socket) -> Option<Socket> {
        let (Some(tls), Socket::Tcp(_)) = (&self.tls, &socket) else { return Some(socket) };
        let peer = socket.peer();
        let within = Duration::from_millis(self.settings.read_timeout_ms);
        // In boxes: else every task would have room for a handshake as long as it lives, TLS or not.
        let handshake = Box::pin(handshake(tls, socket, within));
        let made = tokio::select! {
            biased;
            made = handshake => made,
            () = Box::pin(self.drain_grace_passed()) => return None,
        };
        match made {
            Ok(socket) => Some(socket),
            Err(error @ TlsError::Closed(_)) => {
                debug!(connection = %id, peer, "lost: {error}");
                None
            }
            Err(error) => {
                warn!(connection = %id, peer, "closed: {error}");
                None
            }
        }
    }

    /// What follows from a step is done: others are told, and the alarm is set for what ends soonest.
    fn apply_effects(&self, effects: &mut Effects, tally: &RequestCounters) {
        self.service.record(tally);
        if std::mem::take(&mut effects.greeted) {
            let first_link = self.first_link.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(act) = first_link {
                act();
            }
        }
        self.postboxes.deliver(effects);
        if tally.locking() > 0 && !self.alarm.is_before(self.service.locks().soonest()) {
            self.alarm.moved.notify_one();
        }
    }
}

/// When [`ServerDriver::keep_time`] wakes up next.
#[derive(Debug)]
struct ExpiryTimer {
    /// In milliseconds; `u64::MAX` is never.
    at_ms: AtomicU64,
    moved: Notify,
}

impl ExpiryTimer {
    fn set(&self, at: Option<Time>) {
        self.at_ms.store(at.map_or(u64::MAX, Time::as_ms), Ordering::SeqCst);
    }

    /// Whether it is not too late for what ends at `soonest`.
    fn is_before(&self, soonest: Option<Time>) -> bool {
        soonest.is_none_or(|soonest| self.at_ms.load(Ordering::SeqCst) <= soonest.as_ms())
    }
}

/// Why a connection ended before its peer closed it in good order.
#[derive(Debug, thiserror::Error)]
enum ServerConnectionEnd {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Fault(#[from] ServerCloseReason),
    #[error("no answer was read for {0} ms")]
    WriteTimeout(u64),
}

impl ServerConnectionEnd {
    fn is_violation(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            Self::Fault(fault) => !fault.is_graceful(),
            Self::WriteTimeout(_) => true,
        }
    }
}

/// A connection that is open. However it ends, others are told what follows.
struct OpenConnection<'a> {
    server: &'a ServerDriver,
    id: ConnectionId,
    socket: Socket,
    machine: ServerConnection,
    postbox: Arc<Mailbox>,
    outbox: Outbox,
    /// The input can't be read on; what was answered before is still to be written, and then perhaps a pause
    /// to be made.
    refused: Option<(ServerCloseReason, Time)>,
    /// Until when it may ask for the first time while the server drains. `None` once it has asked.
    newcomer_until: Option<Time>,
    timer: Timer,
}

impl<'a> OpenConnection<'a> {
    fn open(server: &'a ServerDriver, id: ConnectionId, socket: Socket) -> Self {
        server.service.connection_opened();
        let now = server.clock.now();
        Self {
            server,
            id,
            socket,
            machine: ServerConnection::new(now, id, &server.service),
            postbox: server.postboxes.open(id),
            outbox: Outbox::new(),
            refused: None,
            newcomer_until: Some(now.after_ms(DRAIN_GRACE_MS)),
            timer: Timer::default(),
        }
    }

    /// Serves until the peer closes or, while the server drains, nothing is under way. Cancel-safe.
    async fn run(&mut self) -> Result<(), ServerConnectionEnd> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServerConnectionEnd>> {
        let now = self.server.clock.now();
        loop {
            if let Poll::Ready(end) = self.poll_serve(cx, now) {
                return Poll::Ready(end);
            }
            if self.server.service.is_shutting_down() {
                if self.refused.is_none() && self.cancel_waiters(cx, now)? {
                    continue;
                }
                let idle = self.machine.is_idle() && self.outbox.is_empty();
                let newcomer = self.newcomer_until.is_some_and(|until| now < until);
                if idle && !newcomer {
                    if !self.socket.has_input() {
                        return Poll::Ready(Ok(()));
                    }
                    // The runtime is about to hear of it.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if !self.poll_deadlines(cx, now)? {
                return Poll::Pending;
            }
        }
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<Result<(), ServerConnectionEnd>> {
        loop {
            if !ready!(self.poll_write(cx, now))? {
                continue;
            }
            if let Some((fault, end)) = self.refused {
                return if end <= now { Poll::Ready(Err(fault.into())) } else { Poll::Pending };
            }
            if self.machine.expects_mail() && self.handle_mail(cx, now)? {
                continue;
            }
            if !self.machine.wants_input() && !self.machine.is_stalled() {
                return Poll::Pending;
            }
            match ready!(self.poll_input(cx, now))? {
                None => return Poll::Ready(Ok(())),
                // There is more where this came from; the others have their turn first.
                Some(READ_BUDGET_BYTES) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(_) => {}
            }
        }
    }

    /// Reads, answers and writes once. `None` is the end of the input.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<io::Result<Option<usize>>> {
        ThreadBuffers::with(|scratch| {
            let mut count = 0;
            if !self.machine.is_stalled() {
                let mut buf = ReadBuf::new(&mut scratch.input);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
                count = buf.filled().len();
                if count == 0 {
                    return Poll::Ready(Ok(None));
                }
                self.newcomer_until = None;
            }
            let input = &scratch.input[..count];
            let (output, effects) = (&mut scratch.output, &mut scratch.effects);
            self.step(cx, now, output, effects, |machine, turn| machine.handle_input(turn, input))?;
            self.server.signal_progress();
            Poll::Ready(Ok(Some(count)))
        })
    }

    /// Takes what others left for this connection. Returns whether there was something.
    fn handle_mail(&mut self, cx: &mut Context<'_>, now: Time) -> io::Result<bool> {
        ThreadBuffers::with(|scratch| {
            self.postbox.drain(cx, &mut scratch.letters);
            let some = !scratch.letters.is_empty();
            let (output, effects) = (&mut scratch.output, &mut scratch.effects);
            for letter in scratch.letters.drain(..) {
                self.step(cx, now, output, effects, |machine, turn| match letter {
                    Notification::Answer(answer) => machine.handle_completion(turn, &answer),
                    Notification::TakenOver => Err(ServerCloseReason::TakenOver),
                })?;
            }
            Ok(some)
        })
    }

    /// Answers what waits for a lock: the server ends. Returns whether there was something.
    fn cancel_waiters(&mut self, cx: &mut Context<'_>, now: Time) -> io::Result<bool> {
        let mut some = false;
        ThreadBuffers::with(|scratch| {
            let (output, effects) = (&mut scratch.output, &mut scratch.effects);
            self.step(cx, now, output, effects, |machine, turn| {
                let given_up = machine.cancel_waiters(turn);
                // A fault has to be dealt with, too.
                some = given_up != Ok(false);
                given_up.map(drop)
            })
        })?;
        Ok(some)
    }

    /// One step of the machine, and what follows from it.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        out: &mut Vec<u8>,
        effects: &mut Effects,
        act: impl FnOnce(&mut ServerConnection, &mut ServerContext<'_>) -> Result<(), ServerCloseReason>,
    ) -> io::Result<()> {
        let mut tally = RequestCounters::default();
        let mut turn = ServerContext { now, service: &self.server.service, out, effects, tally: &mut tally };
        if let Err(fault) = act(&mut self.machine, &mut turn) {
            self.refused.get_or_insert((fault, now.after_ms(fault.delay_ms())));
        }
        self.server.apply_effects(effects, &tally);
        let written = self.write_first(cx, now, out);
        out.clear();
        written
    }

    /// Writes answers straight from where they were made; what the socket does not take is kept.
    fn write_first(&mut self, cx: &mut Context<'_>, now: Time, output: &[u8]) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        let written = if self.outbox.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, output) {
                Poll::Ready(result) => result?,
                Poll::Pending => 0,
            }
        } else {
            0
        };
        if written < output.len() {
            self.outbox.buffer().extend_from_slice(&output[written..]);
            self.outbox.block(now);
        }
        Ok(())
    }

    /// Writes what was kept. Ready with whether nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<io::Result<bool>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(true));
        }
        match Pin::new(&mut self.socket).poll_write(cx, self.outbox.pending()) {
            Poll::Ready(written) => {
                self.outbox.advance(written?);
                Poll::Ready(Ok(self.outbox.is_empty()))
            }
            Poll::Pending => {
                self.outbox.block(now);
                Poll::Pending
            }
        }
    }

    /// Sees to it that the connection is looked at in time. True if something has changed already.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>, now: Time) -> Result<bool, ServerConnectionEnd> {
        let ServerSettings { read_timeout_ms, write_timeout_ms, .. } = self.server.settings;
        let blocked_since = self.outbox.blocked_since().filter(|_| write_timeout_ms > 0);
        let write = blocked_since.map(|since| since.after_ms(write_timeout_ms));
        if write.is_some_and(|deadline| deadline <= now) {
            return Err(ServerConnectionEnd::WriteTimeout(write_timeout_ms));
        }
        let read = match self.refused {
            Some((_, end)) => self.outbox.is_empty().then_some(end),
            None => self.machine.deadline(read_timeout_ms),
        };
        if self.refused.is_none() && read.is_some_and(|deadline| deadline <= now) {
            ThreadBuffers::with(|scratch| {
                let (output, effects) = (&mut scratch.output, &mut scratch.effects);
                self.step(cx, now, output, effects, |machine, turn| {
                    machine.handle_timeout(turn, read_timeout_ms)
                })
            })?;
            return Ok(true);
        }
        let draining = self.server.draining.is_cancelled();
        let newcomer = self.newcomer_until.filter(|until| draining && now < *until);
        if self.timer.poll(cx, &self.server.clock, [read, write, newcomer].into_iter().flatten().min()) {
            cx.waker().wake_by_ref();
        }
        Ok(false)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        let server = self.server;
        server.postboxes.close(self.id);
        server.service.connection_closed();
        let (mut out, mut effects, mut tally) = (Vec::new(), Effects::new(), RequestCounters::default());
        let (now, service) = (server.clock.now(), &*server.service);
        let mut turn =
            ServerContext { now, service, out: &mut out, effects: &mut effects, tally: &mut tally };
        let had_locks = self.machine.close(&mut turn);
        server.apply_effects(&mut effects, &tally);
        if had_locks {
            server.alarm.moved.notify_one();
        }
    }
}
