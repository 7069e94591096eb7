//! One local connection of the agent: an application on this host.
//!
//! ```text
//!            malformed input, half a request too long          answers are written
//!   Open ────────────────────────────────────────────▶ Closing ───────────────────▶ Closed(reason)
//!     └───── idle, answers left unread, drained, peer has finished ──────────────────────▲
//! ```
//!
//! A connection owns everything that concerns it: input not yet used, the outbox, requests in flight, its
//! timeouts, the budget of a turn, its drain grace and the reason for its end. Its methods are those of
//! [`machine`](crate::proto::machine); the `LocalContext` lends it the link.
//!
//! While the agent drains, a connection closes as soon as no request of it is in flight, but only from
//! `handle_timeout`: the driver calls that after a read that would block,
//! so that a request already received is still answered. A connection without a request so far stays open for
//! its drain grace.
//!
//! Nothing here panics.

use crate::limits::{
    DRAIN_GRACE_MS, LOCAL_IN_FLIGHT_MAX, LOCAL_READ_TIMEOUT_MS, LOCAL_WRITE_TIMEOUT_MS, OUTBOX_BYTES_MAX,
    READ_BUDGET_BYTES,
};
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::locks::LocalLockState;
use crate::proto::agent::multiplexer::MultiplexerSettings;
use crate::proto::agent::origin::AgentLink;
use crate::proto::agent::protocol::{LocalProtocol, handle_requests};
use crate::proto::machine::MachineState;
use crate::proto::outbox::Outbox;
use crate::time::Time;
use crate::wire::frame::{DecodeError, MessageHead};
use crate::wire::line::LineTooLong;
use crate::wire::message::{MessageReader, MessageWriter};
use crate::wire::session::SessionStatus;
use std::collections::VecDeque;
use thiserror::Error;

/// Names a local connection; never names another one later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalId {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

impl LocalId {
    /// An index below the greatest number of local connections open at a time, for a table beside this one.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.place as usize
    }
}

/// Why a local connection is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LocalCloseReason {
    /// The peer has finished, and every answer has been written.
    #[error("the peer has finished")]
    PeerFinished,
    /// The agent drains, and no request is in flight.
    #[error("the agent ends")]
    Drained,
    /// Malformed input.
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// A TLS client came to a port without TLS.
    #[error("it speaks TLS, which is not spoken here")]
    Tls,
    /// A line of the line protocol was too long.
    #[error(transparent)]
    LineTooLong(#[from] LineTooLong),
    /// No request came within `-idle`.
    #[error("idle")]
    Idle,
    /// A message was begun and not completed in time.
    #[error("a message was not whole after {LOCAL_READ_TIMEOUT_MS} ms")]
    ReadTimeout,
    /// The peer does not read its answers.
    #[error("no answer was read for {LOCAL_WRITE_TIMEOUT_MS} ms")]
    WriteTimeout,
}

impl LocalCloseReason {
    /// Whether the peer violated the protocol or a time limit.
    #[must_use]
    pub const fn is_violation(self) -> bool {
        !matches!(self, Self::PeerFinished | Self::Drained | Self::Idle)
    }
}

/// The context of a local connection: the link, and the state that connections share.
pub(crate) struct LocalContext<'a> {
    pub(crate) now: Time,
    pub(crate) id: LocalId,
    pub(crate) link: &'a mut AgentLink,
    pub(crate) settings: &'a MultiplexerSettings,
    /// Since when the agent drains.
    pub(crate) draining_since: Option<Time>,
    /// Connections that wait for capacity of the link.
    pub(crate) waiting_for_link: &'a mut VecDeque<LocalId>,
}

/// Whether a connection is open or closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocalPhase {
    Open,
    /// No more requests are taken. Closed once the answers are written.
    Closing(LocalCloseReason),
    Closed(LocalCloseReason),
}

/// A local connection.
#[derive(Debug)]
pub(crate) struct LocalConnection {
    pub(crate) protocol: LocalProtocol,
    pub(crate) reader: MessageReader,
    /// Input not used yet: the beginning of a request, or requests that wait for capacity.
    pub(crate) unread: Vec<u8>,
    pub(crate) outbox: Outbox,
    /// Requests in flight, blocked ones not counted.
    pub(crate) in_flight: usize,
    /// `unread` may hold whole requests, which wait for capacity.
    pub(crate) stalled: bool,
    /// Listed among the connections waiting for capacity of the link.
    pub(crate) waits_for_link: bool,
    /// Listed among the connections that need the driver's attention.
    pub(crate) listed: bool,
    pub(crate) locks: LocalLockState,
    /// Reading or a timeout has to be resumed, for which its task needs a turn.
    needs_turn: bool,
    finished: bool,
    phase: LocalPhase,
    /// Bytes read in this turn.
    turn_bytes: usize,
    turn_at: Time,
    /// End of the drain grace. `None` once something was read.
    drain_grace_until: Option<Time>,
    unfinished_since: Option<Time>,
    idle_since: Time,
}

