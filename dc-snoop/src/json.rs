//! `-json`: a record is one object on one line.
//!
//! Every object has `time` (RFC 3339, UTC), `connection` and `event`; the other members depend on the event and
//! are left out where there is nothing to say. Ids are whole, in hexadecimal digits. A fence is a text of decimal digits:
//! many programs take numbers as floating-point ones, which would make neighbours equal.

use crate::clock::rfc_3339;
use crate::line::end_name;
use crate::record::{Ending, MessageRecord, Record, TextRecord, What, shown_of_corrupt};
use libdc::id::{LockKey, Token};
use libdc::proto::observe::{Answered, Sender};
use libdc::wire::display::{
    Content, LinkContent, Parts, Secrets, TextContent, digest, short_digest, show_hex,
};
use libdc::wire::frame::Direction;
use libdc::wire::line::TextRequest;
use libdc::wire::link::{Claim, Hello, Welcome};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::session::Add;
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
    owner: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Vec<ClaimObject<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims_kept: Option<Vec<bool>>,
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

/// A lock that is claimed. One that no key can be has none.
#[derive(Debug, Serialize)]
struct ClaimObject<'a> {
    owner: u64,
    key: &'a str,
    fence: String,
    token: Bytes,
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

    /// A token, of a lock or of authentication: less is told of it.
    fn of_token(token: &[u8], secrets: Secrets) -> Self {
        let hidden = (secrets == Secrets::Hidden).then(|| format!("{:04x}", short_digest(token)));
        Self { sha256: hidden, ..Self::new(token, secrets) }
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
            data: Some(Bytes::new(shown_of_corrupt(bytes, *corruption, secrets), Secrets::Shown)),
            ..of("corrupt", Some(end_name(*sender)))
        },
        What::Raw { sender, len, bytes } => {
            let data = match bytes {
                Some(bytes) => Bytes::new(bytes, secrets),
                None => Bytes::only_count(*len as u64),
            };
            Object { data: Some(data), ..of("raw", Some(end_name(*sender))) }
        }
        What::Text(text) => text_object(text, secrets),
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

impl<'a> Object<'a> {
    fn of_said(direction: Direction, sender: Sender, answers: Option<&Answered>) -> Self {
        Self {
            event: if direction == Direction::Request { "request" } else { "response" },
            from: Some(end_name(sender)),
            answers: answers.map(|answered| answered.topic.name()),
            took_us: answers.map(|answered| answered.took.as_nanos() as f64 / 1e3),
            ..Self::default()
        }
    }

    fn set_owner(&mut self, owner: u64) {
        self.owner = Some(owner).filter(|owner| *owner != 0);
    }

    fn set_token(&mut self, token: Token, secrets: Secrets) {
        self.fence = Some(token.fence().to_string());
        self.token = Some(Bytes::of_token(&token.to_bytes(), secrets));
    }

    fn set_action(&mut self, action: &LockAction<'a>, secrets: Secrets) {
        let Parts { key, limit, timeout_ms, lease_ms, token } = Parts::of(action);
        self.key = key.map(LockKey::as_str);
        self.limit = limit;
        self.timeout_ms = timeout_ms;
        self.lease_ms = lease_ms.filter(|ms| *ms > 0);
        if let Some(token) = token {
            self.set_token(token, secrets);
        }
        if let LockAction::Cancel { uid } = action {
            self.cancelled_uid = Some(*uid);
        }
    }

    fn set_answer(&mut self, answer: &LockAnswer<'_>, secrets: Secrets) {
        self.status = Some(answer.status().name());
        match answer {
            LockAnswer::Status(_) => {}
            LockAnswer::Grant { grant, .. } => {
                self.set_token(grant.token, secrets);
                self.lease_ms = Some(grant.lease_ms);
            }
            LockAnswer::Renewed { lease_ms } => self.lease_ms = Some(*lease_ms),
            LockAnswer::Stats(json) => self.data = Some(Bytes::new(json, Secrets::Hidden)),
        }
    }

    fn set_link(&mut self, content: &LinkContent<'a>, secrets: Secrets) {
        match content {
            LinkContent::Hello(Hello { link_id, auth_token }) => {
                self.link = Some(Bytes::new(&link_id.to_bytes(), secrets));
                self.token = (!auth_token.is_empty()).then(|| Bytes::of_token(auth_token, secrets));
            }
            LinkContent::Welcome(Welcome { grace_ms, remembered, .. }) => {
                self.grace_ms = Some(*grace_ms);
                self.remembered = Some(*remembered);
            }
            LinkContent::Claims(_) => {
                let claims = content.claims().flatten().map(|Claim { owner, token, key }| ClaimObject {
                    owner,
                    key: key.as_str(),
                    fence: token.fence().to_string(),
                    token: Bytes::of_token(&token.to_bytes(), secrets),
                });
                self.claims = Some(claims.collect());
            }
            LinkContent::Claimed(statuses) => {
                let kept = statuses.iter().map(|status| *status == LockStatus::Ok as u8);
                self.claims_kept = Some(kept.collect());
            }
            LinkContent::Detach(detach) => self.set_owner(detach.owner),
            LinkContent::Status(_) | LinkContent::Nothing => {}
        }
    }
}

