//! Random operations on the lock table and on its model, with a comparison of every answer.
//!
//! The model handles due events in the same order, so fences are compared too. The exception is the end of a
//! hold-off: which key is served first then is not specified.

use super::model::{ModelAnswer, ModelEffect, ModelScope, NaiveLocks};
use super::{
    Completion, HeldLockStats, IdleKeyStats, LockOutcome, LockSettings, OwnerKey, ReplyTo, ShardedLocks,
    WaiterId,
};
use crate::id::{ConnectionId, Grant, LockKey, Owner, Token};
use crate::table::FenceSource;
use crate::time::Time;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The keys and their usual limits.
const KEYS: [(&str, u32); 6] =
    [("a", 1), ("b", 1), ("the-key-that-is-longer-than-22-bytes", 1), ("s", 2), ("t", 3), ("u", 40)];

#[derive(Clone, Copy, Debug)]
struct OwnerChoice(u64, u64);

impl OwnerChoice {
    fn owner(self) -> Owner {
        Owner { connection: ConnectionId::new(self.0), local: self.1 }
    }
}

#[derive(Clone, Debug)]
enum LockStep {
    Tick(u64),
    Acquire {
        choice: OwnerChoice,
        key: usize,
        limit: Option<u32>,
        lease_ms: u64,
        timeout_ms: u64,
    },
    /// Many requests at once, on several keys.
    Burst {
        choice: OwnerChoice,
        count: usize,
        key: usize,
        lease_ms: u64,
        timeout_ms: u64,
    },
    Enqueue {
        choice: OwnerChoice,
        key: usize,
        limit: Option<u32>,
        lease_ms: u64,
    },
    Wait {
        choice: OwnerChoice,
        key: usize,
        timeout_ms: u64,
    },
    Release(usize),
    ReleaseUnknown {
        key: usize,
        token: (u64, u64),
    },
    Renew(usize, u64),
    Cancel(usize),
    ReleaseOwner(OwnerChoice),
    ReleaseConnection(u64),
    ForgetWaiters(u64),
    ForgetOwnerWaiters(OwnerChoice),
    BeginClaims(u64),
    Claim(usize, Option<OwnerChoice>),
    EndClaims(u64),
    LatestLease(OwnerChoice),
    Advance,
    Drain,
    HoldOff(u64),
}

fn step() -> impl Strategy<Value = LockStep> {
    let choice = || (1..4u64, 0..3u64).prop_map(|(connection, local)| OwnerChoice(connection, local));
    let key = || prop_oneof![4 => 0..2usize, 3 => 2..KEYS.len()];
    let limit = || prop_oneof![12 => Just(None), 1 => (1..4u32).prop_map(Some)];
    let lease = || prop_oneof![1 => Just(0), 4 => 1..12u64, 2 => 12..60u64];
    let timeout = || prop_oneof![2 => Just(0), 4 => 1..12u64, 4 => 12..60u64];
    let tick = prop_oneof![4 => 0..3u64, 2 => 3..20u64, 1 => 20..90u64];
    let pick = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        6 => tick.prop_map(LockStep::Tick),
        12 => (choice(), key(), limit(), lease(), timeout()).prop_map(|(choice, key, limit, lease_ms, timeout_ms)|
            LockStep::Acquire { choice, key, limit, lease_ms, timeout_ms }),
        1 => (choice(), 1..90usize, key(), lease(), timeout()).prop_map(|(choice, count, key, lease_ms, timeout_ms)|
            LockStep::Burst { choice, count, key, lease_ms, timeout_ms }),
        5 => (choice(), key(), limit(), lease()).prop_map(|(choice, key, limit, lease_ms)|
            LockStep::Enqueue { choice, key, limit, lease_ms }),
        6 => (choice(), key(), timeout()).prop_map(|(choice, key, timeout_ms)| LockStep::Wait { choice, key, timeout_ms }),
        8 => pick().prop_map(LockStep::Release),
        1 => (key(), any::<(u64, u64)>()).prop_map(|(key, token)| LockStep::ReleaseUnknown { key, token }),
        4 => (pick(), lease()).prop_map(|(token, lease_ms)| LockStep::Renew(token, lease_ms)),
        3 => pick().prop_map(LockStep::Cancel),
        1 => choice().prop_map(LockStep::ReleaseOwner),
        1 => (1..4u64).prop_map(LockStep::ReleaseConnection),
        1 => (1..4u64).prop_map(LockStep::ForgetWaiters),
        1 => choice().prop_map(LockStep::ForgetOwnerWaiters),
        1 => (1..4u64).prop_map(LockStep::BeginClaims),
        3 => (pick(), prop::option::weighted(0.2, choice())).prop_map(|(token, choice)| LockStep::Claim(token, choice)),
        1 => (1..4u64).prop_map(LockStep::EndClaims),
        2 => choice().prop_map(LockStep::LatestLease),
        2 => Just(LockStep::Advance),
        2 => Just(LockStep::Drain),
        1 => (0..40u64).prop_map(LockStep::HoldOff),
    ]
}

