//! The input of a link: bytes that were read become whole messages.
//!
//! While no message is cut, the bytes are parsed where they are. Only the rest behind the last whole message
//! is copied. Nothing here panics.

use crate::wire::decode_error::DecodeError;
use crate::wire::frame::Direction;
use crate::wire::message::{MessageReader, MessageRef};

/// The reader of a connection, and the bytes that it has not used so far.
#[derive(Debug, Default)]
pub(crate) struct InputBuffer {
    reader: MessageReader,
    unread: Vec<u8>,
}

impl InputBuffer {
    /// An empty buffer for messages that go in `direction` over a link.
    pub(crate) const fn link(direction: Direction) -> Self {
        Self { reader: MessageReader::link(direction), unread: Vec::new() }
    }

    /// Hands every whole message to `handle`, and keeps the rest. Ends with the first error.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are malformed, and the errors of `handle`.
    #[inline]
    pub(crate) fn read<E: From<DecodeError>>(
        &mut self,
        bytes: &[u8],
        handle: impl FnMut(MessageRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let result = if self.unread.is_empty() {
            let mut input = bytes;
            let result = read_messages(&mut self.reader, &mut input, handle);
            self.unread.extend_from_slice(input);
            result
        } else {
            self.unread.extend_from_slice(bytes);
            let mut input = self.unread.as_slice();
            let result = read_messages(&mut self.reader, &mut input, handle);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            result
        };
        self.reader.reclaim();
        result
    }
}

#[inline]
fn read_messages<E: From<DecodeError>>(
    reader: &mut MessageReader,
    input: &mut &[u8],
    mut handle: impl FnMut(MessageRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    while let Some(message) = reader.next(input)? {
        handle(message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{MessageHead, Operation, SessionOperation};
    use crate::wire::message::write_message;

    fn answers(count: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for uid in 0..count {
            let head = MessageHead::request(uid, Operation::Session(SessionOperation::Get)).response();
            write_message(&mut out, head, &vec![uid as u8; 2_000 * uid as usize]);
        }
        out
    }

    #[test]
    fn input_cut_anywhere_gives_the_same_messages() {
        let bytes = answers(4);
        for size in [1, 13, 14, 15, 500, 2_048, bytes.len()] {
            let (mut input, mut seen) = (InputBuffer::link(Direction::Response), Vec::new());
            for piece in bytes.chunks(size) {
                let read: Result<(), DecodeError> = input.read(piece, |message| {
                    seen.push((message.head.uid, message.data.len()));
                    Ok(())
                });
                read.unwrap();
            }
            assert_eq!(seen, [(0, 0), (1, 2_000), (2, 4_000), (3, 6_000)], "in pieces of {size} bytes");
        }
    }

    #[test]
    fn error_of_handler_ends_the_reading() {
        let (mut input, mut seen) = (InputBuffer::link(Direction::Response), 0);
        let error = DecodeError::Data { operation: "GET", problem: "for a test" };
        let read = input.read(&answers(3), |_| {
            seen += 1;
            if seen == 2 { Err(error) } else { Ok(()) }
        });
        assert_eq!((read, seen), (Err(error), 2));
    }
}
