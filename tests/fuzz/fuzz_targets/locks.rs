//! Arbitrary operations on the lock table, with any number of shards, checked from outside.
//!
//! Invariants at every moment: no key has more holders than its limit; fences increase monotonically; a token
//! is valid exactly during its lease; waiters are granted in FIFO order and never overtaken; each blocked
//! request is answered once, neither early nor late nor after its cancellation; unclaimed holds are released.
//! At the end nothing is left.
#![no_main]

use libdc::id::{ConnectionId, Grant, LockKey, Owner, Token};
use libdc::table::{
    Completion, FenceSource, LockOutcome, LockSettings, OwnerKey, ReplyTo, ShardedLocks, WaiterId,
};
use libdc::time::Time;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;

const KEYS: [&str; 4] = ["a", "b", "clef-日本", "a-key-that-is-longer-than-what-fits-an-entry"];

#[derive(Arbitrary, Debug)]
struct Run {
    shards: u8,
    locks_max: u8,
    waiters_max: u8,
    idle_ms: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Pass { ms: u8 },
    Advance,
    HoldOff { ms: u8 },
    Acquire { who: Who, limit: u8, timeout_ms: u8, lease_ms: u8 },
    Enqueue { who: Who, limit: u8, lease_ms: u8 },
    Wait { who: Who, timeout_ms: u8 },
    Release { hold: u8 },
    Renew { hold: u8, lease_ms: u8 },
    Forge { hold: u8 },
    Cancel { ticket: u8 },
    ReleaseOwner { who: Who },
    ReleaseConnection { who: Who },
    ForgetWaiters { who: Who },
    Resume { who: Who, claimed: u8 },
}

/// Few enough to force contention.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Who(u8);

impl Who {
    fn owner(self) -> Owner {
        Owner { connection: ConnectionId::new(u64::from(self.0 & 3)), local: u64::from(self.0 >> 2 & 1) }
    }

    fn key(self) -> usize {
        usize::from(self.0 >> 3) % KEYS.len()
    }
}

/// A grant that was answered.
struct Hold {
    key: usize,
    limit: u32,
    owner: Owner,
    token: Token,
    until: Time,
}

struct Blocked {
    ticket: WaiterId,
    reply: ReplyTo,
    key: usize,
    limit: u32,
    owner: Owner,
    /// Its position in the queue.
    place: u64,
    until: Time,
}

struct Watched {
    locks: ShardedLocks,
    now: Time,
    hold_off: Time,
    fence: u64,
    places: u64,
    holds: Vec<Hold>,
    /// Tokens of holds that have ended and are no longer valid.
    ended: Vec<(usize, Token)>,
    blocked: Vec<Blocked>,
    /// Enqueued and not waited for: the position, and the limit.
    enqueued: HashMap<(Owner, usize), (u64, u32)>,
    /// Whether there may be holders whose grant was not answered.
    has_enqueued: bool,
    effects: Vec<Completion>,
    uid: u32,
}

fuzz_target!(|run: Run| {
    let settings = LockSettings {
        default_lease_ms: 100,
        locks_max: u64::from(run.locks_max % 6),
        waiters_max: u64::from(run.waiters_max % 6),
        idle_ms: u64::from(run.idle_ms),
    };
    let mut watched = Watched::new(1 + usize::from(run.shards % 4), settings);
    for step in &run.steps {
        watched.step(step);
    }
    watched.end();
});

