//! What passes, decoded, filtered and counted: the pure middle between relay or capture and what is printed.

use crate::filter::{Filters, Subject};
use crate::record::{Ending, Record, What};
use crate::stats::Stats;
use libdc::proto::observe::{Event, Observer, Passed, Sender};
use libdc::wire::display::Content;
use libdc::wire::frame::Direction;
use std::collections::HashMap;
use std::time::Duration;

/// What a [`Tap`] is to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct TapOptions {
    pub(crate) filters: Filters,
    /// Whether connections that open and close in order are told of.
    pub(crate) connections: bool,
    /// Whether the bytes are to be dumped.
    pub(crate) keep_bytes: bool,
    /// After how many messages to end.
    pub(crate) count: Option<u64>,
    /// Whether to count instead of telling what passes.
    pub(crate) stats: bool,
}

/// Looks on at all connections.
#[derive(Debug)]
pub(crate) struct Tap {
    options: TapOptions,
    connections: HashMap<u64, Observed>,
    records: Vec<Record>,
    messages: u64,
    stats: Stats,
    total: Stats,
}

#[derive(Debug, Default)]
struct Observed {
    observer: Observer,
    text: TextRequest,
}

impl Tap {
    pub(crate) fn new(options: TapOptions, now: Duration) -> Self {
        let (connections, records) = (HashMap::new(), Vec::new());
        let [stats, total] = [Stats::new(now), Stats::new(now)];
        Self { options, connections, records, messages: 0, stats, total }
    }

    /// A connection was accepted.
    pub(crate) fn open(&mut self, at: Duration, connection: u64, from: String) {
        self.connections.insert(connection, Observed::default());
        self.stats.opened();
        if self.options.connections {
            self.tell(at, connection, What::Opened { from }, false);
        }
    }

    /// Bytes passed.
    pub(crate) fn bytes(&mut self, at: Duration, connection: u64, sender: Sender, mut bytes: &[u8]) {
        self.stats.bytes(sender, bytes.len());
        let Self { options, connections, records, messages, stats, .. } = self;
        let Some(observed) = connections.get_mut(&connection) else { return };
        while let Some(event) = observed.observer.next(sender, at, &mut bytes) {
            match &event {
                Event::Message(passed) => stats.message(passed),
                Event::Corrupt { .. } => stats.malformed(),
                _ => {}
            }
            let is_message = matches!(event, Event::Message(_));
            let ended = options.count.is_some_and(|count| *messages >= count);
            if ended || !options.filters.accept(&subject(connection, &event)) {
                continue;
            }
            *messages += u64::from(is_message);
            if options.stats {
                continue;
            }
            let mut what = What::new(sender, event, options.keep_bytes, options.filters.hide_requests());
            if let What::Line { text, secret, .. } = &mut what {
                *secret = sender == Sender::Client && observed.text.is_token(text);
            }
            records.push(Record { at, connection, what });
        }
    }

    /// Bytes passed that nobody has seen.
    pub(crate) fn gap(&mut self, at: Duration, connection: u64, sender: Sender, count: u64) {
        if let Some(observed) = self.connections.get_mut(&connection) {
            observed.observer.skip(sender, count);
            if count > 0 {
                self.tell(at, connection, What::Gap { sender, count }, true);
            }
        }
    }

    /// The server of a connection could not be reached.
    pub(crate) fn refuse(&mut self, at: Duration, connection: u64, why: String) {
        self.connections.remove(&connection);
        self.tell(at, connection, What::Refused { why }, true);
    }

    /// A connection ended. Told of if there is something about it.
    pub(crate) fn close(&mut self, at: Duration, connection: u64, how: Ending) {
        let Some(Observed { observer, .. }) = self.connections.remove(&connection) else { return };
        let unanswered = observer.unanswered(Sender::Client) + observer.unanswered(Sender::Server);
        let unfinished = [Sender::Client, Sender::Server].map(|sender| (sender, observer.unfinished(sender)));
        let abrupt =
            unanswered > 0 || matches!(how, Ending::Reset(_)) || unfinished.iter().any(|(_, n)| *n > 0);
        if abrupt || self.options.connections {
            self.tell(at, connection, What::Closed { how, unanswered, unfinished }, abrupt);
        }
    }

    /// What there is to print, since the last call.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Whether as many messages were seen as were asked for.
    pub(crate) fn is_done(&self) -> bool {
        self.options.count.is_some_and(|count| self.messages >= count)
    }

    /// The connections that are left end with the program or the capture.
    pub(crate) fn close_all(&mut self, at: Duration) {
        let mut numbers: Vec<u64> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.close(at, number, Ending::Cut);
        }
    }

    /// What was counted since the last call, if that is what is asked for.
    pub(crate) fn take_stats(&mut self, now: Duration) -> Option<Stats> {
        self.total.add(&self.stats);
        let stats = std::mem::replace(&mut self.stats, Stats::new(now));
        self.options.stats.then_some(stats)
    }

    /// All that was counted, if that is what is asked for.
    pub(crate) fn total_stats(&mut self, now: Duration) -> Option<Stats> {
        self.take_stats(now)?;
        Some(std::mem::replace(&mut self.total, Stats::new(now)))
    }

    fn tell(&mut self, at: Duration, connection: u64, what: What, failed: bool) {
        let subject = Subject { connection, failed, ..Subject::default() };
        if !self.options.stats && !self.is_done() && self.options.filters.accept(&subject) {
            self.records.push(Record { at, connection, what });
        }
    }
}

