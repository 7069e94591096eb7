//! `-json`: a record is one object on one line.
//!
//! Every object has `time` (RFC 3339, UTC), `connection` and `event`; the other members depend on the event
//! and are omitted without a value. Ids are complete, in hexadecimal. A fence is a string of decimal digits:
//! many programs read numbers as floating point, which would make adjacent fences equal.

use crate::clock::rfc_3339;
use crate::line::end_name;
use crate::record::{
    ConnectionClose, LineRecord, MessageRecord, RecordKind, TrafficRecord, shown_of_corrupt,
};
use dc_snoop::decode::{
    DecodedLines, DecodedLink, DecodedMessage, LockFields, Redaction, digest, short_digest, show_hex,
};
use dc_snoop::observe::{Endpoint, MatchedRequest};
use libdc::id::{LockKey, Token};
use libdc::wire::frame::Direction;
use libdc::wire::line::LineRequest;
use libdc::wire::link::{Claim, Hello, Welcome};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::session::AddRequest;
use serde::Serialize;

/// The object of a record.
#[derive(Debug, Default, Serialize)]
struct RecordJson<'a> {
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
    token: Option<BytesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<BytesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Vec<ClaimJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims_kept: Option<Vec<bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<BytesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<BytesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<String>,
}

/// A claimed lock. `None` for an invalid key.
#[derive(Debug, Serialize)]
struct ClaimJson<'a> {
    owner: u64,
    key: &'a str,
    fence: String,
    token: BytesJson,
}

/// Bytes: how many, and their digest or, with `-secrets`, all of them.
#[derive(Debug, Serialize)]
struct BytesJson {
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl BytesJson {
    fn new(bytes: &[u8], secrets: Redaction) -> Self {
        let hidden = secrets == Redaction::Hidden;
        Self {
            bytes: bytes.len() as u64,
            sha256: hidden.then(|| format!("{:08x}", digest(bytes))),
            hex: (!hidden).then(|| show_hex(bytes).to_string()),
        }
    }

    /// A token, of a lock or of authentication: its digest is shorter.
    fn of_token(token: &[u8], secrets: Redaction) -> Self {
        let hidden = (secrets == Redaction::Hidden).then(|| format!("{:04x}", short_digest(token)));
        Self { sha256: hidden, ..Self::new(token, secrets) }
    }

    const fn only_count(bytes: u64) -> Self {
        Self { bytes, sha256: None, hex: None }
    }
}

/// Appends the object of a record, and a newline. Frames that were kept are in it unless they have a secret.
pub(crate) fn write(out: &mut String, record: &TrafficRecord, secrets: Redaction) {
    let mut object = object_of(record, secrets);
    object.time = rfc_3339(record.at);
    object.connection = record.connection;
    match serde_json::to_string(&object) {
        Ok(text) => out.push_str(&text),
        Err(error) => debug_assert!(false, "numbers and texts are always JSON: {error}"),
    }
    out.push('\n');
}

fn object_of(record: &TrafficRecord, secrets: Redaction) -> RecordJson<'_> {
    let of = |event, from| RecordJson { event, from, ..RecordJson::default() };
    match &record.what {
        RecordKind::Opened { from } => of("opened", Some(from)),
        RecordKind::Message(message) => message_object(message, secrets),
        RecordKind::Corrupt { sender, corruption, offset, bytes } => RecordJson {
            offset: Some(offset + corruption.offset() as u64),
            reason: Some(corruption.to_string()),
            data: Some(BytesJson::new(shown_of_corrupt(bytes, *corruption, secrets), Redaction::Shown)),
            ..of("corrupt", Some(end_name(*sender)))
        },
        RecordKind::Raw { sender, len, bytes } => {
            let data = match bytes {
                Some(bytes) => BytesJson::new(bytes, secrets),
                None => BytesJson::only_count(*len as u64),
            };
            RecordJson { data: Some(data), ..of("raw", Some(end_name(*sender))) }
        }
        RecordKind::Text(text) => text_object(text, secrets),
        RecordKind::Tls { sender } => of("tls", Some(end_name(*sender))),
        RecordKind::Gap { sender, count } => {
            RecordJson { data: Some(BytesJson::only_count(*count)), ..of("gap", Some(end_name(*sender))) }
        }
        RecordKind::Refused { why } => RecordJson { reason: Some(why.clone()), ..of("refused", None) },
        RecordKind::Closed { how, unanswered, unfinished } => {
            let (event, from) = match how {
                ConnectionClose::Orderly => ("closed", None),
                ConnectionClose::Reset(sender) => ("reset", Some(end_name(*sender))),
                ConnectionClose::Cut => ("open", None),
            };
            let unfinished_bytes = Some(unfinished[0].1 + unfinished[1].1);
            RecordJson { unanswered: Some(*unanswered), unfinished_bytes, ..of(event, from) }
        }
    }
}

