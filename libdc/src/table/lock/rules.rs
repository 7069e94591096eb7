//! The rules of the lock table, one by one.

mod departures;

use super::{Completion, LockOutcome, LockSettings, LockTotals, OwnerKey, ReplyTo, ShardedLocks, WaiterId};
use crate::id::{ConnectionId, Grant, LockKey, Owner, Token};
use crate::limits::{EXPIRY_BATCH, LOCK_MS_MAX, STATS_ENTRIES_MAX};
use crate::table::FenceSource;
use crate::time::Time;

const SETTINGS: LockSettings =
    LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
const A: Owner = Owner { connection: ConnectionId::new(1), local: 0 };
const B: Owner = Owner { connection: ConnectionId::new(2), local: 0 };
const C: Owner = Owner { connection: ConnectionId::new(3), local: 0 };

struct Scene {
    locks: ShardedLocks,
    now: u64,
    effects: Vec<Completion>,
}

impl Scene {
    fn new(settings: LockSettings) -> Self {
        Self::sharded(1, settings)
    }

    fn sharded(shards: usize, settings: LockSettings) -> Self {
        Self {
            locks: ShardedLocks::new(shards, settings, FenceSource::starting_at(100), [1; 32]),
            now: 5_000,
            effects: Vec::new(),
        }
    }

    fn time(&self) -> Time {
        Time::from_ms(self.now)
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }

    fn acquire(
        &mut self,
        owner: Owner,
        key: &str,
        (limit, lease_ms, timeout_ms): (u32, u64, u64),
    ) -> LockOutcome {
        let reply = ReplyTo { connection: owner.connection, uid: self.now as u32 };
        let outcome = self.locks.acquire(
            self.time(),
            OwnerKey { owner, key: name(key) },
            limit,
            lease_ms,
            timeout_ms,
            reply,
            &mut self.effects,
        );
        self.locks.check();
        outcome
    }

    /// Acquires a lock with the default lease.
    fn lock(&mut self, owner: Owner, key: &str, timeout_ms: u64) -> LockOutcome {
        self.acquire(owner, key, (1, 0, timeout_ms))
    }

    fn held(&mut self, owner: Owner, key: &str) -> Token {
        granted(self.lock(owner, key, 0)).token
    }

    fn blocked(&mut self, owner: Owner, key: &str, timeout_ms: u64) -> WaiterId {
        ticket(self.lock(owner, key, timeout_ms))
    }

    fn enqueue(&mut self, owner: Owner, key: &str, lease_ms: u64) -> LockOutcome {
        let claimant = OwnerKey { owner, key: name(key) };
        self.locks.enqueue(self.time(), claimant, 1, lease_ms, &mut self.effects)
    }

    fn wait(&mut self, owner: Owner, key: &str, timeout_ms: u64) -> LockOutcome {
        let reply = ReplyTo { connection: owner.connection, uid: 7 };
        let claimant = OwnerKey { owner, key: name(key) };
        self.locks.wait(self.time(), claimant, timeout_ms, reply, &mut self.effects)
    }

    fn release(&mut self, key: &str, token: Token) -> bool {
        self.locks.release(self.time(), name(key), token, &mut self.effects)
    }

    fn renew(&mut self, key: &str, token: Token, lease_ms: u64) -> Option<u64> {
        self.locks.renew(self.time(), name(key), token, lease_ms, &mut self.effects)
    }

    fn cancel(&mut self, ticket: WaiterId) -> bool {
        self.locks.cancel(self.time(), ticket, &mut self.effects)
    }

    fn advance(&mut self) -> Option<u64> {
        self.locks.advance(self.time(), &mut self.effects).map(Time::as_ms)
    }

    /// The answers since the last call: the connection, and whether it was granted.
    fn answered(&mut self) -> Vec<(u64, bool)> {
        self.locks.check();
        let answer = |effect: Completion| {
            let is_grant = matches!(effect.outcome, LockOutcome::Granted(_));
            assert!(is_grant || effect.outcome == LockOutcome::Timeout);
            (effect.reply.connection.number(), is_grant)
        };
        self.effects.drain(..).map(answer).collect()
    }

    fn totals(&self) -> LockTotals {
        self.locks.totals()
    }
}

fn name(key: &str) -> LockKey<'_> {
    LockKey::new(key).unwrap()
}