impl Watched {
    fn new(shards: usize, settings: LockSettings) -> Self {
        Self {
            locks: ShardedLocks::new(shards, settings, FenceSource::starting_at(0), [7; 32]),
            now: Time::from_ms(0),
            hold_off: Time::from_ms(0),
            fence: 0,
            places: 0,
            holds: Vec::new(),
            ended: Vec::new(),
            blocked: Vec::new(),
            enqueued: HashMap::new(),
            has_enqueued: false,
            effects: Vec::new(),
            uid: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass { ms } => self.pass(ms.into()),
            Step::Advance => self.advance(),
            Step::HoldOff { ms } => {
                let until = self.now.after_ms(ms.into());
                self.locks.hold_off(until);
                self.hold_off = self.hold_off.max(until);
            }
            Step::Acquire { who, limit, timeout_ms, lease_ms } => {
                self.acquire(who, limit_of(who, limit), timeout_ms.into(), lease_ms.into());
            }
            Step::Enqueue { who, limit, lease_ms } => {
                self.enqueue(who, limit_of(who, limit), lease_ms.into());
            }
            Step::Wait { who, timeout_ms } => self.wait(who, timeout_ms.into()),
            Step::Release { hold } => self.release(hold.into()),
            Step::Renew { hold, lease_ms } => self.renew(hold.into(), lease_ms.into()),
            Step::Forge { hold } => self.forge(hold.into()),
            Step::Cancel { ticket } => self.cancel(ticket.into()),
            // Here and below, due requests are answered first.
            Step::ReleaseOwner { who } => {
                self.advance();
                let owner = who.owner();
                self.forget_places(|other| other == owner);
                self.end_holds(|hold| hold.owner == owner);
                self.locks.release_owner(self.now, owner, &mut self.effects);
                self.take_effects();
            }
            Step::ReleaseConnection { who } => {
                self.advance();
                let connection = who.owner().connection;
                self.forget_places(|other| other.connection == connection);
                self.end_holds(|hold| hold.owner.connection == connection);
                self.locks.release_connection(self.now, connection, &mut self.effects);
                self.take_effects();
            }
            Step::ForgetWaiters { who } => {
                self.advance();
                let connection = who.owner().connection;
                self.forget_places(|other| other.connection == connection);
                self.locks.forget_waiters(self.now, connection, &mut self.effects);
                self.take_effects();
            }
            Step::Resume { who, claimed } => self.resume(who.owner().connection, claimed),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        let now = self.now;
        self.end_holds(|hold| hold.until <= now);
    }

    fn advance(&mut self) {
        while self.locks.advance(self.now, &mut self.effects).is_some_and(|next| next <= self.now) {}
        self.take_effects();
        for blocked in &self.blocked {
            assert!(blocked.until > self.now, "its timeout is over");
            if !self.has_enqueued && self.now >= self.hold_off {
                let holders = self.holds.iter().filter(|hold| hold.key == blocked.key).count();
                assert_eq!(holders, blocked.limit as usize, "it waits for what is free");
            }
        }
    }

    fn acquire(&mut self, who: Who, limit: u32, timeout_ms: u64, lease_ms: u64) {
        let (owner, key, reply) = (who.owner(), who.key(), self.reply(who));
        let claimant = OwnerKey { owner, key: lock_key(key) };
        let outcome =
            self.locks.acquire(self.now, claimant, limit, lease_ms, timeout_ms, reply, &mut self.effects);
        self.take_effects();
        match outcome {
            LockOutcome::Granted(grant) => {
                assert!(self.blocked.iter().all(|other| other.key != key), "granted past those who wait");
                self.granted(key, limit, owner, grant);
            }
            LockOutcome::Waiting(ticket) => {
                assert!(timeout_ms > 0);
                let place = self.next_place();
                let until = self.now.after_ms(timeout_ms);
                self.blocked.push(Blocked { ticket, reply, key, limit, owner, place, until });
            }
            LockOutcome::Timeout => assert_eq!(timeout_ms, 0),
            LockOutcome::MaxLocks | LockOutcome::MaxWaiters | LockOutcome::LimitMismatch => {}
            other => panic!("{other:?} to an acquire"),
        }
    }

    fn enqueue(&mut self, who: Who, limit: u32, lease_ms: u64) {
        let (owner, key) = (who.owner(), who.key());
        let claimant = OwnerKey { owner, key: lock_key(key) };
        let outcome = self.locks.enqueue(self.now, claimant, limit, lease_ms, &mut self.effects);
        self.take_effects();
        match outcome {
            LockOutcome::Granted(grant) => {
                assert!(self.blocked.iter().all(|other| other.key != key), "granted past those who wait");
                self.granted(key, limit, owner, grant);
            }
            LockOutcome::Queued => {}
            LockOutcome::AlreadyEnqueued => {
                let waits = self.blocked.iter().any(|other| other.owner == owner && other.key == key);
                assert!(waits || self.enqueued.contains_key(&(owner, key)));
                return;
            }
            LockOutcome::MaxLocks | LockOutcome::MaxWaiters | LockOutcome::LimitMismatch => return,
            other => panic!("{other:?} to an enqueue"),
        }
        self.has_enqueued = true;
        let place = self.next_place();
        self.enqueued.insert((owner, key), (place, limit));
    }

    fn wait(&mut self, who: Who, timeout_ms: u64) {
        let (owner, key, reply) = (who.owner(), who.key(), self.reply(who));
        let claimant = OwnerKey { owner, key: lock_key(key) };
        let outcome = self.locks.wait(self.now, claimant, timeout_ms, reply, &mut self.effects);
        self.take_effects();
        let enqueued = self.enqueued.remove(&(owner, key));
        match (outcome, enqueued) {
            (LockOutcome::NotEnqueued, _) => {}
            (_, None) => panic!("{outcome:?} to a wait without an enqueue"),
            (LockOutcome::Granted(grant), Some((_, limit))) => {
                match self.holds.iter_mut().find(|hold| hold.token == grant.token) {
                    Some(hold) => hold.until = self.now.after_ms(grant.lease_ms),
                    // It was granted from the queue, so other grants may have greater fences.
                    None => self.told(key, limit, owner, grant),
                }
            }
            (LockOutcome::Waiting(ticket), Some((place, limit))) => {
                assert!(timeout_ms > 0);
                let until = self.now.after_ms(timeout_ms);
                self.blocked.push(Blocked { ticket, reply, key, limit, owner, place, until });
            }
            (LockOutcome::Timeout, Some(_)) => assert_eq!(timeout_ms, 0),
            (LockOutcome::LeaseExpired, Some(_)) => {}
            (other, Some(_)) => panic!("{other:?} to a wait"),
        }
    }

    fn release(&mut self, number: usize) {
        let Some(Hold { key, token, .. }) = pick(&self.holds, number) else { return };
        let (key, token) = (*key, *token);
        self.end_holds(|hold| hold.token == token);
        assert!(self.locks.release(self.now, lock_key(key), token, &mut self.effects));
        self.take_effects();
        assert!(!self.locks.release(self.now, lock_key(key), token, &mut self.effects));
        self.take_effects();
    }

    fn renew(&mut self, number: usize, lease_ms: u64) {
        let Some(Hold { key, token, .. }) = pick(&self.holds, number) else { return };
        let (key, token) = (*key, *token);
        let renewed = self.locks.renew(self.now, lock_key(key), token, lease_ms, &mut self.effects);
        let lease_ms = renewed.expect("it is held");
        let until = self.now.after_ms(lease_ms);
        self.holds.iter_mut().filter(|hold| hold.token == token).for_each(|hold| hold.until = until);
        self.take_effects();
    }

    /// Expired tokens, and tokens of other keys.
    fn forge(&mut self, number: usize) {
        let mut forged: Vec<(usize, Token)> = pick(&self.ended, number).into_iter().copied().collect();
        if let Some(Hold { key, token, .. }) = pick(&self.holds, number) {
            forged.push(((key + 1) % KEYS.len(), *token));
            forged.push((*key, Token::new(token.fence(), !0)));
        }
        for (key, token) in forged {
            assert!(!self.locks.release(self.now, lock_key(key), token, &mut self.effects));
            assert_eq!(self.locks.renew(self.now, lock_key(key), token, 1, &mut self.effects), None);
        }
        self.take_effects();
    }

    fn cancel(&mut self, number: usize) {
        let Some(blocked) = pick(&self.blocked, number) else { return };
        let ticket = blocked.ticket;
        let cancelled = self.locks.cancel(self.now, ticket, &mut self.effects);
        if cancelled {
            self.blocked.retain(|blocked| blocked.ticket != ticket);
        }
        self.take_effects();
        assert!(self.blocked.iter().all(|blocked| blocked.ticket != ticket), "it was due, and is answered");
        assert!(!self.locks.cancel(self.now, ticket, &mut self.effects));
        self.take_effects();
    }

    fn resume(&mut self, connection: ConnectionId, claimed: u8) {
        let theirs = self.holds.iter().filter(|hold| hold.owner.connection == connection).count();
        assert!(self.locks.begin_claims(connection) as usize >= theirs);
        let mut lost = Vec::new();
        for (number, hold) in self.holds.iter().enumerate() {
            let is_theirs = hold.owner.connection == connection;
            if is_theirs && claimed >> (number % 8) & 1 == 0 {
                lost.push(hold.token);
                continue;
            }
            let Owner { connection: other, local } = hold.owner;
            let owner = Owner { connection: if is_theirs { other } else { connection }, local };
            let kept = self.locks.claim(self.now, owner, lock_key(hold.key), hold.token);
            assert_eq!(kept, is_theirs);
        }
        self.end_holds(|hold| lost.contains(&hold.token));
        self.locks.end_claims(self.now, connection, &mut self.effects);
        self.take_effects();
    }

    fn end(&mut self) {
        self.advance();
        for number in 0..4 {
            let connection = ConnectionId::new(number);
            self.forget_places(|owner| owner.connection == connection);
            self.end_holds(|hold| hold.owner.connection == connection);
            self.locks.release_connection(self.now, connection, &mut self.effects);
            self.take_effects();
        }
        assert!(self.blocked.is_empty() && self.holds.is_empty());
        let totals = self.locks.totals();
        assert_eq!((totals.holders, totals.waiters, totals.owners), (0, 0, 0));
        self.pass(1000);
        self.advance();
        assert_eq!(self.locks.totals().keys, 0);
        assert_eq!(self.locks.soonest(), None);
    }

    /// Checks the answers to blocked requests.
    fn take_effects(&mut self) {
        for Completion { reply, ticket, outcome } in std::mem::take(&mut self.effects) {
            let number = self.blocked.iter().position(|blocked| blocked.ticket == ticket);
            let blocked = self.blocked.remove(number.expect("what is answered was asked, once"));
            assert_eq!(reply, blocked.reply);
            match outcome {
                LockOutcome::Granted(grant) => {
                    let before = |other: &Blocked| other.key == blocked.key && other.place < blocked.place;
                    assert!(!self.blocked.iter().any(before), "another asked before");
                    self.granted(blocked.key, blocked.limit, blocked.owner, grant);
                }
                LockOutcome::Timeout => assert!(blocked.until <= self.now, "it was told too early"),
                other => panic!("{other:?} as a late answer"),
            }
        }
    }

    fn granted(&mut self, key: usize, limit: u32, owner: Owner, grant: Grant) {
        assert!(grant.token.fence() > self.fence, "fences grow");
        self.fence = grant.token.fence();
        self.told(key, limit, owner, grant);
    }

    fn told(&mut self, key: usize, limit: u32, owner: Owner, grant: Grant) {
        let Grant { token, lease_ms } = grant;
        assert!(self.now >= self.hold_off && lease_ms > 0);
        let others = self.holds.iter().filter(|hold| hold.key == key);
        assert!(others.clone().all(|hold| hold.limit == limit && hold.token != token));
        assert!(others.count() < limit as usize, "one holder too many");
        self.holds.push(Hold { key, limit, owner, token, until: self.now.after_ms(lease_ms) });
    }

    fn end_holds(&mut self, ends: impl Fn(&Hold) -> bool) {
        for hold in self.holds.extract_if(.., |hold| ends(hold)) {
            self.ended.push((hold.key, hold.token));
        }
    }

    fn forget_places(&mut self, theirs: impl Fn(Owner) -> bool) {
        self.blocked.retain(|blocked| !theirs(blocked.owner));
        self.enqueued.retain(|(owner, _), _| !theirs(*owner));
    }

    fn next_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    fn reply(&mut self, who: Who) -> ReplyTo {
        self.uid += 1;
        ReplyTo { connection: who.owner().connection, uid: self.uid }
    }
}

fn lock_key(number: usize) -> LockKey<'static> {
    LockKey::new(KEYS[number]).expect("they are keys")
}

/// Usually the same for a key.
fn limit_of(who: Who, limit: u8) -> u32 {
    if limit >= 240 { 3 } else { 1 + who.key() as u32 % 2 }
}

fn pick<T>(from: &[T], number: usize) -> Option<&T> {
    from.get(number % from.len().max(1))
}
