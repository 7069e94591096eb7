//! Frames: the 14 bytes before every piece of a message.
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
//! Numbers are big-endian. The format is that of distcache 1.x, which sends patch level 0 and knows
//! class 0 only; we send 1. A wrong byte is reported when it arrives, not when the header is whole.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES, LINK_FRAMES_MAX, SESSION_FRAMES_MAX};
use thiserror::Error;

/// The version of the protocol, the upper half of the protocol level.
pub const VERSION: u16 = 0x0011;
/// The patch level we send: 1, which says that classes 1 and 2 are understood.
pub const PATCH_LEVEL: u16 = 1;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From who asks to who answers.
    Request,
    /// Back.
    Response,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}

/// An operation on a session (class 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionOperation {
    /// Store a session.
    Add = 0,
    /// Fetch a session.
    Get = 1,
    /// Forget a session.
    Remove = 2,
    /// Ask whether a session is there.
    Have = 3,
}

/// An operation on a lock (class 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOperation {
    /// Take a lock, waiting for it.
    Acquire = 0,
    /// Take a place in the queue of a lock.
    Enqueue = 1,
    /// Wait for the place to become the lock.
    Wait = 2,
    /// Give a lock back.
    Release = 3,
    /// Extend a lease.
    Renew = 4,
    /// Give up a blocked request.
    Cancel = 5,
    /// Ask for the state of the table.
    Stats = 6,
}

/// An operation on the link itself (class 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkOperation {
    /// Open or resume a link.
    Hello = 0,
    /// Claim what local connections still hold.
    Claim = 1,
    /// The claims are complete.
    Open = 2,
    /// Are you there?
    Ping = 3,
    /// A local connection is gone.
    Detach = 4,
    /// The orderly end of the link.
    Bye = 5,
    /// The server asks to reconnect.
    GoAway = 6,
}

/// What a message is about: bytes 9 and 10 of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Class 0.
    Session(SessionOperation),
    /// Class 1.
    Lock(LockOperation),
    /// Class 2.
    Link(LinkOperation),
}

impl Operation {
    /// The operation of class `class` with number `number`; `None` if there is none.
    #[must_use]
    pub const fn from_wire(class: u8, number: u8) -> Option<Self> {
        Some(match (class, number) {
            (0, 0) => Self::Session(SessionOperation::Add),
            (0, 1) => Self::Session(SessionOperation::Get),
            (0, 2) => Self::Session(SessionOperation::Remove),
            (0, 3) => Self::Session(SessionOperation::Have),
            (1, 0) => Self::Lock(LockOperation::Acquire),
            (1, 1) => Self::Lock(LockOperation::Enqueue),
            (1, 2) => Self::Lock(LockOperation::Wait),
            (1, 3) => Self::Lock(LockOperation::Release),
            (1, 4) => Self::Lock(LockOperation::Renew),
            (1, 5) => Self::Lock(LockOperation::Cancel),
            (1, 6) => Self::Lock(LockOperation::Stats),
            (2, 0) => Self::Link(LinkOperation::Hello),
            (2, 1) => Self::Link(LinkOperation::Claim),
            (2, 2) => Self::Link(LinkOperation::Open),
            (2, 3) => Self::Link(LinkOperation::Ping),
            (2, 4) => Self::Link(LinkOperation::Detach),
            (2, 5) => Self::Link(LinkOperation::Bye),
            (2, 6) => Self::Link(LinkOperation::GoAway),
            _ => return None,
        })
    }

    /// Class and number.
    #[must_use]
    pub const fn to_wire(self) -> (u8, u8) {
        match self {
            Self::Session(operation) => (0, operation as u8),
            Self::Lock(operation) => (1, operation as u8),
            Self::Link(operation) => (2, operation as u8),
        }
    }

    /// The name, as the documents write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session(SessionOperation::Add) => "ADD",
            Self::Session(SessionOperation::Get) => "GET",
            Self::Session(SessionOperation::Remove) => "REMOVE",
            Self::Session(SessionOperation::Have) => "HAVE",
            Self::Lock(LockOperation::Acquire) => "ACQUIRE",
            Self::Lock(LockOperation::Enqueue) => "ENQUEUE",
            Self::Lock(LockOperation::Wait) => "WAIT",
            Self::Lock(LockOperation::Release) => "RELEASE",
            Self::Lock(LockOperation::Renew) => "RENEW",
            Self::Lock(LockOperation::Cancel) => "CANCEL",
            Self::Lock(LockOperation::Stats) => "STATS",
            Self::Link(LinkOperation::Hello) => "HELLO",
            Self::Link(LinkOperation::Claim) => "CLAIM",
            Self::Link(LinkOperation::Open) => "OPEN",
            Self::Link(LinkOperation::Ping) => "PING",
            Self::Link(LinkOperation::Detach) => "DETACH",
            Self::Link(LinkOperation::Bye) => "BYE",
            Self::Link(LinkOperation::GoAway) => "GOAWAY",
        }
    }

    /// Most frames that a message about this operation may have.
    #[must_use]
    pub const fn frames_max(self) -> usize {
        match self {
            Self::Session(_) => SESSION_FRAMES_MAX,
            Self::Lock(_) | Self::Link(_) => LINK_FRAMES_MAX,
        }
    }
}

