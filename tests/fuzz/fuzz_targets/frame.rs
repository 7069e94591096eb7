//! Arbitrary bytes as a stream of frames: they parse alike however they are split, and a wrong byte is
//! reported when it arrives.
//!
//! Byte 0 of the input selects the reader, byte 1 is the number of cuts of two bytes that follow; the rest is
//! the stream.
#![no_main]

use dc_fuzz::{ends, read};
use libdc::wire::frame::{Direction, Operation, SessionOperation};
use libdc::wire::link::Ping;
use libdc::wire::message::{MessageReader, MessageRef, write_message};
use libdc::wire::session::{AddRequest, SessionAnswer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [kind, cuts, rest @ ..] = input else { return };
    let Some((cuts, stream)) = rest.split_at_checked(2 * usize::from(cuts % 16)) else { return };
    let cuts: Vec<u16> = cuts.chunks(2).map(|cut| u16::from_be_bytes([cut[0], cut[1]])).collect();
    let reader = || match kind % 5 {
        0 => MessageReader::new(None),
        1 => MessageReader::new(Some(Direction::Request)),
        2 => MessageReader::new(Some(Direction::Response)),
        3 => MessageReader::link(Direction::Request),
        _ => MessageReader::link(Direction::Response),
    };

    let (at_once, _) = read(reader(), stream, std::iter::once(stream.len()));
    let (in_pieces, _) = read(reader(), stream, ends(&cuts, stream.len()).into_iter());
    assert_eq!(at_once, in_pieces);
    let (by_bytes, arrived) = read(reader(), stream, 1..=stream.len());
    if !stream.is_empty() {
        assert_eq!(at_once, by_bytes);
    }
    if let Some((corruption, frame)) = by_bytes.corruption {
        assert_eq!(frame + corruption.offset() + 1, arrived, "not when the byte arrived");
    }

    let mut written = Vec::new();
    for message in &at_once.messages {
        write_message(&mut written, message.head, &message.data);
        payload(message.as_message_ref());
    }
    // Only the patch level of the frames after the first can have been different.
    let (again, _) = read(reader(), &written, std::iter::once(written.len()));
    assert_eq!(again.messages, at_once.messages);
    assert_eq!(again.corruption, None);
});

/// Data that parses is encoded to the same bytes.
fn payload(message: MessageRef<'_>) {
    match (message.head.operation, message.head.direction) {
        (Operation::Session(SessionOperation::Add), Direction::Request) => {
            if let Ok(Ok(add)) = AddRequest::parse(message.data) {
                let mut written = Vec::new();
                add.write(&mut written);
                assert_eq!(written, message.data);
                assert!(add.fits_message());
            }
        }
        (Operation::Session(operation), Direction::Response) => {
            match SessionAnswer::parse(operation, message.data) {
                Ok(SessionAnswer::Status(status)) => assert_eq!(message.data, [status as u8]),
                Ok(SessionAnswer::Session(session)) => assert_eq!(message.data, session),
                Err(_) => {}
            }
        }
        (Operation::Link(_), _) => {
            if let Ok(ping) = Ping::parse(&message) {
                assert_eq!(ping.uid, message.head.uid);
            }
        }
        _ => {}
    }
}
