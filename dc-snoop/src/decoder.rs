//! Decodes, filters and counts traffic: the pure stage between relay or capture and the output.

use crate::filter::{FilterInput, Filters};
use crate::record::{ConnectionClose, RecordKind, TrafficRecord};
use crate::stats::TrafficStats;
use dc_snoop::decode::{DecodedLines, DecodedLink, DecodedMessage, MessageKind};
use dc_snoop::observe::{Endpoint, LineEvent, MatchedRequest, MessageEvent, ObservedEvent, Observer};
use libdc::id::LockKey;
use libdc::wire::frame::Direction;
use libdc::wire::lock::LockStatus;
use std::collections::HashMap;
use std::time::Duration;

/// The options of a [`Decoder`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DecoderOptions {
    pub(crate) filters: Filters,
    /// Whether to report connections that open and close gracefully.
    pub(crate) connections: bool,
    /// Whether the bytes are to be dumped.
    pub(crate) keep_bytes: bool,
    /// After how many messages to end.
    pub(crate) count: Option<u64>,
    /// Whether to count the traffic instead of showing it.
    pub(crate) stats: bool,
}

/// Looks on at all connections.
#[derive(Debug)]
pub(crate) struct Decoder {
    options: DecoderOptions,
    connections: HashMap<u64, Observer>,
    records: Vec<TrafficRecord>,
    messages: u64,
    stats: TrafficStats,
    total: TrafficStats,
}

impl Decoder {
    pub(crate) fn new(options: DecoderOptions, now: Duration) -> Self {
        let (connections, records) = (HashMap::new(), Vec::new());
        let [stats, total] = [TrafficStats::new(now), TrafficStats::new(now)];
        Self { options, connections, records, messages: 0, stats, total }
    }

    /// A connection was accepted.
    pub(crate) fn open(&mut self, at: Duration, connection: u64, from: String) {
        self.connections.insert(connection, Observer::new());
        self.stats.opened();
        if self.options.connections {
            self.record(at, connection, RecordKind::Opened { from }, false);
        }
    }

    pub(crate) fn bytes(&mut self, at: Duration, connection: u64, sender: Endpoint, mut bytes: &[u8]) {
        self.stats.bytes(sender, bytes.len());
        let Self { options, connections, records, messages, stats, .. } = self;
        let Some(observer) = connections.get_mut(&connection) else { return };
        while let Some(event) = observer.next(sender, at, &mut bytes) {
            match &event {
                ObservedEvent::Message(passed) => stats.message(passed),
                ObservedEvent::Text(said) => stats.text(said),
                ObservedEvent::Corrupt { .. } => stats.malformed(),
                ObservedEvent::Raw(_) | ObservedEvent::Tls => {}
            }
            let is_message = matches!(event, ObservedEvent::Message(_) | ObservedEvent::Text(_));
            let ended = options.count.is_some_and(|count| *messages >= count);
            if ended || !options.filters.accept(&subject(connection, &event)) {
                continue;
            }
            *messages += u64::from(is_message);
            if options.stats {
                continue;
            }
            let what = RecordKind::new(sender, event, options.keep_bytes, options.filters.hide_requests());
            records.push(TrafficRecord { at, connection, what });
        }
    }

    /// Handles bytes that were missed.
    pub(crate) fn gap(&mut self, at: Duration, connection: u64, sender: Endpoint, count: u64) {
        if let Some(observer) = self.connections.get_mut(&connection) {
            observer.skip(sender, count);
            if count > 0 {
                self.record(at, connection, RecordKind::Gap { sender, count }, true);
            }
        }
    }

    /// The server of a connection could not be reached.
    pub(crate) fn refuse(&mut self, at: Duration, connection: u64, why: String) {
        self.connections.remove(&connection);
        self.record(at, connection, RecordKind::Refused { why }, true);
    }

    /// A connection ended. Recorded if it was not graceful, or if such records are enabled.
    pub(crate) fn close(&mut self, at: Duration, connection: u64, how: ConnectionClose) {
        let Some(observer) = self.connections.remove(&connection) else { return };
        let unanswered = observer.unanswered(Endpoint::Client) + observer.unanswered(Endpoint::Server);
        let unfinished =
            [Endpoint::Client, Endpoint::Server].map(|sender| (sender, observer.unfinished(sender)));
        let abrupt = unanswered > 0
            || matches!(how, ConnectionClose::Reset(_))
            || unfinished.iter().any(|(_, n)| *n > 0);
        if abrupt || self.options.connections {
            self.record(at, connection, RecordKind::Closed { how, unanswered, unfinished }, abrupt);
        }
    }

