//! A naive model of the lock table: lists that are scanned from end to end.

mod departures;

use super::{LockOutcome, LockSettings, LockTotals};
use crate::id::{ConnectionId, Owner};
use crate::limits::EXPIRY_BATCH;

/// The answer of the model to an operation. Records are identified by a number that is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelAnswer {
    Granted { record: u64, fence: u64, lease_ms: u64 },
    Waiting(u64),
    Other(LockOutcome),
}

/// The answer to a blocked request: its uid, and its grant or a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelEffect {
    pub(super) key: usize,
    pub(super) uid: u32,
    pub(super) answer: ModelAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelStage {
    Queued,
    Waiting { uid: u32, two_phase: bool },
    Held { fence: u64, two_phase: bool, from_queue: bool, claimed: bool },
    Lapsed,
}

#[derive(Clone, Copy, Debug)]
struct ModelRecord {
    number: u64,
    key: usize,
    owner: Owner,
    stage: ModelStage,
    lease_ms: u64,
    /// The time, and the order among deadlines at the same time.
    deadline: Option<(u64, u64)>,
}

impl ModelRecord {
    fn is_hold(&self) -> bool {
        matches!(self.stage, ModelStage::Held { .. })
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, ModelStage::Queued | ModelStage::Waiting { .. })
    }

    fn is_two_phase(&self) -> bool {
        match self.stage {
            ModelStage::Queued | ModelStage::Lapsed => true,
            ModelStage::Waiting { two_phase, .. } | ModelStage::Held { two_phase, .. } => two_phase,
        }
    }
}

#[derive(Clone, Copy)]
struct ModelKey {
    key: usize,
    limit: u32,
    /// The time and order at which the key is forgotten.
    idle: Option<(u64, u64)>,
}

/// The model of one shard.
#[derive(Default)]
struct ModelShard {
    keys: Vec<ModelKey>,
    /// All records, in the order of their creation.
    records: Vec<ModelRecord>,
    /// The owners of records, in the order of their first one.
    owners: Vec<Owner>,
    now: u64,
    order: u64,
}

/// The model of all shards.
pub(super) struct NaiveLocks {
    settings: LockSettings,
    shards: Vec<ModelShard>,
    /// The shard of each key.
    shard_of: Vec<usize>,
    pub(super) hold_off: u64,
    pub(super) fence: u64,
    next: u64,
    grants: u64,
    expired: u64,
    timeouts: u64,
    pub(super) effects: Vec<ModelEffect>,
}

/// The owners whose requests an operation affects.
#[derive(Clone, Copy)]
pub(super) enum ModelScope {
    Owner(Owner),
    Connection(ConnectionId),
}

impl ModelScope {
    fn is(self, owner: Owner) -> bool {
        match self {
            Self::Owner(other) => owner == other,
            Self::Connection(connection) => owner.connection == connection,
        }
    }
}

impl NaiveLocks {
    pub(super) fn new(settings: LockSettings, shards: usize, shard_of: Vec<usize>) -> Self {
        Self {
            settings,
            shards: (0..shards).map(|_| ModelShard::default()).collect(),
            shard_of,
            hold_off: 0,
            fence: 0,
            next: 0,
            grants: 0,
            expired: 0,
            timeouts: 0,
            effects: Vec::new(),
        }
    }

    fn has_capacity(&self) -> bool {
        let known: usize = self.shards.iter().map(|shard| shard.keys.len()).sum();
        self.settings.locks_max == 0 || (known as u64) < self.settings.locks_max
    }

    fn known(&self, key: usize) -> Option<ModelKey> {
        self.shards[self.shard_of[key]].keys.iter().copied().find(|known| known.key == key)
    }

    fn count(&self, key: usize, matches: impl Fn(&ModelRecord) -> bool) -> usize {
        let records = &self.shards[self.shard_of[key]].records;
        records.iter().filter(|record| record.key == key && matches(record)).count()
    }