#[track_caller]
fn granted(outcome: LockOutcome) -> Grant {
    let LockOutcome::Granted(grant) = outcome else { panic!("{outcome:?}") };
    grant
}

#[track_caller]
fn ticket(outcome: LockOutcome) -> WaiterId {
    let LockOutcome::Waiting(ticket) = outcome else { panic!("{outcome:?}") };
    ticket
}

#[test]
fn lock_is_exclusive_until_released() {
    let mut scene = Scene::new(SETTINGS);
    let grant = granted(scene.lock(A, "k", 5_000));
    assert_eq!(grant.lease_ms, 33_000);
    assert_eq!(scene.lock(B, "k", 0), LockOutcome::Timeout);
    assert_eq!(scene.lock(A, "k", 0), LockOutcome::Timeout, "an owner does not share with itself");
    assert!(!scene.release("k", Token::new(grant.token.fence(), 0)));
    assert!(!scene.release("j", grant.token));
    assert!(scene.release("k", grant.token));
    assert!(!scene.release("k", grant.token));
    assert!(granted(scene.lock(B, "k", 0)).token.fence() > grant.token.fence());
}

#[test]
fn waiters_are_granted_in_fifo_order() {
    let mut scene = Scene::new(SETTINGS);
    let mut token = scene.held(A, "k");
    for owner in [B, A, C] {
        scene.blocked(owner, "k", 9_000);
    }
    for next in [2, 1, 3] {
        assert!(scene.release("k", token));
        let LockOutcome::Granted(grant) = scene.effects[0].outcome else { panic!() };
        assert!(grant.token.fence() > token.fence());
        token = grant.token;
        assert_eq!(scene.answered(), [(next, true)]);
    }
}

#[test]
fn new_request_does_not_overtake_waiters() {
    let mut scene = Scene::new(SETTINGS);
    let first = granted(scene.acquire(A, "s", (2, 0, 0))).token;
    scene.acquire(A, "s", (2, 0, 0));
    ticket(scene.acquire(B, "s", (2, 0, 9_000)));
    ticket(scene.acquire(C, "s", (2, 0, 9_000)));
    assert!(scene.release("s", first));
    assert_eq!(scene.answered(), [(2, true)]);
    assert_eq!(scene.acquire(A, "s", (2, 0, 0)), LockOutcome::Timeout);
}

#[test]
fn lease_ends_at_its_exact_millisecond() {
    let mut scene = Scene::new(SETTINGS);
    let token = granted(scene.acquire(A, "k", (1, 1_000, 0))).token;
    assert_eq!(scene.after(999).lock(B, "k", 0), LockOutcome::Timeout);
    assert_eq!(scene.locks.latest_lease(scene.time(), A), Some(Time::from_ms(6_000)));
    assert_eq!(scene.after(1).locks.latest_lease(Time::from_ms(6_000), A), None);
    assert_eq!(scene.renew("k", token, 5), None);
    assert!(!scene.release("k", token));
    granted(scene.lock(B, "k", 0));
    assert_eq!(scene.totals().expired, 1);
}

#[test]
fn expired_lease_grants_next_waiter() {
    let mut scene = Scene::new(SETTINGS);
    granted(scene.acquire(A, "k", (1, 1_000, 0)));
    scene.blocked(B, "k", 5_000);
    assert_eq!(scene.locks.soonest(), Some(Time::from_ms(6_000)));
    assert_eq!(scene.after(999).advance(), Some(6_000));
    assert_eq!(scene.answered(), []);
    scene.after(101).advance();
    let LockOutcome::Granted(grant) = scene.effects[0].outcome else { panic!() };
    assert_eq!((grant.lease_ms, scene.answered()), (33_000, vec![(2, true)]));
    let end = Time::from_ms(6_100 + 33_000);
    assert_eq!(scene.locks.latest_lease(scene.time(), B), Some(end), "the lease counts from its grant");
}

#[test]
fn wait_timeout_ends_at_its_exact_millisecond() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    let waiting = scene.blocked(B, "k", 1_000);
    assert_eq!(scene.after(999).advance(), Some(6_000));
    assert_eq!(scene.answered(), []);
    assert!(scene.after(1).release("k", token));
    assert_eq!(scene.answered(), [(2, false)], "the wait timeout had passed before the release");
    assert!(!scene.cancel(waiting));
    assert_eq!(scene.totals().timeouts, 1);
}

