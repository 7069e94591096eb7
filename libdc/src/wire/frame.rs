//! Frames: a header of 14 bytes and a piece of a message.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | protocol level: version 0x0011, then the sender's patch level |
//! | 4 | 1 | 0 request, 1 response |
//! | 5 | 4 | uid, chosen by the requester |
//! | 9 | 1 | class of the operation: 0 sessions, 1 locks, 2 link |
//! | 10 | 1 | operation |
//! | 11 | 1 | 1 last frame of the message, 0 more follow |
//! | 12 | 2 | length of the data, at most 2048 |
//! | 14 | | data |
//!
//! Numbers are big-endian. The format is that of distcache 1.x, which sends patch level 0 and implements
//! class 0 only; we send 1. A wrong byte is reported when it arrives, before the header is complete.
//!
//! Nothing here panics.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};

pub use crate::wire::decode_error::DecodeError;
pub use crate::wire::operation::{Direction, LinkOperation, LockOperation, Operation, SessionOperation};

/// The version of the protocol, the upper half of the protocol level.
pub const VERSION: u16 = 0x0011;
/// The patch level that we send. Level 1 means that classes 1 and 2 are understood.
pub const PATCH_LEVEL: u16 = 1;

/// The high byte of a full frame's length; the low byte is 0.
const FULL_HIGH: u8 = (FRAME_DATA_BYTES_MAX >> 8) as u8;
const _: () = assert!(FRAME_DATA_BYTES_MAX == (FULL_HIGH as usize) << 8, "the low byte is 0");

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The fields that all frames of the message share.
    pub head: MessageHead,
    /// Whether this is the last frame of the message.
    pub complete: bool,
    /// Bytes of data after the header, at most 2048.
    pub data_len: u16,
}

impl FrameHeader {
    /// Parses a header at the start of `input`. `Ok(None)`: it is incomplete, and valid so far.
    ///
    /// # Errors
    /// [`DecodeError`] as soon as one received byte cannot be valid, however few bytes there are.
    pub fn parse(input: &[u8], expected: &Expected) -> Result<Option<Self>, DecodeError> {
        Self::check(input, expected)
    }

    /// Parses a header that is complete and valid. Otherwise `None`, and [`parse`](Self::parse) gives the
    /// reason.
    ///
    /// The checks are the same, but compiled for a known length and without an error value to carry.
    #[inline]
    pub(super) fn parse_right(input: &[u8], expected: &Expected) -> Option<Self> {
        let whole = input.first_chunk::<FRAME_HEADER_BYTES>()?;
        Self::check(whole, expected).ok().flatten()
    }

    /// Encodes the header as its 14 bytes.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let (class, number) = self.head.operation.to_wire();
        let [v0, v1] = VERSION.to_be_bytes();
        let [p0, p1] = self.head.patch_level.to_be_bytes();
        let [u0, u1, u2, u3] = self.head.uid.to_be_bytes();
        let [l0, l1] = self.data_len.to_be_bytes();
        let is_response = self.head.direction as u8;
        [v0, v1, p0, p1, is_response, u0, u1, u2, u3, class, number, self.complete as u8, l0, l1]
    }

    /// Checks the fields in byte order, as far as bytes were received.
    #[inline(always)]
    fn check(input: &[u8], expected: &Expected) -> Result<Option<Self>, DecodeError> {
        let Some(patch_level) = check_level(input, expected)? else { return Ok(None) };
        let Some(direction) = check_direction(input, patch_level, expected)? else { return Ok(None) };
        let Some(uid) = check_uid(input, expected)? else { return Ok(None) };
        let Some(operation) = check_operation(input, patch_level, direction, expected)? else {
            return Ok(None);
        };
        let Some(complete) = check_complete(input, operation, expected)? else { return Ok(None) };
        let Some(data_len) = check_data_len(input, complete)? else { return Ok(None) };
        Ok(Some(Self { head: MessageHead { patch_level, direction, uid, operation }, complete, data_len }))
    }
}

/// The fields that all frames of a message share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageHead {
    /// The sender's patch level. The frames of a message may differ in it, but it is never 0 in class 1 or 2.
    /// This is the first frame's.
    pub patch_level: u16,
    /// Whether it is a request or a response.
    pub direction: Direction,
    /// Matches a response to its request.
    pub uid: u32,
    /// Class and number of the operation.
    pub operation: Operation,
}

impl MessageHead {
    /// The head of a request that we send.
    #[inline]
    #[must_use]
    pub const fn request(uid: u32, operation: Operation) -> Self {
        Self { patch_level: PATCH_LEVEL, direction: Direction::Request, uid, operation }
    }

