//! The report at the end of a run, as a table or as one JSON object.

use crate::counters::{CounterTable, OperationCounters, RunCounters};
use crate::locks;
use crate::options::TestOptions;
use crate::outage::Outages;
use crate::stop_reason::StopReason;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// The quantiles that are reported.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The results of a run.
#[derive(Debug)]
pub(crate) struct RunReport<'a> {
    pub(crate) options: &'a TestOptions,
    pub(crate) tally: &'a RunCounters,
    pub(crate) outages: &'a Outages,
    pub(crate) lasted: Duration,
    pub(crate) stop: Option<&'a StopReason>,
}

impl RunReport<'_> {
    /// The report as one JSON object. Latencies are in microseconds.
    pub(crate) fn to_json(&self) -> Value {
        let Self { options, tally, outages, .. } = self;
        let operations: Map<String, Value> = tally
            .operations()
            .iter()
            .map(|it| (it.name.to_owned(), operation_to_json(it, tally.sheet())))
            .collect();
        let mut report = json!({
            "address": options.connect.to_string(),
            "clients": options.clients(),
            "pipeline": options.pipeline,
            "persistent": options.persistent,
            "result": match self.stop {
                None => "right",
                Some(StopReason::Interrupted) => "interrupted",
                Some(StopReason::Failed(_)) => "failed",
                Some(StopReason::Wrong(_) | StopReason::Malformed(_) | StopReason::NotAsked { .. }) => "wrong",
            },
            "message": self.stop.map(ToString::to_string),
            "seconds": self.lasted.as_secs_f64(),
            "answered": tally.answered(),
            "per_second": self.per_second(tally.answered()),
            "operations": operations,
            "failures": {
                "disconnected": tally.disconnected,
                "unanswered": tally.unanswered,
                "connection_lost": tally.connection_lost,
                "not_connected": tally.not_connected,
            },
            "outages": {
                "count": outages.count,
                "longest_ms": outages.longest_ms,
                "total_ms": outages.total_ms,
            },
        });
        let own = if options.locks {
            let locks = self.locks();
            json!({
                "keys": options.keys,
                "limit": options.limit,
                "locks": locks,
                "locks_per_second": self.per_second(locks),
            })
        } else {
            let (hits, lookups) = self.hits();
            json!({
                "sessions": options.sessions,
                "hits": hits,
                "lookups": lookups,
                "latency_us": latency_to_json(&tally.latency_ns()),
            })
        };
        if let (Value::Object(report), Value::Object(own)) = (&mut report, own) {
            report.extend(own);
        }
        report
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.lasted.as_secs_f64().max(1e-9)
    }

    /// Locks that were taken and released.
    fn locks(&self) -> u64 {
        self.tally.operations()[locks::RELEASE].outcomes[0]
    }

    /// GETs and HAVEs that found something, and all that were answered.
    fn hits(&self) -> (u64, u64) {
        use libdc::wire::frame::SessionOperation::{Get, Have};
        let lookups = [Get, Have].map(|operation| &self.tally.operations()[operation as usize]);
        lookups.iter().fold((0, 0), |(hits, all), it| (hits + it.outcomes[0], all + it.answered()))
    }

    /// A row of the table.
    fn write_row(f: &mut fmt::Formatter<'_>, name: &str, numbers: &[u64], latency: &[String]) -> fmt::Result {
        write!(f, "{name:<8}")?;
        for number in numbers {
            write!(f, "{number:>10}")?;
        }
        for quantile in latency {
            write!(f, "{quantile:>9}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for RunReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, tally, outages, lasted, .. } = self;
        let (sheet, answered, seconds) = (tally.sheet(), tally.answered(), lasted.as_secs_f64());
        if options.locks {
            let locks = self.locks();
            let rate = self.per_second(locks);
            writeln!(f, "{locks} locks taken and released in {seconds:.3} s: {rate:.0} a second")?;
        } else {
            let rate = self.per_second(answered);
            writeln!(f, "{answered} operations in {seconds:.3} s: {rate:.0} a second")?;
        }
        writeln!(f)?;
        write!(f, "{:<8}{:>10}", "", "answered")?;
        // Columns of what need not happen are there only if it did.
        let happened = |column: usize| {
            column < sheet.always || tally.operations().iter().any(|it| it.outcomes[column] > 0)
        };
        let columns: Vec<usize> = (0..sheet.columns.len()).filter(|column| happened(*column)).collect();
        for column in &columns {
            write!(f, "{:>10}", sheet.columns[*column].1)?;
        }
        write!(f, "{:>10}", "failed")?;
        for (name, _) in QUANTILES {
            write!(f, "{name:>9}")?;
        }
        writeln!(f)?;
        let numbers = |it: &OperationCounters| {
            let outcomes = columns.iter().map(|column| it.outcomes[*column]);
            [it.answered()].into_iter().chain(outcomes).chain([it.failed]).collect::<Vec<u64>>()
        };
        let mut sum = vec![0; columns.len() + 2];
        for it in tally.operations() {
            let row = numbers(it);
            sum.iter_mut().zip(&row).for_each(|(sum, number)| *sum += number);
            Self::write_row(f, it.name, &row, &quantiles(&it.latency_ns))?;
        }
        if sheet.total {
            Self::write_row(f, "all", &sum, &quantiles(&tally.latency_ns()))?;
        }
        writeln!(f)?;
        if !options.locks {
            let (hits, lookups) = self.hits();
            let percent = if lookups == 0 { 0.0 } else { 100.0 * hits as f64 / lookups as f64 };
            writeln!(f, "hits: {hits} of {lookups} GET and HAVE ({percent:.1} %)")?;
        }
        if tally.failed() > 0 {
            let RunCounters { disconnected, unanswered, connection_lost, not_connected, .. } = tally;
            writeln!(
                f,
                "failures: {disconnected} DISCONNECTED, {unanswered} not answered in time, \
                 {connection_lost} connection lost, {not_connected} not connected"
            )?;
            let Outages { count, longest_ms, total_ms, .. } = outages;
            writeln!(f, "outages: {count}, the longest {longest_ms} ms, together {total_ms} ms")?;
        }
        Ok(())
    }
}

fn operation_to_json(tally: &OperationCounters, sheet: &CounterTable) -> Value {
    let mut object = Map::new();
    object.insert("answered".to_owned(), tally.answered().into());
    for ((name, _), count) in sheet.columns.iter().zip(&tally.outcomes) {
        object.insert((*name).to_owned(), (*count).into());
    }
    object.insert("failed".to_owned(), tally.failed.into());
    object.insert("latency_us".to_owned(), latency_to_json(&tally.latency_ns));
    object.into()
}

/// `null` if nothing was measured.
fn latency_to_json(latency_ns: &Histogram<u64>) -> Value {
    if latency_ns.is_empty() {
        return Value::Null;
    }
    let us = |(name, quantile): (&str, f64)| {
        (name.to_owned(), json!(latency_ns.value_at_quantile(quantile) as f64 / 1000.0))
    };
    Value::Object(QUANTILES.into_iter().map(us).collect())
}

fn quantiles(latency_ns: &Histogram<u64>) -> Vec<String> {
    let value = |(_, quantile)| {
        let ns = latency_ns.value_at_quantile(quantile);
        if latency_ns.is_empty() { "-".to_owned() } else { duration(ns) }
    };
    QUANTILES.into_iter().map(value).collect()
}

/// Three digits and a unit.
fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::OperationFailure;
    use crate::model::SessionOpOutcome;
    use libdc::wire::frame::SessionOperation::{Add, Get};

    #[test]
    fn the_report_says_what_happened() {
        let options = crate::run_tests::parse("--clients 3");
        let mut tally = RunCounters::new(&crate::model::SHEET);
        tally.note_answer(Add as usize, SessionOpOutcome::Ok as usize, Duration::from_micros(20));
        tally.note_answer(Get as usize, SessionOpOutcome::Ok as usize, Duration::from_micros(400));
        tally.note_answer(Get as usize, SessionOpOutcome::Lost as usize, Duration::from_millis(3));
        tally.note_failure(Get as usize, &OperationFailure::Disconnected);
        let mut outages = Outages::new(1000);
        outages.note_failure(libdc::time::Time::from_ms(100));
        outages.close(libdc::time::Time::from_ms(512));
        let lasted = Duration::from_millis(1500);
        let report = RunReport { options: &options, tally: &tally, outages: &outages, lasted, stop: None };
        let text = report.to_string();
        let expected = "\
3 operations in 1.500 s: 2 a second

          answered        ok not there  matching      lost    failed      p50      p90      p99    p99.9      max
ADD              1         1         0         0         0         0  20.0 µs  20.0 µs  20.0 µs  20.0 µs  20.0 µs
GET              2         1         0         0         1         1   400 µs  3.00 ms  3.00 ms  3.00 ms  3.00 ms
REMOVE           0         0         0         0         0         0        -        -        -        -        -
HAVE             0         0         0         0         0         0        -        -        -        -        -
all              3         2         0         0         1         1   400 µs  3.00 ms  3.00 ms  3.00 ms  3.00 ms

hits: 1 of 2 GET and HAVE (50.0 %)
failures: 1 DISCONNECTED, 0 not answered in time, 0 connection lost, 0 not connected
outages: 1, the longest 412 ms, together 412 ms
";
        assert_eq!(text, expected, "{text}");
        let json = report.to_json();
        assert_eq!(json["result"], "right");
        assert_eq!(json["clients"], 3);
        assert_eq!(json["operations"]["GET"]["lost"], 1);
        assert_eq!(json["operations"]["HAVE"]["latency_us"], Value::Null);
        assert_eq!(json["failures"]["disconnected"], 1);
        assert_eq!(json["outages"]["longest_ms"], 412);
    }

    #[test]
    fn the_report_of_locks_says_how_many_were_taken_and_released() {
        let options = crate::run_tests::parse("-locks -keys 3");
        let mut tally = RunCounters::new(&locks::SHEET);
        let row = |name| locks::SHEET.rows.iter().position(|row| *row == name).unwrap();
        tally.note_answer(row("free"), 0, Duration::from_micros(20));
        tally.note_answer(row("try"), 1, Duration::from_micros(30));
        tally.note_answer(row("release"), 0, Duration::from_micros(40));
        let (outages, lasted) = (Outages::new(0), Duration::from_millis(500));
        let report = RunReport { options: &options, tally: &tally, outages: &outages, lasted, stop: None };
        let text = report.to_string();
        let expected = "\
1 locks taken and released in 0.500 s: 2 a second

          answered        ok   timeout    queued   refused    failed      p50      p90      p99    p99.9      max
free             1         1         0         0         0         0  20.0 µs  20.0 µs  20.0 µs  20.0 µs  20.0 µs
busy             0         0         0         0         0         0        -        -        -        -        -
try              1         0         1         0         0         0  30.0 µs  30.0 µs  30.0 µs  30.0 µs  30.0 µs
enqueue          0         0         0         0         0         0        -        -        -        -        -
wait             0         0         0         0         0         0        -        -        -        -        -
renew            0         0         0         0         0         0        -        -        -        -        -
release          1         1         0         0         0         0  40.0 µs  40.0 µs  40.0 µs  40.0 µs  40.0 µs
misuse           0         0         0         0         0         0        -        -        -        -        -
connect          0         0         0         0         0         0        -        -        -        -        -
";
        assert!(text.starts_with(expected), "{text}");
        let json = report.to_json();
        assert_eq!((&json["locks"], &json["keys"]), (&1.into(), &3.into()));
        assert_eq!(json["locks_per_second"], 2.0);
        assert_eq!(json["operations"]["try"]["timeout"], 1);
    }

    #[test]
    fn durations_have_three_digits() {
        for (ns, text) in [
            (990, "0.99 µs"),
            (21_040, "21.0 µs"),
            (999_000, "999 µs"),
            (1_420_000, "1.42 ms"),
            (2_000_000_000, "2.00 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