#[test]
fn due_events_are_handled_in_time_order() {
    let mut scene = Scene::new(SETTINGS);
    granted(scene.acquire(A, "k", (1, 1_000, 0)));
    scene.blocked(B, "k", 900);
    scene.blocked(C, "k", 1_100);
    scene.after(60_000).advance();
    assert_eq!(scene.answered(), [(2, false), (3, true)], "C was waiting when the lease ended");
}

#[test]
fn renew_moves_end_of_lease() {
    let mut scene = Scene::new(SETTINGS);
    let token = granted(scene.acquire(A, "k", (1, 1_000, 0))).token;
    assert_eq!(scene.after(900).renew("k", token, 2_000), Some(2_000));
    assert_eq!(scene.after(1_999).lock(B, "k", 0), LockOutcome::Timeout);
    assert_eq!(scene.renew("k", token, 0), Some(33_000), "0 means the default");
    assert_eq!(scene.renew("k", token, u64::MAX), Some(LOCK_MS_MAX));
    assert_eq!(scene.renew("k", Token::new(token.fence(), 1), 5), None);
    assert_eq!(scene.renew("k", token, 5), Some(5), "a lease can be shortened");
    granted(scene.after(5).lock(B, "k", 0));
}

#[test]
fn semaphore_admits_up_to_its_limit() {
    let mut scene = Scene::new(SETTINGS);
    let tokens: Vec<Token> =
        (0..1_000).map(|_| granted(scene.acquire(A, "s", (1_000, 0, 0))).token).collect();
    assert_eq!(scene.acquire(B, "s", (1_000, 0, 0)), LockOutcome::Timeout);
    assert!(!scene.release("s", Token::new(tokens[500].fence(), 1)));
    assert!(scene.release("s", tokens[500]));
    assert!(!scene.release("s", tokens[500]));
    granted(scene.acquire(B, "s", (1_000, 0, 0)));
    assert_eq!(scene.renew("s", tokens[499], 9), Some(9));
    assert_eq!(scene.totals().holders, 1_000);
}

#[test]
fn limit_is_fixed_while_key_exists() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    for _ in 0..2 {
        assert_eq!(scene.acquire(B, "k", (2, 0, 9_000)), LockOutcome::LimitMismatch);
        scene.release("k", token);
    }
    assert_eq!(scene.after(59_999).acquire(B, "k", (2, 0, 0)), LockOutcome::LimitMismatch);
    granted(scene.after(1).acquire(B, "k", (2, 0, 0)));
    granted(scene.acquire(B, "l", (0, 0, 0)));
    assert_eq!(scene.lock(C, "l", 0), LockOutcome::Timeout, "a limit of 0 means 1");
}

#[test]
fn idle_keys_are_forgotten_after_idle_time() {
    let mut scene = Scene::new(LockSettings { locks_max: 1, ..SETTINGS });
    let token = scene.held(A, "k");
    assert_eq!(scene.lock(A, "j", 5_000), LockOutcome::MaxLocks);
    assert_eq!(scene.enqueue(A, "j", 0), LockOutcome::MaxLocks);
    scene.release("k", token);
    assert_eq!(scene.lock(B, "j", 5_000), LockOutcome::MaxLocks, "an idle key is not forgotten early");
    scene.after(30_000).held(A, "k");
    scene.after(33_000);
    assert_eq!(scene.after(59_999).lock(B, "j", 5_000), LockOutcome::MaxLocks, "idle since the lease ended");
    granted(scene.after(1).lock(B, "j", 5_000));
    assert_eq!((scene.totals().keys, scene.totals().idle), (1, 0));
}

#[test]
fn key_limit_applies_to_all_shards_together() {
    let mut scene = Scene::sharded(16, LockSettings { locks_max: 20, ..SETTINGS });
    let keys: Vec<String> = (0..40).map(|n| format!("key{n}")).collect();
    let tokens: Vec<Token> = keys[..20].iter().map(|key| scene.held(A, key)).collect();
    assert!(keys[20..].iter().all(|key| scene.lock(A, key, 9_000) == LockOutcome::MaxLocks));
    for (key, token) in keys.iter().zip(tokens) {
        assert!(scene.release(key, token));
    }
    scene.after(60_000);
    for key in &keys[20..] {
        scene.held(A, key);
    }
    assert_eq!(scene.lock(A, &keys[0], 0), LockOutcome::MaxLocks);
    assert_eq!(scene.totals().keys, 20);
}

