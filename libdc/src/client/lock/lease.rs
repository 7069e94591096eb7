//! The locks that a client holds: until when each is surely held, and when it has to be renewed.
//!
//! Whoever asked for a lock at `t0` and was granted it, or renewed it, holds it until `t0 + min(lease, grace)`:
//! the server granted it no earlier than `t0`, and keeps it for the grace when the connection breaks, which it
//! did no earlier either. That span is the validity of the hold. It is renewed after a third of it. A quarter of
//! it before its end, but no more than [`NOTICE_MS_MAX`], the hold counts as lost, and stays so whatever is
//! answered later: whoever relies on it has that time to stop.
//!
//! ```text
//!  t0         renewed      again          lost             surely held until
//!  ├────────────┼────────────┼──────────────┼───────────────────┤
//!  0            ⅓            ⅔        ¾, or end − 2.5 s    min(lease, grace)
//! ```
//!
//! Nothing here panics.

use crate::client::lock::error::Loss;
use crate::id::{Grant, OwnedLockKey, Token};
use crate::proto::handshake::ClaimSource;
use crate::time::Time;
use crate::wire::link::Claim;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The longest time between the loss of a lock and the end of its validity, in milliseconds.
pub(super) const NOTICE_MS_MAX: u64 = 2_500;
/// The shortest and the longest pause before a renewal that failed is tried again, in milliseconds.
const RETRY_MS_MIN: u64 = 20;
const RETRY_MS_MAX: u64 = 1_000;

/// Names a hold within its client; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LeaseId(u64);

/// A lock from its grant to its release.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) key: OwnedLockKey,
    pub(super) token: Token,
    pub(super) lease_ms: u64,
    /// How long it is surely held after `asked_at`, in milliseconds.
    validity_ms: u64,
    /// When the last answered grant or renewal was asked for.
    asked_at: Time,
    /// Whether the connection has broken since, or the agent's to the server.
    broken: bool,
    /// Whether the grant is too old to be relied on before a renewal is answered.
    stale: bool,
    lost: Option<Loss>,
    /// When to renew; `None` while that is under way or there is no connection.
    renew_at: Option<Time>,
    /// Its place in the agenda.
    due: Option<Time>,
}

/// What is to be done about a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// Ask for a new lease.
    Renew(LeaseId),
    /// It was not renewed in time, and counts as lost from now on.
    Lost(LeaseId),
}

impl Lease {
    /// Why it is lost; `None` while it is not.
    pub(super) const fn lost(&self) -> Option<Loss> {
        self.lost
    }

    /// How long it is surely held after the last answered request, in milliseconds.
    pub(super) const fn validity_ms(&self) -> u64 {
        self.validity_ms
    }

    /// How long it is surely held from `now` on, connected or not, lost or not, in milliseconds.
    pub(super) const fn remaining_ms(&self, now: Time) -> u64 {
        match self.lost {
            None | Some(Loss::Unrenewed) => self.ends_at().ms_since(now),
            Some(_) => 0,
        }
    }

    /// Whether it is held, its connection stands, and it will be held for `span_ms` more.
    pub(super) const fn is_valid_for(&self, now: Time, span_ms: u64) -> bool {
        let stands = self.lost.is_none() && !self.broken && !self.stale;
        stands && self.remaining_ms(now) >= span_ms && self.remaining_ms(now) > 0
    }

    /// Whether the server may still know it, and should be asked to keep it.
    const fn is_worth_a_claim(&self, now: Time) -> bool {
        match self.lost {
            None => true,
            // Its holder is being told, and may need the rest of the lease to stop.
            Some(Loss::Unrenewed) => self.asked_at.after_ms(self.lease_ms).ms_since(now) > 0,
            Some(_) => false,
        }
    }

    const fn ends_at(&self) -> Time {
        self.asked_at.after_ms(self.validity_ms)
    }

    fn lost_at(&self) -> Time {
        self.asked_at.after_ms(self.validity_ms - (self.validity_ms / 4).min(NOTICE_MS_MAX))
    }

    fn prove(&mut self, asked_at: Time, lease_ms: u64, grace_ms: u64) {
        self.asked_at = asked_at;
        self.lease_ms = lease_ms;
        self.validity_ms = lease_ms.min(grace_ms);
        self.broken = false;
        self.stale = false;
        self.renew_at = Some(asked_at.after_ms(self.validity_ms / 3));
    }
}

/// All holds of a client.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    agenda: BTreeSet<(Time, LeaseId)>,
    count: u64,
    /// Leases whose claim was refused, and that were not lost before.
    refused: Vec<LeaseId>,
}

