//! Messages: one to sixteen frames (4,096 in classes 1 and 2) that share their head.
//!
//! Every frame but the last carries exactly 2048 bytes; the last one carries the rest, which is 2048 too
//! when the data fills it. Frames of two messages never interleave in one direction.
//!
//! Reading never panics and never takes more memory than twice the bytes that came. Writing panics when the
//! data is longer than a message may be, which is for the caller to know.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::{Direction, Expected, FrameHeader, MessageHead};

/// A whole message, its data where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// What it is about.
    pub head: MessageHead,
    /// The data of all its frames.
    pub data: &'a [u8],
}

/// A whole message of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub head: MessageHead,
    /// The data of all its frames.
    pub data: Vec<u8>,
}

impl Message {
    /// The message, its data where it lies.
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

/// Puts messages together from a stream of bytes.
///
/// The data of a message of one frame is lent from the input; that of a longer one is gathered here, so
/// that the caller never keeps more than one unfinished frame.
#[derive(Debug, Default)]
pub struct MessageReader {
    direction: Option<Direction>,
    link: bool,
    requests: bool,
    gathered: Option<Box<PartialMessage>>,
}

/// The frames of a long message that came so far.
#[derive(Debug)]
struct PartialMessage {
    head: MessageHead,
    frames: usize,
    data: Vec<u8>,
    whole: bool,
}

impl MessageReader {
    /// A reader of messages that all go in `direction`; `None` takes both.
    #[must_use]
    pub const fn new(direction: Option<Direction>) -> Self {
        Self { direction, link: false, requests: false, gathered: None }
    }

    /// A reader of one end of a link, where messages go in `direction` but for the link's own operations
    /// that both ends ask for: PING and GOAWAY.
    #[must_use]
    pub const fn link(direction: Direction) -> Self {
        Self { direction: Some(direction), link: true, requests: false, gathered: None }
    }

    /// A reader of requests from anybody: those of classes 1 and 2 that are longer than there is a use for are
    /// refused before they are gathered.
    #[must_use]
    pub const fn requests() -> Self {
        Self { direction: Some(Direction::Request), link: false, requests: true, gathered: None }
    }

    /// A reader of the server's end of a connection: as [`requests`](Self::requests), and the answers to its pings.
    #[must_use]
    pub const fn server() -> Self {
        Self { direction: Some(Direction::Request), link: true, requests: true, gathered: None }
    }

    /// The next whole message. `input` moves past every frame that was used; `Ok(None)` says that what is
    /// left of it is the beginning of a frame, to be given again with more behind it.
    ///
    /// # Errors
    /// [`DecodeError`] at the first byte that can't be right; `input` begins with the frame it is in. The
    /// reader is of no more use then.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<MessageRef<'s>>, DecodeError> {
        self.reclaim();
        if self.gathered.is_none()
            && let Some((message, rest)) = self.whole_frame(input)
        {
            *input = rest;
            return Ok(Some(message));
        }
        self.gather(input)
    }

    /// Whether some frames of an unfinished message have been used.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.gathered.as_ref().is_some_and(|gathered| !gathered.whole)
    }

    /// Gives back the memory of a long message that has been lent out.
    #[inline]
    pub fn reclaim(&mut self) {
        if self.gathered.as_ref().is_some_and(|gathered| gathered.whole) {
            self.gathered = None;
        }
    }

    /// The way of nearly all messages: one frame, right, and all of it there.
    #[inline]
    fn whole_frame<'i>(&self, input: &'i [u8]) -> Option<(MessageRef<'i>, &'i [u8])> {
        let header = FrameHeader::parse_right(input, &self.expected(None))?;
        if !header.complete {
            return None;
        }
        let (data, rest) = input[FRAME_HEADER_BYTES..].split_at_checked(header.data_len.into())?;
        Some((MessageRef { head: header.head, data }, rest))
    }

    /// The way of all others: takes what frames are there, until one completes the message.
    #[inline(never)]
    fn gather<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<MessageRef<'s>>, DecodeError> {
        while let Some(header) = FrameHeader::parse(input, &self.expected(self.gathered.as_deref()))? {
            let end = FRAME_HEADER_BYTES + usize::from(header.data_len);
            let Some((frame, rest)) = input.split_at_checked(end) else {
                return Ok(None);
            };
            *input = rest;
            let gathered = self.gathered.get_or_insert_with(|| PartialMessage::begin(header.head));
            gathered.frames += 1;
            gathered.data.extend_from_slice(&frame[FRAME_HEADER_BYTES..]);
            if header.complete {
                gathered.whole = true;
                break;
            }
        }
        Ok(match self.gathered.as_deref() {
            Some(PartialMessage { head, data, whole: true, .. }) => Some(MessageRef { head: *head, data }),
            _ => None,
        })
    }

    #[inline]
    fn expected(&self, gathered: Option<&PartialMessage>) -> Expected {
        Expected {
            direction: self.direction,
            link: self.link,
            requests: self.requests,
            continues: gathered.map(|gathered| gathered.head),
            frames: gathered.map_or(0, |gathered| gathered.frames),
        }
    }
}

impl PartialMessage {
    fn begin(head: MessageHead) -> Box<Self> {
        Box::new(Self { head, frames: 0, data: Vec::new(), whole: false })
    }
}

/// Appends a message to `out`.
///
/// # Panics
/// If `data` is longer than a message about this operation may be.
#[inline]
pub fn write_message(out: &mut Vec<u8>, head: MessageHead, data: &[u8]) {
    let writer = MessageWriter::begin(out, head);
    out.extend_from_slice(data);
    writer.finish(out);
}