impl<'a> RecordJson<'a> {
    fn of_said(direction: Direction, sender: Endpoint, answers: Option<&MatchedRequest>) -> Self {
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

    fn set_token(&mut self, token: Token, secrets: Redaction) {
        self.fence = Some(token.fence().to_string());
        self.token = Some(BytesJson::of_token(&token.to_bytes(), secrets));
    }

    fn set_action(&mut self, action: &LockAction<'a>, secrets: Redaction) {
        let LockFields { key, limit, timeout_ms, lease_ms, token } = LockFields::of(action);
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

    fn set_answer(&mut self, answer: &LockAnswer<'_>, secrets: Redaction) {
        self.status = Some(answer.status().name());
        match answer {
            LockAnswer::Status(_) => {}
            LockAnswer::Grant { grant, .. } => {
                self.set_token(grant.token, secrets);
                self.lease_ms = Some(grant.lease_ms);
            }
            LockAnswer::Renewed { lease_ms } => self.lease_ms = Some(*lease_ms),
            LockAnswer::Stats(json) => self.data = Some(BytesJson::new(json, Redaction::Hidden)),
        }
    }

    fn set_link(&mut self, content: &DecodedLink<'a>, secrets: Redaction) {
        match content {
            DecodedLink::Hello(Hello { link_id, auth_token }) => {
                self.link = Some(BytesJson::new(&link_id.to_bytes(), secrets));
                self.token = (!auth_token.is_empty()).then(|| BytesJson::of_token(auth_token, secrets));
            }
            DecodedLink::Welcome(Welcome { grace_ms, remembered, .. }) => {
                self.grace_ms = Some(*grace_ms);
                self.remembered = Some(*remembered);
            }
            DecodedLink::Claims(_) => {
                let claims = content.claims().flatten().map(|Claim { owner, token, key }| ClaimJson {
                    owner,
                    key: key.as_str(),
                    fence: token.fence().to_string(),
                    token: BytesJson::of_token(&token.to_bytes(), secrets),
                });
                self.claims = Some(claims.collect());
            }
            DecodedLink::Claimed(statuses) => {
                let kept = statuses.iter().map(|status| *status == LockStatus::Ok as u8);
                self.claims_kept = Some(kept.collect());
            }
            DecodedLink::Detach(detach) => self.set_owner(detach.owner),
            DecodedLink::Status(_) | DecodedLink::Nothing => {}
        }
    }
}

fn message_object(record: &MessageRecord, secrets: Redaction) -> RecordJson<'_> {
    let message = record.as_ref();
    let head = message.head;
    let content = DecodedMessage::decode(message);
    let is_public = secrets == Redaction::Shown || content.secret_ranges(message.data.len()).is_empty();
    let mut object = RecordJson {
        operation: Some(head.operation.name()),
        uid: Some(head.uid),
        patch_level: Some(head.patch_level),
        id: record.id().map(|id| show_hex(id).to_string()),
        status: content.status_name(),
        session: content.session().map(|session| BytesJson::new(session, secrets)),
        frames: record.raw.as_ref().filter(|_| is_public).map(|raw| show_hex(raw).to_string()),
        ..RecordJson::of_said(head.direction, record.sender, record.answers.as_ref())
    };
    match content {
        DecodedMessage::Add(AddRequest { timeout_ms, .. }) => object.timeout_ms = Some(timeout_ms.into()),
        DecodedMessage::AddRefused { timeout_ms, .. } => {
            object.timeout_ms = Some(timeout_ms.into());
            object.reason = Some(content.show(secrets).to_string());
        }
        DecodedMessage::Lock(LockRequest { owner, action }) => {
            object.set_owner(owner);
            object.set_action(&action, secrets);
        }
        DecodedMessage::LockRefused(refused) => {
            object.set_owner(refused.owner);
            object.reason = Some(refused.to_string());
        }
        DecodedMessage::LockAnswer(answer) => object.set_answer(&answer, secrets),
        DecodedMessage::Link(content) => object.set_link(&content, secrets),
        DecodedMessage::Malformed { problem, data } => {
            object.reason = Some(problem.to_owned());
            object.data = Some(BytesJson::new(data, secrets));
        }
        DecodedMessage::Id(_) | DecodedMessage::Status(_) | DecodedMessage::Session(_) => {}
    }
    object.key = record.key();
    object
}

fn text_object(record: &LineRecord, secrets: Redaction) -> RecordJson<'_> {
    let content = record.content();
    let is_public = secrets == Redaction::Shown || content.secret_ranges(&record.raw).is_empty();
    let mut object = RecordJson {
        operation: Some(record.topic().name()),
        text: (record.dump && is_public).then(|| record.raw.escape_ascii().to_string()),
        ..RecordJson::of_said(record.direction, record.sender, record.answers.as_ref())
    };
    match &content {
        DecodedLines::Request(_, LineRequest::Lock(action)) => object.set_action(action, secrets),
        DecodedLines::Request(_, LineRequest::Auth { token }) => {
            object.token = Some(BytesJson::of_token(token, secrets));
        }
        DecodedLines::Request(_, LineRequest::Ping) => {}
        DecodedLines::Answer(answer) => object.set_answer(answer, secrets),
        DecodedLines::Malformed { .. } | DecodedLines::Broken { .. } | DecodedLines::NoAnswer(_) => {
            object.reason = Some(content.show(secrets).to_string());
        }
    }
    object.key = record.key();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use dc_snoop::decode::MessageKind;
    use libdc::wire::frame::{DecodeError, MessageHead, Operation, SessionOperation};
    use libdc::wire::line::LineCommand;
    use libdc::wire::message::Message;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn parsed(what: RecordKind, secrets: Redaction) -> Value {
        let record = TrafficRecord { at: Duration::new(1_772_366_401, 204_117_391), connection: 3, what };
        let mut out = String::new();
        write(&mut out, &record, secrets);
        assert_eq!(out.matches('\n').count(), 1);
        serde_json::from_str(&out).unwrap()
    }

