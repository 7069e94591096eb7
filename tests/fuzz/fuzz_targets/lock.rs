//! Arbitrary bytes as the data of any message of class 1 or 2: parsed values are encoded and parse alike
//! again, and all of them can be printed.
//!
//! Byte 0 of the input is the operation and the direction; the rest is the data.
#![no_main]

use dc_snoop::decode::{DecodedMessage, Redaction};
use libdc::wire::frame::{Direction, LinkOperation, LockOperation, MessageHead, Operation};
use libdc::wire::link::{Claim, Detach, Hello, Welcome};
use libdc::wire::lock::{LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{Message, MessageReader, MessageRef};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [kind, data @ ..] = input else { return };
    let Some(operation) = Operation::from_wire(1 + (kind & 1), kind >> 2) else { return };
    let request = MessageHead::request(7, operation);
    let head = if kind & 2 == 0 { request } else { request.response() };
    let content = DecodedMessage::decode(MessageRef { head, data });
    for secrets in [Redaction::Hidden, Redaction::Shown] {
        assert!(!content.show(secrets).to_string().contains('\n'));
    }
    let mut shown = 0;
    for range in content.secret_ranges(data.len()) {
        assert!(shown <= range.start && range.start <= range.end);
        shown = range.end;
    }
    assert!(shown <= data.len());

    let mut written = Vec::new();
    match (operation, head.direction) {
        (Operation::Lock(operation), Direction::Request) => lock_request(operation, data, &mut written),
        (Operation::Lock(operation), Direction::Response) => {
            if let Ok(answer) = LockAnswer::parse(operation, data) {
                answer.write(request, &mut written);
                assert_eq!(sent(&written).data, data);
            }
        }
        (Operation::Link(operation), direction) => link(operation, direction, data, &mut written),
        (Operation::Session(_), _) => {}
    }
});

fn lock_request(operation: LockOperation, data: &[u8], written: &mut Vec<u8>) {
    match LockRequest::parse(operation, data) {
        Ok(Ok(request)) => {
            assert_eq!(request.action.operation(), operation);
            request.write(7, written);
            // Times beyond the maximum were capped.
            let message = sent(written);
            assert_eq!(message.data.len(), data.len());
            assert_eq!(LockRequest::parse(operation, &message.data), Ok(Ok(request)));
        }
        Ok(Err(status)) => assert_eq!(status, LockStatus::Error),
        Err(_) => {}
    }
}

fn link(operation: LinkOperation, direction: Direction, data: &[u8], written: &mut Vec<u8>) {
    let head = MessageHead::request(7, Operation::Link(operation));
    match (operation, direction) {
        (LinkOperation::Hello, Direction::Request) => {
            if let Ok(hello) = Hello::parse(data) {
                hello.write(7, written);
                assert_eq!(sent(written).data, data);
            }
        }
        (LinkOperation::Hello, Direction::Response) => {
            if let Ok(welcome) = Welcome::parse(data) {
                welcome.write(head, written);
                assert_eq!(sent(written).data, data);
            }
        }
        (LinkOperation::Claim, Direction::Request) => {
            let claims: Result<Option<Vec<Claim<'_>>>, _> = Claim::parse_all(data).collect();
            if let Ok(Some(claims)) = claims {
                for claim in claims {
                    claim.write(written);
                }
                assert_eq!(written, data);
            }
        }
        (LinkOperation::Detach, Direction::Request) => {
            if let Ok(detach) = Detach::parse(data) {
                detach.write(7, written);
                assert_eq!(sent(written).data, data);
            }
        }
        _ => {}
    }
}

/// The single message that was written.
fn sent(mut written: &[u8]) -> Message {
    let message = MessageReader::default().next(&mut written).map(|message| message.map(Message::from));
    assert!(written.is_empty());
    message.ok().flatten().expect("what we write can be read")
}
