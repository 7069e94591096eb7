//! Counters of a run.

use hdrhistogram::Histogram;
use libdc::net::address::Address;
use std::io;
use std::time::Duration;

/// The counts of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunCounters {
    sheet: &'static CounterTable,
    operations: Vec<OperationCounters>,
    pub(crate) disconnected: u64,
    /// Requests that were not answered in time.
    pub(crate) unanswered: u64,
    /// Requests in flight when their connection was lost.
    pub(crate) connection_lost: u64,
    /// Requests that found no connection.
    pub(crate) not_connected: u64,
}

/// A table of counters: rows of operations, columns of outcomes.
#[derive(Debug)]
pub(crate) struct CounterTable {
    /// The unit of the run's total.
    pub(crate) unit: &'static str,
    /// The operations, as reported.
    pub(crate) rows: &'static [&'static str],
    /// The outcomes: as named in the JSON, and above the column.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// The columns from this one on are shown only if they are not empty.
    pub(crate) always: usize,
    /// Whether the rows together mean something.
    pub(crate) total: bool,
}

/// The counts of one operation.
#[derive(Clone, Debug)]
pub(crate) struct OperationCounters {
    pub(crate) name: &'static str,
    /// By outcome, in the order of the columns.
    pub(crate) outcomes: Vec<u64>,
    pub(crate) failed: u64,
    /// Nanoseconds from asking to the answer, connecting included.
    pub(crate) latency_ns: Histogram<u64>,
}

/// Why an operation has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationFailure {
    #[error("cannot connect to {address}: {source}")]
    NotConnected { address: Address, source: io::Error },
    #[error("the connection broke: {0}")]
    Broke(#[source] io::Error),
    #[error("the connection was closed before the answer came")]
    Closed,
    #[error("no answer within {timeout:?}")]
    Unanswered { timeout: Duration },
    #[error("DISCONNECTED: the agent cannot reach the server")]
    Disconnected,
}

impl RunCounters {
    pub(crate) fn new(sheet: &'static CounterTable) -> Self {
        Self {
            sheet,
            operations: sheet
                .rows
                .iter()
                .map(|name| OperationCounters::new(name, sheet.columns.len()))
                .collect(),
            disconnected: 0,
            unanswered: 0,
            connection_lost: 0,
            not_connected: 0,
        }
    }

    pub(crate) const fn sheet(&self) -> &'static CounterTable {
        self.sheet
    }

    /// Counts an answer in `row` and `column` of the sheet.
    pub(crate) fn note_answer(&mut self, row: usize, column: usize, took: Duration) {
        let tally = &mut self.operations[row];
        tally.outcomes[column] += 1;
        tally.latency_ns.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn note_failure(&mut self, row: usize, failure: &OperationFailure) {
        self.operations[row].failed += 1;
        *match failure {
            OperationFailure::NotConnected { .. } => &mut self.not_connected,
            OperationFailure::Broke(_) | OperationFailure::Closed => &mut self.connection_lost,
            OperationFailure::Unanswered { .. } => &mut self.unanswered,
            OperationFailure::Disconnected => &mut self.disconnected,
        } += 1;
    }

    pub(crate) fn operations(&self) -> &[OperationCounters] {
        &self.operations
    }

    /// Operations that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.operations.iter().map(OperationCounters::answered).sum()
    }

    /// Operations without a result.
    pub(crate) fn failed(&self) -> u64 {
        self.operations.iter().map(|it| it.failed).sum()
    }

    /// The latency of all operations.
    pub(crate) fn latency_ns(&self) -> Histogram<u64> {
        let mut all = histogram();
        for tally in &self.operations {
            // All have the same bounds, so each fits.
            all += &tally.latency_ns;
        }
        all
    }
}

impl OperationCounters {
    fn new(name: &'static str, columns: usize) -> Self {
        Self { name, outcomes: vec![0; columns], failed: 0, latency_ns: histogram() }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

/// Up to 100 seconds, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are right")
}
