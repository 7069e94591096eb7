//! One direction of a connection: bytes arrive in order, in pieces and after delays drawn from the seed.
//!
//! A pipe has a fixed capacity, as the buffers of two sockets do. While it is full, writes are partial or
//! would block, until the reader has read.

use super::random::SeededRng;
use libdc::limits::READ_BUDGET_BYTES;
use libdc::time::Time;
use std::collections::VecDeque;

/// The properties of a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PipeQuality {
    /// Minimum delay of every byte.
    pub(crate) delay_ms: u64,
    /// Maximum additional delay of a piece, relative to the previous one.
    pub(crate) jitter_ms: u64,
    /// Capacity in bytes.
    pub(crate) capacity: usize,
    /// How a write is split into pieces.
    pub(crate) pieces: PipePieces,
}

/// The pieces of one write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PipePieces {
    /// One piece.
    Whole,
    /// Up to four pieces.
    Some,
    /// The first bytes one by one, the rest as one piece.
    Bytes,
}

/// Bytes of one write that arrive one by one.
const SINGLE_BYTES_MAX: usize = 48;

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    quality: PipeQuality,
    /// Bytes written and not yet discarded after reading.
    bytes: Vec<u8>,
    /// Length of the part that was read.
    read: usize,
    /// Length of the part that has arrived.
    arrived: usize,
    /// Scheduled arrivals: time, and the length that has arrived by then.
    marks: VecDeque<(Time, usize)>,
    last_mark: Time,
    held_until: Time,
    /// The writer has closed its side.
    finished: bool,
    /// The connection broke: the reader gets the bytes that have arrived, then an error.
    broken: bool,
    /// The reader is gone.
    abandoned: bool,
    writer_waits: bool,
    /// Total bytes written, and total bytes arrived.
    pub(crate) written_total: u64,
    pub(crate) arrived_total: u64,
    /// An event is scheduled for the first mark.
    pub(crate) announced: bool,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// No input yet.
    Nothing,
    /// This many bytes.
    Bytes(usize),
    /// The end of input.
    Finished,
    /// The connection is broken.
    Broken,
}

/// The connection is broken, or its reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeBroken;

impl Pipe {
    /// An empty pipe.
    pub(crate) const fn new(quality: PipeQuality) -> Self {
        Self {
            quality,
            bytes: Vec::new(),
            read: 0,
            arrived: 0,
            marks: VecDeque::new(),
            last_mark: Time::from_ms(0),
            held_until: Time::from_ms(0),
            finished: false,
            broken: false,
            abandoned: false,
            writer_waits: false,
            written_total: 0,
            arrived_total: 0,
            announced: false,
        }
    }

    /// Takes as much of `bytes` as fits.
    ///
    /// # Errors
    /// [`PipeBroken`] if the bytes can never be read.
    pub(crate) fn write(
        &mut self,
        now: Time,
        bytes: &[u8],
        random: &mut SeededRng,
    ) -> Result<usize, PipeBroken> {
        if self.broken || self.abandoned {
            return Err(PipeBroken);
        }
        let room = self.quality.capacity.saturating_sub(self.bytes.len() - self.read);
        let count = bytes.len().min(room);
        self.writer_waits = count < bytes.len();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..count]);
        self.written_total += count as u64;
        if count > 0 {
            self.mark_pieces(now, start, random);
        }
        Ok(count)
    }

    /// Closes the write side.
    pub(crate) fn finish(&mut self, now: Time) {
        if !std::mem::replace(&mut self.finished, true) && !self.broken {
            self.mark(now.after_ms(self.quality.delay_ms), self.bytes.len());
        }
    }

    /// The arrival time of the next piece, if one is in flight.
    pub(crate) fn next_arrival(&self) -> Option<Time> {
        self.marks.front().map(|(at, _)| (*at).max(self.held_until))
    }

    /// Delivers the next piece, unless the pipe is stalled. Returns whether it arrived.
    pub(crate) fn arrive(&mut self, now: Time) -> bool {
        if self.next_arrival().is_none_or(|at| at > now) {
            return false;
        }
        if let Some((_, offset)) = self.marks.pop_front() {
            self.arrived_total += (offset - self.arrived) as u64;
            self.arrived = offset;
        }
        true
    }

    /// Stalls the pipe until this time.
    pub(crate) fn hold(&mut self, until: Time) {
        self.held_until = self.held_until.max(until);
    }

    /// Whether the pipe is stalled.
    pub(crate) fn is_held(&self, now: Time) -> bool {
        self.held_until > now
    }

    /// Lets the stall end at this time, if it would end later.
    pub(crate) fn release(&mut self, until: Time) {
        self.held_until = self.held_until.min(until);
    }

    /// Appends the bytes that have arrived to `out`, limited to the size of one read.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>) -> Incoming {
        let count = (self.arrived - self.read).min(READ_BUDGET_BYTES);
        if count > 0 {
            out.extend_from_slice(&self.bytes[self.read..self.read + count]);
            self.read += count;
            if self.read == self.bytes.len() && self.marks.is_empty() {
                self.bytes.clear();
                (self.read, self.arrived) = (0, 0);
            }
            return Incoming::Bytes(count);
        }
        if self.broken {
            Incoming::Broken
        } else if self.finished && self.marks.is_empty() {
            Incoming::Finished
        } else {
            Incoming::Nothing
        }
    }

    /// Whether the writer was waiting for room that is now available. Clears the flag.
    pub(crate) const fn take_waiting_writer(&mut self) -> bool {
        std::mem::replace(&mut self.writer_waits, false)
    }

    /// Breaks the connection: `keep` of the bytes in flight still arrive, immediately.
    pub(crate) fn cut(&mut self, keep: usize, forget_unread: bool) {
        if std::mem::replace(&mut self.broken, true) {
            return;
        }
        self.marks.clear();
        self.bytes.truncate(self.arrived + keep);
        self.arrived = self.bytes.len();
        if forget_unread {
            self.read = self.arrived;
        }
    }

    /// Bytes in flight.
    pub(crate) const fn under_way(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// Closes the read side.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.marks.clear();
        self.bytes = Vec::new();
        (self.read, self.arrived) = (0, 0);
    }

    fn mark_pieces(&mut self, now: Time, start: usize, random: &mut SeededRng) {
        let end = self.bytes.len();
        let mut at = now.after_ms(self.quality.delay_ms);
        let jitter_ms = self.quality.jitter_ms;
        let mut cut = start;
        match self.quality.pieces {
            PipePieces::Whole => {}
            PipePieces::Some => {
                for _ in 0..random.below(4) {
                    cut += random.below((end - cut) as u64 + 1) as usize;
                    at = at.after_ms(random.below(jitter_ms + 1));
                    self.mark(at, cut);
                }
            }
            PipePieces::Bytes => {
                while cut + 1 < end && cut - start < SINGLE_BYTES_MAX {
                    cut += 1;
                    at = at.after_ms(u64::from(random.chance(100)) * jitter_ms);
                    self.mark(at, cut);
                }
            }
        }
        self.mark(at.after_ms(random.below(jitter_ms + 1)), end);
    }

    fn mark(&mut self, at: Time, offset: usize) {
        self.last_mark = self.last_mark.max(at);
        self.marks.push_back((self.last_mark, offset));
    }
}