/// What a filter looks at in an event.
fn subject<'a>(connection: u64, event: &'a Event<'_>) -> Subject<'a> {
    let Event::Message(Passed { message, answers, .. }) = event else {
        let failed = matches!(event, Event::Corrupt { .. } | Event::Raw(_));
        return Subject { connection, failed, ..Subject::default() };
    };
    let content = Content::of(*message);
    let status = match content {
        Content::Status(status) => Some(status),
        Content::Session(_) => Some(libdc::wire::session::Status::Ok),
        _ => None,
    };
    let unasked = message.head.direction == Direction::Response && answers.is_none();
    let asked_id = answers.as_ref().and_then(|answered| answered.id.as_deref());
    Subject {
        connection,
        operation: Some(message.head.operation),
        id: content.id().or(asked_id),
        status,
        failed: unasked || content.is_failure(),
    }
}

/// Where in a request of three lines (command, key, argument) the client is.
#[derive(Clone, Copy, Debug, Default)]
struct TextRequest {
    lines: u8,
    is_auth: bool,
}

impl TextRequest {
    /// Counts the next line; whether it is the token of an `auth`.
    fn is_token(&mut self, line: &[u8]) -> bool {
        if self.lines == 0 {
            self.is_auth = line.trim_ascii_end() == b"auth";
        }
        self.lines = (self.lines + 1) % 3;
        self.is_auth && self.lines == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::frame::{MessageHead, Operation, SessionOperation};
    use libdc::wire::message::write_message;

    const START: Duration = Duration::from_secs(1000);

    fn bytes(uid: u32, operation: SessionOperation, is_response: bool, data: &[u8]) -> Vec<u8> {
        let head = MessageHead::request(uid, Operation::Session(operation));
        let mut out = Vec::new();
        write_message(&mut out, if is_response { head.response() } else { head }, data);
        out
    }

    /// A GET that finds, one that does not, and garbage.
    fn pass(options: TapOptions) -> Tap {
        let mut tap = Tap::new(options, START);
        let get = SessionOperation::Get;
        tap.open(START, 1, "somebody".to_owned());
        let requests = [bytes(1, get, false, &[0x5f]), bytes(2, get, false, &[0x60])].concat();
        tap.bytes(START, 1, Sender::Client, &requests);
        let answers = [bytes(1, get, true, b"abc"), bytes(2, get, true, &[1]), vec![9]].concat();
        tap.bytes(START + Duration::from_micros(274), 1, Sender::Server, &answers);
        tap.close(START + Duration::from_secs(1), 1, Ending::Orderly);
        tap
    }

    fn told(filters: &[&str], count: Option<u64>) -> Vec<&'static str> {
        let filters = Filters::new(filters.iter().map(|text| text.parse().unwrap()).collect());
        let mut tap = pass(TapOptions { filters, count, connections: true, ..TapOptions::default() });
        let name = |record: Record| match record.what {
            What::Opened { .. } => "opened",
            What::Message(message) if message.answers.is_some() => "answer",
            What::Message(_) => "request",
            What::Corrupt { .. } => "corrupt",
            What::Closed { .. } => "closed",
            _ => "other",
        };
        tap.take().into_iter().map(name).collect()
    }

    #[test]
    fn everything_is_told_without_a_filter() {
        let all = ["opened", "request", "request", "answer", "answer", "corrupt", "closed"];
        assert_eq!(told(&[], None), all);
        assert_eq!(told(&["conn=1"], None), all);
        assert_eq!(told(&["conn=2"], None), [""; 0]);
    }

    #[test]
    fn a_filter_by_id_takes_the_answer_with_the_request() {
        assert_eq!(told(&["id=5f"], None), ["request", "answer"]);
    }

    #[test]
    fn failures_are_misses_and_corruptions() {
        assert_eq!(told(&["failed"], None), ["answer", "corrupt"]);
        assert_eq!(told(&["op=GET,failed"], None), ["answer"]);
    }

    #[test]
    fn after_the_count_nothing_is_told() {
        assert_eq!(told(&[], Some(3)), ["opened", "request", "request", "answer"]);
        assert_eq!(told(&["id=60"], Some(2)), ["request", "answer"]);
        assert!(pass(TapOptions { count: Some(4), ..TapOptions::default() }).is_done());
        assert!(!pass(TapOptions { count: Some(5), ..TapOptions::default() }).is_done());
    }

    #[test]
    fn statistics_count_what_passed() {
        let mut tap = pass(TapOptions { stats: true, ..TapOptions::default() });
        assert_eq!(tap.take(), []);
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
        // The total has what was shown before, the next table has not.
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

    #[test]
    fn the_token_of_an_auth_is_a_secret() {
        let mut tap = Tap::new(TapOptions::default(), START);
        tap.open(START, 1, "somebody".to_owned());
        tap.bytes(START, 1, Sender::Client, b"auth\r\nx\nsesame\nl\nx\n10\n");
        tap.bytes(START, 1, Sender::Server, b"ok\n");
        let secret = |record: Record| matches!(record.what, What::Line { secret: true, .. });
        let secrets: Vec<bool> = tap.take().into_iter().map(secret).collect();
        assert_eq!(secrets, [false, false, true, false, false, false, false]);
    }
}
