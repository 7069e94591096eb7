//! The invariants of a table between two operations.

use super::record::{ListLinks, NONE, RecordStage};
use super::shards::ShardedLocks;
use super::table::LockTable;
use crate::table::expiry::ExpiryRank;
use std::collections::BTreeSet;

impl ShardedLocks {
    /// Checks every list and counter of every shard.
    pub(super) fn check(&self) {
        self.each_shard(LockTable::check);
    }
}

impl LockTable {
    fn check(&self) {
        let records: Vec<u32> = (0..self.records.len_and_peak().1 as u32)
            .filter(|record| self.records[*record].stage != RecordStage::Vacant)
            .collect();
        assert_eq!(records.len(), self.records.len_and_peak().0);
        self.check_owners(&records);
        let keys: Vec<u32> = (0..self.keys.numbers_end()).filter(|key| self.keys[*key].limit > 0).collect();
        assert_eq!(keys.len(), self.keys.len() as usize);
        for key in &keys {
            let of_key: Vec<u32> =
                records.iter().copied().filter(|record| self.records[*record].key == *key).collect();
            self.check_key(*key, &of_key);
        }
        assert!(keys.iter().all(|key| self.due.rank(*key) <= self.keys[*key].soonest));
        assert_eq!(
            self.soonest(),
            keys.iter().map(|key| self.due.rank(*key)).min().unwrap_or(ExpiryRank::NEVER)
        );
        self.check_counts(&records, &keys);
    }

    fn check_key(&self, key: u32, records: &[u32]) {
        let entry = &self.keys[key];
        let stage = |record: &&u32| self.records[**record].stage;
        let holds: Vec<u32> = records
            .iter()
            .filter(|record| matches!(stage(record), RecordStage::Held { .. }))
            .copied()
            .collect();
        assert_eq!(holds.len(), entry.holders as usize);
        assert!(entry.holders <= entry.limit);
        for hold in &holds {
            let token = self.records[*hold].token().unwrap();
            assert_eq!(self.find_holder(key, token), Some(*hold));
        }
        assert_eq!(
            records.iter().filter(|record| stage(record) == RecordStage::Lapsed).count(),
            entry.lapsed as usize
        );
        let mut queue = Vec::new();
        let (mut prev, mut next) = (NONE, entry.first);
        while next != NONE {
            assert!(matches!(stage(&&next), RecordStage::Queued | RecordStage::Waiting { .. }));
            assert_eq!(self.records[next].queue.prev, prev);
            queue.push(next);
            (prev, next) = (next, self.records[next].queue.next);
        }
        assert_eq!((entry.last, queue.len()), (prev, entry.waiters as usize));
        assert_eq!(holds.len() + queue.len() + entry.lapsed as usize, records.len());
        assert!(
            queue.is_empty() || entry.holders == entry.limit || self.now < self.hold_off || self.has_due(key)
        );

        let heap: BTreeSet<u32> = self.records.checked_heap(entry.root).into_iter().collect();
        let with_deadline = |record: &u32| self.records[*record].rank != ExpiryRank::NEVER;
        assert_eq!(heap, records.iter().copied().filter(with_deadline).collect());
        for record in records {
            let has = !matches!(self.records[*record].stage, RecordStage::Queued | RecordStage::Lapsed);
            assert_eq!(has, with_deadline(record));
            assert!(has || self.records[*record].heap == ListLinks::NONE);
        }
        if !records.is_empty() {
            let first = records.iter().map(|record| self.records[*record].rank).min().unwrap();
            let is_held_off = !queue.is_empty() && entry.holders < entry.limit;
            assert!(entry.soonest == first || is_held_off && entry.soonest < first);
        }
    }

    /// Whether an event of the key is due but not handled, so that the invariants need not hold.
    fn has_due(&self, key: u32) -> bool {
        self.keys[key].soonest.time() <= self.now
    }

    fn check_owners(&self, records: &[u32]) {
        let mut owned: Vec<u32> = Vec::new();
        for number in self.owners.numbers() {
            assert_eq!(self.owners.find(self.owners.owner(number)), Some(number));
            let of_owner: Vec<u32> = self.owners.records_of(&self.records, number).collect();
            assert!(!of_owner.is_empty());
            assert!(of_owner.iter().all(|record| self.records[*record].owner == number));
            let connection = self.owners.owner(number).connection;
            assert!(self.owners.owners_of(connection).any(|other| other == number));
            owned.extend(of_owner);
        }
        assert_eq!(self.owners.numbers().len(), self.owners.len() as usize);
        owned.sort_unstable();
        assert_eq!(owned, records);
    }

    fn check_counts(&self, records: &[u32], keys: &[u32]) {
        let two_phase = records.iter().filter(|record| self.records[**record].is_two_phase()).count();
        assert_eq!(two_phase, self.enqueued.len() as usize);
        for record in records.iter().filter(|record| self.records[**record].is_two_phase()) {
            let hash = self.enqueued_hash(*record);
            assert_eq!(self.enqueued.find(hash, |found| found == *record), Some(*record));
        }
        let sum = |value: fn(&super::key::KeyEntry) -> u32, is_lock: Option<bool>| {
            let asked = keys.iter().map(|key| &self.keys[*key]);
            let asked = asked.filter(|entry| is_lock.is_none_or(|is_lock| entry.is_lock() == is_lock));
            asked.map(|entry| u64::from(value(entry))).sum::<u64>()
        };
        let counts = &self.counts;
        assert_eq!(counts.holders, sum(|entry| entry.holders, None));
        assert_eq!(counts.waiters, sum(|entry| entry.waiters, None));
        assert_eq!(u64::from(self.holders.len()), sum(|entry| entry.holders, Some(false)));
        let held = |entry: &super::key::KeyEntry| u32::from(entry.holders > 0);
        assert_eq!(
            (counts.held_locks, counts.held_semaphores),
            (sum(held, Some(true)), sum(held, Some(false)))
        );
        let idle = |entry: &super::key::KeyEntry| u32::from(entry.is_idle());
        assert_eq!(
            (counts.idle_locks, counts.idle_semaphores),
            (sum(idle, Some(true)), sum(idle, Some(false)))
        );
    }
}
