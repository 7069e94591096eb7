//! What the fuzz targets share: a stream of bytes read in pieces.

use libdc::wire::decode_error::DecodeError;
use libdc::wire::message::{Message, MessageReader};

/// What came of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// What they ended in, and the offset in the stream of the frame it was in.
    pub corruption: Option<(DecodeError, usize)>,
    /// Bytes used by whole frames.
    pub used: usize,
}

/// Reads `stream`, of which first the bytes up to the first end are there, then those up to the second, and
/// so on. Returns how many were there when the reading ended.
pub fn read(mut reader: MessageReader, stream: &[u8], ends: impl Iterator<Item = usize>) -> (Reading, usize) {
    let mut reading = Reading::default();
    for end in ends {
        loop {
            let mut input = &stream[reading.used..end];
            let next = reader.next(&mut input).map(|message| message.map(Message::from));
            reading.used = end - input.len();
            match next {
                Ok(Some(message)) => reading.messages.push(message),
                Ok(None) => break,
                Err(corruption) => {
                    reading.corruption = Some((corruption, reading.used));
                    return (reading, end);
                }
            }
        }
    }
    (reading, stream.len())
}

/// The ends of the pieces that `cuts` make of a stream of `len` bytes; the last is its end.
pub fn ends(cuts: &[u16], len: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (len + 1)).collect();
    ends.push(len);
    ends.sort_unstable();
    ends
}
