//! Records as lines of text, in columns:
//!
//! ```text
//! 12:00:01.204117  #3 → GET     uid=17  id=5f0a…c9 (32)
//! 12:00:01.204391  #3 ← GET     uid=17  OK  session 183 bytes 8e1d04b7    274 µs
//! 12:00:02.117002  #5 → lock    key=nightly-backup timeout=10s lease=60s
//! 12:00:02.118440  #5 ← lock    ok fence=8123 lease=60s token 3eb1        1.4 ms
//! ```
//!
//! A column that becomes too narrow is widened for good, so that lines next to each other stay aligned.

use crate::clock::{TimeOfDay, took};
use crate::dump::{self, RedactedBytes};
use crate::record::{
    ConnectionClose, LineRecord, MessageRecord, RecordKind, TrafficRecord, shown_of_corrupt,
};
use anstyle::{AnsiColor, Style};
use dc_snoop::decode::{
    DecodedLines, DecodedLink, DecodedMessage, MessageKind, Redaction, show_data, show_id, show_key,
};
use dc_snoop::observe::{Endpoint, MatchedRequest};
use jiff::tz::TimeZone;
use libdc::id::LockKey;
use libdc::wire::frame::{DecodeError, Direction};
use libdc::wire::lock::LockStatus;
use libdc::wire::session::SessionStatus;
use std::fmt::{Display, Write};

/// Turns records into lines.
#[derive(Debug)]
pub(crate) struct LineWriter {
    secrets: Redaction,
    time: TimeOfDay,
    colour: bool,
    connection_width: usize,
    uid_width: usize,
    end: usize,
}

/// The times stand at the right of this column, unless a line is longer.
const END: usize = 80;
/// No time is moved further to the right than this by a long line before it.
const END_MAX: usize = 120;

impl LineWriter {
    pub(crate) const fn new(secrets: Redaction, zone: TimeZone, colour: bool) -> Self {
        Self { secrets, time: TimeOfDay::new(zone), colour, connection_width: 2, uid_width: 2, end: END }
    }

    /// Appends the line (or, with a dump, lines) of a record.
    pub(crate) fn write(&mut self, out: &mut String, record: &TrafficRecord) {
        let mut line = StyledLine::new(out, self.colour);
        line.push(DIM, &self.time.show(record.at));
        let number = format!("#{}", record.connection);
        self.connection_width = self.connection_width.max(number.len());
        line.pad(1 + self.connection_width - number.len() + 1);
        line.push(connection_style(record.connection), &number);
        match &record.what {
            RecordKind::Message(message) => self.message(line, message),
            RecordKind::Corrupt { sender, corruption, offset, bytes } => {
                begin(&mut line, *sender, "corrupt", FAILED);
                line.push(PLAIN, &malformed(*corruption, *offset));
                let shown = shown_of_corrupt(bytes, *corruption, self.secrets);
                line.push(DIM, &format!("  [{}]", spaced(shown)));
                line.finish();
            }
            RecordKind::Raw { sender, len, bytes } => {
                begin(&mut line, *sender, "raw", DIM);
                line.push(DIM, &format!("{len} byte{}", plural(*len)));
                line.finish();
                if let Some(bytes) = bytes {
                    dump::write(out, bytes, &RedactedBytes::all(self.secrets));
                }
            }
            RecordKind::Text(text) => self.text(line, text),
            RecordKind::Tls { sender } => {
                begin(&mut line, *sender, "TLS", PLAIN);
                line.push(DIM, "not decoded");
                line.finish();
            }
            RecordKind::Gap { sender, count } => {
                begin(&mut line, *sender, "gap", FAILED);
                line.push(PLAIN, &format!("{count} byte{} not captured", plural(*count as usize)));
                line.finish();
            }
            RecordKind::Opened { .. } | RecordKind::Refused { .. } | RecordKind::Closed { .. } => {
                connection(line, &record.what);
            }
        }
    }

