//! `-stats`: rates, hit ratio and latency quantiles, as a table or as a JSON object.
//!
//! A request that may wait for a lock takes as long as others hold it, which does not measure the server. So
//! it is counted in a separate row, called `waiting`; requests that do not wait are in the normal rows.

use crate::clock::{TimeOfDay, rfc_3339, took};
use dc_snoop::decode::{DecodedLines, DecodedMessage, MessageKind};
use dc_snoop::observe::{Endpoint, LineEvent, MatchedRequest, MessageEvent};
use hdrhistogram::Histogram;
use jiff::tz::TimeZone;
use libdc::wire::frame::{Direction, Operation};
use libdc::wire::lock::LockAction;
use libdc::wire::session::SessionStatus;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::time::Duration;

/// Counters since a given time.
#[derive(Debug)]
pub(crate) struct TrafficStats {
    since: Duration,
    opened: u64,
    malformed: u64,
    bytes: [u64; 2],
    rows: BTreeMap<StatsRowName, StatsRow>,
}

/// The key of a row: class and number, and whether it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StatsRowName {
    class: u8,
    number: u8,
    waits: bool,
}

impl StatsRowName {
    const fn new(topic: MessageKind, waits: bool) -> Self {
        let (class, number) = match topic {
            MessageKind::Operation(operation) => operation.to_wire(),
            // Behind the classes of frames.
            MessageKind::Command(command) => (3, command as u8),
            MessageKind::Text => (4, 0),
        };
        Self { class, number, waits }
    }
}

/// Counters of one operation.
#[derive(Debug)]
struct StatsRow {
    topic: MessageKind,
    requests: u64,
    responses: u64,
    failed: u64,
    found: u64,
    missed: u64,
    took_ns: Histogram<u64>,
}

impl StatsRow {
    fn new(topic: MessageKind) -> Option<Self> {
        let took_ns = Histogram::new(SIGNIFICANT_DIGITS).ok()?;
        Some(Self { topic, requests: 0, responses: 0, failed: 0, found: 0, missed: 0, took_ns })
    }

    fn hit_ratio(&self) -> Option<f64> {
        let asked = self.found + self.missed;
        (asked > 0).then(|| self.found as f64 / asked as f64)
    }

    fn quantile(&self, quantile: f64) -> Option<Duration> {
        let any = !self.took_ns.is_empty();
        any.then(|| Duration::from_nanos(self.took_ns.value_at_quantile(quantile)))
    }
}

/// Of the times; two would do for a table, three cost little more.
const SIGNIFICANT_DIGITS: u8 = 3;
const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")];

impl TrafficStats {
    pub(crate) const fn new(since: Duration) -> Self {
        Self { since, opened: 0, malformed: 0, bytes: [0; 2], rows: BTreeMap::new() }
    }

    pub(crate) const fn opened(&mut self) {
        self.opened += 1;
    }

    pub(crate) const fn malformed(&mut self) {
        self.malformed += 1;
    }

    pub(crate) const fn bytes(&mut self, sender: Endpoint, count: usize) {
        self.bytes[sender as usize] += count as u64;
    }

    pub(crate) fn message(&mut self, passed: &MessageEvent<'_>) {
        let topic = MessageKind::Operation(passed.message.head.operation);
        let content = DecodedMessage::decode(passed.message);
        if passed.message.head.direction == Direction::Request {
            self.request(topic, content.may_block());
        } else if let Some(row) = self.response(topic, passed.answers.as_ref(), content.is_failure()) {
            match content {
                DecodedMessage::Session(_) | DecodedMessage::Status(SessionStatus::Ok) => row.found += 1,
                DecodedMessage::Status(SessionStatus::NotOk) => row.missed += 1,
                _ => {}
            }
        }
    }

    pub(crate) fn text(&mut self, said: &LineEvent<'_>) {
        let content = DecodedLines::decode(said.direction, said.raw);
        self.malformed += u64::from(content.is_malformed());
        if said.direction == Direction::Request {
            let topic = content.command().map_or(MessageKind::Text, MessageKind::Command);
            self.request(topic, content.action().is_some_and(LockAction::may_block));
        } else {
            let topic = said.answers.as_ref().map_or(MessageKind::Text, |answered| answered.topic);
            self.response(topic, said.answers.as_ref(), content.is_failure());
        }
    }

    fn request(&mut self, topic: MessageKind, waits: bool) {
        if let Some(row) = self.row(topic, waits) {
            row.requests += 1;
        }
    }

    fn response(
        &mut self,
        topic: MessageKind,
        answers: Option<&MatchedRequest>,
        failed: bool,
    ) -> Option<&mut StatsRow> {
        let row = self.row(topic, answers.is_some_and(|answered| answered.may_block))?;
        row.responses += 1;
        row.failed += u64::from(failed);
        if let Some(answered) = answers {
            let ns = u64::try_from(answered.took.as_nanos()).unwrap_or(u64::MAX);
            let recorded = row.took_ns.record(ns);
            debug_assert!(recorded.is_ok(), "a histogram that grows takes any time");
        }
        Some(row)
    }