    /// The first due event of one key or of a shard: its time, order, key, and its record if it has one.
    fn first_due(&self, shard: usize, only: Option<usize>) -> Option<(u64, u64, usize, Option<u64>)> {
        let all = &self.shards[shard];
        let is_asked = |key: usize| only.is_none_or(|only| only == key);
        let records = all.records.iter().filter(|record| is_asked(record.key));
        let deadlines = records.filter_map(|record| {
            record.deadline.map(|(at, order)| (at, order, record.key, Some(record.number)))
        });
        let keys = all.keys.iter().filter(|known| is_asked(known.key));
        let others = keys.filter_map(|known| {
            let is_held_off = self.count(known.key, ModelRecord::is_waiting) > 0
                && self.count(known.key, ModelRecord::is_hold) < known.limit as usize;
            let due = known.idle.or(is_held_off.then_some((self.hold_off, 0)));
            due.map(|(at, order)| (at, order, known.key, None))
        });
        deadlines.chain(others).filter(|(at, ..)| *at <= all.now).min()
    }

    fn handle_due(&mut self, shard: usize, (at, _, key, record): (u64, u64, usize, Option<u64>)) {
        if let Some(number) = record {
            let record = *self.shards[shard].records.iter().find(|record| record.number == number).unwrap();
            match record.stage {
                ModelStage::Held { two_phase: true, from_queue: true, .. } => {
                    self.expired += 1;
                    let lapsed = self.record(key, number);
                    (lapsed.stage, lapsed.deadline) = (ModelStage::Lapsed, None);
                }
                ModelStage::Held { .. } => {
                    self.expired += 1;
                    self.remove(key, number);
                }
                ModelStage::Waiting { uid, .. } => {
                    self.timeouts += 1;
                    self.effects.push(ModelEffect {
                        key,
                        uid,
                        answer: ModelAnswer::Other(LockOutcome::Timeout),
                    });
                    self.remove(key, number);
                }
                ModelStage::Queued | ModelStage::Lapsed => unreachable!("these stages have no deadline"),
            }
        } else if self.known(key).is_some_and(|known| known.idle.is_some()) {
            self.shards[shard].keys.retain(|known| known.key != key);
            return;
        }
        self.grant_waiters(key, at);
        self.update_idle(key, at);
    }

    fn begin(&mut self, now: u64, shard: usize) -> u64 {
        self.shards[shard].now = self.shards[shard].now.max(now);
        self.advance_shard(shard);
        self.shards[shard].now
    }

    fn advance_shard(&mut self, shard: usize) {
        for _ in 0..EXPIRY_BATCH {
            let Some(due) = self.first_due(shard, None) else { break };
            self.handle_due(shard, due);
        }
    }

    fn resolve(&mut self, key: usize) {
        let shard = self.shard_of[key];
        while let Some(due) = self.first_due(shard, Some(key)) {
            self.handle_due(shard, due);
        }
    }

    fn record(&mut self, key: usize, number: u64) -> &mut ModelRecord {
        let records = &mut self.shards[self.shard_of[key]].records;
        records.iter_mut().find(|record| record.number == number).unwrap()
    }

    fn remove(&mut self, key: usize, number: u64) {
        let shard = &mut self.shards[self.shard_of[key]];
        shard.records.retain(|record| record.number != number);
        let records = &shard.records;
        shard.owners.retain(|owner| records.iter().any(|record| record.owner == *owner));
    }

    fn add(&mut self, key: usize, owner: Owner, stage: ModelStage, lease_ms: u64) -> u64 {
        self.next += 1;
        let number = self.next;
        let shard = &mut self.shards[self.shard_of[key]];
        if !shard.owners.contains(&owner) {
            shard.owners.push(owner);
        }
        shard.keys.iter_mut().filter(|known| known.key == key).for_each(|known| known.idle = None);
        shard.records.push(ModelRecord { number, key, owner, stage, lease_ms, deadline: None });
        number
    }

    fn set_deadline(&mut self, key: usize, number: u64, at: u64) {
        let shard = &mut self.shards[self.shard_of[key]];
        shard.order += 1;
        let deadline = (at, shard.order);
        self.record(key, number).deadline = Some(deadline);
    }

