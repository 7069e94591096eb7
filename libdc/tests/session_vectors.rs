//! Traffic recorded from a distcache 1.x server, parsed and encoded by the wire layer alone.

use libdc::wire::decode_error::DecodeError;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, MessageRef, write_message};
use libdc::wire::session::{AddRequest, SessionAnswer};
use serde_json::Value;

struct Case {
    name: String,
    /// All bytes that the client sent.
    requests: Vec<u8>,
    /// All bytes that the server answered.
    responses: Vec<u8>,
    closed: bool,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/session.json");
    let text = std::fs::read_to_string(path).expect("the vectors are in the repository");
    let list: Vec<Value> = serde_json::from_str(&text).expect("a list of cases");
    list.iter().map(case).collect()
}

fn case(value: &Value) -> Case {
    let steps = value["steps"].as_array().expect("steps");
    let all = |field: &str| {
        let hex: String = steps.iter().filter_map(|step| step.get(field)?.as_str()).collect();
        let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).expect("hex"));
        digits.map(|two| u8::from_str_radix(two, 16).expect("hex")).collect()
    };
    let closed = steps.iter().any(|step| step["closed"] == true);
    let name = value["name"].as_str().expect("a name").to_owned();
    Case { name, requests: all("send"), responses: all("reply"), closed }
}

/// The messages of `stream`, which arrives in pieces of `piece` bytes, and the error that ends them.
fn read(stream: &[u8], piece: usize, direction: Direction) -> (Vec<Message>, Option<DecodeError>) {
    let mut reader = MessageReader::new(Some(direction));
    let mut messages = Vec::new();
    let mut unread = Vec::new();
    for bytes in stream.chunks(piece) {
        unread.extend_from_slice(bytes);
        let mut input = unread.as_slice();
        loop {
            match reader.next(&mut input) {
                Ok(Some(message)) => match check_request(message) {
                    Ok(()) => messages.push(message.into()),
                    Err(error) => return (messages, Some(error)),
                },
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        unread = input.to_vec();
    }
    assert!(unread.is_empty() && !reader.is_inside_message(), "the vectors contain complete messages");
    (messages, None)
}

/// Checks for the only error that lies in the data of a message and not in its frames.
fn check_request(message: MessageRef<'_>) -> Result<(), DecodeError> {
    let is_add = message.head.operation == Operation::Session(SessionOperation::Add);
    if is_add && message.head.direction == Direction::Request {
        AddRequest::parse(message.data).map(drop)
    } else {
        Ok(())
    }
}

#[test]
fn decode_errors_match_closed_recordings() {
    for case in cases() {
        let (messages, error) = read(&case.requests, usize::MAX, Direction::Request);
        assert_eq!(error.is_some(), case.closed, "{}: {error:?}", case.name);
        let (answers, error) = read(&case.responses, usize::MAX, Direction::Response);
        assert_eq!(error, None, "{}", case.name);
        // In that case only the first of the two answers was recorded.
        let unrecorded = usize::from(case.name == "two_requests_in_one_write");
        assert_eq!(messages.len(), answers.len() + unrecorded, "{}: every request is answered", case.name);
    }
}

#[test]
fn recordings_parse_alike_in_any_pieces() {
    for case in cases() {
        for (stream, direction) in
            [(&case.requests, Direction::Request), (&case.responses, Direction::Response)]
        {
            let unsplit = read(stream, usize::MAX, direction);
            for piece in [1, 2, 13, 14, 15, 2047, 2062, 5000] {
                assert!(read(stream, piece, direction) == unsplit, "{} in pieces of {piece}", case.name);
            }
        }
    }
}

#[test]
fn encoded_messages_match_recordings() {
    for case in cases().iter().filter(|case| !case.closed) {
        for (stream, direction) in
            [(&case.requests, Direction::Request), (&case.responses, Direction::Response)]
        {
            let mut written = Vec::new();
            for message in read(stream, usize::MAX, direction).0 {
                write_message(&mut written, message.head, &message.data);
            }
            assert!(written == *stream, "{}", case.name);
        }
    }
}

#[test]
fn recorded_answers_match_their_requests() {
    for case in cases() {
        let (requests, _) = read(&case.requests, usize::MAX, Direction::Request);
        let (answers, _) = read(&case.responses, usize::MAX, Direction::Response);
        for (request, answer) in requests.iter().zip(&answers) {
            let expected = MessageHead { patch_level: 0, ..request.head.response() };
            assert_eq!(answer.head, expected, "{}", case.name);
            let Operation::Session(operation) = request.head.operation else {
                panic!("{}: not a session operation", case.name)
            };
            let parsed = SessionAnswer::parse(operation, &answer.data).expect("an answer");
            if operation == SessionOperation::Add
                && let Err(status) = AddRequest::parse(&request.data).expect("long enough")
            {
                assert_eq!(parsed, SessionAnswer::Status(status), "{}: for the same reason", case.name);
            }
        }
    }
}
