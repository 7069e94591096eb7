//! `-json`: a record is one object on one line.
//!
//! Every object has `time` (RFC 3339, UTC), `connection` and `event`; the other members depend on the event and
//! are left out where there is nothing to say. Ids are whole, in hexadecimal digits.

use crate::clock::rfc_3339;
use crate::line::end_name;
use crate::record::{Ending, MessageRecord, Record, What};
use libdc::wire::display::{Content, Secrets, digest, show_hex};
use libdc::wire::frame::Direction;
use libdc::wire::session::{Add, Status};
use serde::Serialize;

/// The object of a record.
#[derive(Debug, Default, Serialize)]
struct Object<'a> {
    time: String,
    connection: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_level: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<String>,
}

/// Bytes: how many, and their digest or, with `-secrets`, all of them.
#[derive(Debug, Serialize)]
struct Bytes {
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Bytes {
    fn new(bytes: &[u8], secrets: Secrets) -> Self {
        let hidden = secrets == Secrets::Hidden;
        Self {
            bytes: bytes.len() as u64,
            sha256: hidden.then(|| format!("{:08x}", digest(bytes))),
            hex: (!hidden).then(|| show_hex(bytes).to_string()),
        }
    }

    const fn only_count(bytes: u64) -> Self {
        Self { bytes, sha256: None, hex: None }
    }
}

/// Appends the object of a record, and a newline. Frames that were kept are in it unless they have a secret.
pub(crate) fn write(out: &mut String, record: &Record, secrets: Secrets) {
    let mut object = object_of(record, secrets);
    object.time = rfc_3339(record.at);
    object.connection = record.connection;
    match serde_json::to_string(&object) {
        Ok(text) => out.push_str(&text),
        Err(error) => debug_assert!(false, "numbers and texts are always JSON: {error}"),
    }
    out.push('\n');
}

fn object_of(record: &Record, secrets: Secrets) -> Object<'_> {
    let of = |event, from| Object { event, from, ..Object::default() };
    match &record.what {
        What::Opened { from } => of("opened", Some(from)),
        What::Message(message) => message_object(message, secrets),
        What::Corrupt { sender, corruption, offset, bytes } => Object {
            offset: Some(offset + corruption.offset() as u64),
            reason: Some(corruption.to_string()),
            data: Some(Bytes::new(bytes, Secrets::Shown)),
            ..of("corrupt", Some(end_name(*sender)))
        },
        What::Raw { sender, len, bytes } => {
            let data = match bytes {
                Some(bytes) => Bytes::new(bytes, secrets),
                None => Bytes::only_count(*len as u64),
            };
            Object { data: Some(data), ..of("raw", Some(end_name(*sender))) }
        }
        What::Line { sender, text, secret } => Object {
            text: Some(crate::line::text_line(text, *secret, secrets)),
            ..of("text", Some(end_name(*sender)))
        },
        What::Tls { sender } => of("tls", Some(end_name(*sender))),
        What::Gap { sender, count } => {
            Object { data: Some(Bytes::only_count(*count)), ..of("gap", Some(end_name(*sender))) }
        }
        What::Refused { why } => Object { reason: Some(why.clone()), ..of("refused", None) },
        What::Closed { how, unanswered, unfinished } => {
            let (event, from) = match how {
                Ending::Orderly => ("closed", None),
                Ending::Reset(sender) => ("reset", Some(end_name(*sender))),
                Ending::Cut => ("open", None),
            };
            let unfinished_bytes = Some(unfinished[0].1 + unfinished[1].1);
            Object { unanswered: Some(*unanswered), unfinished_bytes, ..of(event, from) }
        }
    }
}