fn message_object(record: &MessageRecord, secrets: Secrets) -> Object<'_> {
    let message = record.as_ref();
    let head = message.head;
    let content = Content::of(message);
    let is_public = secrets == Secrets::Shown || content.secret_ranges(message.data.len()).is_empty();
    let mut object = Object {
        operation: Some(head.operation.name()),
        uid: Some(head.uid),
        patch_level: Some(head.patch_level),
        id: record.id().map(|id| show_hex(id).to_string()),
        status: content.status_name(),
        session: content.session().map(|session| Bytes::new(session, secrets)),
        frames: record.raw.as_ref().filter(|_| is_public).map(|raw| show_hex(raw).to_string()),
        ..Object::of_said(head.direction, record.sender, record.answers.as_ref())
    };
    match content {
        Content::Add(Add { timeout_ms, .. }) => object.timeout_ms = Some(timeout_ms.into()),
        Content::AddRefused { timeout_ms, .. } => {
            object.timeout_ms = Some(timeout_ms.into());
            object.reason = Some(content.show(secrets).to_string());
        }
        Content::Lock(LockRequest { owner, action }) => {
            object.set_owner(owner);
            object.set_action(&action, secrets);
        }
        Content::LockRefused(refused) => {
            object.set_owner(refused.owner);
            object.reason = Some(refused.to_string());
        }
        Content::LockAnswer(answer) => object.set_answer(&answer, secrets),
        Content::Link(content) => object.set_link(&content, secrets),
        Content::Malformed { problem, data } => {
            object.reason = Some(problem.to_owned());
            object.data = Some(Bytes::new(data, secrets));
        }
        Content::Id(_) | Content::Status(_) | Content::Session(_) => {}
    }
    object.key = record.key();
    object
}