    /// The head of our response to a request that has this head.
    #[inline]
    #[must_use]
    pub const fn response(self) -> Self {
        Self { patch_level: PATCH_LEVEL, direction: Direction::Response, ..self }
    }
}

/// The constraints that the next frame of a stream must satisfy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The only direction allowed; `None` allows both.
    pub direction: Option<Direction>,
    /// Whether PING and GOAWAY, which the server may also send as requests, are exempt from `direction`.
    pub link: bool,
    /// Whether the stream carries requests only, whose length is limited by their operation.
    pub requests: bool,
    /// The head of the message that the frame continues, if any.
    pub continues: Option<MessageHead>,
    /// The number of frames of that message already received.
    pub frames: usize,
}

impl Expected {
    #[inline(always)]
    fn is_opposed_by(&self, direction: Direction) -> bool {
        self.direction.is_some_and(|only| only != direction)
    }
}

/// Bytes 0 to 3.
#[inline(always)]
fn check_level(input: &[u8], expected: &Expected) -> Result<Option<u16>, DecodeError> {
    for (offset, valid) in VERSION.to_be_bytes().into_iter().enumerate() {
        match input.get(offset) {
            Some(byte) if *byte == valid => {}
            Some(byte) => return Err(DecodeError::Version { offset, byte: *byte }),
            None => return Ok(None),
        }
    }
    let Some(level) = input.get(2..4) else { return Ok(None) };
    let patch_level = u16::from_be_bytes([level[0], level[1]]);
    let is_extension =
        expected.continues.is_some_and(|first| !matches!(first.operation, Operation::Session(_)));
    if is_extension && patch_level == 0 {
        // The class is known from the first frame, so the error is detected before byte 9 arrives.
        return Err(DecodeError::Continuation { field: "patch level", offset: 3 });
    }
    Ok(Some(patch_level))
}

/// Byte 4.
#[inline(always)]
fn check_direction(
    input: &[u8],
    patch_level: u16,
    expected: &Expected,
) -> Result<Option<Direction>, DecodeError> {
    let direction = match input.get(4) {
        None => return Ok(None),
        Some(0) => Direction::Request,
        Some(1) => Direction::Response,
        Some(value) => return Err(DecodeError::IsResponse { value: *value }),
    };
    if let Some(first) = &expected.continues {
        // The first frame's direction was checked, so only a different one is an error.
        if first.direction != direction {
            return Err(DecodeError::Continuation { field: "is_response", offset: 4 });
        }
    } else if expected.is_opposed_by(direction) && !(expected.link && patch_level > 0) {
        return Err(DecodeError::Direction { direction, offset: 4 });
    }
    Ok(Some(direction))
}

/// Bytes 5 to 8.
#[inline(always)]
fn check_uid(input: &[u8], expected: &Expected) -> Result<Option<u32>, DecodeError> {
    if let Some(first) = &expected.continues {
        let differs = input
            .iter()
            .skip(5)
            .zip(first.uid.to_be_bytes())
            .position(|(actual, expected)| *actual != expected);
        if let Some(index) = differs {
            return Err(DecodeError::Continuation { field: "uid", offset: 5 + index });
        }
    }
    Ok(input.get(5..9).map(|uid| u32::from_be_bytes([uid[0], uid[1], uid[2], uid[3]])))
}

/// Bytes 9 and 10.
#[inline(always)]
fn check_operation(
    input: &[u8],
    patch_level: u16,
    direction: Direction,
    expected: &Expected,
) -> Result<Option<Operation>, DecodeError> {
    let Some(&class) = input.get(9) else { return Ok(None) };
    if class > 2 || (class > 0 && patch_level == 0) {
        return Err(DecodeError::Class { class, patch_level });
    }
    let first = expected.continues.map(|first| first.operation);
    if first.is_some_and(|first| first.to_wire().0 != class) {
        return Err(DecodeError::Continuation { field: "class", offset: 9 });
    }
    let opposed = expected.is_opposed_by(direction);
    if opposed && class != 2 {
        return Err(DecodeError::Direction { direction, offset: 9 });
    }
    let Some(&number) = input.get(10) else { return Ok(None) };
    let Some(operation) = Operation::from_wire(class, number) else {
        return Err(DecodeError::Operation { class, operation: number });
    };
    if first.is_some_and(|first| first != operation) {
        return Err(DecodeError::Continuation { field: "operation", offset: 10 });
    }
    if opposed && !matches!(operation, Operation::Link(LinkOperation::Ping | LinkOperation::GoAway)) {
        return Err(DecodeError::Direction { direction, offset: 10 });
    }
    Ok(Some(operation))
}

