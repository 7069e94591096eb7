//! Property tests of frames and messages, against models encode from the specification alone.

use libdc::wire::decode_error::DecodeError;
use libdc::wire::frame::{Direction, Expected, FrameHeader, MessageHead, Operation};
use libdc::wire::message::{Message, MessageReader, write_message};
use proptest::prelude::*;

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Request), Just(Direction::Response)]
}

fn any_operation() -> impl Strategy<Value = Operation> {
    (0_u8..3, 0_u8..7).prop_filter_map("no such operation", |(class, it)| Operation::from_wire(class, it))
}

/// Any message that can be sent: usually short, often with a length around a number of full frames.
fn any_message() -> impl Strategy<Value = Message> {
    let about_full = (0_usize..=16, 0_usize..5).prop_map(|(frames, more)| (frames * 2048 + more).min(32_768));
    let len = prop_oneof![3 => 0_usize..300, 1 => about_full];
    (any_direction(), any::<u32>(), any_operation(), 1_u16.., len, any::<u8>()).prop_map(
        |(direction, uid, operation, patch_level, len, seed)| {
            let data = (0..len).map(|i| seed.wrapping_add(i as u8) ^ (i >> 8) as u8).collect();
            Message { head: MessageHead { patch_level, direction, uid, operation }, data }
        },
    )
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        write_message(&mut stream, message.head, &message.data);
    }
    stream
}

/// The messages of `stream`, split at `cuts`; the error that ends them, and the length of the stream at that
/// point.
fn read(stream: &[u8], cuts: &[usize]) -> (Vec<Message>, Option<(DecodeError, usize)>) {
    let mut ends = cuts.to_vec();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut reader = MessageReader::new(None);
    let (mut messages, mut used) = (Vec::new(), 0);
    for end in ends {
        loop {
            let mut input = &stream[used..end];
            let next = reader.next(&mut input).map(|message| message.map(Message::from));
            used = end - input.len();
            match next {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some((error, end))),
            }
        }
    }
    (messages, None)
}

proptest! {
    #[test]
    fn split_stream_gives_same_messages(
        messages in prop::collection::vec(any_message(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let stream = encode(&messages);
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        prop_assert!(read(&stream, &cuts) == (messages, None));
    }

    #[test]
    fn messages_round_trip(messages in prop::collection::vec(any_message(), 0..6)) {
        let stream = encode(&messages);
        prop_assert!(encode(&read(&stream, &[]).0) == stream);
    }

    #[test]
    fn damaged_stream_fails_alike_in_any_pieces(
        messages in prop::collection::vec(any_message(), 1..4),
        index: prop::sample::Index,
        byte: u8,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut stream = encode(&messages);
        let index = index.index(stream.len());
        stream[index] = byte;
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        let (whole, error) = read(&stream, &[]);
        let (pieces, in_pieces) = read(&stream, &cuts);
        prop_assert!(whole == pieces);
        prop_assert_eq!(error.map(|it| it.0), in_pieces.map(|it| it.0));
    }

    #[test]
    fn random_bytes_parse_alike_in_any_pieces(
        stream in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x11), any::<u8>()], 0..60),
        cuts in prop::collection::vec(0_usize..60, 0..20),
    ) {
        let cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= stream.len()).collect();
        let (whole, error) = read(&stream, &[]);
        let (pieces, in_pieces) = read(&stream, &cuts);
        prop_assert!(whole == pieces);
        prop_assert_eq!(error.map(|it| it.0), in_pieces.map(|it| it.0));
    }
}

/// Whether a complete header is valid: the specification as one expression.
fn is_valid(h: &[u8; 14], expected: &Expected) -> bool {
    let patch_level = u16::from_be_bytes([h[2], h[3]]);
    let operations = [4, 7, 7].get(usize::from(h[9])).copied().unwrap_or(0);
    let frames_max = if h[9] == 0 { 16 } else { 4096 };
    let data_len = u16::from_be_bytes([h[12], h[13]]);
    let only = expected.direction.map(|direction| u8::from(direction == Direction::Response));
    let both_ways = expected.link && h[9] == 2 && (h[10] == 3 || h[10] == 6);
    let matches_first = expected.continues.is_none_or(|head| {
        let first = FrameHeader { head, complete: false, data_len: 2048 }.to_bytes();
        h[4..11] == first[4..11]
    });
    h[..2] == [0x00, 0x11]
        && h[4] <= 1
        && (both_ways || only.is_none_or(|only| only == h[4]))
        && (h[9] == 0 || patch_level > 0)
        && h[10] < operations
        && matches_first
        && h[11] <= 1
        && (h[11] == 1 || expected.frames + 1 < frames_max)
        && if h[11] == 1 { data_len <= 2048 } else { data_len == 2048 }
}

