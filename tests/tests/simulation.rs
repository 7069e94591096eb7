//! Whole systems on a virtual clock, from seeds: see `dc_tests::simulation` for the simulation and its
//! checks.
//!
//! - `SIMULATION_SEEDS=n` runs n seeds instead of 10,000.
//! - `SIMULATION_SEED=n` runs that one alone and prints what happened in it.
//! - `SIMULATION_DIGESTS=file` writes the seeds to a file, a line each, with their digests:
//!   `tests/baselines/digests` compares these.

use dc_tests::simulation::{Absence, LockViolation, PlantedBug, Violation, simulate, simulate_all};
use std::{env, fs};

const SEEDS: u64 = 10_000;

fn from_environment(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is not a number")))
}

#[test]
fn every_answer_can_be_true() {
    if let Some(seed) = from_environment("SIMULATION_SEED") {
        let run = simulate(seed, PlantedBug::None, true);
        for line in &run.lines {
            println!("{line}");
        }
        run.result.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        return;
    }
    let summary = simulate_all(0, from_environment("SIMULATION_SEEDS").unwrap_or(SEEDS), PlantedBug::None);
    println!("{} seeds, {} operations, {} events", summary.seeds, summary.operations, summary.events);
    if let Some(file) = env::var_os("SIMULATION_DIGESTS") {
        let lines = summary.digests.iter().map(|(seed, digest)| format!("{seed} {digest:016x}\n"));
        fs::write(file, lines.collect::<String>()).expect("the digests can be written");
    }
    for (what, count) in &summary.counts {
        println!("{count:>10} {what}");
    }
    for (seed, violation) in &summary.failures {
        println!(
            "seed {seed}: {violation}\n  again: SIMULATION_SEED={seed} cargo test -p dc-tests --test simulation"
        );
    }
    assert!(summary.failures.is_empty(), "{} seeds failed", summary.failures.len());
    if summary.seeds >= SEEDS {
        for what in RARE {
            assert!(summary.counts.get(what).is_some_and(|count| *count > 0), "no seed has {what:?}");
        }
    }
}

/// Events that must occur in at least one seed; otherwise the seeds cover too little.
const RARE: [&str; 47] = [
    "GOAWAY sent",
    "agents drained",
    "applications drained",
    "attempts failed",
    "attempts planned while locks are held",
    "first requests after the drain began",
    "lasting links lost",
    "links broken as soon as they are up",
    "links left for GOAWAY",
    "links lost soon",
    "connections without a request drained",
    "local budgets spent",
    "attempts hung",
    "agents killed",
    "agents that said goodbye",
    "connections closed in their drain grace",
    "connections drained",
    "grants held off",
    "leases expired before the wait",
    "links taken over",
    "lock requests cancelled",
    "lock requests timed out",
    "lockers that vanish",
    "locks claimed",
    "locks claimed in vain",
    "locks granted to who had a place",
    "applications held back",
    "applications held back by a full link",
    "deaf applications closed",
    "garbage refused",
    "half messages given up",
    "idle applications closed",
    "leaps of the clock",
    "link up",
    "link up to an original",
    "links full",
    "malformed frames refused",
    "peers that read nothing closed by the server",
    "server connections with more to do",
    "server found silent",
    "server shut down gracefully",
    "server stopped",
    "shutdowns that timed out",
    "sessions evicted",
    "sessions matched",
    "streams stalled",
    "turns that wait for the worker",
];

#[test]
fn a_seed_is_the_same_every_time() {
    for seed in 0..20 {
        let (one, other) = (simulate(seed, PlantedBug::None, true), simulate(seed, PlantedBug::None, false));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        let again = simulate(seed, PlantedBug::None, true);
        assert_eq!(one.lines, again.lines, "seed {seed}");
    }
    assert_ne!(simulate(1, PlantedBug::None, false).digest, simulate(2, PlantedBug::None, false).digest);
}

/// Runs seeds with a planted bug until the expected violation is found.
fn find(sabotage: PlantedBug, is_found: fn(&Violation) -> bool) {
    for seed in 0..2_000 {
        if let Err(violation) = simulate(seed, sabotage, false).result {
            println!("{sabotage:?}, seed {seed}: {violation}");
            if is_found(&violation) {
                return;
            }
        }
    }
    panic!("{sabotage:?} was not found");
}

macro_rules! finds {
    ($($name:ident: $bug:ident => $violation:pat,)*) => {$(
        #[test]
        fn $name() {
            find(PlantedBug::$bug, |violation| matches!(violation, $violation));
        }
    )*};
}