impl LocalConnection {
    /// A new connection. The server knows it as `owner`.
    pub(crate) fn new(now: Time, owner: u64) -> Self {
        Self {
            protocol: LocalProtocol::Unknown,
            reader: MessageReader::requests(),
            unread: Vec::new(),
            outbox: Outbox::new(),
            in_flight: 0,
            stalled: false,
            waits_for_link: false,
            listed: false,
            locks: LocalLockState::new(owner),
            needs_turn: false,
            finished: false,
            phase: LocalPhase::Open,
            turn_bytes: 0,
            turn_at: now,
            drain_grace_until: Some(now.after_ms(DRAIN_GRACE_MS)),
            unfinished_since: None,
            idle_since: now,
        }
    }

    // ---- the methods of a machine

    /// The link's task begins to write the output of this connection.
    pub(crate) const fn begin_delivery(&mut self) {
        self.listed = false;
        self.needs_turn = false;
    }

    /// The budget of a turn is available again.
    pub(crate) const fn begin_turn(&mut self, now: Time) {
        self.turn_bytes = 0;
        self.turn_at = now;
        self.needs_turn = false;
    }

    /// Takes the requests that have waited for capacity, if there is some now. Returns what to write next.
    pub(crate) fn poll_output(&mut self, cx: &mut LocalContext<'_>) -> &[u8] {
        if self.stalled && self.has_capacity() {
            let wanted_input = self.may_read();
            self.take_requests(cx, &[]);
            self.needs_turn |= !self.stalled || (!wanted_input && self.may_read());
        }
        self.outbox.pending()
    }

    /// The socket took `count` bytes of the output. Fewer than offered start the write timeout.
    pub(crate) fn wrote(&mut self, now: Time, count: usize) {
        let blocked = count < self.outbox.pending().len();
        if count > 0 {
            self.outbox.advance(count);
        }
        if blocked {
            self.outbox.block(now);
        }
    }

    /// Bytes were read. At the end of input the peer may be gone: its blocked requests are cancelled.
    pub(crate) fn handle_input(&mut self, cx: &mut LocalContext<'_>, bytes: &[u8]) {
        self.drain_grace_until = None;
        if !bytes.is_empty() {
            self.turn_bytes += bytes.len();
            self.take_requests(cx, bytes);
        } else if !std::mem::replace(&mut self.finished, true) {
            self.cancel_blocked(cx.now, cx.link);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    ///
    /// With `-idle` there is always a deadline, since the last answer before an idle period may be written
    /// without a turn of the connection's task.
    pub(crate) fn deadline(
        &self,
        settings: &MultiplexerSettings,
        draining_since: Option<Time>,
        held: &HeldLocks,
    ) -> Option<Time> {
        let idle = self.idle_end(settings.idle_ms, held);
        let drain = draining_since.and_then(|since| self.drain_end(since));
        let next_look = || (settings.idle_ms > 0).then(|| self.turn_at.after_ms(settings.idle_ms));
        match self.phase {
            LocalPhase::Open => {
                let first = [self.read_end(), self.write_end(), idle, drain].into_iter().flatten().min();
                first.or_else(next_look)
            }
            LocalPhase::Closing(_) => self.write_end(),
            LocalPhase::Closed(_) => None,
        }
    }

    /// Does what is due. The driver calls this after a read that would block.
    pub(crate) fn handle_timeout(&mut self, cx: &LocalContext<'_>) {
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= cx.now);
        if is_due(self.write_end()) {
            self.phase = LocalPhase::Closed(LocalCloseReason::WriteTimeout);
        }
        if self.is_closing() || !matches!(self.state(), MachineState::Open { .. }) {
            return;
        }
        let drain = cx.draining_since.and_then(|since| self.drain_end(since));
        if is_due(self.read_end()) {
            if self.protocol == LocalProtocol::Lines {
                self.end_lines(cx.now, LocalCloseReason::ReadTimeout);
            } else {
                self.phase = LocalPhase::Closed(LocalCloseReason::ReadTimeout);
            }
        } else if is_due(drain) {
            self.phase = LocalPhase::Closed(LocalCloseReason::Drained);
        } else if is_due(self.idle_end(cx.settings.idle_ms, &cx.link.held)) {
            self.phase = LocalPhase::Closed(LocalCloseReason::Idle);
        }
    }

    /// Whether to read, to call again soon, or to end.
    pub(crate) fn state(&self) -> MachineState<LocalCloseReason> {
        match self.phase {
            LocalPhase::Closed(reason) => return MachineState::Closed(reason),
            LocalPhase::Closing(reason) if self.locks.lines.is_empty() => {
                let is_written = self.outbox.is_empty();
                return if is_written { MachineState::Closed(reason) } else { MachineState::Closing };
            }
            _ if self.finished && self.can_close() => {
                return MachineState::Closed(LocalCloseReason::PeerFinished);
            }
            // Input is still read, to detect the end of the connection, but ignored.
            LocalPhase::Closing(_) | LocalPhase::Open => {}
        }
        let wants_input = !self.finished && self.may_read();
        MachineState::Open { wants_input, more: wants_input && self.turn_bytes >= READ_BUDGET_BYTES }
    }

    /// Whether its task has something to do after the link's task has written what the socket took.
    pub(crate) fn needs_turn(&self, is_draining: bool) -> bool {
        self.needs_turn
            || is_draining
            || self.finished
            || self.phase != LocalPhase::Open
            || !self.outbox.is_empty()
    }

    // ---- requests and answers

    /// Whether one more request may be taken.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        self.in_flight < LOCAL_IN_FLIGHT_MAX
            && self.outbox.len() < OUTBOX_BYTES_MAX
            && self.locks.has_capacity()
    }

