//! The driver of the server's connections: moves bytes between a socket and its
//! [`ServerConnection`], and keeps the times.

use crate::id::ConnectionId;
use crate::limits::READ_BYTES;
use crate::net::clock::Clock;
use crate::net::places::Place;
use crate::net::scratch::Scratch;
use crate::net::socket::Socket;
use crate::net::timer::Timer;
use crate::proto::outbox::Outbox;
use crate::proto::server::ServerConnection;
use crate::service::Service;
use crate::time::Time;
use crate::wire::frame::Corruption;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// What all connections of a server share.
pub struct Server {
    service: Arc<Service>,
    clock: Clock,
    settings: ServerSettings,
    draining: CancellationToken,
    connections: AtomicU64,
    progress: Progress,
}

/// What an operator chooses of the server's behaviour.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// A message that has begun to arrive must be whole within this time, in milliseconds; 0 is for ever.
    pub read_timeout_ms: u64,
    /// Some of the answers must be read within this time, in milliseconds; 0 is for ever.
    pub write_timeout_ms: u64,
    /// After how many requests [`Server::progress`] returns; 0 is never.
    pub progress: u64,
}

#[derive(Debug, Default)]
struct Progress {
    next: AtomicU64,
    reached: Notify,
}

impl Server {
    /// A server that answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>, clock: Clock, settings: ServerSettings) -> Self {
        let progress = Progress { next: AtomicU64::new(settings.progress), reached: Notify::new() };
        let draining = CancellationToken::new();
        Self { service, clock, settings, draining, connections: AtomicU64::new(0), progress }
    }

    /// Waits until as many requests more were answered as the settings say. For one caller. Cancel-safe.
    pub async fn progress(&self) {
        self.progress.reached.notified().await;
    }

    fn note_progress(&self) {
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

    /// From now on a connection ends as soon as nothing is under way on it.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Serves a connection to its end.
    pub async fn serve(self: Arc<Self>, socket: Socket, place: Place) {
        let id = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        debug!(connection = %id, "connected");
        let mut connection = Connection {
            socket,
            machine: ServerConnection::new(),
            outbox: Outbox::new(),
            refused: None,
            timer: Timer::default(),
        };
        let serving = connection.run(&self);
        let end = tokio::select! {
            biased;
            end = serving => Some(end),
            () = self.draining.cancelled() => None,
        };
        let end = match end {
            Some(end) => end,
            None => connection.run(&self).await,
        };
        // A peer that is told off is named; for all others it is not worth the system call.
        let told_off = !matches!(end, Ok(()) | Err(ConnectionEnd::Socket(_)));
        let peer = if told_off { connection.socket.peer() } else { String::new() };
        drop((connection, place));
        match end {
            Ok(()) => debug!(connection = %id, "closed"),
            Err(ConnectionEnd::Socket(error)) => debug!(connection = %id, %error, "lost"),
            Err(end) => warn!(connection = %id, peer, "closed: {end}"),
        }
    }
}

/// Why a connection ended before its peer closed it in good order.
#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] Corruption),
    #[error("a message was not whole after {0} ms")]
    ReadTimeout(u64),
    #[error("no answer was read for {0} ms")]
    WriteTimeout(u64),
}

struct Connection {
    socket: Socket,
    machine: ServerConnection,
    outbox: Outbox,
    /// The input can't be read on; what was answered before is still to be written.
    refused: Option<Corruption>,
    timer: Timer,
}

impl Connection {
    /// Serves until the peer closes or, while the server drains, nothing is under way. Cancel-safe.
    async fn run(&mut self, server: &Server) -> Result<(), ConnectionEnd> {
        std::future::poll_fn(|cx| self.poll(cx, server)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, server: &Server) -> Poll<Result<(), ConnectionEnd>> {
        let now = server.clock.now();
        if let Poll::Ready(end) = self.poll_serve(cx, server, now) {
            return Poll::Ready(end);
        }
        let idle = self.machine.is_idle() && self.outbox.is_empty();
        if idle && server.draining.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        self.poll_deadlines(cx, server, now)
    }

    fn poll_serve(
        &mut self,
        cx: &mut Context<'_>,
        server: &Server,
        now: Time,
    ) -> Poll<Result<(), ConnectionEnd>> {
        loop {
            if !ready!(self.poll_write(cx, now))? {
                continue;
            }
            if let Some(corruption) = self.refused {
                return Poll::Ready(Err(corruption.into()));
            }
            let count = Scratch::lend(|scratch| {
                let mut count = 0;
                if !self.machine.is_stalled() {
                    let mut buf = ReadBuf::new(&mut scratch.input);
                    ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
                    count = buf.filled().len();
                    if count == 0 {
                        return Poll::Ready(Ok(None));
                    }
                }
                let (input, output) = (&scratch.input[..count], &mut scratch.output);
                let handled = self.machine.handle_input(now, input, &server.service, output);
                self.refused = handled.err();
                server.note_progress();
                let written = self.write_first(cx, now, output);
                output.clear();
                written?;
                Poll::Ready(Ok::<_, io::Error>(Some(count)))
            });
            match ready!(count)? {
                None => return Poll::Ready(Ok(())),
                // There is more where this came from; the others have their turn first.
                Some(READ_BYTES) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(_) => {}
            }
        }
    }

    /// Writes answers straight from where they were made; what the socket does not take is kept.
    fn write_first(&mut self, cx: &mut Context<'_>, now: Time, output: &[u8]) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        let written = match Pin::new(&mut self.socket).poll_write(cx, output) {
            Poll::Ready(result) => result?,
            Poll::Pending => 0,
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

    fn poll_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        server: &Server,
        now: Time,
    ) -> Poll<Result<(), ConnectionEnd>> {
        let limit = |since: Option<Time>, ms: u64| since.filter(|_| ms > 0).map(|since| since.after_ms(ms));
        let read = limit(self.machine.unfinished_since(), server.settings.read_timeout_ms);
        let write = limit(self.outbox.blocked_since(), server.settings.write_timeout_ms);
        if write.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(Err(ConnectionEnd::WriteTimeout(server.settings.write_timeout_ms)));
        }
        if read.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(Err(ConnectionEnd::ReadTimeout(server.settings.read_timeout_ms)));
        }
        if self.timer.poll(cx, &server.clock, [read, write].into_iter().flatten().min()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
