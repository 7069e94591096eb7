//! Messages over any byte stream: the wire layer as a codec of tokio-util.
//!
//! It serves tools and applications that use [`Framed`](tokio_util::codec::Framed). The daemons do not use
//! it: their drivers pass the bytes of a read directly to a machine.
//!
//! At most one incomplete frame stays in the input buffer and one incomplete message in the codec, however
//! much a peer announces. Nothing here panics.

use crate::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::{Direction, FrameHeader};
use crate::wire::message::{Message, MessageReader, MessageRef};
use bytes::{Buf, BufMut, BytesMut};
use std::io;
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

/// Splits a stream of bytes into messages, and encodes messages into one.
#[derive(Debug, Default)]
pub struct MessageCodec {
    reader: MessageReader,
}

impl MessageCodec {
    /// A codec that accepts messages of `direction` only (`None`: both) and encodes any.
    #[must_use]
    pub const fn new(direction: Option<Direction>) -> Self {
        Self { reader: MessageReader::new(direction) }
    }
}

impl Decoder for MessageCodec {
    type Item = Message;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        let mut input = &src[..];
        let message = self.reader.next(&mut input)?.map(Message::from);
        let used = src.len() - input.len();
        src.advance(used);
        self.reader.reclaim();
        Ok(message)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        let message = self.decode(src)?;
        let is_cut = !src.is_empty() || self.reader.is_inside_message();
        if message.is_none() && is_cut { Err(CodecError::Cut) } else { Ok(message) }
    }
}

impl Encoder<MessageRef<'_>> for MessageCodec {
    type Error = CodecError;

    fn encode(&mut self, message: MessageRef<'_>, dst: &mut BytesMut) -> Result<(), CodecError> {
        let MessageRef { head, data } = message;
        let frames = data.len().div_ceil(FRAME_DATA_BYTES_MAX).max(1);
        if frames > head.operation.frames_max() {
            return Err(CodecError::TooLong { len: data.len() });
        }
        dst.reserve(data.len() + frames * FRAME_HEADER_BYTES);
        let mut rest = data;
        for frame in 1..=frames {
            let (data, after) = rest.split_at(rest.len().min(FRAME_DATA_BYTES_MAX));
            let header = FrameHeader { head, complete: frame == frames, data_len: data.len() as u16 };
            dst.put_slice(&header.to_bytes());
            dst.put_slice(data);
            rest = after;
        }
        Ok(())
    }
}

impl Encoder<Message> for MessageCodec {
    type Error = CodecError;

    fn encode(&mut self, message: Message, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.encode(message.as_message_ref(), dst)
    }
}

/// Why a codec cannot continue.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The peer sent malformed data.
    #[error(transparent)]
    Corruption(#[from] DecodeError),
    /// The peer ended the stream inside a message.
    #[error("the stream ends inside a message")]
    Cut,
    /// The message exceeds the maximum length for its operation. Nothing of it was encoded.
    #[error("{len} bytes exceed the maximum length of a message")]
    TooLong {
        /// The length of its data in bytes.
        len: usize,
    },
    /// An I/O error of the stream.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SESSION_MESSAGE_BYTES_MAX;
    use crate::wire::frame::{MessageHead, Operation, SessionOperation};
    use crate::wire::message::write_message;
    use futures_util::{SinkExt, StreamExt};
    use std::time::Duration;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio_util::codec::{Framed, FramedRead};

    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn message(uid: u32, len: usize) -> Message {
        let data = (0..len).map(|i| (i % 251) as u8).collect();
        Message { head: MessageHead::request(uid, GET), data }
    }

    fn encoded(message: &Message) -> Result<BytesMut, CodecError> {
        let mut out = BytesMut::new();
        MessageCodec::default().encode(message.as_message_ref(), &mut out).map(|()| out)
    }

    #[test]
    fn codec_encodes_as_write_message() {
        for len in [0, 1, 2047, 2048, 2049, 4096, 5000, SESSION_MESSAGE_BYTES_MAX] {
            let message = message(7, len);
            let mut expected = Vec::new();
            write_message(&mut expected, message.head, &message.data);
            assert!(encoded(&message).unwrap() == expected, "{len} bytes");
        }
    }

    #[test]
    fn overlong_message_is_refused_without_output() {
        let mut out = BytesMut::new();
        let result = MessageCodec::default().encode(message(7, SESSION_MESSAGE_BYTES_MAX + 1), &mut out);
        assert!(matches!(result, Err(CodecError::TooLong { len: 32_769 })));
        assert!(out.is_empty());
    }

    #[test]
    fn codec_keeps_at_most_one_incomplete_frame() {
        let stream = encoded(&message(7, SESSION_MESSAGE_BYTES_MAX)).unwrap();
        let (mut codec, mut src) = (MessageCodec::default(), BytesMut::new());
        let mut decoded = None;
        for byte in stream {
            assert!(decoded.is_none());
            src.put_u8(byte);
            decoded = codec.decode(&mut src).unwrap();
            assert!(src.len() < FRAME_HEADER_BYTES + FRAME_DATA_BYTES_MAX);
        }
        assert_eq!(decoded, Some(message(7, SESSION_MESSAGE_BYTES_MAX)));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_cross_narrow_pipe_in_both_directions() {
        // Smaller than a header, so that every message arrives in many pieces.
        let (here, there) = duplex(11);
        let mut here = Framed::new(here, MessageCodec::new(Some(Direction::Response)));
        let mut there = Framed::new(there, MessageCodec::new(Some(Direction::Request)));
        let asking = async move {
            for (uid, len) in [(1, 0), (2, 32), (3, 2048), (4, 7000)] {
                here.send(message(uid, len)).await.unwrap();
                let answer = here.next().await.unwrap().unwrap();
                assert_eq!(answer.head, message(uid, len).head.response());
                assert_eq!(answer.data, message(uid, len).data);
            }
        };
        let echoing = async {
            while let Some(request) = there.next().await {
                let request = request.unwrap();
                let answer = MessageRef { head: request.head.response(), data: &request.data };
                there.send(answer).await.unwrap();
            }
        };
        // The clock is virtual. It advances when both ends wait for each other, which ends the test.
        let both = async { tokio::join!(asking, echoing) };
        tokio::time::timeout(Duration::from_secs(1), both).await.unwrap();
    }

    #[tokio::test]
    async fn end_of_stream_inside_message_is_an_error() {
        let bytes = encoded(&message(7, 3000)).unwrap();
        let first_frame = FRAME_HEADER_BYTES + FRAME_DATA_BYTES_MAX;
        for end in [1, 14, first_frame - 1, first_frame, first_frame + 1, bytes.len() - 1] {
            let mut framed = FramedRead::new(&bytes[..end], MessageCodec::default());
            assert!(matches!(framed.next().await, Some(Err(CodecError::Cut))), "cut after {end} bytes");
        }
        let mut framed = FramedRead::new(&bytes[..], MessageCodec::default());
        assert_eq!(framed.next().await.unwrap().unwrap(), message(7, 3000));
        assert!(framed.next().await.is_none());
    }

    #[tokio::test]
    async fn wrong_byte_is_an_error_before_header_is_complete() {
        let (mut peer, end) = duplex(64);
        let mut framed = FramedRead::new(end, MessageCodec::new(Some(Direction::Request)));
        peer.write_all(&[0, 0x11, 0, 0, 1]).await.unwrap();
        let result = framed.next().await;
        assert!(matches!(result, Some(Err(CodecError::Corruption(DecodeError::Direction { .. })))));
    }
}