    fn hold(&mut self, key: usize, number: u64, two_phase: bool, from_queue: bool) -> ModelAnswer {
        self.fence += 1;
        self.grants += 1;
        let fence = self.fence;
        let now = self.shards[self.shard_of[key]].now;
        let record = self.record(key, number);
        record.stage = ModelStage::Held { fence, two_phase, from_queue, claimed: true };
        let lease_ms = record.lease_ms;
        self.set_deadline(key, number, now + lease_ms);
        ModelAnswer::Granted { record: number, fence, lease_ms }
    }

    fn grant_waiters(&mut self, key: usize, at: u64) {
        let shard = self.shard_of[key];
        let limit = self.known(key).unwrap().limit as usize;
        while at >= self.hold_off && self.count(key, ModelRecord::is_hold) < limit {
            let mut places =
                self.shards[shard].records.iter().filter(|record| record.key == key && record.is_waiting());
            let Some(first) = places.next().copied() else { break };
            if let ModelStage::Waiting { uid, .. } = first.stage {
                let answer = self.hold(key, first.number, false, true);
                self.effects.push(ModelEffect { key, uid, answer });
            } else {
                self.hold(key, first.number, true, true);
            }
        }
    }

    fn update_idle(&mut self, key: usize, since: u64) {
        if self.count(key, |_| true) > 0 {
            return;
        }
        let shard = &mut self.shards[self.shard_of[key]];
        shard.order += 1;
        let idle = Some((since + self.settings.idle_ms, shard.order));
        shard.keys.iter_mut().filter(|known| known.key == key).for_each(|known| known.idle = idle);
    }

    fn lease_ms(&self, lease_ms: u64) -> u64 {
        if lease_ms == 0 { self.settings.default_lease_ms } else { lease_ms }
    }

    /// Whether there is a free slot, if the request can be granted or wait; the key exists then.
    fn admit(&mut self, key: usize, limit: u32, may_wait: bool) -> Result<bool, LockOutcome> {
        let shard = self.shard_of[key];
        self.resolve(key);
        let known = self.known(key);
        if known.is_some_and(|known| known.limit != limit) {
            return Err(LockOutcome::LimitMismatch);
        }
        if known.is_none() && !self.has_capacity() {
            let due = self.first_due(shard, None);
            let is_idle = |key| self.known(key).is_some_and(|known| known.idle.is_some());
            if let Some(due) = due.filter(|(_, _, key, record)| record.is_none() && is_idle(*key)) {
                self.handle_due(shard, due);
            }
            if !self.has_capacity() {
                return Err(LockOutcome::MaxLocks);
            }
        }
        let places = self.count(key, ModelRecord::is_waiting);
        let is_free = places == 0
            && self.count(key, ModelRecord::is_hold) < limit as usize
            && self.shards[shard].now >= self.hold_off;
        if !is_free && !may_wait {
            self.timeouts += 1;
            return Err(LockOutcome::Timeout);
        }
        if !is_free && self.settings.waiters_max > 0 && places as u64 >= self.settings.waiters_max {
            return Err(LockOutcome::MaxWaiters);
        }
        if known.is_none() {
            self.shards[shard].keys.push(ModelKey { key, limit, idle: None });
        }
        Ok(is_free)
    }

    fn with_room(&mut self, now: u64, attempt: impl Fn(&mut Self) -> ModelAnswer) -> ModelAnswer {
        let answer = attempt(self);
        if answer != ModelAnswer::Other(LockOutcome::MaxLocks) {
            return answer;
        }
        for shard in 0..self.shards.len() {
            // The shard's own clock may be behind; then nothing is due, as if the new time had not been
            // passed in.
            let before = self.shards[shard].now;
            self.shards[shard].now = before.max(now);
            if !self.has_capacity() {
                self.advance_shard(shard);
            }
        }
        if self.has_capacity() { attempt(self) } else { answer }
    }

