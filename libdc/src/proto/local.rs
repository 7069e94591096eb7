//! One local connection of the agent: an application on this host.

use crate::limits::{LOCAL_IN_FLIGHT_MAX, LOCAL_READ_TIMEOUT_MS, LOCAL_WRITE_TIMEOUT_MS, OUTBOX_BYTES_MAX};
use crate::proto::outbox::Outbox;
use crate::time::Time;
use crate::wire::frame::{Corruption, Direction, MessageHead};
use crate::wire::message::{MessageReader, MessageWriter};
use crate::wire::session::Status;
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
    pub const fn place(self) -> usize {
        self.place as usize
    }
}

/// Why a local connection has to be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LocalFault {
    /// What it sent can't be read.
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] Corruption),
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
pub(crate) struct Local {
    pub(crate) reader: MessageReader,
    /// Bytes that came and were not used: the beginning of a frame, or requests that wait their turn.
    pub(crate) unread: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) in_flight: usize,
    /// There may be whole requests in `unread`, which wait for room.
    pub(crate) stalled: bool,
    /// Listed among those that wait for room on the link.
    pub(crate) waits_for_link: bool,
    /// Listed among those the driver must look at.
    pub(crate) listed: bool,
    unfinished_since: Option<Time>,
    idle_since: Time,
}

impl Local {
    pub(crate) const fn new(now: Time) -> Self {
        Self {
            reader: MessageReader::new(Some(Direction::Request)),
            unread: Vec::new(),
            outbox: Outbox::new(),
            in_flight: 0,
            stalled: false,
            waits_for_link: false,
            listed: false,
            unfinished_since: None,
            idle_since: now,
        }
    }

    /// Whether one more request may be taken.
    pub(crate) const fn has_room(&self) -> bool {
        self.in_flight < LOCAL_IN_FLIGHT_MAX && self.outbox.len() < OUTBOX_BYTES_MAX
    }

    /// Whether nothing is asked, answered or half said.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
            && self.outbox.is_empty()
            && self.unread.is_empty()
            && !self.reader.is_inside_message()
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

    /// Appends an answer.
    pub(crate) fn answer(&mut self, now: Time, request: MessageHead, data: &[u8]) {
        self.idle_since = now;
        let out = self.outbox.buffer();
        let writer = MessageWriter::begin(out, request.response());
        out.extend_from_slice(data);
        writer.finish(out);
    }

    /// Answers that the server can't be reached.
    pub(crate) fn answer_disconnected(&mut self, now: Time, request: MessageHead) {
        self.answer(now, request, &[Status::Disconnected as u8]);
    }

    /// When the next of the times below is up.
    pub(crate) fn deadline(&self, idle_ms: u64) -> Option<Time> {
        let idle = (idle_ms > 0 && self.is_idle()).then(|| self.idle_since.after_ms(idle_ms));
        let read = self.unfinished_since.map(|since| since.after_ms(LOCAL_READ_TIMEOUT_MS));
        let write = self.outbox.blocked_since().map(|since| since.after_ms(LOCAL_WRITE_TIMEOUT_MS));
        [idle, read, write].into_iter().flatten().min()
    }

    /// Whether the time is up for this connection.
    pub(crate) fn check(&self, now: Time, idle_ms: u64) -> Result<(), LocalFault> {
        if self.outbox.blocked_since().is_some_and(|since| now >= since.after_ms(LOCAL_WRITE_TIMEOUT_MS)) {
            Err(LocalFault::WriteTimeout)
        } else if self.unfinished_since.is_some_and(|since| now >= since.after_ms(LOCAL_READ_TIMEOUT_MS)) {
            Err(LocalFault::ReadTimeout)
        } else if idle_ms > 0 && self.is_idle() && now >= self.idle_since.after_ms(idle_ms) {
            Err(LocalFault::Idle)
        } else {
            Ok(())
        }
    }
}