    fn message(&mut self, mut line: StyledLine<'_>, record: &MessageRecord) {
        let message = record.as_ref();
        let head = message.head;
        begin(&mut line, record.sender, head.operation.name(), PLAIN.bold());
        let uid = head.uid.to_string();
        self.uid_width = self.uid_width.max(uid.len());
        line.push(DIM, "uid=");
        line.push(PLAIN, &uid);
        line.pad(2 + self.uid_width - uid.len());
        match DecodedMessage::decode(message) {
            DecodedMessage::Status(status) => line.push(status_style(status), status.name()),
            DecodedMessage::Session(session) => {
                line.push(status_style(SessionStatus::Ok), SessionStatus::Ok.name());
                line.push(PLAIN, &format!("  session {}", show_data(session, self.secrets)));
            }
            content => {
                line.push(content_style(&content), &content.show(self.secrets).to_string());
            }
        }
        let topic = MessageKind::Operation(head.operation);
        self.answered(&mut line, head.direction, topic, record.answers.as_ref(), record.show_subject);
        let out = line.finish();
        if let Some(raw) = &record.raw {
            dump::write(out, raw, &RedactedBytes::of_message(message, self.secrets));
        }
    }

    fn text(&mut self, mut line: StyledLine<'_>, record: &LineRecord) {
        let (topic, content) = (record.topic(), record.content());
        begin(&mut line, record.sender, topic.name(), PLAIN.bold());
        line.push(text_style(&content), &content.show(self.secrets).to_string());
        self.answered(&mut line, record.direction, topic, record.answers.as_ref(), record.show_subject);
        let out = line.finish();
        if record.dump {
            dump::write(out, &record.raw, &RedactedBytes::of_text(&record.raw, &content, self.secrets));
        }
    }

    /// The request of an answer, as far as its line does not name it, and the latency.
    fn answered(
        &mut self,
        line: &mut StyledLine<'_>,
        direction: Direction,
        topic: MessageKind,
        answers: Option<&MatchedRequest>,
        show_subject: bool,
    ) {
        let Some(answered) = answers else {
            if direction == Direction::Response {
                self.at_end(line, FAILED, "no request");
            }
            return;
        };
        if let (true, Some(id)) = (show_subject, &answered.id) {
            line.push(PLAIN, &format!("  id={}", show_id(id)));
        }
        if let (true, Some(key)) = (show_subject, answered.key.as_deref().and_then(LockKey::new)) {
            line.push(PLAIN, &format!("  key={}", show_key(key)));
        }
        if answered.topic != topic {
            line.push(FAILED, &format!("  answers {}", answered.topic.name()));
        }
        self.at_end(line, DIM, &took(answered.took));
    }

    fn at_end(&mut self, line: &mut StyledLine<'_>, style: Style, text: &str) {
        let width = text.chars().count();
        self.end = self.end.max((line.width + 2 + width).min(END_MAX));
        line.pad(self.end.saturating_sub(line.width + width).max(2));
        line.push(style, text);
    }
}

/// Arrow and name, behind the number of the connection.
fn begin(line: &mut StyledLine<'_>, sender: Endpoint, name: &str, style: Style) {
    let (arrow, colour) = match sender {
        Endpoint::Client => (" → ", AnsiColor::Cyan),
        Endpoint::Server => (" ← ", AnsiColor::Green),
    };
    line.push(colour.on_default(), arrow);
    line.push(style, name);
    line.pad(8_usize.saturating_sub(name.chars().count()).max(1));
}

/// The lines about a connection as such.
fn connection(mut line: StyledLine<'_>, what: &RecordKind) {
    match what {
        RecordKind::Opened { from } => line.push(DIM, &format!(" ● opened  from {from}")),
        RecordKind::Refused { why } => line.push(FAILED, &format!(" × refused  {why}")),
        RecordKind::Closed { how, unanswered, unfinished } => {
            let how = match how {
                ConnectionClose::Orderly => "○ closed",
                ConnectionClose::Reset(Endpoint::Client) => "○ reset by the client",
                ConnectionClose::Reset(Endpoint::Server) => "○ reset by the server",
                ConnectionClose::Cut => "○ still open",
            };
            line.push(DIM, &format!(" {how}"));
            if *unanswered > 0 {
                line.push(WARNING, &format!("  {unanswered} request{} unanswered", plural(*unanswered)));
            }
            for (sender, count) in unfinished.iter().filter(|(_, count)| *count > 0) {
                let text = format!("  {count} byte{} of an unfinished message", plural(*count));
                line.push(WARNING, &format!("{text} from the {}", end_name(*sender)));
            }
        }
        _ => {}
    }
    line.finish();
}