#[test]
fn failed_request_leaves_no_key() {
    let mut scene = Scene::new(SETTINGS);
    scene.locks.hold_off(Time::from_ms(6_000));
    assert_eq!(scene.lock(A, "k", 0), LockOutcome::Timeout);
    assert_eq!(scene.wait(A, "k", 0), LockOutcome::NotEnqueued);
    assert!(!scene.release("k", Token::new(1, 1)));
    assert_eq!(scene.totals().keys, 0);
}

#[test]
fn queue_is_bounded_by_waiters_max() {
    let mut scene = Scene::new(LockSettings { waiters_max: 1, ..SETTINGS });
    let token = scene.held(A, "k");
    scene.blocked(B, "k", 9_000);
    assert_eq!(scene.lock(C, "k", 9_000), LockOutcome::MaxWaiters);
    assert_eq!(scene.lock(C, "k", 0), LockOutcome::Timeout, "a try needs no position in the queue");
    assert_eq!(scene.enqueue(C, "k", 0), LockOutcome::MaxWaiters);
    assert_eq!(scene.acquire(C, "k", (2, 0, 9_000)), LockOutcome::LimitMismatch);
    scene.release("k", token);
    scene.blocked(C, "k", 9_000);
}

#[test]
fn enqueue_and_wait_together_acquire() {
    let mut scene = Scene::new(SETTINGS);
    let grant = granted(scene.enqueue(A, "k", 1_000));
    assert_eq!(scene.enqueue(A, "k", 1_000), LockOutcome::AlreadyEnqueued);
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::Queued);
    assert_eq!(scene.wait(C, "k", 0), LockOutcome::NotEnqueued);
    assert_eq!(granted(scene.after(900).wait(A, "k", 0)), grant, "the token is unchanged");
    assert_eq!(scene.wait(A, "k", 0), LockOutcome::NotEnqueued);
    assert!(scene.after(900).release("k", grant.token), "the lease started again");
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::AlreadyEnqueued);
    let second = granted(scene.after(32_999).wait(B, "k", 0));
    assert!(scene.after(32_999).release("k", second.token));
    assert_eq!(scene.answered(), []);
}

#[test]
fn blocked_wait_is_answered_at_grant() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::Queued);
    let waiting = ticket(scene.wait(B, "k", 9_000));
    assert_eq!(scene.wait(B, "k", 9_000), LockOutcome::NotEnqueued, "a wait is already pending");
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::AlreadyEnqueued);
    scene.release("k", token);
    assert_eq!(scene.effects[0].ticket, waiting);
    assert_eq!(scene.answered(), [(2, true)]);
    assert_eq!(scene.wait(B, "k", 0), LockOutcome::NotEnqueued);
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::Queued, "the owner queues behind itself");
}

#[test]
fn timed_out_wait_leaves_the_queue() {
    let mut scene = Scene::new(SETTINGS);
    scene.held(A, "k");
    for timeout_ms in [0, 500] {
        assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::Queued);
        let outcome = scene.wait(B, "k", timeout_ms);
        assert_eq!(outcome == LockOutcome::Timeout, timeout_ms == 0);
        scene.after(timeout_ms).advance();
        assert_eq!(scene.wait(B, "k", timeout_ms), LockOutcome::NotEnqueued);
    }
    assert_eq!(scene.answered(), [(2, false)]);
    assert_eq!(scene.totals().waiters, 0);
}

#[test]
fn missed_turn_is_reported_once() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    assert_eq!(scene.enqueue(B, "k", 1_000), LockOutcome::Queued);
    assert!(scene.release("k", token));
    granted(scene.after(1_000).lock(C, "k", 0));
    assert_eq!(scene.enqueue(B, "k", 0), LockOutcome::AlreadyEnqueued);
    scene.after(200_000).advance();
    assert_eq!(scene.wait(B, "k", 5_000), LockOutcome::LeaseExpired);
    assert_eq!(scene.wait(B, "k", 5_000), LockOutcome::NotEnqueued);
    assert_eq!((scene.totals().keys, scene.totals().idle), (1, 1));
}

