//! Runs many seeds, on as many threads as there are processors; each run is single-threaded.

use super::history::{ObservedOutcome, SessionOpKind};
use super::planted_bug::PlantedBug;
use super::violation::Violation;
use super::world::World;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The result of one seed.
#[derive(Debug)]
pub struct SeedRun {
    /// The seed of this run.
    pub seed: u64,
    /// The violation, if there was one.
    pub result: Result<(), Violation>,
    /// A digest of the trace, equal in two runs only if the same events happened.
    pub digest: u64,
    /// The trace in text form; empty unless requested.
    pub lines: Vec<String>,
    /// Number of operations that the applications started.
    pub operations: u64,
    /// Number of events processed in the run.
    pub events: u64,
    /// Number of occurrences of each kind of event.
    pub counts: BTreeMap<&'static str, u64>,
}

/// The results of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Number of operations that the applications started.
    pub operations: u64,
    /// Number of events in all runs.
    pub events: u64,
    /// Number of occurrences of each kind of event.
    pub counts: BTreeMap<&'static str, u64>,
    /// The seeds that failed, with the violations.
    pub failures: Vec<(u64, Violation)>,
    /// The trace digest of each seed.
    pub digests: BTreeMap<u64, u64>,
}

/// Runs one seed; `lines` requests the trace in text form.
#[must_use]
pub fn simulate(seed: u64, sabotage: PlantedBug, lines: bool) -> SeedRun {
    let mut world = World::new(seed, sabotage, lines);
    // The trace recorded before the panic shows the cause.
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or(Err(Violation::Panicked));
    let operations = world.history.operations.len() as u64;
    let mut counts = std::mem::take(&mut world.net.trace.counts);
    for it in &world.history.operations {
        *counts.entry(label(it.kind, it.outcome)).or_default() += 1;
    }
    let (digest, events) = (world.net.trace.digest(), world.events());
    SeedRun { seed, result, digest, lines: world.net.trace.into_lines(), operations, events, counts }
}

/// Runs this many seeds from `first` on; stops after `FAILURES_MAX` failures.
#[must_use]
pub fn simulate_all(first: u64, seeds: u64, sabotage: PlantedBug) -> Summary {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(first);
    let is_stopped = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_stopped.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let run = simulate(seed, sabotage, false);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(run);
                    is_stopped.store(summary.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The number of failures after which no more seeds are run.
const FAILURES_MAX: usize = 5;

impl Summary {
    fn add(&mut self, run: SeedRun) {
        self.seeds += 1;
        self.operations += run.operations;
        self.events += run.events;
        self.digests.insert(run.seed, run.digest);
        for (event, count) in run.counts {
            *self.counts.entry(event).or_default() += count;
        }
        if let Err(violation) = run.result {
            self.failures.push((run.seed, violation));
        }
    }
}

const fn label(kind: SessionOpKind, outcome: ObservedOutcome) -> &'static str {
    match (kind, outcome) {
        (_, ObservedOutcome::Open) => "operations without an answer",
        (_, ObservedOutcome::Unknown) => "operations of unknown effect",
        (_, ObservedOutcome::Refused) => "odd requests answered",
        (SessionOpKind::Add { .. }, ObservedOutcome::Stored) => "sessions stored",
        (SessionOpKind::Add { .. }, _) => "sessions matched",
        (_, ObservedOutcome::Found(_)) => "sessions found",
        (SessionOpKind::Get, _) => "sessions not found",
        (_, ObservedOutcome::Removed) => "sessions removed",
        (SessionOpKind::Remove, _) => "sessions not there to be removed",
        (_, ObservedOutcome::Present) => "sessions there",
        (_, _) => "sessions not there",
    }
}