fn message_object(record: &MessageRecord, secrets: Secrets) -> Object<'_> {
    let message = record.as_ref();
    let head = message.head;
    let content = Content::of(message);
    let is_public = secrets == Secrets::Shown || content.secret_range(message.data.len()).is_empty();
    let mut object = Object {
        event: if head.direction == Direction::Request { "request" } else { "response" },
        from: Some(end_name(record.sender)),
        operation: Some(head.operation.name()),
        uid: Some(head.uid),
        patch_level: Some(head.patch_level),
        id: record.id().map(|id| show_hex(id).to_string()),
        session: content.session().map(|session| Bytes::new(session, secrets)),
        answers: record.answers.as_ref().map(|answered| answered.operation.name()),
        took_us: record.answers.as_ref().map(|answered| answered.took.as_nanos() as f64 / 1e3),
        frames: record.raw.as_ref().filter(|_| is_public).map(|raw| show_hex(raw).to_string()),
        ..Object::default()
    };
    match content {
        Content::Add(Add { timeout_ms, .. }) => object.timeout_ms = Some(timeout_ms),
        Content::AddRefused { timeout_ms, .. } => {
            object.timeout_ms = Some(timeout_ms);
            object.reason = Some(content.show(secrets).to_string());
        }
        Content::Status(status) => object.status = Some(status.name()),
        Content::Session(_) => object.status = Some(Status::Ok.name()),
        Content::Opaque(data) => object.data = Some(Bytes::new(data, secrets)),
        Content::Malformed { problem, data } => {
            object.reason = Some(problem.to_owned());
            object.data = Some(Bytes::new(data, secrets));
        }
        Content::Id(_) => {}
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::proto::observe::{Answered, Sender};
    use libdc::wire::frame::{Corruption, MessageHead, Operation, SessionOperation};
    use libdc::wire::message::Message;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn parsed(what: What, secrets: Secrets) -> Value {
        let record = Record { at: Duration::new(1_772_366_401, 204_117_391), connection: 3, what };
        let mut out = String::new();
        write(&mut out, &record, secrets);
        assert_eq!(out.matches('\n').count(), 1);
        serde_json::from_str(&out).unwrap()
    }

    fn answer() -> What {
        let get = Operation::Session(SessionOperation::Get);
        let message = Message { head: MessageHead::request(17, get).response(), data: b"abc".to_vec() };
        let answers = Some(Answered {
            operation: get,
            id: Some([0x5f, 0x0a].into()),
            took: Duration::from_micros(274),
        });
        let raw = Some(vec![7]);
        What::Message(Box::new(MessageRecord {
            sender: Sender::Server,
            message,
            raw,
            answers,
            show_id: false,
        }))
    }

    #[test]
    fn an_answer_is_an_object() {
        let mut expected = json!({
            "time": "2026-03-01T12:00:01.204117391Z", "connection": 3, "event": "response", "from": "server",
            "operation": "GET", "uid": 17, "patch_level": 1, "id": "5f0a", "status": "OK",
            "session": {"bytes": 3, "sha256": "ba7816bf"}, "answers": "GET", "took_us": 274.0,
        });
        assert_eq!(parsed(answer(), Secrets::Hidden), expected);
        expected["session"] = json!({"bytes": 3, "hex": "616263"});
        expected["frames"] = json!("07");
        assert_eq!(parsed(answer(), Secrets::Shown), expected);
    }

    #[test]
    fn a_request_has_its_id() {
        let get = Operation::Session(SessionOperation::Get);
        let message = Message { head: MessageHead::request(17, get), data: vec![0x5f, 0x0a] };
        let request = MessageRecord {
            sender: Sender::Client,
            message,
            raw: Some(vec![7]),
            answers: None,
            show_id: false,
        };
        let parsed = parsed(What::Message(Box::new(request)), Secrets::Hidden);
        assert_eq!(
            (&parsed["event"], &parsed["id"], &parsed["frames"]),
            (&json!("request"), &json!("5f0a"), &json!("07"))
        );
    }

    #[test]
    fn what_is_no_message_is_an_object_too() {
        let sender = Sender::Client;
        let corruption = Corruption::IsResponse { value: 7 };
        let corrupt = What::Corrupt { sender, corruption, offset: 14, bytes: vec![0, 0x11, 0, 1, 7] };
        let object = parsed(corrupt, Secrets::Hidden);
        assert_eq!((&object["offset"], &object["data"]["hex"]), (&json!(18), &json!("0011000107")));
        let unfinished = [(Sender::Client, 6), (Sender::Server, 1)];
        let closed = What::Closed { how: Ending::Reset(sender), unanswered: 2, unfinished };
        let object = parsed(closed, Secrets::Hidden);
        let expected = (&json!("reset"), &json!(2), &json!(7));
        assert_eq!((&object["event"], &object["unanswered"], &object["unfinished_bytes"]), expected);
        let raw = What::Raw { sender, len: 3, bytes: Some(b"abc".to_vec()) };
        assert_eq!(parsed(raw, Secrets::Hidden)["data"], json!({"bytes": 3, "sha256": "ba7816bf"}));
        let text = What::Line { sender, text: b"a\"b\x01\n".to_vec(), secret: false };
        assert_eq!(parsed(text, Secrets::Hidden)["text"], json!("a\\\"b\\x01"));
    }
}