    pub(super) fn acquire(
        &mut self,
        now: u64,
        (owner, key, limit): (Owner, usize, u32),
        lease_ms: u64,
        timeout_ms: u64,
        uid: u32,
    ) -> ModelAnswer {
        self.with_room(now, |model| {
            let now = model.begin(now, model.shard_of[key]);
            let lease_ms = model.lease_ms(lease_ms);
            let stage = ModelStage::Waiting { uid, two_phase: false };
            match model.admit(key, limit, timeout_ms > 0) {
                Err(refused) => ModelAnswer::Other(refused),
                Ok(true) => {
                    let number = model.add(key, owner, stage, lease_ms);
                    model.hold(key, number, false, false)
                }
                Ok(false) => {
                    let number = model.add(key, owner, stage, lease_ms);
                    model.set_deadline(key, number, now + timeout_ms);
                    ModelAnswer::Waiting(number)
                }
            }
        })
    }

    pub(super) fn enqueue(
        &mut self,
        now: u64,
        (owner, key, limit): (Owner, usize, u32),
        lease_ms: u64,
    ) -> ModelAnswer {
        self.with_room(now, |model| {
            model.begin(now, model.shard_of[key]);
            model.resolve(key);
            if model.count(key, |record| record.owner == owner && record.is_two_phase()) > 0 {
                return ModelAnswer::Other(LockOutcome::AlreadyEnqueued);
            }
            let lease_ms = model.lease_ms(lease_ms);
            match model.admit(key, limit, true) {
                Err(refused) => ModelAnswer::Other(refused),
                Ok(is_free) => {
                    let number = model.add(key, owner, ModelStage::Queued, lease_ms);
                    if is_free {
                        model.hold(key, number, true, false)
                    } else {
                        ModelAnswer::Other(LockOutcome::Queued)
                    }
                }
            }
        })
    }

    pub(super) fn wait(
        &mut self,
        now: u64,
        owner: Owner,
        key: usize,
        timeout_ms: u64,
        uid: u32,
    ) -> ModelAnswer {
        let shard = self.shard_of[key];
        let now = self.begin(now, shard);
        self.resolve(key);
        let mut records = self.shards[shard].records.iter();
        let found = records
            .find(|record| record.key == key && record.owner == owner && record.is_two_phase())
            .copied();
        let Some(ModelRecord { number, lease_ms, stage, .. }) = found else {
            return ModelAnswer::Other(LockOutcome::NotEnqueued);
        };
        match stage {
            ModelStage::Held { fence, claimed, .. } => {
                let stage = ModelStage::Held { fence, two_phase: false, from_queue: false, claimed };
                self.record(key, number).stage = stage;
                self.set_deadline(key, number, now + lease_ms);
                ModelAnswer::Granted { record: number, fence, lease_ms }
            }
            ModelStage::Queued if timeout_ms > 0 => {
                self.record(key, number).stage = ModelStage::Waiting { uid, two_phase: true };
                self.set_deadline(key, number, now + timeout_ms);
                ModelAnswer::Waiting(number)
            }
            ModelStage::Queued | ModelStage::Lapsed => {
                self.remove(key, number);
                self.update_idle(key, now);
                let is_timeout = stage == ModelStage::Queued;
                self.timeouts += u64::from(is_timeout);
                ModelAnswer::Other(if is_timeout { LockOutcome::Timeout } else { LockOutcome::LeaseExpired })
            }
            ModelStage::Waiting { .. } => ModelAnswer::Other(LockOutcome::NotEnqueued),
        }
    }

    fn end_record_and_grant(&mut self, key: usize, number: u64) {
        let now = self.shards[self.shard_of[key]].now;
        self.remove(key, number);
        self.grant_waiters(key, now);
        self.update_idle(key, now);
    }

    fn has(&self, key: usize, number: u64, matches: impl Fn(&ModelRecord) -> bool) -> bool {
        self.count(key, |record| record.number == number && matches(record)) > 0
    }

    pub(super) fn release(&mut self, now: u64, key: usize, number: u64) -> bool {
        self.begin(now, self.shard_of[key]);
        self.resolve(key);
        let is_held = self.has(key, number, ModelRecord::is_hold);
        if is_held {
            self.end_record_and_grant(key, number);
        }
        is_held
    }

