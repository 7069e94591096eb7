//! The model of owners that go, links that break, and claims.

use super::*;

impl NaiveLocks {
    /// The last owner first, and of each the last record first.
    fn all_of(&self, shard: usize, whose: ModelScope) -> Vec<ModelRecord> {
        let shard = &self.shards[shard];
        let owners = shard.owners.iter().rev().filter(|owner| whose.is(**owner));
        owners
            .flat_map(|owner| shard.records.iter().rev().filter(move |record| record.owner == *owner))
            .copied()
            .collect()
    }

    pub(in crate::table::lock) fn forget_waiters(&mut self, now: u64, whose: ModelScope) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            self.forget_places(shard, whose);
        }
    }

    fn forget_places(&mut self, shard: usize, whose: ModelScope) {
        for record in self.all_of(shard, whose) {
            if record.is_hold() {
                if let ModelStage::Held { two_phase, .. } = &mut self.record(record.key, record.number).stage
                {
                    *two_phase = false;
                }
            } else {
                let now = self.shards[shard].now;
                self.remove(record.key, record.number);
                self.look_whether_idle(record.key, now);
            }
        }
    }

    pub(in crate::table::lock) fn release_all(&mut self, now: u64, whose: ModelScope) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            self.forget_places(shard, whose);
            for record in self.all_of(shard, whose) {
                self.give_up_if(record, |_| true);
            }
        }
    }

    fn give_up_if(
        &mut self,
        ModelRecord { key, number, .. }: ModelRecord,
        applies: impl Fn(&ModelRecord) -> bool,
    ) {
        if self.has(key, number, |_| true) {
            self.resolve(key);
            if self.has(key, number, applies) {
                self.give_up(key, number);
            }
        }
    }

    pub(in crate::table::lock) fn begin_claims(&mut self, connection: ConnectionId) -> u32 {
        let mut count = 0;
        for record in self.shards.iter_mut().flat_map(|shard| &mut shard.records) {
            if let ModelStage::Held { claimed, .. } = &mut record.stage
                && record.owner.connection == connection
            {
                *claimed = false;
                count += 1;
            }
        }
        count
    }

    pub(in crate::table::lock) fn claim(&mut self, now: u64, owner: Owner, key: usize, number: u64) -> bool {
        let now = now.max(self.shards[self.shard_of[key]].now);
        let is_theirs = self.has(key, number, |record| {
            record.is_hold() && record.owner == owner && record.deadline.is_some_and(|(at, _)| at > now)
        });
        if is_theirs && let ModelStage::Held { claimed, .. } = &mut self.record(key, number).stage {
            *claimed = true;
        }
        is_theirs
    }

    pub(in crate::table::lock) fn end_claims(&mut self, now: u64, connection: ConnectionId) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            for record in self.all_of(shard, ModelScope::Connection(connection)) {
                self.give_up_if(record, |record| {
                    matches!(record.stage, ModelStage::Held { claimed: false, .. })
                });
            }
        }
    }
}