pub(crate) const fn end_name(sender: Endpoint) -> &'static str {
    match sender {
        Endpoint::Client => "client",
        Endpoint::Server => "server",
    }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn malformed(corruption: DecodeError, frame: u64) -> String {
    let byte = corruption.offset();
    format!("at offset {} (byte {byte} of a frame): {corruption}", frame + byte as u64)
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const FAILED: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default();

const fn status_style(status: SessionStatus) -> Style {
    match status {
        SessionStatus::Ok => AnsiColor::Green.on_default(),
        SessionStatus::NotOk => WARNING,
        _ => FAILED,
    }
}

const fn lock_status_style(status: LockStatus) -> Style {
    match status {
        LockStatus::Ok | LockStatus::Acquired => status_style(SessionStatus::Ok),
        LockStatus::Queued => PLAIN,
        LockStatus::Timeout => WARNING,
        _ => FAILED,
    }
}

fn content_style(content: &DecodedMessage<'_>) -> Style {
    match content {
        DecodedMessage::Malformed { .. }
        | DecodedMessage::AddRefused { .. }
        | DecodedMessage::LockRefused(_) => FAILED,
        DecodedMessage::LockAnswer(answer) => lock_status_style(answer.status()),
        DecodedMessage::Link(DecodedLink::Claimed(_)) if content.is_failure() => FAILED,
        DecodedMessage::Link(link) => link.status().map_or(PLAIN, lock_status_style),
        _ => PLAIN,
    }
}

const fn text_style(content: &DecodedLines<'_>) -> Style {
    match content {
        DecodedLines::Request(..) => PLAIN,
        DecodedLines::Answer(answer) => lock_status_style(answer.status()),
        DecodedLines::Malformed { .. } | DecodedLines::Broken { .. } | DecodedLines::NoAnswer(_) => FAILED,
    }
}

/// Connections next to each other differ.
const fn connection_style(connection: u64) -> Style {
    let colours = [AnsiColor::Blue, AnsiColor::Magenta, AnsiColor::Yellow, AnsiColor::Cyan, AnsiColor::Green];
    colours[(connection % 5) as usize].on_default()
}

/// A line being written: its text, and its width on the screen.
#[derive(Debug)]
pub(crate) struct StyledLine<'a> {
    out: &'a mut String,
    colour: bool,
    width: usize,
    /// Spaces to insert before the next text.
    spaces: usize,
}

impl<'a> StyledLine<'a> {
    const fn new(out: &'a mut String, colour: bool) -> Self {
        Self { out, colour, width: 0, spaces: 0 }
    }

    fn push(&mut self, style: Style, text: &str) {
        if text.is_empty() {
            return;
        }
        self.out.extend(std::iter::repeat_n(' ', std::mem::take(&mut self.spaces)));
        self.width += text.chars().count();
        let styled: &dyn Display = if self.colour { &format_args!("{style}{text}{style:#}") } else { &text };
        let result = write!(self.out, "{styled}");
        debug_assert!(result.is_ok(), "a string takes any text");
    }

    fn pad(&mut self, count: usize) {
        self.width += count;
        self.spaces += count;
    }

    fn finish(self) -> &'a mut String {
        self.out.push('\n');
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::frame::{MessageHead, Operation, SessionOperation};
    use libdc::wire::line::LineCommand;
    use libdc::wire::message::Message;
    use std::time::Duration;

    const AT: Duration = Duration::new(1_772_366_401, 204_117_391);
    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn shown(secrets: Redaction, connection: u64, whats: Vec<RecordKind>) -> String {
        let mut writer = LineWriter::new(secrets, TimeZone::UTC, false);
        let mut out = String::new();
        for what in whats {
            writer.write(&mut out, &TrafficRecord { at: AT, connection, what });
        }
        out
    }

    fn request(uid: u32, data: &[u8]) -> MessageRecord {
        let message = Message { head: MessageHead::request(uid, GET), data: data.to_vec() };
        MessageRecord { sender: Endpoint::Client, message, raw: None, answers: None, show_subject: false }
    }

    fn answer(uid: u32, data: &[u8], took: Option<Duration>) -> MessageRecord {
        let message = Message { head: MessageHead::request(uid, GET).response(), data: data.to_vec() };
        let answers = took.map(|took| MatchedRequest {
            topic: MessageKind::Operation(GET),
            id: Some([0x5f, 0x0a].into()),
            key: None,
            may_block: false,
            took,
        });
        MessageRecord { sender: Endpoint::Server, message, raw: None, answers, show_subject: false }
    }

    fn message_of(record: MessageRecord) -> RecordKind {
        RecordKind::Message(Box::new(record))
    }

