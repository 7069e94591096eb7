//! The server's side of one connection.
//!
//! ```text
//!           handle_input                        poll_output, wrote
//!   bytes ─────────────▶ unread ─▶ requests ─▶ Service ─▶ answers ─▶ outbox ─▶ bytes
//!                          ▲                     │ │
//!                          │                     │ └─▶ effects ─▶ driver ─▶ handle_mail of other connections
//!                          └── stalled, blocked ◀┘
//! ```
//!
//! The first byte selects the protocol: 0x00 is frames (`frames`), a lower-case letter the line protocol
//! (`lines`). The machine keeps bytes that were read and are not handled yet: the beginning of a request, or
//! whole requests that wait until the peer has read earlier answers or, in the line protocol, until a lock is
//! granted.
//!
//! Answers are written to the buffer of the thread and offered from there. Only bytes that the socket does
//! not accept are copied into the outbox, so an idle connection owns no buffer.
//!
//! ```text
//!          end of input, violation, timeout, drain       outbox empty, delay over
//!   Open ──────────────────────────────────────▶ Closing ────────────────────────▶ Closed
//! ```

use crate::id::ConnectionId;
use crate::limits::{DRAIN_GRACE_MS, LINE_BYTES_MAX, OUTBOX_BYTES_MAX, READ_BUDGET_BYTES};
use crate::proto::machine::MachineState;
use crate::proto::outbox::Outbox;
use crate::proto::server::close_reason::ServerCloseReason;
use crate::proto::server::frames::FrameProtocol;
use crate::proto::server::lines::LineProtocol;
use crate::service::{Completion, Effects, RequestCounters, Service};
use crate::time::Time;
use crate::wire::detect::Protocol;

/// Most bytes read behind a blocked request. They are read only to detect that the peer has gone.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// One connection, as the server sees it.
#[derive(Debug)]
pub struct ServerConnection {
    peer: PeerState,
    protocol: ServerProtocol,
    /// Bytes that were read and are not handled yet.
    unread: Vec<u8>,
    /// `None` while empty, so an idle connection owns no buffer.
    outbox: Option<Box<Outbox>>,
    phase: Phase,
    timeouts: ServerTimeouts,
    /// Requests in `unread` wait until the answers to earlier ones have been written.
    stalled: bool,
    /// Bytes read and answered in this turn.
    spent: usize,
    opened: Time,
    unfinished_since: Option<Time>,
    /// When the drain began.
    draining: Option<Time>,
    /// Until when the peer may send its first byte while the server drains. `None` once it has sent one.
    drain_grace: Option<Time>,
}

/// State of the peer that both protocols share.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerState {
    pub(super) id: ConnectionId,
    /// Whether its requests are served: no auth token is configured, or it presented the right one.
    pub(super) admitted: bool,
    /// Whether a whole request was handled in this step.
    pub(super) has_asked: bool,
}

#[derive(Debug)]
enum ServerProtocol {
    /// No byte has been received.
    Unknown,
    Frames(FrameProtocol),
    Lines(LineProtocol),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    /// The answers are still to be written, and the delay to pass.
    Closing {
        reason: ServerCloseReason,
        until: Time,
    },
    Closed(ServerCloseReason),
}

/// The time limits of a peer.
#[derive(Clone, Copy, Debug)]
pub struct ServerTimeouts {
    /// Time limit for a whole request from its first byte on, for the silence of a link, and for the next
    /// request of an idle peer of the line protocol that holds no lock. In milliseconds; 0 is no limit.
    pub read_ms: u64,
    /// Time limit for reading some of the output. In milliseconds; 0 is no limit.
    pub write_ms: u64,
}

/// The context of a connection during a turn.
pub struct ServerContext<'a> {
    /// The present time.
    pub now: Time,
    /// The tables.
    pub service: &'a Service,
    /// The thread's buffer for answers. Empty at the beginning and at the end of a turn.
    pub output: &'a mut Vec<u8>,
    /// Effects on other connections, to be delivered before the output is written.
    pub effects: &'a mut Effects,
    /// Requests handled, to be added to those of the service.
    pub counters: &'a mut RequestCounters,
}