fn settings() -> impl Strategy<Value = LockSettings> {
    let locks_max = prop::sample::select(vec![0, 0, 1, 3, 5]);
    let waiters_max = prop::sample::select(vec![0, 0, 1, 2, 30]);
    let idle_ms = prop::sample::select(vec![0, 1, 15, 70]);
    (locks_max, waiters_max, idle_ms).prop_map(|(locks_max, waiters_max, idle_ms)| LockSettings {
        default_lease_ms: 20,
        locks_max,
        waiters_max,
        idle_ms,
    })
}

/// A grant that was answered: the key, the owner, the model's record and the token.
#[derive(Clone, Copy)]
struct PropertyProof {
    key: usize,
    owner: Owner,
    record: u64,
    token: Token,
}

/// A request that was blocked.
#[derive(Clone, Copy)]
struct BlockedAcquire {
    key: usize,
    owner: Owner,
    ticket: WaiterId,
    record: u64,
}

struct PropertyDriver {
    locks: ShardedLocks,
    model: NaiveLocks,
    now: u64,
    /// Whether fences are compared.
    exact: bool,
    effects: Vec<Completion>,
    uid: u32,
    proofs: Vec<PropertyProof>,
    /// All blocked requests so far, by uid.
    blocked: BTreeMap<u32, BlockedAcquire>,
}

fn key(number: usize) -> LockKey<'static> {
    LockKey::new(KEYS[number].0).unwrap()
}

impl PropertyDriver {
    fn new(settings: LockSettings, shards: usize, exact: bool) -> Self {
        let locks = ShardedLocks::new(shards, settings, FenceSource::starting_at(0), [7; 32]);
        let shard_of = (0..KEYS.len()).map(|number| locks.shard_of(key(number))).collect();
        Self {
            locks,
            model: NaiveLocks::new(settings, shards, shard_of),
            now: 1_000,
            exact,
            effects: Vec::new(),
            uid: 0,
            proofs: Vec::new(),
            blocked: BTreeMap::new(),
        }
    }

    fn time(&self) -> Time {
        Time::from_ms(self.now)
    }

    fn reply(&mut self, choice: OwnerChoice) -> ReplyTo {
        self.uid += 1;
        ReplyTo { connection: ConnectionId::new(100 + choice.0), uid: self.uid }
    }

    /// Checks that a grant matches the grant of the model.
    fn same_grant(
        &mut self,
        key: usize,
        owner: Owner,
        grant: Grant,
        answer: ModelAnswer,
    ) -> Result<(), TestCaseError> {
        let ModelAnswer::Granted { record, fence, lease_ms } = answer else {
            return Err(TestCaseError::fail(format!("got {grant:?}, expected {answer:?}")));
        };
        prop_assert_eq!(grant.lease_ms, lease_ms);
        if self.exact {
            prop_assert_eq!(grant.token.fence(), fence);
        }
        let same = self.proofs.iter().find(|proof| proof.record == record);
        prop_assert!(same.is_none_or(|proof| proof.token == grant.token), "a second token for one grant");
        self.proofs.push(PropertyProof { key, owner, record, token: grant.token });
        Ok(())
    }