/// Writes a message whose data is appended to the output piece by piece.
#[derive(Debug)]
#[must_use = "a message that is not finished has a wrong length"]
pub struct MessageWriter {
    head: MessageHead,
    start: usize,
}

impl MessageWriter {
    /// Begins a message at the end of `out`. The data is appended to `out` then.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, head: MessageHead) -> Self {
        let start = out.len();
        out.extend_from_slice(&FrameHeader { head, complete: true, data_len: 0 }.to_bytes());
        Self { head, start }
    }

    /// Ends the message: all that was appended since [`begin`](Self::begin) is its data.
    ///
    /// # Panics
    /// If that is more than a message about this operation may have.
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

    /// Makes frames of the `len` bytes from `data_start` on, more than fit one.
    fn split(self, out: &mut Vec<u8>, data_start: usize, len: usize) {
        let frames = len.div_ceil(FRAME_DATA_BYTES_MAX);
        let frames_max = self.head.operation.frames_max();
        assert!(frames <= frames_max, "{len} bytes are too long for a message");
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

    fn written(head: MessageHead, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(&mut out, head, data);
        out
    }

    /// Bytes that differ from place to place.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn a_long_request_is_refused_when_its_first_frame_says_so() {
        let head = MessageHead::request(7, STATS);
        let right = written(head, &pattern(2048));
        assert!(MessageReader::requests().next(&mut right.as_slice()).unwrap().is_some());
        let long = written(head, &pattern(2049));
        let result = MessageReader::requests().next(&mut &long[..12]).map(|message| message.is_some());
        assert_eq!(result, Err(DecodeError::TooManyFrames { frames_max: 1 }));
        // Claims are the exception.
        let claims = written(MessageHead::request(7, Operation::Link(LinkOperation::Claim)), &pattern(2049));
        assert!(MessageReader::requests().next(&mut claims.as_slice()).unwrap().is_some());
    }

    #[test]
    fn messages_of_one_frame_are_these_bytes() {
        let head = MessageHead::request(0x0102_0304, GET);
        let request = [0, 0x11, 0, 1, 0, 1, 2, 3, 4, 0, 1, 1, 0, 2, 0xaa, 0xbb];
        let response = [0, 0x11, 0, 1, 1, 1, 2, 3, 4, 0, 1, 1, 0, 1, 0x01];
        assert_eq!(written(head, &[0xaa, 0xbb]), request);
        assert_eq!(written(head.response(), &[1]), response);
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
    fn a_message_of_three_frames_is_these_bytes() {
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
        assert_eq!(written(head, &data), expected);
        let mut reader = MessageReader::new(None);
        let mut input = &expected[..expected.len() - 1];
        assert_eq!(reader.next(&mut input), Ok(None));
        assert_eq!(input.len(), 14, "only the beginning of the last frame is left to the caller");
        assert!(reader.is_inside_message());
        let mut input = &expected[expected.len() - 15..];
        assert_eq!(reader.next(&mut input), Ok(Some(MessageRef { head, data: &data })));
        assert!(!reader.is_inside_message());
    }

    #[test]
    fn data_of_every_length_about_a_full_frame_comes_back() {
        let lengths = (0..=16).flat_map(|k: usize| (k * 2048).saturating_sub(3)..=k * 2048 + 3);
        for len in lengths.filter(|len| *len <= SESSION_MESSAGE_BYTES_MAX) {
            let data = pattern(len);
            let head = MessageHead::request(len as u32, GET);
            // Not at the beginning of the output, and by pieces.
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
    fn a_message_as_long_as_its_class_allows_comes_back() {
        for (operation, len) in [(GET, SESSION_MESSAGE_BYTES_MAX), (STATS, LINK_FRAMES_MAX * 2048)] {
            let data = pattern(len);
            let head = MessageHead::request(1, operation);
            let out = written(head, &data);
            let mut reader = MessageReader::default();
            let message = reader.next(&mut out.as_slice()).unwrap().unwrap();
            assert!(message.head == head && message.data == data);
        }
    }

    #[test]
    #[should_panic(expected = "32769 bytes are too long for a message")]
    fn a_message_longer_than_its_class_allows_is_not_written() {
        written(MessageHead::request(1, GET), &pattern(SESSION_MESSAGE_BYTES_MAX + 1));
    }

    #[test]
    fn an_unfinished_message_does_not_continue_the_other_way() {
        let out = written(MessageHead::request(1, GET), &pattern(2049));
        let mut turned = out.clone();
        turned[14 + 2048 + 4] = 1;
        let mut reader = MessageReader::new(None);
        let corruption = reader.next(&mut turned.as_slice()).unwrap_err();
        assert_eq!(corruption, DecodeError::Continuation { field: "is_response", offset: 4 });
    }

    #[test]
    fn the_frames_may_differ_in_their_patch_level() {
        let data = pattern(2049);
        let mut out = written(MessageHead::request(1, GET), &data);
        out[14 + 2048 + 3] = 0;
        let mut reader = MessageReader::new(None);
        let message = reader.next(&mut out.as_slice()).unwrap().unwrap();
        assert_eq!(message.head.patch_level, 1, "that of the first");
        assert_eq!(message.data, data);
    }

    #[test]
    fn the_memory_of_a_long_message_is_given_back() {
        let out = written(MessageHead::request(1, GET), &pattern(2049));
        let mut reader = MessageReader::new(None);
        assert!(reader.next(&mut out.as_slice()).unwrap().is_some());
        assert!(reader.gathered.is_some());
        reader.reclaim();
        assert!(reader.gathered.is_none());
        assert_eq!(reader.next(&mut &out[..2062]), Ok(None));
        reader.reclaim();
        assert!(reader.is_inside_message(), "an unfinished one is kept");
    }
}