impl Leases {
    /// A lock was granted that had been asked for at `asked_at`.
    pub(super) fn insert(
        &mut self,
        key: OwnedLockKey,
        grant: Grant,
        asked_at: Time,
        grace_ms: u64,
    ) -> LeaseId {
        self.count += 1;
        let id = LeaseId(self.count);
        let mut hold = Lease {
            key,
            token: grant.token,
            lease_ms: grant.lease_ms,
            validity_ms: 0,
            asked_at,
            broken: false,
            stale: false,
            lost: None,
            renew_at: None,
            due: None,
        };
        hold.prove(asked_at, grant.lease_ms, grace_ms);
        self.all.insert(id, hold);
        self.update(id, |_| {});
        id
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.all.get(&id)
    }

    /// Nobody is interested any more.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let hold = self.all.remove(&id)?;
        if let Some(due) = hold.due {
            self.agenda.remove(&(due, id));
        }
        Some(hold)
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether something is held that is not lost.
    pub(super) fn any_live(&self) -> bool {
        self.all.values().any(|hold| hold.lost.is_none())
    }

    /// A request for a new lease is under way.
    pub(super) fn renewing(&mut self, id: LeaseId) {
        self.update(id, |hold| hold.renew_at = None);
    }

    /// The grant may be old: it is being renewed, and counts for nothing before that is answered.
    pub(super) fn stale(&mut self, id: LeaseId) {
        self.update(id, |hold| {
            hold.stale = true;
            hold.renew_at = None;
        });
    }

    /// A new lease was granted that had been asked for at `asked_at`.
    pub(super) fn renewed(&mut self, id: LeaseId, asked_at: Time, lease_ms: u64, grace_ms: u64) {
        self.update(id, |hold| hold.prove(asked_at, lease_ms, grace_ms));
    }

    /// The agent can't reach the server: it may be held or not, and is asked for again soon.
    pub(super) fn not_renewed(&mut self, id: LeaseId, now: Time) {
        self.update(id, |hold| {
            hold.broken = true;
            let pause_ms = (hold.validity_ms / 12).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
            hold.renew_at = Some(now.after_ms(pause_ms));
        });
    }

    /// There is no connection any more.
    pub(super) fn disconnected(&mut self) {
        for id in self.ids() {
            self.update(id, |hold| {
                hold.broken = true;
                hold.renew_at = None;
            });
        }
    }

    /// The server says that it is still held. For how long, the renewal will tell that follows at once.
    pub(super) fn claimed(&mut self, id: LeaseId, now: Time) {
        self.update(id, |hold| {
            hold.broken = false;
            hold.renew_at = Some(now);
        });
    }

    /// It is lost. Returns whether that is news.
    pub(super) fn lose(&mut self, id: LeaseId, loss: Loss) -> bool {
        let is_news = self.all.get(&id).is_some_and(|hold| hold.lost.is_none());
        // The server's word is the last.
        self.update(id, |hold| {
            hold.lost = if is_news || loss == Loss::Refused { Some(loss) } else { hold.lost }
        });
        is_news
    }

    /// All are lost. Returns for which that is news.
    pub(super) fn lose_all(&mut self, loss: Loss) -> Vec<LeaseId> {
        self.ids().into_iter().filter(|id| self.lose(*id, loss)).collect()
    }

    /// When [`next_due`](Self::next_due) will have something.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// What is to be done now. It is up to the caller that it does not come again.
    pub(super) fn next_due(&self, now: Time) -> Option<LeaseAction> {
        let (_, id) = *self.agenda.first().filter(|(due, _)| *due <= now)?;
        let is_lost = self.all.get(&id).is_some_and(|hold| hold.lost_at() <= now);
        Some(if is_lost { LeaseAction::Lost(id) } else { LeaseAction::Renew(id) })
    }

    /// The leases lost by refused claims since the last call.
    pub(super) fn take_refused(&mut self) -> Vec<LeaseId> {
        std::mem::take(&mut self.refused)
    }

    fn ids(&self) -> Vec<LeaseId> {
        self.all.keys().copied().collect()
    }

    fn update(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        let Some(hold) = self.all.get_mut(&id) else { return };
        change(hold);
        let lost_at = hold.lost_at();
        let due =
            (hold.lost.is_none() && !hold.stale).then(|| hold.renew_at.map_or(lost_at, |at| at.min(lost_at)));
        if due != hold.due {
            if let Some(due) = hold.due {
                self.agenda.remove(&(due, id));
            }
            self.agenda.extend(due.map(|due| (due, id)));
            hold.due = due;
        }
    }
}

impl ClaimSource for Leases {
    type Id = LeaseId;

    /// In the order of the grants.
    fn claims_after(&self, now: Time, last: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Claim<'_>)> {
        let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let held = self.all.range(after).filter(move |(_, hold)| hold.is_worth_a_claim(now));
        held.map(|(id, hold)| (*id, Claim { owner: 0, token: hold.token, key: hold.key.as_key() }))
    }

