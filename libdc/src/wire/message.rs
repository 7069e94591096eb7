//! Messages: one to sixteen frames (4,096 in classes 1 and 2) that share their head.
//!
//! Every frame but the last carries exactly 2048 bytes; the last one carries the rest, which is 2048 too
//! when the data fills it. Frames of two messages never interleave in one direction.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::frame::{Corruption, Direction, Expected, FrameHeader, MessageHead};

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
    gathered: Option<Box<Gathered>>,
}

#[derive(Debug)]
struct Gathered {
    head: MessageHead,
    frames: usize,
    data: Vec<u8>,
    whole: bool,
}

impl MessageReader {
    /// A reader of messages that all go in `direction`; `None` takes both.
    #[must_use]
    pub const fn new(direction: Option<Direction>) -> Self {
        Self { direction, gathered: None }
    }

    /// The next whole message. `input` moves past every frame that was used; `Ok(None)` says that what is
    /// left of it is the beginning of a frame, to be given again with more behind it.
    ///
    /// # Errors
    /// [`Corruption`] at the first byte that can't be right. The reader is of no more use then.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<MessageRef<'s>>, Corruption> {
        self.reclaim();
        while let Some(header) = FrameHeader::parse(input, &self.expected())? {
            let end = FRAME_HEADER_BYTES + usize::from(header.data_len);
            let Some((frame, rest)) = input.split_at_checked(end) else {
                return Ok(None);
            };
            *input = rest;
            let data = &frame[FRAME_HEADER_BYTES..];
            if header.complete && self.gathered.is_none() {
                return Ok(Some(MessageRef { head: header.head, data }));
            }
            let gathered = self.gathered.get_or_insert_with(|| {
                Box::new(Gathered { head: header.head, frames: 0, data: Vec::new(), whole: false })
            });
            gathered.frames += 1;
            gathered.data.extend_from_slice(data);
            if header.complete {
                gathered.whole = true;
                break;
            }
        }
        Ok(match self.gathered.as_deref() {
            Some(Gathered { head, data, whole: true, .. }) => Some(MessageRef { head: *head, data }),
            _ => None,
        })
    }

    /// Whether some frames of an unfinished message have been used.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.gathered.as_ref().is_some_and(|gathered| !gathered.whole)
    }

    /// Gives back the memory of a long message that has been lent out.
    pub fn reclaim(&mut self) {
        if self.gathered.as_ref().is_some_and(|gathered| gathered.whole) {
            self.gathered = None;
        }
    }

    fn expected(&self) -> Expected {
        let continues = self.gathered.as_ref();
        Expected {
            direction: self.direction,
            continues: continues.map(|gathered| gathered.head),
            frames: continues.map_or(0, |gathered| gathered.frames),
        }
    }
}

/// Appends a message to `out`.
///
/// # Panics
/// If `data` is longer than a message about this operation may be.
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
    pub fn begin(out: &mut Vec<u8>, head: MessageHead) -> Self {
        let start = out.len();
        out.extend_from_slice(&FrameHeader { head, complete: true, data_len: 0 }.to_bytes());
        Self { head, start }
    }

    /// Ends the message: all that was appended since [`begin`](Self::begin) is its data.
    ///
    /// # Panics
    /// If that is more than a message about this operation may have.
    pub fn finish(self, out: &mut Vec<u8>) {
        let data_start = self.start + FRAME_HEADER_BYTES;
        let len = out.len() - data_start;
        if len <= FRAME_DATA_BYTES_MAX {
            let bytes = (len as u16).to_be_bytes();
            out[data_start - 2..data_start].copy_from_slice(&bytes);
            return;
        }
        let frames = len.div_ceil(FRAME_DATA_BYTES_MAX);
        assert!(frames <= self.head.operation.frames_max(), "{len} bytes are too long for a message");
        // From the last frame to the second, each moves back by the headers before it.
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