    #[test]
    fn messages_stand_in_columns() {
        let id: Vec<u8> = [0x5f, 0x0a].into_iter().chain([7; 29]).chain([0xc9]).collect();
        let took = Some(Duration::from_micros(274));
        let whats = vec![
            message_of(request(17, &id)),
            message_of(answer(17, b"abc", took)),
            message_of(answer(18, &[2], None)),
        ];
        let expected = "\
12:00:01.204117  #3 → GET     uid=17  id=5f0a…c9 (32)
12:00:01.204117  #3 ← GET     uid=17  OK  session 3 bytes ba7816bf        274 µs
12:00:01.204117  #3 ← GET     uid=18  DISCONNECTED                    no request
";
        assert_eq!(shown(Redaction::Hidden, 3, whats), expected);
    }

    #[test]
    fn a_column_that_is_too_narrow_is_widened_for_good() {
        let whats = vec![message_of(request(4_294_967_295, &[1])), message_of(request(7, &[1]))];
        let expected = "\
12:00:01.204117  #3 → GET     uid=4294967295  id=01 (1)
12:00:01.204117  #3 → GET     uid=7           id=01 (1)
";
        assert_eq!(shown(Redaction::Hidden, 3, whats), expected);
    }

    #[test]
    fn an_answer_whose_request_is_not_shown_has_the_id() {
        let mut missed = answer(17, &[1], Some(Duration::from_micros(1400)));
        missed.show_subject = true;
        let expected = "12:00:01.204117  #12 ← GET     uid=17  NOTOK  id=5f0a (2)                 1.4 ms\n";
        assert_eq!(shown(Redaction::Hidden, 12, vec![message_of(missed)]), expected);
    }

    #[test]
    fn malformed_messages_are_shown() {
        let sender = Endpoint::Client;
        let corruption = DecodeError::IsResponse { value: 7 };
        let unfinished = [(Endpoint::Client, 6), (Endpoint::Server, 0)];
        let whats = vec![
            RecordKind::Opened { from: "127.0.0.1:5000".to_owned() },
            RecordKind::Corrupt { sender, corruption, offset: 14, bytes: vec![0, 0x11, 0, 1, 7, 0x73] },
            RecordKind::Raw { sender, len: 1, bytes: Some(vec![7]) },
            RecordKind::Gap { sender: Endpoint::Server, count: 100 },
            RecordKind::Tls { sender },
            RecordKind::Refused { why: "cannot connect".to_owned() },
            RecordKind::Closed { how: ConnectionClose::Reset(Endpoint::Server), unanswered: 1, unfinished },
        ];
        let expected = "\
12:00:01.204117  #3 ● opened  from 127.0.0.1:5000
12:00:01.204117  #3 → corrupt at offset 18 (byte 4 of a frame): is_response is 7, not 0 or 1  [00 11 00 01 07]
12:00:01.204117  #3 → raw     1 byte
      (hidden, -secrets shows them)
12:00:01.204117  #3 ← gap     100 bytes not captured
12:00:01.204117  #3 → TLS     not decoded
12:00:01.204117  #3 × refused  cannot connect
12:00:01.204117  #3 ○ reset by the server  1 request unanswered  6 bytes of an unfinished message from the client
";
        assert_eq!(shown(Redaction::Hidden, 3, whats), expected);
    }

    fn text(sender: Endpoint, said: &str, asked: Option<(MessageKind, Duration)>) -> LineRecord {
        let direction = if sender == Endpoint::Client { Direction::Request } else { Direction::Response };
        let answers = asked.map(|(topic, took)| MatchedRequest {
            topic,
            id: None,
            key: Some("nightly-backup".into()),
            may_block: true,
            took,
        });
        let raw = said.as_bytes().to_vec();
        LineRecord { sender, direction, raw, dump: false, answers, show_subject: false }
    }

    fn texts(records: Vec<LineRecord>) -> Vec<RecordKind> {
        records.into_iter().map(|record| RecordKind::Text(Box::new(record))).collect()
    }

    const GRANT: &str = "ok 0000000000001fbb0000000000000009 60\n";