fn text_object(record: &TextRecord, secrets: Secrets) -> Object<'_> {
    let content = record.content();
    let is_public = secrets == Secrets::Shown || content.secret_ranges(&record.raw).is_empty();
    let mut object = Object {
        operation: Some(record.topic().name()),
        text: (record.dump && is_public).then(|| record.raw.escape_ascii().to_string()),
        ..Object::of_said(record.direction, record.sender, record.answers.as_ref())
    };
    match &content {
        TextContent::Request(_, TextRequest::Lock(action)) => object.set_action(action, secrets),
        TextContent::Request(_, TextRequest::Auth { token }) => {
            object.token = Some(Bytes::of_token(token, secrets));
        }
        TextContent::Request(_, TextRequest::Ping) => {}
        TextContent::Answer(answer) => object.set_answer(answer, secrets),
        TextContent::Malformed { .. } | TextContent::Broken { .. } | TextContent::NoAnswer(_) => {
            object.reason = Some(content.show(secrets).to_string());
        }
    }
    object.key = record.key();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::display::Topic;
    use libdc::wire::frame::{Corruption, MessageHead, Operation, SessionOperation};
    use libdc::wire::line::Command;
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
            topic: Topic::Operation(get),
            id: Some([0x5f, 0x0a].into()),
            key: None,
            may_block: false,
            took: Duration::from_micros(274),
        });
        let raw = Some(vec![7]);
        What::Message(Box::new(MessageRecord {
            sender: Sender::Server,
            message,
            raw,
            answers,
            show_subject: false,
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
            show_subject: false,
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
        let corrupt = What::Corrupt { sender, corruption, offset: 14, bytes: vec![0, 0x11, 0, 1, 7, 0x73] };
        for (secrets, hex) in [(Secrets::Hidden, "0011000107"), (Secrets::Shown, "001100010773")] {
            let object = parsed(corrupt.clone(), secrets);
            assert_eq!((&object["offset"], &object["data"]["hex"]), (&json!(18), &json!(hex)));
        }
        let unfinished = [(Sender::Client, 6), (Sender::Server, 1)];
        let closed = What::Closed { how: Ending::Reset(sender), unanswered: 2, unfinished };
        let object = parsed(closed, Secrets::Hidden);
        let expected = (&json!("reset"), &json!(2), &json!(7));
        assert_eq!((&object["event"], &object["unanswered"], &object["unfinished_bytes"]), expected);
        let raw = What::Raw { sender, len: 3, bytes: Some(b"abc".to_vec()) };
        assert_eq!(parsed(raw, Secrets::Hidden)["data"], json!({"bytes": 3, "sha256": "ba7816bf"}));
    }

    const TOKEN: &str = "00000000000000070000000000000009";

    fn text(sender: Sender, raw: &str, asked: Option<Command>) -> What {
        let direction = if sender == Sender::Client { Direction::Request } else { Direction::Response };
        let answers = asked.map(|command| Answered {
            topic: Topic::Command(command),
            id: None,
            key: Some("nightly".into()),
            may_block: true,
            took: Duration::from_micros(1400),
        });
        let raw = raw.as_bytes().to_vec();
        What::Text(Box::new(TextRecord { sender, direction, raw, dump: true, answers, show_subject: false }))
    }

    /// Without what every object has.
    fn brief(what: What, secrets: Secrets) -> Value {
        let mut object = parsed(what, secrets);
        for name in ["time", "connection", "from", "event", "patch_level"] {
            object.as_object_mut().unwrap().remove(name);
        }
        object
    }

    #[test]
    fn text_is_an_object() {
        let request = text(Sender::Client, "sl\nnightly\n10 3 60\n", None);
        let expected = json!({
            "time": "2026-03-01T12:00:01.204117391Z", "connection": 3, "event": "request", "from": "client",
            "operation": "lock", "key": "nightly", "limit": 3, "timeout_ms": 10_000, "lease_ms": 60_000,
            "text": "sl\\nnightly\\n10 3 60\\n",
        });
        assert_eq!(parsed(request, Secrets::Hidden), expected);
        let grant = || text(Sender::Server, &format!("ok {TOKEN} 60\n"), Some(Command::Lock));
        let mut expected = json!({
            "operation": "lock", "key": "nightly", "status": "ok", "fence": "7", "lease_ms": 60_000,
            "token": {"bytes": 16, "sha256": "73cf"}, "answers": "lock", "took_us": 1400.0,
        });
        assert_eq!(brief(grant(), Secrets::Hidden), expected);
        expected["token"] = json!({"bytes": 16, "hex": TOKEN});
        expected["text"] = json!(format!("ok {TOKEN} 60\\n"));
        assert_eq!(brief(grant(), Secrets::Shown), expected);
        let auth = text(Sender::Client, "auth\n_\nsesame\n", None);
        let expected = json!({"operation": "auth", "token": {"bytes": 6, "sha256": "d0c0"}});
        assert_eq!(brief(auth, Secrets::Hidden), expected);
        let wrong = text(Sender::Client, "zz\n\n\n", None);
        let reason = "malformed: an unknown command: \"zz\" \"\" \"\"";
        assert_eq!(brief(wrong, Secrets::Hidden), json!({"operation": "text", "reason": reason}));
    }

    fn message(class: u8, number: u8, direction: Direction, data: &[u8]) -> What {
        let head = MessageHead::request(5, Operation::from_wire(class, number).unwrap());
        let (head, sender) = match direction {
            Direction::Request => (head, Sender::Client),
            Direction::Response => (head.response(), Sender::Server),
        };
        let message = Message { head, data: data.to_vec() };
        let raw = Some(vec![7]);
        What::Message(Box::new(MessageRecord { sender, message, raw, answers: None, show_subject: false }))
    }

    #[test]
    fn locks_and_links_are_objects() {
        use Direction::{Request, Response};
        let token = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9];
        let key = [0, 0, 0, 0, 0, 0, 0, 6, 0, 1, b'k'];
        let hidden_token = json!({"bytes": 16, "sha256": "73cf"});
        let claims = [&key[..8], &token, &key[8..], &[0; 8], &token, &[0, 1, b' ']].concat();
        let cases = [
            (
                message(1, 4, Request, &[&key[..], &token, &[0, 0, 0, 0, 0, 0, 3, 0xe8]].concat()),
                json!({"operation": "RENEW", "uid": 5, "owner": 6, "key": "k", "fence": "7", "token": hidden_token, "lease_ms": 1000}),
            ),
            (
                message(1, 5, Request, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
                json!({"operation": "CANCEL", "uid": 5, "cancelled_uid": 9, "frames": "07"}),
            ),
            (
                message(1, 0, Response, &[3]),
                json!({"operation": "ACQUIRE", "uid": 5, "status": "timeout", "frames": "07"}),
            ),
            (
                message(2, 0, Request, &[&[7; 16][..], &[0, 3], b"abc"].concat()),
                json!({"operation": "HELLO", "uid": 5, "link": {"bytes": 16, "sha256": "d761d406"}, "token": {"bytes": 3, "sha256": "ba78"}}),
            ),
            (
                message(2, 0, Response, &[0, 0, 0, 0x27, 0x10, 0, 0, 0, 2]),
                json!({"operation": "HELLO", "uid": 5, "status": "ok", "grace_ms": 10_000, "remembered": 2, "frames": "07"}),
            ),
            (
                message(2, 1, Request, &claims),
                json!({"operation": "CLAIM", "uid": 5, "claims": [{"owner": 6, "key": "k", "fence": "7", "token": hidden_token}]}),
            ),
            (
                message(2, 1, Response, &[0, 4]),
                json!({"operation": "CLAIM", "uid": 5, "claims_kept": [true, false], "frames": "07"}),
            ),
            (
                message(2, 4, Request, &key[..8]),
                json!({"operation": "DETACH", "uid": 5, "owner": 6, "frames": "07"}),
            ),
            (message(2, 3, Request, &[]), json!({"operation": "PING", "uid": 5, "frames": "07"})),
        ];
        for (what, expected) in cases {
            assert_eq!(brief(what, Secrets::Hidden), expected);
        }
    }
}