/// Byte 11.
#[inline(always)]
fn check_complete(
    input: &[u8],
    operation: Operation,
    expected: &Expected,
) -> Result<Option<bool>, DecodeError> {
    match input.get(11) {
        None => Ok(None),
        Some(1) => Ok(Some(true)),
        Some(0) => {
            let frames_max =
                if expected.requests { operation.request_frames_max() } else { operation.frames_max() };
            // This frame announces another one after it.
            if expected.frames + 1 < frames_max {
                Ok(Some(false))
            } else {
                Err(DecodeError::TooManyFrames { frames_max })
            }
        }
        Some(value) => Err(DecodeError::Complete { value: *value }),
    }
}

/// Bytes 12 and 13.
#[inline(always)]
fn check_data_len(input: &[u8], complete: bool) -> Result<Option<u16>, DecodeError> {
    let Some(&high) = input.get(12) else { return Ok(None) };
    if high > FULL_HIGH {
        return Err(DecodeError::LongFrame { offset: 12 });
    }
    if !complete && high < FULL_HIGH {
        return Err(DecodeError::ShortFrame);
    }
    let Some(&low) = input.get(13) else { return Ok(None) };
    if high == FULL_HIGH && low > 0 {
        return Err(DecodeError::LongFrame { offset: 13 });
    }
    Ok(Some(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Operation = Operation::Session(SessionOperation::Get);

    /// A GET with 32 bytes of data.
    const REQUEST: [u8; 14] = [0, 0x11, 0, 1, 0, 0x01, 0x02, 0x03, 0x04, 0, 1, 1, 0, 32];
    /// The first frame of a long answer of a distcache 1.x server.
    const LONG: [u8; 14] = [0, 0x11, 0, 0, 1, 0xff, 0xfe, 0xfd, 0xfc, 0, 1, 0, 8, 0];
    /// The first frame of a CLAIM, sent at patch level 0x0203.
    const CLAIM: [u8; 14] = [0, 0x11, 2, 3, 0, 0, 0, 0, 0, 2, 1, 0, 8, 0];

    fn fresh(input: &[u8]) -> Result<Option<FrameHeader>, DecodeError> {
        FrameHeader::parse(input, &Expected::default())
    }

    /// `header` with byte `offset` set to `byte`.
    fn with(header: [u8; 14], offset: usize, byte: u8) -> [u8; 14] {
        let mut changed = header;
        changed[offset] = byte;
        changed
    }

    #[test]
    fn header_bytes_round_trip() {
        let request = MessageHead::request(0x0102_0304, GET);
        let response = MessageHead { uid: 0xfffe_fdfc, patch_level: 0, ..request.response() };
        let claim = MessageHead {
            patch_level: 0x0203,
            ..MessageHead::request(0, Operation::Link(LinkOperation::Claim))
        };
        for (bytes, head, complete, data_len) in
            [(REQUEST, request, true, 32), (LONG, response, false, 2048), (CLAIM, claim, false, 2048)]
        {
            let header = FrameHeader { head, complete, data_len };
            assert_eq!(fresh(&bytes), Ok(Some(header)));
            assert_eq!(FrameHeader::parse_right(&bytes, &Expected::default()), Some(header));
            assert_eq!(header.to_bytes(), bytes);
            for len in 0..14 {
                assert_eq!(fresh(&bytes[..len]), Ok(None));
                assert_eq!(FrameHeader::parse_right(&bytes[..len], &Expected::default()), None);
            }
        }
    }

    #[test]
    fn wrong_field_error_names_field() {
        let cases = [
            (with(REQUEST, 0, 0x47), "byte 0 is 0x47: not version 0x0011"),
            (with(REQUEST, 1, 0x10), "byte 1 is 0x10: not version 0x0011"),
            (with(REQUEST, 4, 2), "is_response is 2, not 0 or 1"),
            (with(REQUEST, 9, 3), "class 3 is unknown at patch level 1"),
            (with(LONG, 9, 1), "class 1 is unknown at patch level 0"),
            (with(REQUEST, 10, 4), "class 0 has no operation 4"),
            (with(CLAIM, 10, 7), "class 2 has no operation 7"),
            (with(REQUEST, 11, 2), "complete is 2, not 0 or 1"),
            (with(REQUEST, 11, 0), "an incomplete frame with less than 2048 bytes of data"),
            (with(REQUEST, 12, 8), "a frame with more than 2048 bytes of data"),
            (with(LONG, 13, 1), "a frame with more than 2048 bytes of data"),
            (with(LONG, 12, 9), "a frame with more than 2048 bytes of data"),
        ];
        for (bytes, text) in cases {
            assert_eq!(fresh(&bytes).unwrap_err().to_string(), text);
            assert_eq!(FrameHeader::parse_right(&bytes, &Expected::default()), None);
        }
    }

    #[test]
    fn continuation_frame_must_match_first() {
        let first = fresh(&LONG).unwrap().unwrap().head;
        let expected = Expected { continues: Some(first), frames: 1, ..Expected::default() };
        let cases = [
            (4, 0, "is_response"),
            (5, 0, "uid"),
            (6, 0, "uid"),
            (7, 0, "uid"),
            (8, 0, "uid"),
            (10, 2, "operation"),
        ];
        for (offset, byte, field) in cases {
            let error = FrameHeader::parse(&with(LONG, offset, byte), &expected);
            assert_eq!(error, Err(DecodeError::Continuation { field, offset }));
        }
        let other_patch_level = with(LONG, 3, 7);
        assert!(
            FrameHeader::parse(&other_patch_level, &expected).is_ok(),
            "frames do not share the patch level"
        );
        let other_class = with(other_patch_level, 9, 2);
        let error = FrameHeader::parse(&other_class, &expected);
        assert_eq!(error, Err(DecodeError::Continuation { field: "class", offset: 9 }));
        let first = fresh(&CLAIM).unwrap().unwrap().head;
        let claims = Expected { continues: Some(first), frames: 1, ..Expected::default() };
        let error = FrameHeader::parse(&with(with(CLAIM, 2, 0), 3, 0)[..4], &claims);
        assert_eq!(error, Err(DecodeError::Continuation { field: "patch level", offset: 3 }));
        // The class is wrong first, although that class has no such operation either.
        let error = FrameHeader::parse(&with(other_class, 10, 9), &expected);
        assert_eq!(error, Err(DecodeError::Continuation { field: "class", offset: 9 }));
    }

    #[test]
    fn last_allowed_frame_must_be_complete() {
        for (bytes, frames_max) in [(LONG, 16), (CLAIM, 4096)] {
            let first = fresh(&bytes).unwrap().unwrap().head;
            let mut expected =
                Expected { continues: Some(first), frames: frames_max - 2, ..Expected::default() };
            assert!(FrameHeader::parse(&bytes, &expected).is_ok());
            expected.frames += 1;
            assert_eq!(FrameHeader::parse(&bytes[..11], &expected), Ok(None));
            let error = FrameHeader::parse(&bytes[..12], &expected);
            assert_eq!(error, Err(DecodeError::TooManyFrames { frames_max }));
            assert!(FrameHeader::parse(&with(bytes, 11, 1), &expected).is_ok());
        }
    }

    #[test]
    fn wrong_direction_is_detected_at_byte_four() {
        for (bytes, only) in [(REQUEST, Direction::Response), (LONG, Direction::Request)] {
            let expected = Expected { direction: Some(only), ..Expected::default() };
            assert_eq!(FrameHeader::parse(&bytes[..4], &expected), Ok(None));
            let error = DecodeError::Direction { direction: only.opposite(), offset: 4 };
            assert_eq!(FrameHeader::parse(&bytes[..5], &expected), Err(error));
        }
    }

    #[test]
    fn ping_and_goaway_go_both_ways_on_a_link() {
        let expected = Expected { direction: Some(Direction::Response), link: true, ..Expected::default() };
        let assert_misdirected = |bytes: [u8; 14], offset: usize| {
            let direction = Direction::Request;
            assert_eq!(FrameHeader::parse(&bytes[..offset], &expected), Ok(None));
            let error = FrameHeader::parse(&bytes[..=offset], &expected).unwrap_err();
            assert_eq!(error, DecodeError::Direction { direction, offset });
            assert_eq!(error.to_string(), "a request in the wrong direction");
        };
        assert_misdirected(with(REQUEST, 3, 0), 4);
        assert_misdirected(REQUEST, 9);
        assert_misdirected(CLAIM, 10);
        for operation in [LinkOperation::Ping, LinkOperation::GoAway] {
            let bytes = with(CLAIM, 10, operation as u8);
            assert!(FrameHeader::parse(&bytes, &expected).unwrap().is_some());
        }
    }
}