#[test]
fn ended_immediate_grant_is_not_a_missed_turn() {
    let mut scene = Scene::new(SETTINGS);
    granted(scene.enqueue(A, "k", 1_000));
    assert_eq!(scene.after(1_000).wait(A, "k", 1_000), LockOutcome::NotEnqueued);
    let token = granted(scene.enqueue(A, "k", 1_000)).token;
    assert!(scene.release("k", token));
    assert_eq!(scene.wait(A, "k", 1_000), LockOutcome::NotEnqueued, "a release ends the hold as well");
}

#[test]
fn cancel_ends_blocked_request() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    let (first, second) = (scene.blocked(B, "k", 9_000), scene.blocked(C, "k", 9_000));
    assert!(scene.cancel(first));
    assert!(!scene.cancel(first));
    scene.release("k", token);
    assert_eq!(scene.answered(), [(3, true)]);
    assert!(!scene.cancel(second), "the request was granted");
    assert!(!scene.cancel(WaiterId::new(9, 9, 9)));
}

#[test]
fn hold_off_delays_all_grants() {
    let mut scene = Scene::new(SETTINGS);
    scene.locks.hold_off(Time::from_ms(6_000));
    scene.locks.hold_off(Time::from_ms(5_500));
    scene.blocked(A, "k", 1_000);
    scene.blocked(B, "k", 900);
    scene.blocked(C, "k", 9_000);
    assert_eq!(scene.enqueue(A, "l", 0), LockOutcome::Queued);
    assert_eq!(scene.lock(B, "l", 0), LockOutcome::Timeout);
    assert_eq!(scene.locks.soonest(), Some(Time::from_ms(5_900)));
    assert_eq!(scene.after(999).advance(), Some(6_000));
    assert_eq!(scene.answered(), [(2, false)]);
    scene.after(1).advance();
    assert_eq!(scene.answered(), [(1, true)], "the wait timeout ended with the hold-off");
    granted(scene.wait(A, "l", 0));
    granted(scene.lock(B, "m", 0));
}

#[test]
fn key_is_exact_with_many_other_events_due() {
    let mut scene = Scene::new(SETTINGS);
    for n in 0..10 * EXPIRY_BATCH {
        granted(scene.acquire(A, &format!("key{n}"), (1, 1_000, 0)));
    }
    granted(scene.acquire(A, "s", (2, 1_000, 0)));
    granted(scene.acquire(A, "s", (2, 1_000, 0)));
    ticket(scene.acquire(B, "s", (2, 0, 999)));
    ticket(scene.acquire(C, "s", (2, 0, 9_000)));
    scene.after(1_000);
    granted(scene.acquire(A, "s", (2, 0, 0)));
    assert_eq!(scene.answered(), [(2, false), (3, true)]);
    assert!(scene.totals().expired < 2 * EXPIRY_BATCH as u64 + 3, "one step does not handle all events");
    let mut steps = 0;
    while scene.advance() == Some(6_000) {
        steps += 1;
    }
    assert!((8..=10).contains(&steps), "{steps}");
    assert_eq!(scene.totals().holders, 2);
}

#[test]
fn stats_list_held_and_idle_keys() {
    let mut scene = Scene::sharded(4, SETTINGS);
    granted(scene.acquire(B, "k", (1, 2_000, 0)));
    scene.blocked(A, "k", 9_000);
    granted(scene.acquire(A, "s", (3, 0, 0)));
    let token = scene.held(A, "idle");
    scene.release("idle", token);
    scene.after(500);
    let stats = scene.locks.stats(scene.time());
    let lock = &stats.locks[0];
    assert_eq!(
        (&*lock.key, lock.owner_connection, lock.lease_expires_in_ms, lock.waiters),
        ("k", 2, 1_500, 1)
    );
    let used = &stats.semaphores[0];
    assert_eq!((&*used.key, used.limit, used.holders, used.waiters), ("s", 3, 1, 0));
    assert_eq!((&*stats.idle_locks[0].key, stats.idle_locks[0].idle_ms), ("idle", 500));
    assert_eq!((stats.locks_total, stats.semaphores_total), (1, 1));
    assert_eq!((stats.idle_locks_total, stats.idle_semaphores_total), (1, 0));
}