    /// The records since the last call.
    pub(crate) fn drain(&mut self) -> Vec<TrafficRecord> {
        std::mem::take(&mut self.records)
    }

    /// Whether the requested number of messages has been seen.
    pub(crate) fn is_done(&self) -> bool {
        self.options.count.is_some_and(|count| self.messages >= count)
    }

    /// The connections that are left end with the program or the capture.
    pub(crate) fn close_all(&mut self, at: Duration) {
        let mut numbers: Vec<u64> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.close(at, number, ConnectionClose::Cut);
        }
    }

    /// The counters since the last call, if statistics are enabled.
    pub(crate) fn take_stats(&mut self, now: Duration) -> Option<TrafficStats> {
        self.total.add(&self.stats);
        let stats = std::mem::replace(&mut self.stats, TrafficStats::new(now));
        self.options.stats.then_some(stats)
    }

    /// The total counters, if statistics are enabled.
    pub(crate) fn total_stats(&mut self, now: Duration) -> Option<TrafficStats> {
        self.take_stats(now)?;
        Some(std::mem::replace(&mut self.total, TrafficStats::new(now)))
    }

    fn record(&mut self, at: Duration, connection: u64, what: RecordKind, failed: bool) {
        let subject = FilterInput { connection, failed, ..FilterInput::default() };
        if !self.options.stats && !self.is_done() && self.options.filters.accept(&subject) {
            self.records.push(TrafficRecord { at, connection, what });
        }
    }
}

/// The fields of an event that a filter examines.
fn subject<'a>(connection: u64, event: &'a ObservedEvent<'_>) -> FilterInput<'a> {
    match event {
        ObservedEvent::Message(passed) => subject_of_message(connection, passed),
        ObservedEvent::Text(said) => subject_of_text(connection, said),
        ObservedEvent::Corrupt { .. } | ObservedEvent::Raw(_) => {
            FilterInput { connection, failed: true, ..FilterInput::default() }
        }
        ObservedEvent::Tls => FilterInput { connection, ..FilterInput::default() },
    }
}

fn subject_of_message<'a>(connection: u64, passed: &'a MessageEvent<'_>) -> FilterInput<'a> {
    let MessageEvent { message, answers, .. } = passed;
    let content = DecodedMessage::decode(*message);
    let unasked = message.head.direction == Direction::Response && answers.is_none();
    let asked_id = answers.as_ref().and_then(|answered| answered.id.as_deref());
    FilterInput {
        connection,
        topic: Some(MessageKind::Operation(message.head.operation)),
        id: content.id().or(asked_id),
        key: content.key().map(LockKey::as_str).or(asked_key(answers)),
        claims: if let DecodedMessage::Link(DecodedLink::Claims(data)) = content { data } else { &[] },
        status: content.status_name(),
        failed: unasked || content.is_failure(),
    }
}

fn subject_of_text<'a>(connection: u64, said: &'a LineEvent<'_>) -> FilterInput<'a> {
    let LineEvent { direction, raw, answers } = said;
    let content = DecodedLines::decode(*direction, raw);
    let unasked = *direction == Direction::Response && answers.is_none();
    let asked = answers.as_ref().map(|answered| answered.topic);
    FilterInput {
        connection,
        topic: content.command().map(MessageKind::Command).or(asked).or(Some(MessageKind::Text)),
        key: content.key().map(LockKey::as_str).or(asked_key(answers)),
        status: content.status().map(LockStatus::name),
        failed: unasked || content.is_failure(),
        ..FilterInput::default()
    }
}

