//! The table of one shard: the removal of owners, broken links, and claims after a link was resumed.
//!
//! Each operation takes time in proportion to the records of the owners concerned.
//!
//! The positions of a departing owner are removed before its holds, so that nothing is granted to it
//! meanwhile.

use super::outcome::WaiterId;
use super::record::RecordStage;
use super::table::{Completions, HashedKey, LockTable, Scope};
use crate::id::{ConnectionId, Owner, Token};
use crate::time::Time;

impl LockTable {
    /// Removes all records in the scope.
    pub(super) fn release_all(&mut self, now: Time, scope: Scope, effects: &mut Completions) {
        let now = self.begin(now, effects);
        self.forget_queue_positions(now, scope);
        for ticket in self.records_in_scope(scope) {
            self.remove_record_if(now, ticket, |_| true, effects);
        }
    }

    /// Removes the positions in queues and the enqueued records. Holds stay.
    pub(super) fn forget_waiters(&mut self, now: Time, scope: Scope, effects: &mut Completions) {
        let now = self.begin(now, effects);
        self.forget_queue_positions(now, scope);
    }

    /// Marks all holds of a connection as unclaimed, and returns their number.
    pub(super) fn begin_claims(&mut self, connection: ConnectionId) -> u32 {
        let mut count = 0;
        for ticket in self.records_in_scope(Scope::Connection(connection)) {
            if let RecordStage::Held { claimed, .. } = &mut self.records[ticket.record()].stage {
                *claimed = false;
                count += 1;
            }
        }
        count
    }

    /// Claims a hold. Returns whether it exists and belongs to the owner.
    pub(super) fn claim(&mut self, now: Time, key: HashedKey<'_>, owner: Owner, token: Token) -> bool {
        let now = self.now.max(now);
        let key = self.keys.find(key.hash, key.name);
        let Some(record) = key.and_then(|key| self.find_holder(key, token)) else { return false };
        let record = &mut self.records[record];
        // A due event may not be handled yet, but it counts.
        let is_owned = self.owners.owner(record.owner) == owner && record.rank.time() > now;
        if let RecordStage::Held { claimed, .. } = &mut record.stage {
            *claimed |= is_owned;
        }
        is_owned
    }

    /// Removes the holds of a connection that were not claimed.
    pub(super) fn end_claims(&mut self, now: Time, connection: ConnectionId, effects: &mut Completions) {
        let now = self.begin(now, effects);
        for ticket in self.records_in_scope(Scope::Connection(connection)) {
            self.remove_record_if(
                now,
                ticket,
                |stage| matches!(stage, RecordStage::Held { claimed: false, .. }),
                effects,
            );
        }
    }

    /// The end of an owner's last lease that has not ended yet.
    pub(super) fn latest_lease(&self, now: Time, owner: Owner) -> Option<Time> {
        let owner = self.owners.find(owner)?;
        let records = self.owners.records_of(&self.records, owner).map(|record| &self.records[record]);
        let leases = records.filter(|record| record.token().is_some()).map(|record| record.rank.time());
        leases.max().filter(|end| *end > self.now.max(now))
    }

    /// This frees no slot, so nothing is granted and no other record is removed.
    fn forget_queue_positions(&mut self, now: Time, scope: Scope) {
        for ticket in self.records_in_scope(scope) {
            let record = ticket.record();
            if self.records[record].token().is_some() {
                self.forget_enqueued(record);
            } else {
                let key = self.records[record].key;
                self.remove_record(record);
                self.reschedule(key, now);
            }
        }
    }

    /// Brings the key of a record up to date, then removes the record if it still exists and `applies`
    /// returns true.
    fn remove_record_if(
        &mut self,
        now: Time,
        ticket: WaiterId,
        applies: impl Fn(RecordStage) -> bool,
        effects: &mut Completions,
    ) {
        let Some(record) = self.records.find(ticket) else { return };
        self.resolve(now, self.records[record].key, effects);
        if let Some(record) = self.records.find(ticket)
            && applies(self.records[record].stage)
        {
            self.end_record_and_grant(now, record, effects);
        }
    }

    /// The ids of all records in the scope, the most recent first.
    fn records_in_scope(&self, scope: Scope) -> Vec<WaiterId> {
        let name = |record| self.records.ticket(self.shard, record);
        let records_of = |owner| self.owners.records_of(&self.records, owner);
        match scope {
            Scope::Owner(owner) => {
                self.owners.find(owner).into_iter().flat_map(records_of).map(name).collect()
            }
            Scope::Connection(id) => self.owners.owners_of(id).flat_map(records_of).map(name).collect(),
        }
    }
}