/// A notification from another connection or from the program.
#[derive(Clone, Copy, Debug)]
pub enum Notification {
    /// The answer to a blocked request.
    Completion(Completion),
    /// Another connection resumed the link of this one.
    LinkTakenOver,
    /// The server is shutting down; its service has been [shut down](Service::shut_down) before.
    Drain,
}

impl ServerConnection {
    /// A connection that was accepted now. If the server is shutting down, it drains.
    #[must_use]
    pub fn new(now: Time, id: ConnectionId, service: &Service, timeouts: ServerTimeouts) -> Self {
        Self {
            peer: PeerState { id, admitted: service.auth().is_none(), has_asked: false },
            protocol: ServerProtocol::Unknown,
            unread: Vec::new(),
            outbox: None,
            phase: Phase::Open,
            timeouts,
            stalled: false,
            spent: 0,
            opened: now,
            unfinished_since: None,
            draining: service.is_shutting_down().then_some(now),
            drain_grace: Some(now.after_ms(DRAIN_GRACE_MS)),
        }
    }

    /// A turn begins: the budget is available again, and requests that waited for it are handled.
    pub fn begin_turn(&mut self, cx: &mut ServerContext<'_>) {
        self.spent = 0;
        self.resume(cx);
    }

    /// The bytes to write next.
    #[must_use]
    pub fn poll_output<'a>(&'a self, cx: &'a ServerContext<'_>) -> &'a [u8] {
        self.outbox.as_ref().map_or(&cx.output[..], |outbox| outbox.pending())
    }

    /// The socket took `count` bytes of [`poll_output`](Self::poll_output); 0 if it would block. Fewer than
    /// offered start the write timeout.
    pub fn wrote(&mut self, cx: &mut ServerContext<'_>, count: usize) {
        match &mut self.outbox {
            None if count < cx.output.len() => {
                let mut outbox = Box::new(Outbox::new());
                outbox.buffer().extend_from_slice(&cx.output[count..]);
                outbox.block(cx.now);
                self.outbox = Some(outbox);
                cx.output.clear();
            }
            None => cx.output.clear(),
            Some(outbox) => {
                let is_partial = count < outbox.pending().len();
                if count > 0 {
                    outbox.advance(count);
                }
                if is_partial {
                    outbox.block(cx.now);
                }
                if outbox.is_empty() {
                    self.outbox = None;
                }
            }
        }
        if self.outbox.is_none() {
            self.resume(cx);
            self.finish_closing(cx);
        }
    }

    /// Bytes were read; an empty slice is the end of input. Answers are made until the output is full or, in
    /// the line protocol, a request is blocked.
    pub fn handle_input(&mut self, cx: &mut ServerContext<'_>, bytes: &[u8]) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if bytes.is_empty() {
            return self.end(cx, ServerCloseReason::PeerClosed);
        }
        self.drain_grace = None;
        self.spent += bytes.len();
        self.handle_bytes(cx, bytes);
        self.keep_order(cx);
    }

    /// Handles a notification from another connection or from the program.
    pub fn handle_mail(&mut self, cx: &mut ServerContext<'_>, notification: Notification) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let goes_on = match notification {
            Notification::LinkTakenOver => return self.end(cx, ServerCloseReason::TakenOver),
            Notification::Completion(completion) => match &mut self.protocol {
                ServerProtocol::Unknown => false,
                ServerProtocol::Frames(frames) => {
                    frames.handle_completion(cx, &completion);
                    false
                }
                ServerProtocol::Lines(lines) => lines.handle_completion(cx, &completion),
            },
            Notification::Drain => {
                self.draining.get_or_insert(cx.now);
                self.cancel_waiters(cx)
            }
        };
        self.keep_order(cx);
        if goes_on {
            self.stalled = !self.unread.is_empty();
            self.resume(cx);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let connection = match self.phase {
            Phase::Open => [self.drain_deadline(), self.read_deadline()].into_iter().flatten().min(),
            Phase::Closing { until, .. } => self.outbox.is_none().then_some(until),
            Phase::Closed(_) => return None,
        };
        [connection, self.write_deadline()].into_iter().flatten().min()
    }

    /// Does what is due: closes the connection, or pings a link that has been silent for half of the read
    /// timeout.
    pub fn handle_timeout(&mut self, cx: &mut ServerContext<'_>) {
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= cx.now);
        if is_due(self.write_deadline()) {
            self.phase = Phase::Closed(ServerCloseReason::WriteTimeout(self.timeouts.write_ms));
        } else if !matches!(self.phase, Phase::Open) {
            self.finish_closing(cx);
        } else if is_due(self.drain_deadline()) {
            self.end(cx, ServerCloseReason::Drained);
        } else if is_due(self.read_deadline()) {
            if let Err(reason) = self.handle_read_timeout(cx) {
                self.end(cx, reason);
            }
            self.keep_order(cx);
        }
    }

    /// The state of the connection. Call it after the output has been written, as far as the socket accepts
    /// it.
    #[must_use]
    pub fn state(&self) -> MachineState<ServerCloseReason> {
        match self.phase {
            Phase::Open => {
                let may_read = self.outbox.is_none() && self.unread.len() < READ_AHEAD_BYTES_MAX;
                let has_work = self.outbox.is_none() && (self.stalled || may_read);
                MachineState::Open {
                    wants_input: may_read && !self.stalled,
                    more: has_work && self.spent >= READ_BUDGET_BYTES,
                }
            }
            Phase::Closing { .. } => MachineState::Closing,
            Phase::Closed(reason) => MachineState::Closed(reason),
        }
    }

    /// The socket is gone: cancels the waiters of this connection and, unless its link may be resumed,
    /// releases its locks.
    pub fn close(&mut self, cx: &mut ServerContext<'_>) {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.phase = Phase::Closed(ServerCloseReason::PeerClosed);
        }
        let had_locks = match std::mem::replace(&mut self.protocol, ServerProtocol::Unknown) {
            ServerProtocol::Unknown => false,
            ServerProtocol::Frames(frames) => frames.close(cx, self.peer.id),
            ServerProtocol::Lines(_) => {
                cx.service.end_connection(cx.now, self.peer.id, cx.effects);
                true
            }
        };
        cx.effects.expiry_changed |= had_locks;
        self.unread = Vec::new();
        self.outbox = None;
        cx.output.clear();
    }

    /// Whether nothing is in flight: no part of a request, no request without an answer, no output.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty()
            && self.outbox.is_none()
            && match &self.protocol {
                ServerProtocol::Unknown => true,
                ServerProtocol::Frames(frames) => frames.is_idle(),
                ServerProtocol::Lines(lines) => !lines.is_blocked(),
            }
    }

    /// While the server drains: when the connection ends if it stays idle.
    fn drain_deadline(&self) -> Option<Time> {
        let began = self.draining.filter(|_| self.is_idle())?;
        Some(self.drain_grace.unwrap_or(began).max(began))
    }

    fn write_deadline(&self) -> Option<Time> {
        let blocked_since = self.outbox.as_ref().and_then(|outbox| outbox.blocked_since());
        let blocked_since = blocked_since.filter(|_| self.timeouts.write_ms > 0);
        blocked_since.map(|since| since.after_ms(self.timeouts.write_ms))
    }

    fn read_deadline(&self) -> Option<Time> {
        let read_ms = self.timeouts.read_ms;
        if read_ms == 0 {
            return None;
        }
        let unadmitted = (!self.peer.admitted).then_some(self.opened);
        let (waits_since, link) = match &self.protocol {
            ServerProtocol::Unknown => (None, None),
            ServerProtocol::Frames(frames) => (None, frames.deadline(read_ms)),
            ServerProtocol::Lines(lines) => (lines.waits_since(), None),
        };
        let since = [unadmitted, waits_since, self.unfinished_since].into_iter().flatten().min();
        [since.map(|since| since.after_ms(read_ms)), link].into_iter().flatten().min()
    }

    fn handle_read_timeout(&mut self, cx: &mut ServerContext<'_>) -> Result<(), ServerCloseReason> {
        let read_ms = self.timeouts.read_ms;
        let started = self.unfinished_since.is_some() || !self.unread.is_empty();
        match &mut self.protocol {
            _ if !self.peer.admitted => {
                Err(ServerCloseReason::NotAuthenticated("no request within the read timeout"))
            }
            ServerProtocol::Lines(lines) => lines.handle_timeout(cx, self.peer.id, started, read_ms),
            ServerProtocol::Frames(frames)
                if self.unfinished_since.is_none_or(|since| since.after_ms(read_ms) > cx.now) =>
            {
                frames.handle_timeout(cx)
            }
            ServerProtocol::Frames(_) | ServerProtocol::Unknown => Err(ServerCloseReason::ReadTimeout),
        }
    }

    /// Answers `error_disconnected` to the blocked requests of this connection. Returns whether requests of
    /// the line protocol behind them can be handled.
    fn cancel_waiters(&mut self, cx: &mut ServerContext<'_>) -> bool {
        match &mut self.protocol {
            ServerProtocol::Unknown => false,
            ServerProtocol::Frames(frames) => {
                frames.cancel_waiters(cx);
                false
            }
            ServerProtocol::Lines(lines) => lines.cancel_waiters(cx),
        }
    }

    /// Begins to close, unless that has begun.
    fn end(&mut self, cx: &mut ServerContext<'_>, reason: ServerCloseReason) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing { reason, until: cx.now.after_ms(reason.delay_ms()) };
            self.stalled = false;
        }
        self.keep_order(cx);
        self.finish_closing(cx);
    }

    /// Closes, if the output has been written and the delay is over.
    fn finish_closing(&mut self, cx: &ServerContext<'_>) {
        if let Phase::Closing { reason, until } = self.phase
            && until <= cx.now
            && self.poll_output(cx).is_empty()
        {
            self.phase = Phase::Closed(reason);
        }
    }

    /// Output that must not overtake what is in the outbox is put behind it.
    fn keep_order(&mut self, cx: &mut ServerContext<'_>) {
        if let Some(outbox) = &mut self.outbox {
            outbox.buffer().append(cx.output);
        }
    }

    /// Handles requests that waited, if the outbox is empty and the budget is not spent.
    fn resume(&mut self, cx: &mut ServerContext<'_>) {
        if self.stalled
            && self.outbox.is_none()
            && cx.output.len() < OUTBOX_BYTES_MAX
            && self.spent < READ_BUDGET_BYTES
        {
            self.handle_bytes(cx, &[]);
        }
    }

    fn handle_bytes(&mut self, cx: &mut ServerContext<'_>, bytes: &[u8]) {
        let before = cx.output.len();
        let handled = if self.unread.is_empty() {
            let mut input = bytes;
            let handled = self.handle_requests(cx, &mut input);
            self.unread.extend_from_slice(input);
            handled
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            let handled = self.handle_requests(cx, &mut input);
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                self.unread = unread;
            }
            handled
        };
        self.spent += cx.output.len() - before;
        if let Err(reason) = handled {
            self.end(cx, reason);
        }
    }

    fn handle_requests(
        &mut self,
        cx: &mut ServerContext<'_>,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        if matches!(self.protocol, ServerProtocol::Unknown)
            && let Some(first) = input.first()
        {
            self.protocol = match Protocol::detect(*first) {
                Protocol::Text => ServerProtocol::Lines(LineProtocol::new(cx.now)),
                Protocol::Tls => return Err(ServerCloseReason::Tls),
                // An unknown first byte is reported by the decoder of the first frame.
                Protocol::Frames | Protocol::Unknown(_) => ServerProtocol::Frames(FrameProtocol::default()),
            };
        }
        self.peer.has_asked = false;
        let result = match &mut self.protocol {
            ServerProtocol::Unknown => Ok(()),
            ServerProtocol::Frames(frames) => frames.handle_requests(cx, &mut self.peer, input),
            ServerProtocol::Lines(lines) => lines.handle_requests(cx, &mut self.peer, input),
        };
        let blocked = matches!(&self.protocol, ServerProtocol::Lines(lines) if lines.is_blocked());
        self.stalled = cx.output.len() >= OUTBOX_BYTES_MAX && !input.is_empty() && !blocked;
        let inside = matches!(&self.protocol, ServerProtocol::Frames(frames) if frames.is_inside_message());
        if self.stalled || blocked || (input.is_empty() && !inside) {
            self.unfinished_since = None;
        } else if self.peer.has_asked || self.unfinished_since.is_none() {
            self.unfinished_since = Some(cx.now);
        }
        result
    }
}

const _: () = assert!(
    READ_AHEAD_BYTES_MAX > 4 * LINE_BYTES_MAX,
    "bytes behind a blocked request do not keep the connection from reading whole requests"
);
const _: () = assert!(size_of::<ServerConnection>() <= 272, "an idle connection stays small");