    /// Whether the peer has finished.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether no more requests are taken.
    pub(crate) fn is_closing(&self) -> bool {
        self.phase != LocalPhase::Open
    }

    /// No more requests are taken. The connection closes once its answers are written.
    pub(crate) fn close_after_answers(&mut self, reason: LocalCloseReason) {
        self.phase = LocalPhase::Closing(reason);
        self.unread = Vec::new();
        self.stalled = false;
        self.unfinished_since = None;
    }

    /// An answer was written, or queued behind earlier ones.
    pub(crate) const fn note_answer(&mut self, now: Time) {
        self.idle_since = now;
    }

    /// Appends an answer.
    pub(crate) fn answer(&mut self, now: Time, request: MessageHead, data: &[u8]) {
        self.note_answer(now);
        let out = self.outbox.buffer();
        let writer = MessageWriter::begin(out, request.response());
        out.extend_from_slice(data);
        writer.finish(out);
    }

    /// Answers that the server cannot be reached.
    pub(crate) fn answer_disconnected(&mut self, now: Time, request: MessageHead) {
        self.answer(now, request, &[SessionStatus::Disconnected as u8]);
    }

    /// Takes every request for which there is capacity from the unread input and `bytes`; keeps the rest.
    fn take_requests(&mut self, cx: &mut LocalContext<'_>, bytes: &[u8]) {
        let result = if self.unread.is_empty() {
            let mut input = bytes;
            let result = handle_requests(self, cx, &mut input);
            self.unread.extend_from_slice(input);
            result
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            let result = handle_requests(self, cx, &mut input);
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                self.unread = unread;
            }
            result
        };
        match result {
            Ok(took_requests) => self.note_input(cx.now, took_requests),
            Err(reason) => self.close_after_answers(reason),
        }
        if self.stalled && !cx.link.has_capacity() && !std::mem::replace(&mut self.waits_for_link, true) {
            cx.waiting_for_link.push_back(cx.id);
        }
    }

    fn note_input(&mut self, now: Time, took_requests: bool) {
        self.idle_since = now;
        let unfinished = !self.is_closing() && !self.stalled && self.is_inside_request();
        if !unfinished {
            self.unfinished_since = None;
        } else if took_requests || self.unfinished_since.is_none() {
            self.unfinished_since = Some(now);
        }
    }

    // ---- conditions and times

    fn is_inside_request(&self) -> bool {
        !self.unread.is_empty() || self.reader.is_inside_message()
    }

    /// Whether more input may be read, unless the peer has finished. Some input is read behind a blocked
    /// request, to detect the end of the connection.
    fn may_read(&self) -> bool {
        if self.is_closing() {
            !self.locks.lines.is_empty()
        } else {
            !self.stalled || self.locks.may_hold_back(self.unread.len())
        }
    }

    /// Whether no request is in flight, answered or half read.
    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.locks.is_idle() && self.outbox.is_empty() && !self.is_inside_request()
    }

    /// Whether the connection can be closed without losing an answer. A blocked request counts only after the
    /// end of input: it has been cancelled then, and is answered soon.
    fn can_close(&self) -> bool {
        let is_answered = self.in_flight == 0 && self.outbox.is_empty();
        if self.finished {
            is_answered && self.locks.is_idle() && !self.stalled
        } else {
            is_answered && (!self.is_inside_request() || self.locks.is_held_back())
        }
    }

    fn read_end(&self) -> Option<Time> {
        self.unfinished_since.map(|since| since.after_ms(LOCAL_READ_TIMEOUT_MS))
    }

    fn write_end(&self) -> Option<Time> {
        self.outbox.blocked_since().map(|since| since.after_ms(LOCAL_WRITE_TIMEOUT_MS))
    }

    /// When the connection closes because the agent drains.
    fn drain_end(&self, draining_since: Time) -> Option<Time> {
        let grace = self.drain_grace_until.unwrap_or(draining_since);
        self.can_close().then_some(draining_since.max(grace))
    }

    /// When the connection has been idle for too long. A connection that holds locks is not idle.
    fn idle_end(&self, idle_ms: u64, held: &HeldLocks) -> Option<Time> {
        if idle_ms == 0 || !self.is_idle() {
            return None;
        }
        let end = self.idle_since.after_ms(idle_ms);
        Some(held.held_until(self.locks.owner).map_or(end, |held_until| end.max(held_until)))
    }
}