    fn same(
        &mut self,
        key: usize,
        choice: OwnerChoice,
        reply: ReplyTo,
        real: LockOutcome,
        model: ModelAnswer,
    ) -> Result<(), TestCaseError> {
        let owner = choice.owner();
        match (real, model) {
            (LockOutcome::Granted(grant), _) => self.same_grant(key, owner, grant, model)?,
            (LockOutcome::Waiting(ticket), ModelAnswer::Waiting(record)) => {
                self.blocked.insert(reply.uid, BlockedAcquire { key, owner, ticket, record });
            }
            (real, ModelAnswer::Other(model)) => prop_assert_eq!(real, model),
            (real, model) => return Err(TestCaseError::fail(format!("{real:?} is not {model:?}"))),
        }
        Ok(())
    }

    /// Checks that blocked requests are answered as by the model, in the same order.
    fn same_effects(&mut self) -> Result<(), TestCaseError> {
        let mut effects = std::mem::take(&mut self.effects);
        let mut expected: Vec<ModelEffect> = std::mem::take(&mut self.model.effects);
        if !self.exact {
            effects.sort_by_key(|effect| self.blocked[&effect.reply.uid].key);
            expected.sort_by_key(|expected| expected.key);
        }
        prop_assert_eq!(effects.len(), expected.len(), "{:?} {:?}", effects.last(), expected.last());
        for (effect, expected) in effects.into_iter().zip(expected) {
            prop_assert_eq!(effect.reply.uid, expected.uid);
            let BlockedAcquire { key, owner, ticket, .. } = self.blocked[&expected.uid];
            prop_assert_eq!(
                (effect.ticket, effect.reply.connection.number()),
                (ticket, 100 + owner.connection.number())
            );
            match effect.outcome {
                LockOutcome::Granted(grant) => self.same_grant(key, owner, grant, expected.answer)?,
                other => prop_assert_eq!(ModelAnswer::Other(other), expected.answer),
            }
        }
        Ok(())
    }

    fn acquire(
        &mut self,
        choice: OwnerChoice,
        number: usize,
        limit: u32,
        lease_ms: u64,
        timeout_ms: u64,
    ) -> Result<(), TestCaseError> {
        let reply = self.reply(choice);
        let claimant = OwnerKey { owner: choice.owner(), key: key(number) };
        let (now, effects) = (self.time(), &mut self.effects);
        let real = self.locks.acquire(now, claimant, limit, lease_ms, timeout_ms, reply, effects);
        let wanted = (choice.owner(), number, limit);
        let model = self.model.acquire(self.now, wanted, lease_ms, timeout_ms, reply.uid);
        self.same(number, choice, reply, real, model)
    }

