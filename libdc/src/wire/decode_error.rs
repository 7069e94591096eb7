//! Corruption: why a stream of frames can't be read on.
//!
//! Every variant about a header says only what the bytes up to the first wrong one say, so that the same
//! stream gives the same corruption however it was cut on its way.

use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::Direction;
use thiserror::Error;

/// Why a stream of frames can't be read on. The peer's fault, always; the connection is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Bytes 0 and 1: not version 0x0011 of the protocol.
    #[error("byte {offset} is {byte:#04x}: not version 0x0011")]
    Version {
        /// The offset of the first of the two bytes that is wrong.
        offset: usize,
        /// What came there.
        byte: u8,
    },
    /// Byte 4: neither request nor response.
    #[error("is_response is {value}, not 0 or 1")]
    IsResponse {
        /// What came.
        value: u8,
    },
    /// Byte 4: a response where only requests may come, or the other way round. On a link it shows at byte 9
    /// or 10, since the link's own operations may go both ways.
    #[error("a {} came the wrong way", if *direction == Direction::Request { "request" } else { "response" })]
    Direction {
        /// What came.
        direction: Direction,
        /// The offset of the byte that left no other reading.
        offset: usize,
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
    /// Bytes 12 and 13: more than 2048 bytes of data.
    #[error("a frame with more than 2048 bytes of data")]
    LongFrame {
        /// The offset of the byte that made it too long.
        offset: usize,
    },
    /// Byte 12: less than 2048 bytes of data, though the message goes on.
    #[error("an incomplete frame with less than 2048 bytes of data")]
    ShortFrame,
    /// The data of a message is not what its operation takes.
    #[error("{operation}: {problem}")]
    Data {
        /// The operation.
        operation: &'static str,
        /// What is wrong with the data.
        problem: &'static str,
    },
}

impl DecodeError {
    /// The offset in the frame of the byte that shows it: the first that leaves no right reading.
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
