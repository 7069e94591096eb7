//! A reader of streams in pieces, shared by the fuzz targets.

use libdc::wire::decode_error::DecodeError;
use libdc::wire::message::{Message, MessageReader};

/// The result of reading a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The messages, in the order of the stream.
    pub messages: Vec<Message>,
    /// The error that ended them, and the offset in the stream of its frame.
    pub corruption: Option<(DecodeError, usize)>,
    /// The number of bytes in complete frames.
    pub used: usize,
}

/// Reads `stream` in pieces: first the bytes up to the first end are available, then those up to the second,
/// and so on. Returns how many were available when reading ended.
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

/// The ends of the pieces into which `cuts` split a stream of `len` bytes; the last one is its end.
pub fn ends(cuts: &[u16], len: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (len + 1)).collect();
    ends.push(len);
    ends.sort_unstable();
    ends
}