#[test]
fn stats_lists_are_truncated() {
    let scene = Scene::sharded(2, SETTINGS);
    let mut effects = Vec::new();
    let many = STATS_ENTRIES_MAX as u64 + 5_000;
    for n in 0..many {
        let key = format!("key{n}");
        let reply = ReplyTo { connection: A.connection, uid: 0 };
        let claimant = OwnerKey { owner: A, key: name(&key) };
        granted(scene.locks.acquire(scene.time(), claimant, 1, 0, 0, reply, &mut effects));
    }
    let stats = scene.locks.stats(scene.time());
    assert_eq!((stats.locks.len(), stats.locks_total), (STATS_ENTRIES_MAX, many));
}

#[test]
fn end_of_time_does_not_panic() {
    let mut scene = Scene::new(SETTINGS);
    scene.locks.hold_off(Time::from_ms(5_001));
    scene.blocked(C, "j", u64::MAX);
    scene.now = u64::MAX;
    scene.advance();
    granted(scene.acquire(A, "k", (1, u64::MAX, u64::MAX)));
    ticket(scene.acquire(B, "k", (1, u64::MAX, u64::MAX)));
    scene.advance();
    assert_eq!(scene.locks.soonest(), None, "nothing is ever due");
    scene.locks.release_owner(scene.time(), A, &mut scene.effects);
    scene.effects.clear();
    scene.locks.check();
}

#[test]
fn clock_of_one_thread_may_lag() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    scene.now -= 3;
    assert_eq!(scene.renew("k", token, 10), Some(10));
    assert_eq!(scene.advance(), Some(5_010));
}

#[test]
fn secrets_differ_by_seed_and_shard() {
    let secret = |shards, seed, key: &str| {
        let locks = ShardedLocks::new(shards, SETTINGS, FenceSource::starting_at(0), [seed; 32]);
        let reply = ReplyTo { connection: A.connection, uid: 0 };
        let claimant = OwnerKey { owner: A, key: name(key) };
        let grant = granted(locks.acquire(Time::from_ms(1), claimant, 1, 0, 0, reply, &mut Vec::new()));
        (locks.shard_of(name(key)), grant.token)
    };
    assert_eq!(secret(1, 1, "a"), secret(1, 1, "b"));
    assert_ne!(secret(1, 1, "a"), secret(1, 2, "a"));
    let tokens: std::collections::BTreeMap<usize, [u8; 16]> = (0..60)
        .map(|n| secret(4, 1, &format!("{n}")))
        .map(|(shard, token)| (shard, token.to_bytes()))
        .collect();
    let distinct: std::collections::BTreeSet<_> = tokens.values().collect();
    assert_eq!((tokens.len(), distinct.len()), (4, 4));
}

/// Four threads use a few keys, each incrementing a counter that only the lock protects.
#[test]
fn lock_excludes_concurrent_threads() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let locks = ShardedLocks::new(2, SETTINGS, FenceSource::starting_at(0), [1; 32]);
    let fences = [const { AtomicU64::new(0) }; 3];
    let held = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (locks, fences, held) = (&locks, &fences, &held);
            scope.spawn(move || {
                let owner = Owner { connection: ConnectionId::new(n), local: 0 };
                let reply = ReplyTo { connection: owner.connection, uid: 0 };
                for step in 0..5_000 {
                    let number = (step % 3) as usize;
                    let key = name(["a", "b", "c"][number]);
                    let (now, mut effects) = (Time::from_ms(1), Vec::new());
                    let outcome = locks.acquire(now, OwnerKey { owner, key }, 1, 0, 0, reply, &mut effects);
                    if let LockOutcome::Granted(grant) = outcome {
                        assert_eq!(held[number].fetch_add(1, Ordering::SeqCst), 0);
                        assert!(
                            fences[number].swap(grant.token.fence(), Ordering::SeqCst) < grant.token.fence()
                        );
                        held[number].fetch_sub(1, Ordering::SeqCst);
                        assert!(locks.release(now, key, grant.token, &mut effects));
                    }
                }
            });
        }
    });
    locks.check();
    assert_eq!((locks.totals().holders, locks.totals().idle), (0, 3));
}
