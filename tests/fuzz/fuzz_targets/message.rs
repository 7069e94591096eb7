//! Arbitrary messages, encoded in sequence and parsed in any pieces.
#![no_main]

use dc_fuzz::{ends, read};
use libdc::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use libdc::wire::frame::{Direction, MessageHead, Operation};
use libdc::wire::message::{Message, MessageReader, MessageWriter, write_message};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Conversation {
    messages: Vec<Spoken>,
    cuts: Vec<u16>,
    piece: u16,
}

#[derive(Arbitrary, Debug)]
struct Spoken {
    patch_level: u16,
    is_response: bool,
    uid: u32,
    class: u8,
    number: u8,
    len: u16,
    fill: u8,
}

impl Spoken {
    fn message(&self) -> Option<Message> {
        let operation = Operation::from_wire(self.class % 3, self.number % 7)?;
        let direction = if self.is_response { Direction::Response } else { Direction::Request };
        // Patch level 0 has class 0 only.
        let patch_level = self.patch_level.max(u16::from(!matches!(operation, Operation::Session(_))));
        let len = usize::from(self.len).min(operation.frames_max() * FRAME_DATA_BYTES_MAX);
        let data = (0..len).map(|i| self.fill.wrapping_add(i as u8) ^ (i >> 8) as u8).collect();
        Some(Message { head: MessageHead { patch_level, direction, uid: self.uid, operation }, data })
    }
}

fuzz_target!(|conversation: Conversation| {
    let messages: Vec<Message> = conversation.messages.iter().take(16).filter_map(Spoken::message).collect();
    let (mut stream, mut by_pieces, mut len) = (Vec::new(), Vec::new(), 0);
    for Message { head, data } in &messages {
        write_message(&mut stream, *head, data);
        let writer = MessageWriter::begin(&mut by_pieces, *head);
        for piece in data.chunks(usize::from(conversation.piece).max(1)) {
            by_pieces.extend_from_slice(piece);
        }
        writer.finish(&mut by_pieces);
        let frames = data.len().div_ceil(FRAME_DATA_BYTES_MAX).max(1);
        len += data.len() + frames * FRAME_HEADER_BYTES;
    }
    assert_eq!(stream, by_pieces);
    assert_eq!(stream.len(), len);
    let ends = ends(&conversation.cuts, stream.len());
    let (reading, _) = read(MessageReader::default(), &stream, ends.into_iter());
    assert_eq!(reading.messages, messages);
    assert_eq!((reading.corruption, reading.used), (None, stream.len()));
});