    /// Checks that the next time is correct, or earlier.
    fn same_next(&self, real: Option<Time>, model: Option<u64>) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.locks.soonest(), real);
        let real = real.map_or(u64::MAX, Time::as_ms);
        prop_assert!(real <= model.unwrap_or(u64::MAX), "{real} {model:?}");
        Ok(())
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        loop {
            let real = self.locks.advance(self.time(), &mut self.effects);
            let model = self.model.advance(self.now);
            self.same_next(real, model)?;
            if real.is_none_or(|next| next > self.time()) {
                break;
            }
        }
        self.same_effects()?;
        self.same_stats()
    }

    fn same_stats(&self) -> Result<(), TestCaseError> {
        let mut stats = self.locks.stats(self.time());
        let (locks, semaphores): (Vec<_>, Vec<_>) =
            self.model.held().into_iter().partition(|(_, limit, ..)| *limit == 1);
        let name = |number: usize| Box::from(KEYS[number].0);
        let mut expected: Vec<HeldLockStats> = locks
            .iter()
            .map(|(key, _, connections, end, waiters)| HeldLockStats {
                key: name(*key),
                owner_connection: connections[0],
                lease_expires_in_ms: end - self.now,
                waiters: *waiters,
            })
            .collect();
        expected.sort_by(|one, other| one.key.cmp(&other.key));
        stats.locks.sort_by(|one, other| one.key.cmp(&other.key));
        prop_assert_eq!(stats.locks_total, expected.len() as u64);
        prop_assert_eq!(stats.locks, expected);
        let mut used: Vec<_> = stats
            .semaphores
            .iter()
            .map(|used| (used.key.clone(), used.limit, used.holders, used.waiters))
            .collect();
        used.sort();
        let mut expected: Vec<_> = semaphores
            .iter()
            .map(|(key, limit, connections, _, waiters)| {
                (name(*key), *limit, connections.len() as u64, *waiters)
            })
            .collect();
        expected.sort();
        prop_assert_eq!((stats.semaphores_total, used), (expected.len() as u64, expected));
        let (locks, semaphores): (Vec<_>, Vec<_>) =
            self.model.idle().into_iter().partition(|(_, limit, _)| *limit == 1);
        let lists = [
            (stats.idle_locks, stats.idle_locks_total, locks),
            (stats.idle_semaphores, stats.idle_semaphores_total, semaphores),
        ];
        for (mut list, total, expected) in lists {
            let idle_ms = |end: u64| self.locks.idle_ms() - (end - self.now);
            let mut expected: Vec<_> = expected
                .iter()
                .map(|(key, _, end)| IdleKeyStats { key: name(*key), idle_ms: idle_ms(*end) })
                .collect();
            expected.sort_by(|one, other| one.key.cmp(&other.key));
            list.sort_by(|one, other| one.key.cmp(&other.key));
            prop_assert_eq!((total, list), (expected.len() as u64, expected));
        }
        Ok(())
    }

    fn step(&mut self, step: &LockStep) -> Result<(), TestCaseError> {
        let now = self.time();
        match *step {
            LockStep::Tick(ms) => self.now += ms,
            LockStep::Acquire { choice, key, limit, lease_ms, timeout_ms } => {
                self.acquire(choice, key, limit.unwrap_or(KEYS[key].1), lease_ms, timeout_ms)?;
            }
            LockStep::Burst { choice, count, key, lease_ms, timeout_ms } => {
                for n in 0..count {
                    let key = (key + n % 2) % KEYS.len();
                    self.acquire(
                        OwnerChoice(choice.0, n as u64 % 3),
                        key,
                        KEYS[key].1,
                        lease_ms,
                        timeout_ms,
                    )?;
                }
            }
            LockStep::Enqueue { choice, key: number, limit, lease_ms } => {
                let limit = limit.unwrap_or(KEYS[number].1);
                let reply = self.reply(choice);
                let claimant = OwnerKey { owner: choice.owner(), key: key(number) };
                let real = self.locks.enqueue(now, claimant, limit, lease_ms, &mut self.effects);
                let model = self.model.enqueue(self.now, (choice.owner(), number, limit), lease_ms);
                self.same(number, choice, reply, real, model)?;
            }
            LockStep::Wait { choice, key: number, timeout_ms } => {
                let reply = self.reply(choice);
                let claimant = OwnerKey { owner: choice.owner(), key: key(number) };
                let real = self.locks.wait(now, claimant, timeout_ms, reply, &mut self.effects);
                let model = self.model.wait(self.now, choice.owner(), number, timeout_ms, reply.uid);
                self.same(number, choice, reply, real, model)?;
            }
            LockStep::ReleaseUnknown { key: number, token: (fence, secret) } => {
                let token = Token::new(fence % 50, secret);
                prop_assert!(!self.locks.release(now, key(number), token, &mut self.effects));
                prop_assert!(!self.model.release(self.now, number, 0));
                let renewed = self.locks.renew(now, key(number), token, 5, &mut self.effects);
                prop_assert_eq!(renewed, self.model.renew(self.now, number, 0, 5));
            }
            LockStep::Release(pick) | LockStep::Renew(pick, _) | LockStep::Claim(pick, _) => {
                self.step_with_token(step, pick)?;
            }
            LockStep::Cancel(pick) => {
                let nth = pick.checked_rem(self.blocked.len()).unwrap_or(0);
                let Some(BlockedAcquire { key, ticket, record, .. }) =
                    self.blocked.values().nth(nth).copied()
                else {
                    return Ok(());
                };
                let real = self.locks.cancel(now, ticket, &mut self.effects);
                prop_assert_eq!(real, self.model.cancel(self.now, key, record));
            }
            LockStep::Drain => self.drain()?,
            _ => self.step_of_many(step)?,
        }
        self.same_effects()
    }

    fn step_with_token(&mut self, step: &LockStep, pick: usize) -> Result<(), TestCaseError> {
        let now = self.time();
        // Usually one of the most recent, which may still be held.
        let recent = self.proofs.len().saturating_sub(if pick.is_multiple_of(4) { usize::MAX } else { 8 });
        let choice = &self.proofs[recent..];
        let Some(PropertyProof { key: number, owner, record, token }) =
            choice.get(pick.checked_rem(choice.len()).unwrap_or(0)).copied()
        else {
            return Ok(());
        };
        match *step {
            LockStep::Renew(_, lease_ms) => {
                let real = self.locks.renew(now, key(number), token, lease_ms, &mut self.effects);
                prop_assert_eq!(real, self.model.renew(self.now, number, record, lease_ms));
            }
            LockStep::Claim(_, choice) => {
                let owner = choice.map_or(owner, OwnerChoice::owner);
                let real = self.locks.claim(now, owner, key(number), token);
                prop_assert_eq!(real, self.model.claim(self.now, owner, number, record));
            }
            _ => {
                let real = self.locks.release(now, key(number), token, &mut self.effects);
                prop_assert_eq!(real, self.model.release(self.now, number, record));
            }
        }
        Ok(())
    }

    fn step_of_many(&mut self, step: &LockStep) -> Result<(), TestCaseError> {
        let (now, effects) = (self.time(), &mut self.effects);
        let (locks, model) = (&self.locks, &mut self.model);
        match *step {
            LockStep::ReleaseOwner(choice) => {
                locks.release_owner(now, choice.owner(), effects);
                model.release_all(self.now, ModelScope::Owner(choice.owner()));
            }
            LockStep::ReleaseConnection(id) => {
                locks.release_connection(now, ConnectionId::new(id), effects);
                model.release_all(self.now, ModelScope::Connection(ConnectionId::new(id)));
            }
            LockStep::ForgetWaiters(id) => {
                locks.forget_waiters(now, ConnectionId::new(id), effects);
                model.forget_waiters(self.now, ModelScope::Connection(ConnectionId::new(id)));
            }
            LockStep::ForgetOwnerWaiters(choice) => {
                locks.forget_owner_waiters(now, choice.owner(), effects);
                model.forget_waiters(self.now, ModelScope::Owner(choice.owner()));
            }
            LockStep::BeginClaims(id) => {
                let id = ConnectionId::new(id);
                prop_assert_eq!(locks.begin_claims(id), model.begin_claims(id));
            }
            LockStep::EndClaims(id) => {
                locks.end_claims(now, ConnectionId::new(id), effects);
                model.end_claims(self.now, ConnectionId::new(id));
            }
            LockStep::LatestLease(choice) => {
                let real = locks.latest_lease(now, choice.owner());
                prop_assert_eq!(real.map(Time::as_ms), model.latest_lease(self.now, choice.owner()));
            }
            LockStep::Advance => {
                let (real, model) = (locks.advance(now, effects), model.advance(self.now));
                self.same_next(real, model)?;
            }
            LockStep::HoldOff(ms) if !self.exact => {
                locks.hold_off(now.after_ms(ms));
                model.hold_off = model.hold_off.max(self.now + ms);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Executes all steps, and finally lets all leases and timeouts expire.
fn drive(
    settings: LockSettings,
    shards: usize,
    exact: bool,
    steps: &[LockStep],
) -> Result<(), TestCaseError> {
    let mut driver = PropertyDriver::new(settings, shards, exact);
    for step in steps {
        driver.step(step)?;
        driver.locks.check();
        prop_assert_eq!(driver.locks.totals(), driver.model.totals());
    }
    for id in 1..4 {
        driver.step(&LockStep::ReleaseConnection(id))?;
        driver.step(&LockStep::Tick(100))?;
        driver.step(&LockStep::Drain)?;
    }
    let totals = driver.locks.totals();
    prop_assert_eq!((totals.keys, totals.holders, totals.waiters, totals.owners), (0, 0, 0, 0));
    prop_assert_eq!(driver.locks.soonest(), None);
    Ok(())
}

proptest! {
    #[test]
    fn sharded_locks_match_model(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        for shards in [1, 4] {
            drive(settings, shards, true, &steps)?;
        }
    }

    #[test]
    fn hold_off_delays_grants_and_loses_none(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        // So few that one call handles all due events: beyond that the order differs from the model's.
        let steps: Vec<LockStep> = steps.into_iter().filter(|step| !matches!(step, LockStep::Burst { .. })).collect();
        drive(LockSettings { locks_max: 0, ..settings }, 2, false, &steps)?;
    }
}