finds! {
    finds_swapped_sessions: SwapAnswers => Violation::OtherId { .. } | Violation::Gone { .. },
    finds_swapped_statuses: SwapAnswers => Violation::Lost { .. } | Violation::Phantom { .. },
    finds_swapped_uids: SwapUids => Violation::OtherOperation { .. },
    finds_a_dropped_answer: DropAnswer => Violation::Unanswered { .. },
    finds_a_connection_closed_too_soon: DropAnswer => Violation::Abandoned { .. },
    finds_a_second_answer: AnswerTwice => Violation::NotAsked { .. },
    finds_needless_disconnected: SayDisconnected => Violation::NeedlesslyDisconnected { .. },
    finds_late_answers: DeafAgent => Violation::Late { .. },
    finds_extensions_sent_to_an_original: OriginalPretends => Violation::NotForOriginals { .. },
    finds_expired_sessions: KeepExpired => Violation::Gone { reason: Absence::Expired, .. },
    finds_removed_sessions: KeepRemoved => Violation::Gone { reason: Absence::Proven(_), .. },
    finds_sessions_of_the_server_before: SurviveRestart => Violation::Gone { reason: Absence::Restarted, .. },
    finds_lost_sessions: LoseSession => Violation::Lost { .. },
    finds_sessions_of_other_ids: OtherSession => Violation::OtherId { .. },
    finds_shortened_sessions: ShortenSession => Violation::Invented { .. },
    finds_phantoms: PhantomMatch => Violation::Phantom { .. },
    finds_sessions_removed_twice: RemoveTwice => Violation::RemovedTwice { .. },
    finds_fences_of_the_server_before: RepeatFences
        => Violation::Locking(LockViolation::FenceTwice { .. } | LockViolation::FencesNotInOrder { .. }),
    finds_grants_too_soon_after_a_restart: GrantAtOnce => Violation::Locking(LockViolation::NotExclusive { .. }),
    finds_a_grace_that_is_not_given: ForgetGrace
        => Violation::Locking(LockViolation::LostHold { .. } | LockViolation::NotExclusive { .. }),
    finds_locks_of_the_dead: KeepLocksOfTheDead
        => Violation::Locking(LockViolation::NeedlessTimeout { .. } | LockViolation::Revived { .. }),
    finds_ends_that_are_not_noticed: ForgetToClose
        => Violation::Locking(LockViolation::NeedlessTimeout { .. } | LockViolation::Revived { .. }),
    finds_leases_without_end: SleepOverLocks
        => Violation::Locking(LockViolation::Unanswered { .. } | LockViolation::Overdue { .. }),
    finds_lost_waiters: LoseGrant
        => Violation::Locking(LockViolation::Unanswered { .. } | LockViolation::Overdue { .. }),
    finds_releases_by_others: ReleaseOfOthers => Violation::Locking(LockViolation::LostHold { .. }),
    finds_two_holders: ReleaseOfOthers => Violation::Locking(LockViolation::NotExclusive { .. }),
    finds_waiters_that_overtake: HoldBackWaiters => Violation::Locking(LockViolation::Overtaken { .. }),
    finds_claims_of_lost_locks: ClaimsAlwaysGood => Violation::Locking(
        LockViolation::Revived { .. } | LockViolation::NotExclusive { .. } | LockViolation::LostHold { .. }
    ),
    finds_leases_that_come_back: RenewAlways => Violation::Locking(LockViolation::Revived { .. }),
    finds_refusals_without_a_holder: RefuseGranted
        => Violation::Locking(LockViolation::NeedlessTimeout { .. } | LockViolation::LostHold { .. }),
    finds_lines_in_another_order: SwapLines => Violation::Locking(
        LockViolation::Malformed { .. } | LockViolation::LostHold { .. } | LockViolation::NotExclusive { .. }
    ),
    finds_panics: Panic => Violation::Panicked,
    finds_limits_exceeded: IgnoreLimits => Violation::LimitExceeded { .. },
    finds_attempts_without_a_pause: NoRetryPause => Violation::RetriedTooSoon { .. },
    finds_a_pause_that_is_never_reset: PauseNeverReset => Violation::RetriedTooLate { .. },
    finds_agents_in_step: AgentsInStep => Violation::RetriedInStep { .. },
    finds_an_end_without_bye: NoBye => Violation::EndedWithoutBye { .. },
    finds_claims_before_the_welcome: ClaimBeforeWelcome => Violation::DidNotAwaitWelcome { .. },
    finds_goaway_taken_for_a_loss: GoAwayAsLoss => Violation::RetriedTooLate { .. },
    finds_drained_agent_input_unread: DrainUnread => Violation::DrainedTooSoon { .. },
    finds_a_missing_drain_grace_of_the_agent: NoDrainGrace => Violation::DrainedTooSoon { .. },
    finds_a_missing_write_timeout_of_the_agent: NoWriteTimeout => Violation::WaitedForDeaf { .. },
    finds_forgotten_budgets_of_local_connections: ForgetMoreLocal
        => Violation::Unanswered { .. } | Violation::Abandoned { .. } | Violation::NotIdle(_),
    finds_an_endless_drain_grace_of_the_agent: EndlessDrainGrace => Violation::KeptBeyondGrace { .. },
    finds_waiters_kept_by_a_shutdown: KeepWaiters
        => Violation::ShutdownOverdue { .. } | Violation::Locking(LockViolation::KeptWaiting { .. }),
    finds_grants_during_a_shutdown: GrantWhileDraining
        => Violation::Locking(LockViolation::GrantedWhileDraining { .. }),
    finds_answers_lost_by_a_shutdown: LoseAnswersAtEnd
        => Violation::Unserved { .. } | Violation::Locking(LockViolation::Abandoned { .. }),
    finds_input_ignored_by_a_shutdown: IgnoreKernelInput
        => Violation::Unserved { .. } | Violation::Locking(LockViolation::Abandoned { .. }),
    finds_drain_grace_exceeded: KeepNewcomers
        => Violation::ShutdownOverdue { .. } | Violation::DrainGraceExceeded { .. },
    finds_an_ignored_budget: IgnoreBudget => Violation::Starved { .. },
    finds_a_spent_budget_forgotten: ForgetMore => Violation::Starved { .. } | Violation::DirectUnanswered { .. },
}