fn asked_key(answers: &Option<MatchedRequest>) -> Option<&str> {
    answers.as_ref().and_then(|answered| answered.key.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::frame::{LockOperation, MessageHead, Operation, SessionOperation};
    use libdc::wire::message::write_message;

    const START: Duration = Duration::from_secs(1000);

    fn bytes(uid: u32, operation: SessionOperation, is_response: bool, data: &[u8]) -> Vec<u8> {
        let head = MessageHead::request(uid, Operation::Session(operation));
        let mut out = Vec::new();
        write_message(&mut out, if is_response { head.response() } else { head }, data);
        out
    }

    /// A GET with a hit, one with a miss, and garbage.
    fn pass(options: DecoderOptions) -> Decoder {
        let mut tap = Decoder::new(options, START);
        let get = SessionOperation::Get;
        tap.open(START, 1, "somebody".to_owned());
        let requests = [bytes(1, get, false, &[0x5f]), bytes(2, get, false, &[0x60])].concat();
        tap.bytes(START, 1, Endpoint::Client, &requests);
        let answers = [bytes(1, get, true, b"abc"), bytes(2, get, true, &[1]), vec![9]].concat();
        tap.bytes(START + Duration::from_micros(274), 1, Endpoint::Server, &answers);
        tap.close(START + Duration::from_secs(1), 1, ConnectionClose::Orderly);
        tap
    }

    fn recorded(filters: &[&str], count: Option<u64>) -> Vec<&'static str> {
        let filters = Filters::new(filters.iter().map(|text| text.parse().unwrap()).collect());
        let mut tap = pass(DecoderOptions { filters, count, connections: true, ..DecoderOptions::default() });
        let name = |record: TrafficRecord| match record.what {
            RecordKind::Opened { .. } => "opened",
            RecordKind::Message(message) if message.answers.is_some() => "answer",
            RecordKind::Message(_) => "request",
            RecordKind::Corrupt { .. } => "corrupt",
            RecordKind::Closed { .. } => "closed",
            _ => "other",
        };
        tap.drain().into_iter().map(name).collect()
    }

    #[test]
    fn everything_is_told_without_a_filter() {
        let all = ["opened", "request", "request", "answer", "answer", "corrupt", "closed"];
        assert_eq!(recorded(&[], None), all);
        assert_eq!(recorded(&["conn=1"], None), all);
        assert_eq!(recorded(&["conn=2"], None), [""; 0]);
    }

    #[test]
    fn a_filter_by_id_takes_the_answer_with_the_request() {
        assert_eq!(recorded(&["id=5f"], None), ["request", "answer"]);
    }

    #[test]
    fn failures_are_misses_and_corruptions() {
        assert_eq!(recorded(&["failed"], None), ["answer", "corrupt"]);
        assert_eq!(recorded(&["op=GET,failed"], None), ["answer"]);
    }

    #[test]
    fn after_the_count_nothing_is_told() {
        assert_eq!(recorded(&[], Some(3)), ["opened", "request", "request", "answer"]);
        assert_eq!(recorded(&["id=60"], Some(2)), ["request", "answer"]);
        assert!(pass(DecoderOptions { count: Some(4), ..DecoderOptions::default() }).is_done());
        assert!(!pass(DecoderOptions { count: Some(5), ..DecoderOptions::default() }).is_done());
    }

    #[test]
    fn statistics_count_what_passed() {
        let mut tap = pass(DecoderOptions { stats: true, ..DecoderOptions::default() });
        assert_eq!(tap.drain(), []);
        let now = START + Duration::from_secs(2);
        let first: serde_json::Value = serde_json::from_str(&tap.take_stats(now).unwrap().json(now)).unwrap();
        let get = &first["operations"]["GET"];
        let counts = ["count", "answered", "failed"].map(|name| get[name].as_u64().unwrap());
        assert_eq!(
            (counts, get["rate"].as_f64(), get["hit_ratio"].as_f64()),
            ([2, 2, 1], Some(1.0), Some(0.5))
        );
        assert_eq!(get["took_us"]["p50"].as_f64().unwrap().round(), 274.0);
        assert_eq!((&first["connections"], &first["malformed"]), (&1.into(), &1.into()));
        // The total includes the earlier records; the next table does not.
        let second: serde_json::Value =
            serde_json::from_str(&tap.take_stats(now).unwrap().json(now)).unwrap();
        assert_eq!(second["connections"], 0);
        let total = tap.total_stats(now).unwrap().table(now, &jiff::tz::TimeZone::UTC);
        let lines: Vec<&str> = total.lines().collect();
        assert_eq!(lines[0], "00:16:42.000000  2.0 s  1 new connection  → 15 B/s  ← 16 B/s  1 malformed");
        assert_eq!(
            lines[2].split_whitespace().take(6).collect::<Vec<_>>(),
            ["GET", "1.0", "2", "1", "50.0", "%"]
        );
    }

    /// A granted waiter, a timeout, a wrong command, an unexpected answer, an ACQUIRE with its key.
    fn pass_locks(filters: &[&str], stats: bool) -> Decoder {
        let filters = Filters::new(filters.iter().map(|text| text.parse().unwrap()).collect());
        let mut tap = Decoder::new(DecoderOptions { filters, stats, ..DecoderOptions::default() }, START);
        tap.open(START, 1, "somebody".to_owned());
        tap.bytes(START, 1, Endpoint::Client, b"l\nnightly\n10 60\nl\nother\n0\nzz\n\n\n");
        let answers = b"ok 00000000000000070000000000000009 60\ntimeout\nerror\nok\n";
        tap.bytes(START + Duration::from_millis(1400), 1, Endpoint::Server, answers);
        tap.open(START, 2, "an agent".to_owned());
        let head = MessageHead::request(5, Operation::Lock(LockOperation::Acquire));
        let key = [0, 0, 0, 0, 0, 0, 0, 7, 0, 7, b'n', b'i', b'g', b'h', b't', b'l', b'y', 0, 0, 0, 1];
        let (mut request, mut answer) = (Vec::new(), Vec::new());
        write_message(&mut request, head, &[&key[..], &[0; 16]].concat());
        write_message(&mut answer, head.response(), &[3]);
        tap.bytes(START, 2, Endpoint::Client, &request);
        tap.bytes(START + Duration::from_millis(2), 2, Endpoint::Server, &answer);
        tap
    }

    #[test]
    fn locks_are_filtered_by_name_key_status_and_failure() {
        let cases = [
            (&[][..], "l l zz ok timeout error ok ACQUIRE ACQUIRE"),
            (&["op=lock"], "l l ok timeout"),
            (&["op=acquire"], "ACQUIRE ACQUIRE"),
            (&["op=text"], "zz error ok"),
            (&["key=night"], "l ok ACQUIRE ACQUIRE"),
            (&["status=timeout"], "timeout ACQUIRE"),
            (&["status=ok"], "ok ok"),
            (&["failed"], "zz timeout error ok ACQUIRE"),
            (&["key=other,failed"], "timeout"),
            (&["conn=2,failed"], "ACQUIRE"),
        ];
        for (filters, expected) in cases {
            let told = pass_locks(filters, false).drain().into_iter().map(|record| match record.what {
                RecordKind::Message(message) => message.message.head.operation.name().to_owned(),
                RecordKind::Text(text) => {
                    let text = String::from_utf8(text.raw).unwrap();
                    text.split_whitespace().next().unwrap_or_default().to_owned()
                }
                other => format!("{other:?}"),
            });
            assert_eq!(told.collect::<Vec<_>>().join(" "), expected, "{filters:?}");
        }
    }

    #[test]
    fn those_who_may_wait_are_counted_apart() {
        let now = START + Duration::from_secs(2);
        let stats = pass_locks(&[], true).take_stats(now).unwrap().json(now);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let counts = |name: &str| {
            let row = &stats["operations"][name];
            ["count", "answered", "failed"].map(|name| row[name].as_u64().unwrap_or(99))
        };
        assert_eq!(counts("lock waiting"), [1, 1, 0]);
        assert_eq!(counts("lock"), [1, 1, 1]);
        // A malformed request, its answer, and an unexpected answer.
        assert_eq!(counts("text"), [1, 2, 1]);
        assert_eq!(counts("ACQUIRE"), [1, 1, 1]);
        assert_eq!((counts("ACQUIRE waiting"), &stats["malformed"]), ([99; 3], &1.into()));
        let took = &stats["operations"]["lock waiting"]["took_us"]["p50"];
        assert!((took.as_f64().unwrap() / 1.4e6 - 1.0).abs() < 0.001, "{took}");
    }

    #[test]
    fn unanswered_line_requests_are_reported_at_the_close() {
        let mut tap = Decoder::new(DecoderOptions::default(), START);
        tap.open(START, 1, "somebody".to_owned());
        tap.bytes(START, 1, Endpoint::Client, b"l\nk\n10\nl\n");
        tap.drain();
        tap.close(START, 1, ConnectionClose::Orderly);
        let unfinished = [(Endpoint::Client, 2), (Endpoint::Server, 0)];
        let closed = RecordKind::Closed { how: ConnectionClose::Orderly, unanswered: 1, unfinished };
        assert_eq!(tap.drain(), [TrafficRecord { at: START, connection: 1, what: closed }]);
    }
}