/// What every frame of a message has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageHead {
    /// The sender's patch level.
    pub patch_level: u16,
    /// Request or response.
    pub direction: Direction,
    /// Pairs a response with its request.
    pub uid: u32,
    /// What is asked or answered.
    pub operation: Operation,
}

impl MessageHead {
    /// The head of a request of ours.
    #[must_use]
    pub const fn request(uid: u32, operation: Operation) -> Self {
        Self { patch_level: PATCH_LEVEL, direction: Direction::Request, uid, operation }
    }

    /// The head of our response to a request with this head.
    #[must_use]
    pub const fn response(self) -> Self {
        Self { patch_level: PATCH_LEVEL, direction: Direction::Response, ..self }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What all frames of the message share.
    pub head: MessageHead,
    /// Whether this is the last frame of the message.
    pub complete: bool,
    /// Bytes of data behind the header.
    pub data_len: u16,
}

impl FrameHeader {
    /// Reads a header from the start of `input`. `Ok(None)`: it is not whole yet, and right so far.
    ///
    /// # Errors
    /// [`Corruption`] as soon as one byte that is there can't be right, however few they are.
    pub fn parse(input: &[u8], expected: &Expected) -> Result<Option<Self>, Corruption> {
        let Some(bytes) = input.first_chunk::<FRAME_HEADER_BYTES>() else {
            // Unknown bytes are taken as the ones that would be right, so only those that came can be wrong.
            let mut bytes = expected.plausible(input);
            let known = input.len();
            bytes[..known].copy_from_slice(input);
            return match Self::check(&bytes, expected) {
                Err(corruption) if corruption.offset() < known => Err(corruption),
                _ => Ok(None),
            };
        };
        Self::check(bytes, expected).map(Some)
    }

    /// Writes the header.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let (class, number) = self.head.operation.to_wire();
        let [v0, v1] = VERSION.to_be_bytes();
        let [p0, p1] = self.head.patch_level.to_be_bytes();
        let [u0, u1, u2, u3] = self.head.uid.to_be_bytes();
        let [l0, l1] = self.data_len.to_be_bytes();
        let is_response = u8::from(self.head.direction == Direction::Response);
        [v0, v1, p0, p1, is_response, u0, u1, u2, u3, class, number, u8::from(self.complete), l0, l1]
    }

    /// Checks field by field, in the order of the bytes.
    fn check(bytes: &[u8; FRAME_HEADER_BYTES], expected: &Expected) -> Result<Self, Corruption> {
        let version = u16::from_be_bytes([bytes[0], bytes[1]]);
        if version != VERSION {
            return Err(Corruption::Version { version, first_wrong: u8::from(bytes[0] == 0) });
        }
        let patch_level = u16::from_be_bytes([bytes[2], bytes[3]]);
        let direction = match bytes[4] {
            0 => Direction::Request,
            1 => Direction::Response,
            value => return Err(Corruption::IsResponse { value }),
        };
        if expected.direction.is_some_and(|it| it != direction) {
            return Err(Corruption::Direction { direction });
        }
        let uid = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        if let Some(first) = &expected.continues {
            let wrong = (0..4).find(|i| bytes[5 + i] != first.uid.to_be_bytes()[*i]);
            if let Some(place) = wrong {
                return Err(Corruption::Continuation { field: "uid", offset: 5 + place });
            }
        }
        let class = bytes[9];
        if class > 2 || (class > 0 && patch_level == 0) {
            return Err(Corruption::Class { class, patch_level });
        }
        let Some(operation) = Operation::from_wire(class, bytes[10]) else {
            return Err(Corruption::Operation { class, operation: bytes[10] });
        };
        if let Some(first) = &expected.continues
            && first.operation != operation
        {
            let other_class = first.operation.to_wire().0 != class;
            let (field, offset) = if other_class { ("class", 9) } else { ("operation", 10) };
            return Err(Corruption::Continuation { field, offset });
        }
        let complete = match bytes[11] {
            0 => false,
            1 => true,
            value => return Err(Corruption::Complete { value }),
        };
        if !complete && expected.frames + 1 >= operation.frames_max() {
            return Err(Corruption::TooManyFrames { frames_max: operation.frames_max() });
        }
        let data_len = u16::from_be_bytes([bytes[12], bytes[13]]);
        let too_long = usize::from(data_len) > FRAME_DATA_BYTES_MAX;
        if too_long || (!complete && usize::from(data_len) != FRAME_DATA_BYTES_MAX) {
            let [high, _] = (FRAME_DATA_BYTES_MAX as u16).to_be_bytes();
            let first_wrong = if bytes[12] > high || (!complete && bytes[12] != high) { 12 } else { 13 };
            return Err(Corruption::DataLength { data_len, complete, first_wrong });
        }
        Ok(Self { head: MessageHead { patch_level, direction, uid, operation }, complete, data_len })
    }
}