    fn claim_answered(&mut self, now: Time, id: LeaseId, is_held: bool) {
        if is_held {
            self.claimed(id, now);
        } else if self.lose(id, Loss::Refused) {
            self.refused.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LockKey;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    fn held(lease_ms: u64, grace_ms: u64) -> (Leases, LeaseId) {
        let mut holds = Leases::default();
        let key = LockKey::new("k").unwrap().into();
        let id = holds.insert(key, Grant { token: Token::new(1, 2), lease_ms }, at(1_000), grace_ms);
        (holds, id)
    }

    fn is_valid_for(holds: &Leases, id: LeaseId, now: u64, span_ms: u64) -> bool {
        holds.get(id).unwrap().is_valid_for(at(now), span_ms)
    }

    #[test]
    fn it_is_held_for_the_lesser_of_lease_and_grace() {
        for (lease_ms, grace_ms) in [(9_000, 10_000), (10_000, 9_000)] {
            let (holds, id) = held(lease_ms, grace_ms);
            assert!(is_valid_for(&holds, id, 1_000, 9_000));
            assert!(!is_valid_for(&holds, id, 1_001, 9_000));
            assert!(is_valid_for(&holds, id, 9_999, 1));
            assert!(!is_valid_for(&holds, id, 10_000, 0), "not for no time either");
        }
    }

    #[test]
    fn it_is_renewed_after_a_third_and_lost_before_the_end() {
        let (mut holds, id) = held(9_000, 60_000);
        assert_eq!(holds.deadline(), Some(at(4_000)));
        assert_eq!(holds.next_due(at(3_999)), None);
        assert_eq!(holds.next_due(at(4_000)), Some(LeaseAction::Renew(id)));
        holds.renewing(id);
        assert_eq!(holds.deadline(), Some(at(10_000 - 2_250)), "a quarter before the end");
        holds.renewed(id, at(4_000), 9_000, 60_000);
        assert_eq!(holds.deadline(), Some(at(7_000)));
        holds.renewing(id);
        assert_eq!(holds.next_due(at(10_749)), None);
        assert_eq!(holds.next_due(at(10_750)), Some(LeaseAction::Lost(id)));
        assert!(holds.lose(id, Loss::Unrenewed));
        assert!(!holds.lose(id, Loss::Unrenewed), "no news");
        assert!(!is_valid_for(&holds, id, 10_750, 0));
        assert_eq!(holds.get(id).unwrap().remaining_ms(at(10_750)), 2_250, "time to stop");
        assert_eq!(holds.deadline(), None);
    }

    #[test]
    fn a_long_validity_ends_with_a_short_notice() {
        let (mut holds, id) = held(100_000, 60_000);
        holds.renewing(id);
        assert_eq!(holds.deadline(), Some(at(61_000 - 2_500)));
    }

    #[test]
    fn what_is_lost_stays_lost() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.lose(id, Loss::Unrenewed);
        holds.renewed(id, at(9_000), 9_000, 9_000);
        holds.claimed(id, at(9_000));
        assert!(!is_valid_for(&holds, id, 9_000, 0));
        assert_eq!(holds.next_due(at(100_000)), None);
        holds.lose(id, Loss::Refused);
        assert_eq!(
            holds.get(id).unwrap().remaining_ms(at(9_000)),
            0,
            "nothing is left when the server says so"
        );
    }

    #[test]
    fn a_broken_hold_is_not_valid_until_it_is_claimed() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.disconnected();
        assert!(!is_valid_for(&holds, id, 1_500, 0));
        assert_eq!(holds.deadline(), Some(at(7_750)), "no renewal without a connection");
        holds.claimed(id, at(2_000));
        assert!(is_valid_for(&holds, id, 2_000, 8_000));
        assert!(!is_valid_for(&holds, id, 2_000, 8_001), "a claim is no new lease");
        assert_eq!(holds.next_due(at(2_000)), Some(LeaseAction::Renew(id)));
    }

    #[test]
    fn an_old_grant_counts_from_its_renewal_on() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.stale(id);
        assert_eq!(holds.next_due(at(60_000)), None);
        assert!(!is_valid_for(&holds, id, 1_000, 0));
        holds.renewed(id, at(60_000), 9_000, 9_000);
        assert!(is_valid_for(&holds, id, 60_000, 9_000));
    }

    #[test]
    fn an_agent_without_a_server_is_asked_again() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.not_renewed(id, at(4_000));
        assert!(!is_valid_for(&holds, id, 4_000, 0));
        assert_eq!(holds.deadline(), Some(at(4_750)));
        holds.renewed(id, at(4_750), 9_000, 9_000);
        assert!(is_valid_for(&holds, id, 4_750, 9_000));
    }

    #[test]
    fn claims_are_for_what_the_server_may_know() {
        let (mut holds, id) = held(9_000, 3_000);
        let ids =
            |holds: &Leases, now| holds.claims_after(at(now), None).map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(&holds, 50_000), [id]);
        holds.lose(id, Loss::Unrenewed);
        assert_eq!(ids(&holds, 9_999), [id], "until its lease has passed");
        assert_eq!(ids(&holds, 10_000), []);
        holds.lose(id, Loss::Refused);
        assert_eq!(ids(&holds, 5_000), []);
        assert!(holds.remove(id).is_some() && holds.is_empty());
    }
}
