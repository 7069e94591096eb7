//! Runs of many seeds, on as many threads as there are processors; each run is in one thread.

use super::history::{ObservedOutcome, SessionOpKind};
use super::planted_bug::PlantedBug;
use super::violation::Violation;
use super::world::World;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// What came of a seed.
#[derive(Debug)]
pub struct SeedRun {
    /// The seed.
    pub seed: u64,
    /// What happened that must not, if something did.
    pub result: Result<(), Violation>,
    /// A number that two runs have in common only if the same happened in both.
    pub digest: u64,
    /// What happened, if that was asked for.
    pub lines: Vec<String>,
    /// Operations that applications made.
    pub operations: u64,
    /// Events of the run.
    pub events: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Operations that applications made.
    pub operations: u64,
    /// Events of all runs.
    pub events: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The seeds that failed, and how.
    pub failures: Vec<(u64, Violation)>,
    /// The digest of each seed.
    pub digests: BTreeMap<u64, u64>,
}

/// Runs one seed.
#[must_use]
pub fn simulate(seed: u64, sabotage: PlantedBug, lines: bool) -> SeedRun {
    let mut world = World::new(seed, sabotage, lines);
    // What was written down until then tells why.
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or(Err(Violation::Panicked));
    let operations = world.history.operations.len() as u64;
    let mut counts = std::mem::take(&mut world.net.trace.counts);
    for it in &world.history.operations {
        *counts.entry(label(it.kind, it.outcome)).or_default() += 1;
    }
    let (digest, events) = (world.net.trace.digest(), world.events());
    SeedRun { seed, result, digest, lines: world.net.trace.into_lines(), operations, events, counts }
}

/// Runs so many seeds from `first` on, until a few have failed.
#[must_use]
pub fn simulate_all(first: u64, seeds: u64, sabotage: PlantedBug) -> Summary {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(first);
    let enough = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let run = simulate(seed, sabotage, false);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(run);
                    enough.store(summary.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Failures after which no more seeds are run.
const FAILURES_MAX: usize = 5;

impl Summary {
    fn add(&mut self, run: SeedRun) {
        self.seeds += 1;
        self.operations += run.operations;
        self.events += run.events;
        self.digests.insert(run.seed, run.digest);
        for (what, count) in run.counts {
            *self.counts.entry(what).or_default() += count;
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