/// Whether some valid header begins with `known`: tries all other bytes whose values differ in meaning.
fn is_valid_prefix(known: &[u8], expected: &Expected) -> bool {
    let uid = expected.continues.map_or(0, |head| head.uid).to_be_bytes();
    let choices: [&[u8]; 14] = [
        &[0x00],
        &[0x11],
        &[0],
        &[1],
        &[0, 1],
        &uid[..1],
        &uid[1..2],
        &uid[2..3],
        &uid[3..],
        &[0, 1, 2],
        &[0, 1, 2, 3, 4, 5, 6],
        &[0, 1],
        &[0, 8],
        &[0],
    ];
    let mut header = [0; 14];
    header[..known.len()].copy_from_slice(known);
    try_suffixes(known.len(), &mut header, &choices, expected)
}

fn try_suffixes(index: usize, header: &mut [u8; 14], choices: &[&[u8]; 14], expected: &Expected) -> bool {
    let Some(choice) = choices.get(index) else { return is_valid(header, expected) };
    choice.iter().any(|byte| {
        header[index] = *byte;
        try_suffixes(index + 1, header, choices, expected)
    })
}

/// Every context in which a frame is valid, with a valid header for it.
fn situations() -> Vec<(Expected, [u8; 14])> {
    let get = [0, 0x11, 0, 1, 0, 1, 2, 3, 4, 0, 1, 1, 0, 32];
    let first = [0, 0x11, 0, 0, 1, 1, 2, 3, 4, 0, 1, 0, 8, 0];
    let claim = [0, 0x11, 0, 1, 0, 9, 9, 9, 9, 2, 1, 0, 8, 0];
    let ping = [0, 0x11, 0, 1, 0, 9, 9, 9, 9, 2, 3, 1, 0, 0];
    let head = |header: &[u8; 14]| {
        let parsed = FrameHeader::parse(header, &Expected::default()).expect("a valid header");
        parsed.expect("a complete header").head
    };
    let continuing =
        |header, frames| Expected { continues: Some(head(header)), frames, ..Expected::default() };
    let only = |direction, link| Expected { direction: Some(direction), link, ..Expected::default() };
    let mut last = first;
    last[11] = 1;
    vec![
        (Expected::default(), get),
        (Expected::default(), claim),
        (only(Direction::Request, false), get),
        (only(Direction::Response, true), first),
        (only(Direction::Response, true), ping),
        (continuing(&first, 1), first),
        (continuing(&first, 14), first),
        (continuing(&first, 15), last),
        (continuing(&claim, 4094), claim),
        (Expected { direction: Some(Direction::Response), link: true, ..continuing(&ping, 1) }, ping),
    ]
}

#[test]
fn wrong_byte_is_reported_exactly_on_arrival() {
    for (expected, valid) in situations() {
        assert!(is_valid(&valid, &expected));
        for index in 0..14 {
            for byte in 0..=u8::MAX {
                let mut header = valid;
                header[index] = byte;
                check_prefixes(&header, index, &expected);
            }
        }
    }
}

/// Checks that each prefix of `header` that contains byte `index` is refused exactly if no valid header
/// begins with it, and that later bytes do not change the error.
fn check_prefixes(header: &[u8; 14], index: usize, expected: &Expected) {
    let mut reported = None;
    for len in index + 1..=14 {
        let result = FrameHeader::parse(&header[..len], expected);
        let context = format!("{:02x?} of {header:02x?}: {result:?}, {expected:?}", &header[..len]);
        assert_eq!(result.is_ok(), is_valid_prefix(&header[..len], expected), "{context}");
        match (result, reported) {
            (Ok(parsed), _) => {
                assert_eq!(parsed.is_some(), len == 14, "{context}");
                assert!(parsed.is_none_or(|parsed| parsed.to_bytes() == *header), "{context}");
            }
            (Err(error), None) => {
                assert_eq!(error.offset(), len - 1, "{context}");
                reported = Some(error);
            }
            (Err(error), Some(first)) => assert_eq!(error, first, "{context}"),
        }
    }
}
