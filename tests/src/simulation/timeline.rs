//! Timestamps observed at the agent's end of a local connection. They separate the agent from the rest of the
//! run, so that delays are attributed to the right side.

use libdc::proto::agent::local::LocalCloseReason;
use libdc::time::Time;
use std::collections::VecDeque;

/// The times at which a stream reached its offsets.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    marks: VecDeque<Mark>,
}

/// The stream reached `offset` at this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    pub(crate) at: Time,
    /// The part of the time until then that was skipped by a jump of the clock, in milliseconds.
    pub(crate) leapt_ms: u64,
    /// Whether the link was up.
    pub(crate) link_up: bool,
    /// Number of link losses until then.
    pub(crate) link_losses: u64,
}

/// Observations at the agent's end of a local connection.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Bytes of requests delivered to the agent.
    pub(crate) handed: Timeline,
    /// Bytes of requests that it has consumed, without a partial message.
    pub(crate) taken: Timeline,
    /// Bytes of answers that it has made.
    pub(crate) answered: Timeline,
    /// The reason why it closed the connection, unless the connection had ended.
    pub(crate) fault: Option<LocalCloseReason>,
}

impl Timeline {
    /// Records that the stream has reached an offset.
    pub(crate) fn push(&mut self, mark: Mark) {
        if self.marks.back().is_none_or(|last| last.offset < mark.offset) {
            self.marks.push_back(mark);
        }
    }

    /// The mark at which the stream first reached `offset`.
    pub(crate) fn reached(&self, offset: u64) -> Option<Mark> {
        let index = self.marks.partition_point(|mark| mark.offset < offset);
        self.marks.get(index).copied()
    }
}