/// What the next frame of a stream must agree with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The only direction that may come, if only one may.
    pub direction: Option<Direction>,
    /// The head of the message that the frame continues, if it does.
    pub continues: Option<MessageHead>,
    /// Frames of that message that came before.
    pub frames: usize,
}

impl Expected {
    /// A header that is right as far as `input` leaves it open.
    fn plausible(&self, input: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
        let direction = self.direction.unwrap_or(Direction::Request);
        let mut head = self.continues.unwrap_or(MessageHead {
            patch_level: PATCH_LEVEL,
            direction,
            uid: 0,
            operation: Operation::Session(SessionOperation::Add),
        });
        // The classes allowed hang on the patch level, which may have come in part; both are read as they are.
        if let Some(operation) = input.get(9).and_then(|class| Operation::from_wire(*class, 0)) {
            head.operation = operation;
        }
        let complete = input.get(11) != Some(&0);
        FrameHeader { head, complete, data_len: if complete { 0 } else { FRAME_DATA_BYTES_MAX as u16 } }
            .to_bytes()
    }
}

/// Why a stream of frames can't be read on. The peer's fault, always; the connection is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Corruption {
    /// Bytes 0 and 1: not version 0x0011 of the protocol.
    #[error("version is {version:#06x}, not 0x0011")]
    Version {
        /// What came.
        version: u16,
        /// Which of the two bytes is the first that is wrong.
        first_wrong: u8,
    },
    /// Byte 4: neither request nor response.
    #[error("is_response is {value}, not 0 or 1")]
    IsResponse {
        /// What came.
        value: u8,
    },
    /// Byte 4: a response where only requests may come, or the other way round.
    #[error("a {} came the wrong way", if *direction == Direction::Request { "request" } else { "response" })]
    Direction {
        /// What came.
        direction: Direction,
    },
    /// Byte 9: a class that does not exist, or not at the sender's patch level.
    #[error("class {class} is unknown at patch level {patch_level}")]
    Class {
        /// What came.
        class: u8,
        /// The sender's patch level.
        patch_level: u16,
    },
    /// Byte 10: an operation that the class does not have.
    #[error("class {class} has no operation {operation}")]
    Operation {
        /// The class.
        class: u8,
        /// What came.
        operation: u8,
    },
    /// A frame that should continue a message differs from its first one.
    #[error("a message continues with another {field}")]
    Continuation {
        /// The field that differs.
        field: &'static str,
        /// The offset of the first byte that differs.
        offset: usize,
    },
    /// Byte 11: neither complete nor incomplete.
    #[error("complete is {value}, not 0 or 1")]
    Complete {
        /// What came.
        value: u8,
    },
    /// Byte 11: more frames are announced than a message may have.
    #[error("a message of more than {frames_max} frames")]
    TooManyFrames {
        /// The most that such a message may have.
        frames_max: usize,
    },
    /// Bytes 12 and 13: longer than 2048, or shorter though the message goes on.
    #[error("{} frame with {data_len} bytes of data", if *complete { "a" } else { "an incomplete" })]
    DataLength {
        /// What came.
        data_len: u16,
        /// Whether the frame was the last of its message.
        complete: bool,
        /// The offset of the first byte that is wrong.
        first_wrong: usize,
    },
    /// The data of a message is not what its operation takes.
    #[error("{operation}: {problem}")]
    Data {
        /// The operation.
        operation: &'static str,
        /// What is wrong with the data.
        problem: &'static str,
    },
}

impl Corruption {
    /// The offset in the frame of the first byte that is wrong.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match self {
            Self::Version { first_wrong, .. } => *first_wrong as usize,
            Self::IsResponse { .. } | Self::Direction { .. } => 4,
            Self::Class { .. } => 9,
            Self::Operation { .. } => 10,
            Self::Continuation { offset, .. } => *offset,
            Self::Complete { .. } | Self::TooManyFrames { .. } => 11,
            Self::DataLength { first_wrong, .. } => *first_wrong,
            Self::Data { .. } => FRAME_HEADER_BYTES,
        }
    }
}
