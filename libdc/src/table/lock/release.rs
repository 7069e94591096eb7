//! The table of one shard: owners that go, links that break, and claims after a link was resumed.
//!
//! All of it takes time in proportion to what the owners concerned have.
//!
//! Who goes loses its places before its holds, so that nothing is granted to it on its way out.

use super::outcome::WaiterId;
use super::record::RecordStage;
use super::table::{Effects, HashedKey, LockTable, Scope};
use crate::id::{ConnectionId, Owner, Token};
use crate::time::Time;

impl LockTable {
    /// Takes away everything that they have.
    pub(super) fn release_all(&mut self, now: Time, whose: Scope, effects: &mut Effects) {
        let now = self.begin(now, effects);
        self.forget_places(now, whose);
        for ticket in self.all_of(whose) {
            self.give_up_if(now, ticket, |_| true, effects);
        }
    }

    /// Takes away their places in queues and what they have enqueued. Their holds stay.
    pub(super) fn forget_waiters(&mut self, now: Time, whose: Scope, effects: &mut Effects) {
        let now = self.begin(now, effects);
        self.forget_places(now, whose);
    }

    /// All holds of a connection become unclaimed: how many there are.
    pub(super) fn begin_claims(&mut self, connection: ConnectionId) -> u32 {
        let mut count = 0;
        for ticket in self.all_of(Scope::Connection(connection)) {
            if let RecordStage::Held { claimed, .. } = &mut self.records[ticket.record()].stage {
                *claimed = false;
                count += 1;
            }
        }
        count
    }

    /// Claims a hold: whether it is there and its owner's.
    pub(super) fn claim(&mut self, now: Time, key: HashedKey<'_>, owner: Owner, token: Token) -> bool {
        let now = self.now.max(now);
        let key = self.keys.find(key.hash, key.name);
        let Some(record) = key.and_then(|key| self.find_holder(key, token)) else { return false };
        let record = &mut self.records[record];
        // What is due may wait to be done, but it counts.
        let is_theirs = self.owners.owner(record.owner) == owner && record.rank.time() > now;
        if let RecordStage::Held { claimed, .. } = &mut record.stage {
            *claimed |= is_theirs;
        }
        is_theirs
    }

    /// Takes away the holds of a connection that were not claimed.
    pub(super) fn end_claims(&mut self, now: Time, connection: ConnectionId, effects: &mut Effects) {
        let now = self.begin(now, effects);
        for ticket in self.all_of(Scope::Connection(connection)) {
            self.give_up_if(
                now,
                ticket,
                |stage| matches!(stage, RecordStage::Held { claimed: false, .. }),
                effects,
            );
        }
    }

    /// When the last lease of an owner ends that has not ended yet.
    pub(super) fn latest_lease(&self, now: Time, owner: Owner) -> Option<Time> {
        let owner = self.owners.find(owner)?;
        let records = self.owners.records_of(&self.records, owner).map(|record| &self.records[record]);
        let leases = records.filter(|record| record.token().is_some()).map(|record| record.rank.time());
        leases.max().filter(|end| *end > self.now.max(now))
    }

    /// No slot becomes free by that, so nothing is granted and no other record goes.
    fn forget_places(&mut self, now: Time, whose: Scope) {
        for ticket in self.all_of(whose) {
            let record = ticket.record();
            if self.records[record].token().is_some() {
                self.forget_enqueued(record);
            } else {
                let key = self.records[record].key;
                self.retire(record);
                self.reschedule(key, now);
            }
        }
    }

    /// Brings the key of a record up to date and then takes the record away, if it is still there and `applies`.
    fn give_up_if(
        &mut self,
        now: Time,
        ticket: WaiterId,
        applies: impl Fn(RecordStage) -> bool,
        effects: &mut Effects,
    ) {
        let Some(record) = self.records.find(ticket) else { return };
        self.resolve(now, self.records[record].key, effects);
        if let Some(record) = self.records.find(ticket)
            && applies(self.records[record].stage)
        {
            self.give_up(now, record, effects);
        }
    }

    /// The names of all records that they have, the last first.
    fn all_of(&self, whose: Scope) -> Vec<WaiterId> {
        let name = |record| self.records.ticket(self.shard, record);
        let records_of = |owner| self.owners.records_of(&self.records, owner);
        match whose {
            Scope::Owner(owner) => {
                self.owners.find(owner).into_iter().flat_map(records_of).map(name).collect()
            }
            Scope::Connection(id) => self.owners.owners_of(id).flat_map(records_of).map(name).collect(),
        }
    }
}