    #[test]
    fn requests_and_answers_of_text_are_lines() {
        let lock = MessageKind::Command(LineCommand::Lock);
        let ms = Duration::from_micros;
        let mut apart = text(Endpoint::Server, "timeout\n", Some((lock, ms(10_000_274))));
        apart.show_subject = true;
        let whats = texts(vec![
            text(Endpoint::Client, "l\nnightly-backup\n10 60\n", None),
            text(Endpoint::Server, GRANT, Some((lock, ms(1438)))),
            text(Endpoint::Client, "ping\n_\n\n", None),
            text(Endpoint::Server, "ok\n", Some((MessageKind::Command(LineCommand::Ping), ms(74)))),
            apart,
            text(Endpoint::Client, "zz\n\n\n", None),
            text(Endpoint::Server, "error\n", Some((MessageKind::Text, ms(74)))),
            text(Endpoint::Server, "what?\n", None),
        ]);
        let expected = "\
12:00:01.204117  #5 → lock    key=nightly-backup timeout=10s lease=60s
12:00:01.204117  #5 ← lock    ok fence=8123 lease=60s token 80ef          1.4 ms
12:00:01.204117  #5 → ping
12:00:01.204117  #5 ← ping    ok                                           74 µs
12:00:01.204117  #5 ← lock    timeout  key=nightly-backup                   10 s
12:00:01.204117  #5 → text    malformed: an unknown command: \"zz\" \"\" \"\"
12:00:01.204117  #5 ← text    error                                        74 µs
12:00:01.204117  #5 ← text    malformed: no answer: \"what?\"           no request
";
        assert_eq!(shown(Redaction::Hidden, 5, whats), expected);
    }

    #[test]
    fn a_dump_of_text_has_dots_for_its_secrets() {
        let mut release = text(Endpoint::Client, "r\nk\n0000000000001fbb0000000000000009\n", None);
        release.dump = true;
        let expected = "\
12:00:01.204117  #5 → release key=k fence=8123 token 80ef
      0000  72 0a 6b 0a 30 30 30 30  30 30 30 30 30 30 30 30  |r.k.000000000000|
      0010  31 66 62 62 ·· ·· ·· ··  ·· ·· ·· ·· ·· ·· ·· ··  |1fbb············|
      0020  ·· ·· ·· ·· 0a                                    |····.|
";
        assert_eq!(shown(Redaction::Hidden, 5, texts(vec![release.clone()])), expected);
        let whole = shown(Redaction::Shown, 5, texts(vec![release]));
        assert!(whole.contains("token 0000000000001fbb0000000000000009\n"), "{whole}");
    }

    #[test]
    fn locks_and_links_are_lines_too() {
        let record = |number: (u8, u8), is_response: bool, data: &[u8]| {
            let head = MessageHead::request(17, Operation::from_wire(number.0, number.1).unwrap());
            let (head, sender) =
                if is_response { (head.response(), Endpoint::Server) } else { (head, Endpoint::Client) };
            let topic = MessageKind::Operation(head.operation);
            let took = Duration::from_micros(1438);
            let answers =
                is_response.then_some(MatchedRequest { topic, id: None, key: None, may_block: false, took });
            let message = Message { head, data: data.to_vec() };
            message_of(MessageRecord { sender, message, raw: None, answers, show_subject: false })
        };
        let acquire =
            [&[0, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'k', 0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 0, 0x27, 0x10], &[0; 8]];
        let grant = [0, 0, 0, 0, 0, 0, 0, 0x1f, 0xbb, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xea, 0x60];
        let whats = vec![
            record((1, 0), false, &acquire.concat()),
            record((1, 0), true, &grant),
            record((2, 1), true, &[0, 4, 0]),
            record((2, 3), false, &[]),
            record((2, 3), true, &[]),
        ];
        let expected = "\
12:00:01.204117  #5 → ACQUIRE uid=17  owner=7 key=k timeout=10s
12:00:01.204117  #5 ← ACQUIRE uid=17  ok fence=8123 lease=60s token 80ef  1.4 ms
12:00:01.204117  #5 ← CLAIM   uid=17  2 ok, 1 lost                        1.4 ms
12:00:01.204117  #5 → PING    uid=17
12:00:01.204117  #5 ← PING    uid=17                                      1.4 ms
";
        assert_eq!(shown(Redaction::Hidden, 5, whats), expected);
    }

    #[test]
    fn colours_do_not_move_anything() {
        let took = Some(Duration::from_micros(274));
        let record = TrafficRecord { at: AT, connection: 3, what: message_of(answer(17, b"abc", took)) };
        let (mut plain, mut coloured) = (String::new(), String::new());
        LineWriter::new(Redaction::Hidden, TimeZone::UTC, false).write(&mut plain, &record);
        LineWriter::new(Redaction::Hidden, TimeZone::UTC, true).write(&mut coloured, &record);
        let mut stripped = String::new();
        for piece in coloured.split('\x1b') {
            stripped.push_str(
                piece.strip_prefix('[').and_then(|it| it.split_once('m')).map_or(piece, |(_, text)| text),
            );
        }
        assert_ne!(coloured, plain);
        assert_eq!(stripped, plain);
    }
}
