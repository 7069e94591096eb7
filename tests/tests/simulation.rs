//! Whole systems on a virtual clock, from seeds: `dc_tests::simulation` says what is simulated and checked.
//!
//! - `SIMULATION_SEEDS=n` runs n seeds instead of 10,000.
//! - `SIMULATION_SEED=n` runs that one alone and prints what happened in it.

use dc_tests::simulation::{Sabotage, Violation, simulate, simulate_all};
use std::env;

const SEEDS: u64 = 10_000;

fn from_environment(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is not a number")))
}

#[test]
fn every_answer_can_be_true() {
    if let Some(seed) = from_environment("SIMULATION_SEED") {
        let run = simulate(seed, Sabotage::None, true);
        for line in &run.lines {
            println!("{line}");
        }
        run.result.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        return;
    }
    let summary = simulate_all(0, from_environment("SIMULATION_SEEDS").unwrap_or(SEEDS), Sabotage::None);
    println!("{} seeds, {} operations, {} events", summary.seeds, summary.operations, summary.events);
    for (what, count) in &summary.counts {
        println!("{count:>10} {what}");
    }
    for (seed, violation) in &summary.failures {
        println!("seed {seed}: {violation}\n  again: SIMULATION_SEED={seed} cargo test -p dc-tests --test simulation");
    }
    assert!(summary.failures.is_empty(), "{} seeds failed", summary.failures.len());
}

#[test]
fn a_seed_is_the_same_every_time() {
    for seed in 0..20 {
        let (one, other) = (simulate(seed, Sabotage::None, true), simulate(seed, Sabotage::None, false));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        let again = simulate(seed, Sabotage::None, true);
        assert_eq!(one.lines, again.lines, "seed {seed}");
    }
    assert_ne!(simulate(1, Sabotage::None, false).digest, simulate(2, Sabotage::None, false).digest);
}
