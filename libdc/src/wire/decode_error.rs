//! Errors that end the decoding of a stream of frames.
//!
//! A variant about a header depends only on the bytes up to the first wrong one. The same stream therefore
//! gives the same error however it was split in transit.

use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::operation::Direction;
use thiserror::Error;

/// Why a stream of frames cannot be decoded any further. The peer is always at fault, and the connection must
/// be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Bytes 0 and 1: not version 0x0011 of the protocol.
    #[error("byte {offset} is {byte:#04x}: not version 0x0011")]
    Version {
        /// The offset of the first of the two bytes that is wrong.
        offset: usize,
        /// The byte received at that offset.
        byte: u8,
    },
    /// Byte 4: neither 0 (request) nor 1 (response).
    #[error("is_response is {value}, not 0 or 1")]
    IsResponse {
        /// The byte received instead of 0 or 1.
        value: u8,
    },
    /// Byte 4: a response where only requests are allowed, or a request where only responses are. On a link
    /// it is detected at byte 9 or 10, since the link's own operations may go both ways.
    #[error("a {} in the wrong direction", if *direction == Direction::Request { "request" } else { "response" })]
    Direction {
        /// The direction that the frame states.
        direction: Direction,
        /// The offset of the byte that rules out every valid reading.
        offset: usize,
    },
    /// Byte 9: a class that does not exist, or does not exist at the sender's patch level.
    #[error("class {class} is unknown at patch level {patch_level}")]
    Class {
        /// The class number in the frame.
        class: u8,
        /// The sender's patch level.
        patch_level: u16,
    },
    /// Byte 10: an operation that the class does not have.
    #[error("class {class} has no operation {operation}")]
    Operation {
        /// The class number in the frame.
        class: u8,
        /// The operation number in the frame.
        operation: u8,
    },
    /// A frame that should continue a message differs from its first frame.
    #[error("continuation frame has a different {field}")]
    Continuation {
        /// The name of the field that differs.
        field: &'static str,
        /// The offset of the first byte that differs.
        offset: usize,
    },
    /// Byte 11: neither 0 (more frames follow) nor 1 (last frame).
    #[error("complete is {value}, not 0 or 1")]
    Complete {
        /// The byte received instead of 0 or 1.
        value: u8,
    },
    /// Byte 11: more frames are announced than a message may have.
    #[error("a message of more than {frames_max} frames")]
    TooManyFrames {
        /// The maximum for a message of this operation.
        frames_max: usize,
    },
    /// Bytes 12 and 13: more than 2048 bytes of data.
    #[error("a frame with more than 2048 bytes of data")]
    LongFrame {
        /// The offset of the byte that makes the length exceed the limit.
        offset: usize,
    },
    /// Byte 12: fewer than 2048 bytes of data, although more frames follow.
    #[error("an incomplete frame with less than 2048 bytes of data")]
    ShortFrame,
    /// The data of a message does not match its operation.
    #[error("{operation}: {problem}")]
    Data {
        /// The name of the operation, such as `GET`.
        operation: &'static str,
        /// The defect in the data, for the log.
        problem: &'static str,
    },
}

impl DecodeError {
    /// The offset in the frame of the first byte that rules out every valid reading.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match self {
            Self::Version { offset, .. }
            | Self::Direction { offset, .. }
            | Self::Continuation { offset, .. }
            | Self::LongFrame { offset } => *offset,
            Self::IsResponse { .. } => 4,
            Self::Class { .. } => 9,
            Self::Operation { .. } => 10,
            Self::Complete { .. } | Self::TooManyFrames { .. } => 11,
            Self::ShortFrame => 12,
            Self::Data { .. } => FRAME_HEADER_BYTES,
        }
    }
}
