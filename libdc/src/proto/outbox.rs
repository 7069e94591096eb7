//! What is to be written to a connection and has not been yet.

use crate::time::Time;

/// Memory that an empty outbox may keep for the next answer.
const KEPT_BYTES_MAX: usize = 1024;

/// Bytes on their way out, and since when nobody took any.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    blocked_since: Option<Time>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), written: 0, blocked_since: None }
    }

    /// What is to be written next.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes to be written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The connection took `count` bytes.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
        debug_assert!(self.written <= self.bytes.len(), "more was written than there was");
        if self.is_empty() {
            self.clear();
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.blocked_since = None;
    }

    /// The connection takes no more for now.
    pub fn block(&mut self, now: Time) {
        self.blocked_since.get_or_insert(now);
    }

    /// Since when the connection has taken nothing, if there is something to take.
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Time> {
        self.blocked_since
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.written = 0;
        self.blocked_since = None;
    }
}