    /// Adds the counters of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.malformed += other.malformed;
        self.bytes[0] += other.bytes[0];
        self.bytes[1] += other.bytes[1];
        for (name, row) in &other.rows {
            let Some(sum) = self.row(row.topic, name.waits) else { continue };
            sum.requests += row.requests;
            sum.responses += row.responses;
            sum.failed += row.failed;
            sum.found += row.found;
            sum.missed += row.missed;
            let added = sum.took_ns.add(&row.took_ns);
            debug_assert!(added.is_ok(), "a histogram that grows takes any time");
        }
    }

    fn row(&mut self, topic: MessageKind, waits: bool) -> Option<&mut StatsRow> {
        match self.rows.entry(StatsRowName::new(topic, waits)) {
            Entry::Occupied(row) => Some(row.into_mut()),
            Entry::Vacant(place) => Some(place.insert(StatsRow::new(topic)?)),
        }
    }

    /// The table, such as:
    ///
    /// ```text
    /// 12:00:05.000000  5.0 s  2 new connections  → 1.2 MB/s  ← 3.4 MB/s
    ///   operation           rate/s     count    failed    hits       p50       p90 …
    ///   GET                 1201.4      6007        12  99.8 %    211 µs    274 µs …
    ///   lock waiting          20.0       100         3       -    1.4 ms     2.5 s …
    /// ```
    pub(crate) fn table(&self, now: Duration, zone: &TimeZone) -> String {
        let mut out = String::new();
        let result = self.write_table(&mut out, now, zone);
        debug_assert!(result.is_ok(), "a string takes any text");
        out
    }

    fn write_table(&self, out: &mut String, now: Duration, zone: &TimeZone) -> std::fmt::Result {
        let seconds = self.seconds(now);
        let [up, down] = self.bytes.map(|count| byte_rate(count as f64 / seconds));
        let plural = if self.opened == 1 { "" } else { "s" };
        write!(out, "{}  {seconds:.1} s  ", TimeOfDay::new(zone.clone()).show(now))?;
        write!(out, "{} new connection{plural}  → {up}  ← {down}", self.opened)?;
        if self.malformed > 0 {
            write!(out, "  {} malformed", self.malformed)?;
        }
        out.push('\n');
        write!(out, "  {:<16}{:>10}{:>10}{:>10}{:>8}", "operation", "rate/s", "count", "failed", "hits")?;
        for (_, name) in QUANTILES {
            write!(out, "{name:>10}")?;
        }
        out.push('\n');
        for (name, row) in &self.rows {
            let rate = row.requests as f64 / seconds;
            let counts = format!("{rate:>10.1}{:>10}{:>10}", row.requests, row.failed);
            let hits = row.hit_ratio().filter(|_| has_hits(row.topic));
            let hits = hits.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
            write!(out, "  {:<16}{counts}{hits:>8}", row_name(row.topic, name.waits))?;
            for (quantile, _) in QUANTILES {
                write!(out, "{:>10}", row.quantile(quantile).map_or_else(|| "-".to_owned(), took))?;
            }
            out.push('\n');
        }
        Ok(())
    }

    /// The same as one line of JSON.
    pub(crate) fn json(&self, now: Duration) -> String {
        let seconds = self.seconds(now);
        let operations = self.rows.iter().map(|(name, row)| {
            let object = OperationJson {
                count: row.requests,
                answered: row.responses,
                failed: row.failed,
                rate: row.requests as f64 / seconds,
                hit_ratio: row.hit_ratio().filter(|_| has_hits(row.topic)),
                took_us: QUANTILES
                    .iter()
                    .filter_map(|(at, name)| Some((*name, row.quantile(*at)?.as_nanos() as f64 / 1e3)))
                    .collect(),
            };
            (row_name(row.topic, name.waits), object)
        });
        let [bytes_to_server, bytes_to_client] = self.bytes;
        let object = TrafficStatsJson {
            time: rfc_3339(now),
            event: "stats",
            seconds,
            connections: self.opened,
            malformed: self.malformed,
            bytes_to_server,
            bytes_to_client,
            operations: operations.collect(),
        };
        let mut text = serde_json::to_string(&object).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Never 0, so that a rate is a number.
    fn seconds(&self, now: Duration) -> f64 {
        now.saturating_sub(self.since).as_secs_f64().max(1e-6)
    }
}

fn row_name(topic: MessageKind, waits: bool) -> String {
    format!("{}{}", topic.name(), if waits { " waiting" } else { "" })
}

const fn has_hits(topic: MessageKind) -> bool {
    use libdc::wire::frame::SessionOperation::{Get, Have};
    matches!(topic, MessageKind::Operation(Operation::Session(Get | Have)))
}

fn byte_rate(rate: f64) -> String {
    match rate {
        0.0..1e3 => format!("{rate:.0} B/s"),
        1e3..1e6 => format!("{:.1} kB/s", rate / 1e3),
        _ => format!("{:.1} MB/s", rate / 1e6),
    }
}

#[derive(Serialize)]
struct TrafficStatsJson {
    time: String,
    event: &'static str,
    seconds: f64,
    connections: u64,
    malformed: u64,
    bytes_to_server: u64,
    bytes_to_client: u64,
    operations: BTreeMap<String, OperationJson>,
}

#[derive(Serialize)]
struct OperationJson {
    count: u64,
    answered: u64,
    failed: u64,
    rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hit_ratio: Option<f64>,
    took_us: BTreeMap<&'static str, f64>,
}
