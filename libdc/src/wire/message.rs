//! Messages: one to sixteen frames (4,096 in classes 1 and 2) that share their head.
//!
//! Every frame but the last carries exactly 2048 bytes. The last one carries the rest, which is also 2048
//! bytes when the data fills it. The frames of two messages never interleave in one direction.
//!
//! Reading never panics and never allocates more than twice the bytes received. Writing panics if the data
//! exceeds the maximum length of a message, which the caller must check.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::{Direction, Expected, FrameHeader, MessageHead};

/// A complete message whose data is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// The fields shared by all frames.
    pub head: MessageHead,
    /// The data of all frames, joined.
    pub data: &'a [u8],
}

/// A complete message that owns its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The fields shared by all frames.
    pub head: MessageHead,
    /// The data of all frames, joined.
    pub data: Vec<u8>,
}

impl Message {
    /// The same message with borrowed data.
    #[must_use]
    pub fn as_message_ref(&self) -> MessageRef<'_> {
        MessageRef { head: self.head, data: &self.data }
    }
}

impl From<MessageRef<'_>> for Message {
    fn from(message: MessageRef<'_>) -> Self {
        Self { head: message.head, data: message.data.to_vec() }
    }
}

/// Reassembles messages from a stream of bytes.
///
/// The data of a message of one frame is borrowed from the input. That of a longer message is collected in
/// the reader, so that the caller never keeps more than one incomplete frame.
#[derive(Debug, Default)]
pub struct MessageReader {
    direction: Option<Direction>,
    link: bool,
    requests: bool,
    partial: Option<Box<PartialMessage>>,
}

/// The frames of a long message received so far.
#[derive(Debug)]
struct PartialMessage {
    head: MessageHead,
    frames: usize,
    data: Vec<u8>,
    complete: bool,
}

impl MessageReader {
    /// A reader of messages that all have `direction`; `None` accepts both.
    #[must_use]
    pub const fn new(direction: Option<Direction>) -> Self {
        Self { direction, link: false, requests: false, partial: None }
    }

    /// A reader for one end of a link. Messages have `direction`, but PING and GOAWAY may be requested by
    /// both ends.
    #[must_use]
    pub const fn link(direction: Direction) -> Self {
        Self { direction: Some(direction), link: true, requests: false, partial: None }
    }

    /// A reader of requests from untrusted peers. Requests of classes 1 and 2 that exceed the limit of their
    /// operation are refused before they are collected.
    #[must_use]
    pub const fn requests() -> Self {
        Self { direction: Some(Direction::Request), link: false, requests: true, partial: None }
    }

    /// A reader for the server's end of a connection: as [`requests`](Self::requests), but answers to its
    /// pings are accepted.
    #[must_use]
    pub const fn server() -> Self {
        Self { direction: Some(Direction::Request), link: true, requests: true, partial: None }
    }

    /// The next complete message. `input` advances past every frame consumed. `Ok(None)` means that the rest
    /// of `input` is the start of a frame; the caller must pass it again with more bytes appended.
    ///
    /// # Errors
    /// [`DecodeError`] at the first byte that cannot be valid; `input` then begins with the frame that
    /// contains it. The reader must not be used any further.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<MessageRef<'s>>, DecodeError> {
        self.reclaim();
        if self.partial.is_none()
            && let Some((message, rest)) = self.parse_single_frame(input)
        {
            *input = rest;
            return Ok(Some(message));
        }
        self.collect_frames(input)
    }

    /// Whether some frames of an incomplete message have been consumed.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| !partial.complete)
    }

    /// Frees the memory of a long message that was lent to the caller.
    #[inline]
    pub fn reclaim(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.complete) {
            self.partial = None;
        }
    }

    /// The path of nearly all messages: one frame, valid and complete.
    #[inline]
    fn parse_single_frame<'i>(&self, input: &'i [u8]) -> Option<(MessageRef<'i>, &'i [u8])> {
        let header = FrameHeader::parse_right(input, &self.expected(None))?;
        if !header.complete {
            return None;
        }
        let (data, rest) = input[FRAME_HEADER_BYTES..].split_at_checked(header.data_len.into())?;
        Some((MessageRef { head: header.head, data }, rest))
    }

    /// The path of all other messages: consumes frames until one completes the message.
    #[inline(never)]
    fn collect_frames<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<MessageRef<'s>>, DecodeError> {
        while let Some(header) = FrameHeader::parse(input, &self.expected(self.partial.as_deref()))? {
            let end = FRAME_HEADER_BYTES + usize::from(header.data_len);
            let Some((frame, rest)) = input.split_at_checked(end) else {
                return Ok(None);
            };
            *input = rest;
            let partial = self.partial.get_or_insert_with(|| PartialMessage::begin(header.head));
            partial.frames += 1;
            partial.data.extend_from_slice(&frame[FRAME_HEADER_BYTES..]);
            if header.complete {
                partial.complete = true;
                break;
            }
        }
        Ok(match self.partial.as_deref() {
            Some(PartialMessage { head, data, complete: true, .. }) => Some(MessageRef { head: *head, data }),
            _ => None,
        })
    }

    #[inline]
    fn expected(&self, partial: Option<&PartialMessage>) -> Expected {
        Expected {
            direction: self.direction,
            link: self.link,
            requests: self.requests,
            continues: partial.map(|partial| partial.head),
            frames: partial.map_or(0, |partial| partial.frames),
        }
    }
}

