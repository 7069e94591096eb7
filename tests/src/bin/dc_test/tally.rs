//! What happened in a run, counted.

use crate::model::Outcome;
use hdrhistogram::Histogram;
use libdc::net::address::Address;
use libdc::wire::frame::{Operation, SessionOperation};
use std::io;
use std::time::Duration;

/// The counts of a run.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    operations: [OperationTally; 4],
    /// DISCONNECTED answers.
    pub(crate) disconnected: u64,
    /// Requests that were not answered in time.
    pub(crate) unanswered: u64,
    /// Requests under way when their connection was lost.
    pub(crate) connection_lost: u64,
    /// Requests that found no connection.
    pub(crate) not_connected: u64,
}

/// The counts of one operation.
#[derive(Clone, Debug)]
pub(crate) struct OperationTally {
    /// Which.
    pub(crate) operation: SessionOperation,
    /// By outcome, in the order of [`OUTCOMES`].
    pub(crate) outcomes: [u64; OUTCOMES.len()],
    /// Without a result.
    pub(crate) failed: u64,
    /// Nanoseconds from asking to the answer, connecting included.
    pub(crate) latency_ns: Histogram<u64>,
}

/// The outcomes, as reported.
pub(crate) const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Ok, "ok"),
    (Outcome::NotThere, "not there"),
    (Outcome::AlreadyStored, "already stored"),
    (Outcome::Lost, "lost"),
    (Outcome::Evicted, "evicted"),
];

/// Why an operation has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("could not connect to {address}: {source}")]
    NotConnected { address: Address, source: io::Error },
    #[error("the connection broke: {0}")]
    Broke(#[source] io::Error),
    #[error("the connection was closed before the answer came")]
    Closed,
    #[error("no answer within {timeout:?}")]
    Unanswered { timeout: Duration },
    #[error("DISCONNECTED: the agent can't reach the server")]
    Disconnected,
}

impl Tally {
    pub(crate) fn new() -> Self {
        use SessionOperation::{Add, Get, Have, Remove};
        Self {
            operations: [Add, Get, Remove, Have].map(OperationTally::new),
            disconnected: 0,
            unanswered: 0,
            connection_lost: 0,
            not_connected: 0,
        }
    }

    pub(crate) fn note_answer(&mut self, operation: SessionOperation, outcome: Outcome, took: Duration) {
        let tally = self.of(operation);
        tally.outcomes[OUTCOMES.iter().position(|(it, _)| *it == outcome).unwrap_or_default()] += 1;
        tally.latency_ns.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn note_failure(&mut self, operation: SessionOperation, failure: &Failure) {
        self.of(operation).failed += 1;
        *match failure {
            Failure::NotConnected { .. } => &mut self.not_connected,
            Failure::Broke(_) | Failure::Closed => &mut self.connection_lost,
            Failure::Unanswered { .. } => &mut self.unanswered,
            Failure::Disconnected => &mut self.disconnected,
        } += 1;
    }

    /// Operation by operation.
    pub(crate) const fn operations(&self) -> &[OperationTally; 4] {
        &self.operations
    }

    /// Operations that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.operations.iter().map(OperationTally::answered).sum()
    }

    /// Operations without a result.
    pub(crate) fn failed(&self) -> u64 {
        self.operations.iter().map(|it| it.failed).sum()
    }

    /// GETs and HAVEs that found something, and all that were answered.
    pub(crate) fn hits(&self) -> (u64, u64) {
        let lookups = self.operations.iter().filter(|it| it.is_lookup());
        lookups.fold((0, 0), |(hits, all), it| (hits + it.outcomes[0], all + it.answered()))
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

    const fn of(&mut self, operation: SessionOperation) -> &mut OperationTally {
        &mut self.operations[operation as usize]
    }
}

impl OperationTally {
    fn new(operation: SessionOperation) -> Self {
        Self { operation, outcomes: [0; OUTCOMES.len()], failed: 0, latency_ns: histogram() }
    }

    pub(crate) const fn name(&self) -> &'static str {
        Operation::Session(self.operation).name()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    const fn is_lookup(&self) -> bool {
        matches!(self.operation, SessionOperation::Get | SessionOperation::Have)
    }
}

/// Up to 100 seconds, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are right")
}