    pub(super) fn renew(&mut self, now: u64, key: usize, number: u64, lease_ms: u64) -> Option<u64> {
        let now = self.begin(now, self.shard_of[key]);
        self.resolve(key);
        let lease_ms = self.lease_ms(lease_ms);
        self.has(key, number, ModelRecord::is_hold).then(|| {
            self.set_deadline(key, number, now + lease_ms);
            lease_ms
        })
    }

    pub(super) fn cancel(&mut self, now: u64, key: usize, number: u64) -> bool {
        self.begin(now, self.shard_of[key]);
        // A record that is gone has no key to bring up to date.
        if self.has(key, number, |_| true) {
            self.resolve(key);
        }
        let is_blocked = self.has(key, number, |record| matches!(record.stage, ModelStage::Waiting { .. }));
        if is_blocked {
            self.end_record_and_grant(key, number);
        }
        is_blocked
    }

    pub(super) fn latest_lease(&self, now: u64, owner: Owner) -> Option<u64> {
        let live = |shard: &ModelShard| {
            let now = now.max(shard.now);
            let holds = shard.records.iter().filter(|record| record.owner == owner && record.is_hold());
            holds.filter_map(|record| record.deadline).map(|(at, _)| at).filter(|at| *at > now).max()
        };
        self.shards.iter().filter_map(live).max()
    }

    pub(super) fn advance(&mut self, now: u64) -> Option<u64> {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
        }
        let next = |shard: &ModelShard| {
            let deadlines = shard.records.iter().filter_map(|record| record.deadline);
            let idle = shard.keys.iter().filter_map(|known| known.idle);
            deadlines.chain(idle).map(|(at, _)| at).min()
        };
        let held_off = self.shards.iter().flat_map(|shard| &shard.keys).any(|known| {
            self.count(known.key, ModelRecord::is_waiting) > 0
                && self.count(known.key, ModelRecord::is_hold) < known.limit as usize
        });
        self.shards.iter().filter_map(next).chain(held_off.then_some(self.hold_off)).min()
    }

    pub(super) fn totals(&self) -> LockTotals {
        let keys = || self.shards.iter().flat_map(|shard| &shard.keys);
        let records = || self.shards.iter().flat_map(|shard| &shard.records);
        LockTotals {
            keys: keys().count() as u64,
            idle: keys().filter(|known| known.idle.is_some()).count() as u64,
            holders: records().filter(|record| record.is_hold()).count() as u64,
            waiters: records().filter(|record| record.is_waiting()).count() as u64,
            owners: self.shards.iter().map(|shard| shard.owners.len() as u64).sum(),
            grants: self.grants,
            expired: self.expired,
            timeouts: self.timeouts,
        }
    }

    /// Held keys: key, limit, connections of the holders, the end of the last lease, the number of waiters.
    pub(super) fn held(&self) -> Vec<(usize, u32, Vec<u64>, u64, u64)> {
        let mut held = Vec::new();
        for known in self.shards.iter().flat_map(|shard| &shard.keys) {
            let records = &self.shards[self.shard_of[known.key]].records;
            let holds: Vec<&ModelRecord> =
                records.iter().filter(|record| record.key == known.key && record.is_hold()).collect();
            let connections = holds.iter().map(|record| record.owner.connection.number()).collect();
            let end = holds.iter().filter_map(|record| record.deadline).map(|(at, _)| at).max();
            let waiters = self.count(known.key, ModelRecord::is_waiting) as u64;
            held.extend(end.map(|end| (known.key, known.limit, connections, end, waiters)));
        }
        held.sort();
        held
    }

    /// Idle keys: key, limit, and when the key is forgotten.
    pub(super) fn idle(&self) -> Vec<(usize, u32, u64)> {
        let keys = self.shards.iter().flat_map(|shard| &shard.keys);
        let mut idle: Vec<_> =
            keys.filter_map(|known| known.idle.map(|(at, _)| (known.key, known.limit, at))).collect();
        idle.sort_unstable();
        idle
    }
}
