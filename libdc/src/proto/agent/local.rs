//! One local connection of the agent: an application on this host.

use crate::limits::{LOCAL_IN_FLIGHT_MAX, LOCAL_READ_TIMEOUT_MS, LOCAL_WRITE_TIMEOUT_MS, OUTBOX_BYTES_MAX};
use crate::proto::agent::locks::LocalLockState;
use crate::proto::agent::protocol::LocalProtocol;
use crate::proto::outbox::Outbox;
use crate::time::Time;
use crate::wire::frame::{DecodeError, MessageHead};
use crate::wire::line::LineTooLong;
use crate::wire::message::{MessageReader, MessageWriter};
use crate::wire::session::SessionStatus;
use thiserror::Error;

/// Names a local connection; never names another one later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalId {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

impl LocalId {
    /// A number below the greatest number of local connections there were at a time, for a table beside.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.place as usize
    }
}

/// Why a local connection has to be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LocalCloseReason {
    /// What it sent can't be read.
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// A client of TLS came to a port that has none.
    #[error("it speaks TLS, which is not spoken here")]
    Tls,
    /// A line of the text protocol was too long.
    #[error(transparent)]
    LineTooLong(#[from] LineTooLong),
    /// It asked for nothing for as long as `-idle` says.
    #[error("idle")]
    Idle,
    /// It began a message and did not end it.
    #[error("a message was not whole after {LOCAL_READ_TIMEOUT_MS} ms")]
    ReadTimeout,
    /// It does not read its answers.
    #[error("no answer was read for {LOCAL_WRITE_TIMEOUT_MS} ms")]
    WriteTimeout,
}

/// What the agent knows of a local connection.
#[derive(Debug)]
pub(crate) struct LocalConnection {
    pub(crate) speech: LocalProtocol,
    pub(crate) reader: MessageReader,
    /// Bytes that came and were not used: the beginning of a request, or requests that wait their turn.
    pub(crate) unread: Vec<u8>,
    pub(crate) outbox: Outbox,
    /// Requests under way that are answered at once.
    pub(crate) in_flight: usize,
    /// There may be whole requests in `unread`, which wait for room.
    pub(crate) stalled: bool,
    /// Listed among those that wait for room on the link.
    pub(crate) waits_for_link: bool,
    /// Listed among those the driver must look at.
    pub(crate) listed: bool,
    pub(crate) locks: LocalLockState,
    /// The peer asks nothing more.
    finished: bool,
    /// No more requests are taken; why the connection ends when the answers have been written.
    ending: Option<LocalCloseReason>,
    unfinished_since: Option<Time>,
    idle_since: Time,
}

impl LocalConnection {
    /// A connection on which nothing has happened. It is known to the server as `owner`.
    pub(crate) const fn new(now: Time, owner: u64) -> Self {
        Self {
            speech: LocalProtocol::Unknown,
            reader: MessageReader::requests(),
            unread: Vec::new(),
            outbox: Outbox::new(),
            in_flight: 0,
            stalled: false,
            waits_for_link: false,
            listed: false,
            locks: LocalLockState::new(owner),
            finished: false,
            ending: None,
            unfinished_since: None,
            idle_since: now,
        }
    }

    /// Whether one more request may be taken.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        self.in_flight < LOCAL_IN_FLIGHT_MAX
            && self.outbox.len() < OUTBOX_BYTES_MAX
            && self.locks.has_capacity()
    }

    /// Whether more bytes may be read. Behind a blocked request some are, so that its end is noticed.
    pub(crate) fn wants_input(&self) -> bool {
        if self.ending.is_some() {
            !self.locks.lines.is_empty()
        } else {
            !self.stalled || self.locks.may_hold_back(self.unread.len())
        }
    }

    /// Whether the peer asks nothing more.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// The peer asks nothing more. Returns whether that is news.
    pub(crate) const fn finish(&mut self) -> bool {
        !std::mem::replace(&mut self.finished, true)
    }

    /// Whether the connection is to be closed for a fault when its answers have been written.
    pub(crate) const fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// No more requests are taken.
    pub(crate) fn close_with(&mut self, fault: LocalCloseReason) {
        self.ending = Some(fault);
        self.unread = Vec::new();
        self.stalled = false;
        self.unfinished_since = None;
    }

    /// Whether nothing is asked, answered or half said.
    fn is_idle(&self) -> bool {
        self.in_flight == 0
            && self.locks.is_idle()
            && self.outbox.is_empty()
            && self.unread.is_empty()
            && !self.reader.is_inside_message()
    }

    /// Whether the connection can be closed without an answer being lost. One that is blocked counts only if the
    /// peer may have left: it has been given up then, and is answered at once.
    pub(crate) fn can_close(&self) -> bool {
        if self.finished {
            self.in_flight == 0 && self.locks.is_idle() && self.outbox.is_empty() && !self.stalled
        } else {
            let asks = !self.unread.is_empty() || self.reader.is_inside_message();
            self.in_flight == 0 && self.outbox.is_empty() && (!asks || self.locks.is_held_back())
        }
    }

    /// Requests were taken from the input, or could have been.
    pub(crate) fn note_input(&mut self, now: Time, took_requests: bool) {
        self.idle_since = now;
        let unfinished = !self.stalled && (!self.unread.is_empty() || self.reader.is_inside_message());
        if !unfinished {
            self.unfinished_since = None;
        } else if took_requests || self.unfinished_since.is_none() {
            self.unfinished_since = Some(now);
        }
    }

    /// An answer is given, or one that has to wait for others.
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

    /// Answers that the server can't be reached.
    pub(crate) fn answer_disconnected(&mut self, now: Time, request: MessageHead) {
        self.answer(now, request, &[SessionStatus::Disconnected as u8]);
    }

    /// When the next of the times below is up. Before `held_until` the connection holds locks.
    pub(crate) fn deadline(&self, idle_ms: u64, held_until: Option<Time>) -> Option<Time> {
        let idle = self.idle_end(idle_ms, held_until);
        let read = self.unfinished_since.map(|since| since.after_ms(LOCAL_READ_TIMEOUT_MS));
        let write = self.outbox.blocked_since().map(|since| since.after_ms(LOCAL_WRITE_TIMEOUT_MS));
        [idle, read, write].into_iter().flatten().min()
    }

    /// Whether the time is up for this connection.
    pub(crate) fn check(
        &mut self,
        now: Time,
        idle_ms: u64,
        held_until: Option<Time>,
    ) -> Result<(), LocalCloseReason> {
        if self.outbox.blocked_since().is_some_and(|since| now >= since.after_ms(LOCAL_WRITE_TIMEOUT_MS)) {
            return Err(LocalCloseReason::WriteTimeout);
        }
        if self.unfinished_since.is_some_and(|since| now >= since.after_ms(LOCAL_READ_TIMEOUT_MS)) {
            if self.speech != LocalProtocol::Lines {
                return Err(LocalCloseReason::ReadTimeout);
            }
            self.end_lines(now, LocalCloseReason::ReadTimeout);
        }
        match self.ending {
            Some(fault) if self.outbox.is_empty() && self.locks.lines.is_empty() => Err(fault),
            None if self.idle_end(idle_ms, held_until).is_some_and(|end| now >= end) => {
                Err(LocalCloseReason::Idle)
            }
            _ => Ok(()),
        }
    }

    fn idle_end(&self, idle_ms: u64, held_until: Option<Time>) -> Option<Time> {
        let end = (idle_ms > 0 && self.is_idle()).then(|| self.idle_since.after_ms(idle_ms))?;
        Some(held_until.map_or(end, |held_until| end.max(held_until)))
    }
}
