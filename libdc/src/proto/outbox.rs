//! The output of a connection that has not been written yet.
//!
//! ```text
//!              written                          boundary
//!   bulk    ───────┴──────────────────────────────┴──────────────────────────────
//!                  the message that has begun     ▲    messages that have not
//!   urgent                                        └── goes here
//! ```
//!
//! Urgent messages overtake all others but a partly written one. The end of that message is looked up only
//! when it matters: when there is something urgent, or when the memory before it is released.
//!
//! Panics only if the caller reports more written bytes than there are.

use crate::limits::FRAME_HEADER_BYTES;
use crate::time::Time;

/// Memory that an empty outbox may keep for the next answer.
const KEPT_BYTES_MAX: usize = 1024;

/// Pending output, and since when the socket has accepted none of it.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    urgent: Vec<u8>,
    urgent_written: usize,
    /// Whether the bytes are frames.
    framed: bool,
    /// Where a message begins: if something is urgent, the first that has not begun to be written.
    boundary: usize,
    blocked_since: Option<Time>,
}

impl Outbox {
    /// An empty outbox for bytes of any kind. Nothing is urgent in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            urgent: Vec::new(),
            urgent_written: 0,
            framed: false,
            boundary: 0,
            blocked_since: None,
        }
    }

    /// An empty outbox for frames, in which messages can be urgent.
    #[must_use]
    pub const fn framed() -> Self {
        let mut outbox = Self::new();
        outbox.framed = true;
        outbox
    }

    /// The bytes to write next. More may follow once these are written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        if self.urgent.is_empty() {
            &self.bytes[self.written..]
        } else if self.written < self.boundary {
            &self.bytes[self.written..self.boundary]
        } else {
            &self.urgent[self.urgent_written..]
        }
    }

    /// Bytes to be written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.written + (self.urgent.len() - self.urgent_written)
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer for further output.
    #[inline]
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The buffer for whole urgent messages: they are written before all messages not begun, but after
    /// earlier urgent ones. In an outbox that is not of frames nothing is urgent.
    pub fn urgent(&mut self) -> &mut Vec<u8> {
        if !self.framed {
            return &mut self.bytes;
        }
        if self.urgent.is_empty() {
            self.find_boundary();
        }
        &mut self.urgent
    }

    /// The connection took `count` of the [pending](Self::pending) bytes.
    pub fn advance(&mut self, count: usize) {
        self.blocked_since = None;
        if !self.urgent.is_empty() {
            if self.written >= self.boundary {
                self.advance_urgent(count);
                return;
            }
            debug_assert!(count <= self.boundary - self.written, "more was written than was pending");
        }
        self.written += count;
        debug_assert!(self.written <= self.bytes.len(), "more was written than there was");
        if self.is_empty() {
            self.clear();
        } else if self.written > self.bytes.len() / 2 {
            self.forget_written();
        }
    }

    /// The connection would block.
    pub fn block(&mut self, now: Time) {
        self.blocked_since.get_or_insert(now);
    }

    /// Since when the connection has accepted nothing, if there is output.
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Time> {
        self.blocked_since
    }

    /// Discards all output.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.written = 0;
        self.urgent = Vec::new();
        self.urgent_written = 0;
        self.boundary = 0;
        self.blocked_since = None;
    }

    fn advance_urgent(&mut self, count: usize) {
        self.urgent_written += count;
        debug_assert!(self.urgent_written <= self.urgent.len(), "more was written than was pending");
        if self.urgent_written == self.urgent.len() {
            self.urgent = Vec::new();
            self.urgent_written = 0;
            if self.is_empty() {
                self.clear();
            }
        }
    }

    fn forget_written(&mut self) {
        if self.framed {
            self.find_boundary();
            self.boundary -= self.written;
        }
        self.bytes.drain(..self.written);
        self.written = 0;
    }

    /// Moves the boundary to the first message that has not begun to be written.
    fn find_boundary(&mut self) {
        while self.boundary < self.written {
            self.boundary += message_len(&self.bytes[self.boundary..]);
        }
    }
}