    fn answer() -> RecordKind {
        let get = Operation::Session(SessionOperation::Get);
        let message = Message { head: MessageHead::request(17, get).response(), data: b"abc".to_vec() };
        let answers = Some(MatchedRequest {
            topic: MessageKind::Operation(get),
            id: Some([0x5f, 0x0a].into()),
            key: None,
            may_block: false,
            took: Duration::from_micros(274),
        });
        let raw = Some(vec![7]);
        RecordKind::Message(Box::new(MessageRecord {
            sender: Endpoint::Server,
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
        assert_eq!(parsed(answer(), Redaction::Hidden), expected);
        expected["session"] = json!({"bytes": 3, "hex": "616263"});
        expected["frames"] = json!("07");
        assert_eq!(parsed(answer(), Redaction::Shown), expected);
    }

    #[test]
    fn a_request_has_its_id() {
        let get = Operation::Session(SessionOperation::Get);
        let message = Message { head: MessageHead::request(17, get), data: vec![0x5f, 0x0a] };
        let request = MessageRecord {
            sender: Endpoint::Client,
            message,
            raw: Some(vec![7]),
            answers: None,
            show_subject: false,
        };
        let parsed = parsed(RecordKind::Message(Box::new(request)), Redaction::Hidden);
        assert_eq!(
            (&parsed["event"], &parsed["id"], &parsed["frames"]),
            (&json!("request"), &json!("5f0a"), &json!("07"))
        );
    }

    #[test]
    fn malformed_message_is_an_object() {
        let sender = Endpoint::Client;
        let corruption = DecodeError::IsResponse { value: 7 };
        let corrupt =
            RecordKind::Corrupt { sender, corruption, offset: 14, bytes: vec![0, 0x11, 0, 1, 7, 0x73] };
        for (secrets, hex) in [(Redaction::Hidden, "0011000107"), (Redaction::Shown, "001100010773")] {
            let object = parsed(corrupt.clone(), secrets);
            assert_eq!((&object["offset"], &object["data"]["hex"]), (&json!(18), &json!(hex)));
        }
        let unfinished = [(Endpoint::Client, 6), (Endpoint::Server, 1)];
        let closed = RecordKind::Closed { how: ConnectionClose::Reset(sender), unanswered: 2, unfinished };
        let object = parsed(closed, Redaction::Hidden);
        let expected = (&json!("reset"), &json!(2), &json!(7));
        assert_eq!((&object["event"], &object["unanswered"], &object["unfinished_bytes"]), expected);
        let raw = RecordKind::Raw { sender, len: 3, bytes: Some(b"abc".to_vec()) };
        assert_eq!(parsed(raw, Redaction::Hidden)["data"], json!({"bytes": 3, "sha256": "ba7816bf"}));
    }

    const TOKEN: &str = "00000000000000070000000000000009";

    fn text(sender: Endpoint, raw: &str, asked: Option<LineCommand>) -> RecordKind {
        let direction = if sender == Endpoint::Client { Direction::Request } else { Direction::Response };
        let answers = asked.map(|command| MatchedRequest {
            topic: MessageKind::Command(command),
            id: None,
            key: Some("nightly".into()),
            may_block: true,
            took: Duration::from_micros(1400),
        });
        let raw = raw.as_bytes().to_vec();
        RecordKind::Text(Box::new(LineRecord {
            sender,
            direction,
            raw,
            dump: true,
            answers,
            show_subject: false,
        }))
    }

    /// Without the members that every object has.
    fn brief(what: RecordKind, secrets: Redaction) -> Value {
        let mut object = parsed(what, secrets);
        for name in ["time", "connection", "from", "event", "patch_level"] {
            object.as_object_mut().unwrap().remove(name);
        }
        object
    }

    #[test]
    fn text_is_an_object() {
        let request = text(Endpoint::Client, "sl\nnightly\n10 3 60\n", None);
        let expected = json!({
            "time": "2026-03-01T12:00:01.204117391Z", "connection": 3, "event": "request", "from": "client",
            "operation": "lock", "key": "nightly", "limit": 3, "timeout_ms": 10_000, "lease_ms": 60_000,
            "text": "sl\\nnightly\\n10 3 60\\n",
        });
        assert_eq!(parsed(request, Redaction::Hidden), expected);
        let grant = || text(Endpoint::Server, &format!("ok {TOKEN} 60\n"), Some(LineCommand::Lock));
        let mut expected = json!({
            "operation": "lock", "key": "nightly", "status": "ok", "fence": "7", "lease_ms": 60_000,
            "token": {"bytes": 16, "sha256": "73cf"}, "answers": "lock", "took_us": 1400.0,
        });
        assert_eq!(brief(grant(), Redaction::Hidden), expected);
        expected["token"] = json!({"bytes": 16, "hex": TOKEN});
        expected["text"] = json!(format!("ok {TOKEN} 60\\n"));
        assert_eq!(brief(grant(), Redaction::Shown), expected);
        let auth = text(Endpoint::Client, "auth\n_\nsesame\n", None);
        let expected = json!({"operation": "auth", "token": {"bytes": 6, "sha256": "d0c0"}});
        assert_eq!(brief(auth, Redaction::Hidden), expected);
        let wrong = text(Endpoint::Client, "zz\n\n\n", None);
        let reason = "malformed: an unknown command: \"zz\" \"\" \"\"";
        assert_eq!(brief(wrong, Redaction::Hidden), json!({"operation": "text", "reason": reason}));
    }

    fn message(class: u8, number: u8, direction: Direction, data: &[u8]) -> RecordKind {
        let head = MessageHead::request(5, Operation::from_wire(class, number).unwrap());
        let (head, sender) = match direction {
            Direction::Request => (head, Endpoint::Client),
            Direction::Response => (head.response(), Endpoint::Server),
        };
        let message = Message { head, data: data.to_vec() };
        let raw = Some(vec![7]);
        RecordKind::Message(Box::new(MessageRecord {
            sender,
            message,
            raw,
            answers: None,
            show_subject: false,
        }))
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
            assert_eq!(brief(what, Redaction::Hidden), expected);
        }
    }
}
