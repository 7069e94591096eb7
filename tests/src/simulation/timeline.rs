//! What was seen at the agent's end of a local connection, and when: the borders between the agent and the
//! rest of the run, so that each can be blamed for its own part only.

use libdc::proto::agent::local::LocalCloseReason;
use libdc::time::Time;
use std::collections::VecDeque;

/// When a stream had come how far.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    marks: VecDeque<Mark>,
}

/// The stream had come to `offset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    pub(crate) at: Time,
    /// How much of the time until then was leapt over, in milliseconds.
    pub(crate) leapt_ms: u64,
    /// Whether the link was up.
    pub(crate) link_up: bool,
    /// How often it had been lost.
    pub(crate) link_losses: u64,
}

/// What was seen at the agent's end of a local connection.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Bytes of requests given to the agent.
    pub(crate) handed: Timeline,
    /// Bytes of requests that it has looked at, but for the beginning of a message.
    pub(crate) taken: Timeline,
    /// Bytes of answers that it has ready.
    pub(crate) answered: Timeline,
    /// Why it closed the connection, if it was not for the end of it.
    pub(crate) fault: Option<LocalCloseReason>,
}

impl Timeline {
    /// The stream has come so far.
    pub(crate) fn push(&mut self, mark: Mark) {
        if self.marks.back().is_none_or(|last| last.offset < mark.offset) {
            self.marks.push_back(mark);
        }
    }

    /// When the stream had come as far as `offset` for the first time.
    pub(crate) fn reached(&self, offset: u64) -> Option<Mark> {
        let place = self.marks.partition_point(|mark| mark.offset < offset);
        self.marks.get(place).copied()
    }
}