impl PartialMessage {
    fn begin(head: MessageHead) -> Box<Self> {
        Box::new(Self { head, frames: 0, data: Vec::new(), complete: false })
    }
}

/// Appends a complete message to `out`.
///
/// # Panics
/// If `data` exceeds the maximum length of a message with this operation.
#[inline]
pub fn write_message(out: &mut Vec<u8>, head: MessageHead, data: &[u8]) {
    let writer = MessageWriter::begin(out, head);
    out.extend_from_slice(data);
    writer.finish(out);
}

/// Writes a message whose data is appended to the output in pieces.
#[derive(Debug)]
#[must_use = "an unfinished message has a wrong length"]
pub struct MessageWriter {
    head: MessageHead,
    start: usize,
}

impl MessageWriter {
    /// Begins a message at the end of `out`. The caller then appends the data to `out`.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, head: MessageHead) -> Self {
        let start = out.len();
        out.extend_from_slice(&FrameHeader { head, complete: true, data_len: 0 }.to_bytes());
        Self { head, start }
    }

    /// Ends the message. Its data is everything appended since [`begin`](Self::begin).
    ///
    /// # Panics
    /// If the data exceeds the maximum length of a message with this operation.
    #[inline]
    pub fn finish(self, out: &mut Vec<u8>) {
        let data_start = self.start + FRAME_HEADER_BYTES;
        let len = out.len() - data_start;
        if len <= FRAME_DATA_BYTES_MAX {
            let bytes = (len as u16).to_be_bytes();
            out[data_start - 2..data_start].copy_from_slice(&bytes);
        } else {
            self.split(out, data_start, len);
        }
    }

    /// Splits the `len` bytes from `data_start` on into frames; they do not fit into one.
    fn split(self, out: &mut Vec<u8>, data_start: usize, len: usize) {
        let frames = len.div_ceil(FRAME_DATA_BYTES_MAX);
        let frames_max = self.head.operation.frames_max();
        assert!(frames <= frames_max, "{len} bytes exceed the maximum length of a message");
        // From the last frame to the first, each moves back by the headers before it.
        out.resize(out.len() + (frames - 1) * FRAME_HEADER_BYTES, 0);
        for frame in (0..frames).rev() {
            let from = data_start + frame * FRAME_DATA_BYTES_MAX;
            let data_len = (len - frame * FRAME_DATA_BYTES_MAX).min(FRAME_DATA_BYTES_MAX);
            let to = from + frame * FRAME_HEADER_BYTES;
            out.copy_within(from..from + data_len, to);
            let complete = frame + 1 == frames;
            let header = FrameHeader { head: self.head, complete, data_len: data_len as u16 };
            out[to - FRAME_HEADER_BYTES..to].copy_from_slice(&header.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LINK_FRAMES_MAX, SESSION_MESSAGE_BYTES_MAX};
    use crate::wire::operation::{LinkOperation, LockOperation, Operation, SessionOperation};

    const GET: Operation = Operation::Session(SessionOperation::Get);
    const STATS: Operation = Operation::Lock(LockOperation::Stats);

    fn encode(head: MessageHead, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(&mut out, head, data);
        out
    }

    /// Bytes that differ by position.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn overlong_request_is_refused_at_its_first_frame() {
        let head = MessageHead::request(7, STATS);
        let valid = encode(head, &pattern(2048));
        assert!(MessageReader::requests().next(&mut valid.as_slice()).unwrap().is_some());
        let long = encode(head, &pattern(2049));
        let result = MessageReader::requests().next(&mut &long[..12]).map(|message| message.is_some());
        assert_eq!(result, Err(DecodeError::TooManyFrames { frames_max: 1 }));
        // Claims are exempt from this limit.
        let claims = encode(MessageHead::request(7, Operation::Link(LinkOperation::Claim)), &pattern(2049));
        assert!(MessageReader::requests().next(&mut claims.as_slice()).unwrap().is_some());
    }

    #[test]
    fn single_frame_message_bytes_round_trip() {
        let head = MessageHead::request(0x0102_0304, GET);
        let request = [0, 0x11, 0, 1, 0, 1, 2, 3, 4, 0, 1, 1, 0, 2, 0xaa, 0xbb];
        let response = [0, 0x11, 0, 1, 1, 1, 2, 3, 4, 0, 1, 1, 0, 1, 0x01];
        assert_eq!(encode(head, &[0xaa, 0xbb]), request);
        assert_eq!(encode(head.response(), &[1]), response);
        let stream = [request.as_slice(), &response].concat();
        let mut input = stream.as_slice();
        let mut reader = MessageReader::new(None);
        let first = reader.next(&mut input).unwrap().unwrap();
        assert_eq!(first, MessageRef { head, data: &[0xaa, 0xbb] });
        let second = reader.next(&mut input).unwrap().unwrap();
        assert_eq!(second, MessageRef { head: head.response(), data: &[1] });
        assert_eq!(reader.next(&mut input), Ok(None));
        assert!(input.is_empty());
    }

    #[test]
    fn three_frame_message_bytes_round_trip() {
        let data = pattern(2 * 2048 + 1);
        let expected = [
            &[0, 0x11, 0, 1, 0, 0, 0, 0, 9, 0, 1, 0, 8, 0],
            &data[..2048],
            &[0, 0x11, 0, 1, 0, 0, 0, 0, 9, 0, 1, 0, 8, 0],
            &data[2048..4096],
            &[0, 0x11, 0, 1, 0, 0, 0, 0, 9, 0, 1, 1, 0, 1],
            &data[4096..],
        ]
        .concat();
        let head = MessageHead::request(9, GET);
        assert_eq!(encode(head, &data), expected);
        let mut reader = MessageReader::new(None);
        let mut input = &expected[..expected.len() - 1];
        assert_eq!(reader.next(&mut input), Ok(None));
        assert_eq!(input.len(), 14, "only the start of the last frame is left to the caller");
        assert!(reader.is_inside_message());
        let mut input = &expected[expected.len() - 15..];
        assert_eq!(reader.next(&mut input), Ok(Some(MessageRef { head, data: &data })));
        assert!(!reader.is_inside_message());
    }

    #[test]
    fn data_lengths_around_full_frames_round_trip() {
        let lengths = (0..=16).flat_map(|k: usize| (k * 2048).saturating_sub(3)..=k * 2048 + 3);
        for len in lengths.filter(|len| *len <= SESSION_MESSAGE_BYTES_MAX) {
            let data = pattern(len);
            let head = MessageHead::request(len as u32, GET);
            // Not at the start of the output, and in pieces.
            let mut out = vec![0xee; 5];
            let writer = MessageWriter::begin(&mut out, head);
            for piece in data.chunks(700) {
                out.extend_from_slice(piece);
            }
            writer.finish(&mut out);
            assert_eq!(out[..5], [0xee; 5]);
            let frames = len.div_ceil(2048).max(1);
            assert_eq!(out.len(), 5 + len + 14 * frames);
            let mut input = &out[5..];
            let mut reader = MessageReader::default();
            assert_eq!(reader.next(&mut input), Ok(Some(MessageRef { head, data: &data })));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn message_of_maximum_length_round_trips() {
        for (operation, len) in [(GET, SESSION_MESSAGE_BYTES_MAX), (STATS, LINK_FRAMES_MAX * 2048)] {
            let data = pattern(len);
            let head = MessageHead::request(1, operation);
            let out = encode(head, &data);
            let mut reader = MessageReader::default();
            let message = reader.next(&mut out.as_slice()).unwrap().unwrap();
            assert!(message.head == head && message.data == data);
        }
    }

    #[test]
    #[should_panic(expected = "32769 bytes exceed the maximum length of a message")]
    fn message_beyond_maximum_length_panics() {
        encode(MessageHead::request(1, GET), &pattern(SESSION_MESSAGE_BYTES_MAX + 1));
    }

    #[test]
    fn continuation_in_other_direction_is_an_error() {
        let out = encode(MessageHead::request(1, GET), &pattern(2049));
        let mut reversed = out.clone();
        reversed[14 + 2048 + 4] = 1;
        let mut reader = MessageReader::new(None);
        let error = reader.next(&mut reversed.as_slice()).unwrap_err();
        assert_eq!(error, DecodeError::Continuation { field: "is_response", offset: 4 });
    }

    #[test]
    fn frames_of_a_message_may_differ_in_patch_level() {
        let data = pattern(2049);
        let mut out = encode(MessageHead::request(1, GET), &data);
        out[14 + 2048 + 3] = 0;
        let mut reader = MessageReader::new(None);
        let message = reader.next(&mut out.as_slice()).unwrap().unwrap();
        assert_eq!(message.head.patch_level, 1, "the first frame's level");
        assert_eq!(message.data, data);
    }

    #[test]
    fn reclaim_frees_memory_of_long_message() {
        let out = encode(MessageHead::request(1, GET), &pattern(2049));
        let mut reader = MessageReader::new(None);
        assert!(reader.next(&mut out.as_slice()).unwrap().is_some());
        assert!(reader.partial.is_some());
        reader.reclaim();
        assert!(reader.partial.is_none());
        assert_eq!(reader.next(&mut &out[..2062]), Ok(None));
        reader.reclaim();
        assert!(reader.is_inside_message(), "an incomplete message is kept");
    }
}
