//! The model of departing owners, broken links and claims.

use super::*;

impl NaiveLocks {
    /// The most recent owner first, and of each the most recent record first.
    fn records_in_scope(&self, shard: usize, scope: ModelScope) -> Vec<ModelRecord> {
        let shard = &self.shards[shard];
        let owners = shard.owners.iter().rev().filter(|owner| scope.is(**owner));
        owners
            .flat_map(|owner| shard.records.iter().rev().filter(move |record| record.owner == *owner))
            .copied()
            .collect()
    }

    pub(in crate::table::lock) fn forget_waiters(&mut self, now: u64, scope: ModelScope) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            self.forget_queue_positions(shard, scope);
        }
    }

    fn forget_queue_positions(&mut self, shard: usize, scope: ModelScope) {
        for record in self.records_in_scope(shard, scope) {
            if record.is_hold() {
                if let ModelStage::Held { two_phase, .. } = &mut self.record(record.key, record.number).stage
                {
                    *two_phase = false;
                }
            } else {
                let now = self.shards[shard].now;
                self.remove(record.key, record.number);
                self.update_idle(record.key, now);
            }
        }
    }

    pub(in crate::table::lock) fn release_all(&mut self, now: u64, scope: ModelScope) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            self.forget_queue_positions(shard, scope);
            for record in self.records_in_scope(shard, scope) {
                self.remove_record_if(record, |_| true);
            }
        }
    }

    fn remove_record_if(
        &mut self,
        ModelRecord { key, number, .. }: ModelRecord,
        applies: impl Fn(&ModelRecord) -> bool,
    ) {
        if self.has(key, number, |_| true) {
            self.resolve(key);
            if self.has(key, number, applies) {
                self.end_record_and_grant(key, number);
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
        let is_owned = self.has(key, number, |record| {
            record.is_hold() && record.owner == owner && record.deadline.is_some_and(|(at, _)| at > now)
        });
        if is_owned && let ModelStage::Held { claimed, .. } = &mut self.record(key, number).stage {
            *claimed = true;
        }
        is_owned
    }

    pub(in crate::table::lock) fn end_claims(&mut self, now: u64, connection: ConnectionId) {
        for shard in 0..self.shards.len() {
            self.begin(now, shard);
            for record in self.records_in_scope(shard, ModelScope::Connection(connection)) {
                self.remove_record_if(record, |record| {
                    matches!(record.stage, ModelStage::Held { claimed: false, .. })
                });
            }
        }
    }
}