/// Bytes of the message at the start of `bytes`, all of its frames together; at least 1.
fn message_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(&[.., complete, high, low]) = rest.first_chunk::<FRAME_HEADER_BYTES>() {
        let frame = FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(frame..).unwrap_or_default();
        if complete != 0 {
            return bytes.len() - rest.len();
        }
    }
    bytes.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SESSION_MESSAGE_BYTES_MAX;
    use crate::wire::frame::{MessageHead, Operation, SessionOperation};
    use crate::wire::link::Ping;
    use crate::wire::message::{MessageReader, write_message};
    use proptest::prelude::*;

    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn message(uid: u32, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(&mut out, MessageHead::request(uid, GET), &vec![9; len]);
        out
    }

    /// Writes all output, at most `most` bytes at a time.
    fn written(outbox: &mut Outbox, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !outbox.is_empty() {
            let count = outbox.pending().len().min(most);
            assert!(count > 0, "nothing is pending, but something is there");
            out.extend_from_slice(&outbox.pending()[..count]);
            outbox.advance(count);
        }
        out
    }

    fn uids(bytes: &[u8]) -> Vec<u32> {
        let mut reader = MessageReader::new(None);
        let mut input = bytes;
        let mut uids = Vec::new();
        while let Some(message) = reader.next(&mut input).unwrap() {
            uids.push(message.head.uid);
        }
        assert!(input.is_empty());
        uids
    }

    #[test]
    fn urgent_message_overtakes_messages_not_begun() {
        for (begun, order) in
            [(0, [100, 1, 2, 3]), (1, [1, 100, 2, 3]), (34, [1, 100, 2, 3]), (35, [1, 2, 100, 3])]
        {
            let mut outbox = Outbox::framed();
            for uid in 1..=3 {
                outbox.buffer().extend(message(uid, 20));
            }
            let mut out = outbox.pending()[..begun].to_vec();
            outbox.advance(begun);
            Ping { uid: 100 }.write_request(outbox.urgent());
            out.extend(written(&mut outbox, 7));
            assert_eq!(uids(&out), order, "{begun} bytes had been written");
        }
    }

    #[test]
    fn message_of_many_frames_is_not_interrupted() {
        let mut outbox = Outbox::framed();
        outbox.buffer().extend(message(1, SESSION_MESSAGE_BYTES_MAX));
        outbox.buffer().extend(message(2, 5_000));
        let mut out = outbox.pending()[..3_000].to_vec();
        outbox.advance(3_000);
        Ping { uid: 100 }.write_request(outbox.urgent());
        Ping { uid: 101 }.write_request(outbox.urgent());
        out.extend(written(&mut outbox, usize::MAX));
        assert_eq!(uids(&out), [1, 100, 101, 2]);
    }

    #[test]
    fn nothing_is_urgent_among_bytes_that_are_not_frames() {
        let mut outbox = Outbox::new();
        outbox.buffer().extend_from_slice(b"ok\n");
        outbox.advance(1);
        outbox.urgent().extend_from_slice(b"error\n");
        assert_eq!(written(&mut outbox, 2), b"k\nerror\n");
    }

    #[test]
    fn cleared_outbox_has_no_urgent_message() {
        let mut outbox = Outbox::framed();
        outbox.buffer().extend(message(1, 3));
        outbox.advance(1);
        Ping { uid: 100 }.write_request(outbox.urgent());
        outbox.clear();
        assert!(outbox.is_empty() && outbox.pending().is_empty());
        outbox.buffer().extend(message(2, 3));
        assert_eq!(uids(&written(&mut outbox, 5)), [2]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Bulk(usize),
        Urgent,
        Write(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..6_000).prop_map(Step::Bulk),
            Just(Step::Urgent),
            (1_usize..5_000).prop_map(Step::Write)
        ]
    }

    proptest! {
        /// Each lane keeps its order and its messages, and an urgent message waits for at most one other.
        #[test]
        fn both_lanes_keep_their_order(steps in prop::collection::vec(step(), 1..60)) {
            const URGENT: u32 = 1 << 20;
            let (mut outbox, mut out) = (Outbox::framed(), Vec::new());
            let (mut bulk, mut urgent) = (0, URGENT);
            let mut begun_at_call = Vec::new();
            let mut bulk_starts = Vec::new();
            for step in steps {
                match step {
                    Step::Bulk(len) => {
                        outbox.buffer().extend(message(bulk, len));
                        bulk_starts.push(message(bulk, len).len());
                        bulk += 1;
                    }
                    Step::Urgent => {
                        let (mut before, mut begun) = (0, 0);
                        let bulk_out = out.len() - urgent_bytes(&out);
                        for len in &bulk_starts {
                            begun += usize::from(before < bulk_out);
                            before += len;
                        }
                        begun_at_call.push(begun);
                        Ping { uid: urgent }.write_request(outbox.urgent());
                        urgent += 1;
                    }
                    Step::Write(most) => {
                        let count = outbox.pending().len().min(most);
                        out.extend_from_slice(&outbox.pending()[..count]);
                        outbox.advance(count);
                    }
                }
                prop_assert_eq!(outbox.is_empty(), outbox.pending().is_empty());
            }
            out.extend(written(&mut outbox, usize::MAX));
            let uids = uids(&out);
            let (late, early): (Vec<u32>, Vec<u32>) = uids.iter().partition(|uid| **uid >= URGENT);
            prop_assert_eq!(late, (URGENT..urgent).collect::<Vec<_>>());
            prop_assert_eq!(early, (0..bulk).collect::<Vec<_>>());
            for (number, begun) in begun_at_call.into_iter().enumerate() {
                let place = uids.iter().position(|uid| *uid == URGENT + number as u32).unwrap();
                let ahead = uids[..place].iter().filter(|uid| **uid < URGENT).count();
                prop_assert!(ahead <= begun, "{} messages went ahead, {} had begun", ahead, begun);
            }
        }
    }

    /// Bytes of urgent messages among these, the last of which may be cut.
    fn urgent_bytes(bytes: &[u8]) -> usize {
        let (mut rest, mut urgent) = (bytes, 0);
        while !rest.is_empty() {
            let len = message_len(rest).min(rest.len());
            // A ping, or the beginning of one: nothing else has class 2.
            if rest.get(9) == Some(&2) {
                urgent += len;
            }
            rest = &rest[len..];
        }
        urgent
    }
}
