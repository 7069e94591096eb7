//! The locks that a client holds: until when each is certainly held, and when it has to be renewed.
//!
//! A lock granted or renewed by a request sent at `t0` is held until `t0 + min(lease, grace)`. The server
//! grants it no earlier than `t0`. When the connection is lost, which is no earlier either, the server keeps
//! it for the grace period. That span is the validity of the lease. The lease is renewed after a third of it.
//! A quarter before the end of the validity, but at most [`NOTICE_MS_MAX`] before it, the lock counts as
//! lost, even if a later answer renews it. The holder has that time to stop.
//!
//! ```text
//!  t0         renewed      again          lost             certainly held until
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

/// Longest time from the loss of a lock to the end of its validity, in milliseconds.
pub(super) const NOTICE_MS_MAX: u64 = 2_500;
/// Bounds of the pause before a failed renewal is tried again, in milliseconds.
const RETRY_MS_MIN: u64 = 20;
const RETRY_MS_MAX: u64 = 1_000;

/// Names a lease of a client, in the order of the grants. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LeaseId(u64);

/// A lock from its grant to its release.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) key: OwnedLockKey,
    pub(super) token: Token,
    pub(super) lease_ms: u64,
    /// How long the lock is certainly held after `asked_at`, in milliseconds.
    validity_ms: u64,
    /// When the request of the last grant or renewal was sent.
    asked_at: Time,
    /// Whether the connection was lost since, or the link of the agent.
    broken: bool,
    /// Whether the grant is too old to rely on before a renewal is answered.
    stale: bool,
    lost: Option<Loss>,
    /// When to renew; `None` while a renewal is in flight or there is no connection.
    renew_at: Option<Time>,
    /// Its entry in the agenda.
    due: Option<Time>,
}

/// A due action of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// The lease must be renewed.
    Renew(LeaseId),
    /// The lease was not renewed in time: it counts as lost from now on.
    Lost(LeaseId),
}

impl Lease {
    /// Why the lock is lost, if it is.
    pub(super) const fn lost(&self) -> Option<Loss> {
        self.lost
    }

    /// How long the lock is certainly held after the last answered request, in milliseconds.
    pub(super) const fn validity_ms(&self) -> u64 {
        self.validity_ms
    }

    /// How long the lock is certainly held from `now` on, in milliseconds, connected or not, lost or not.
    pub(super) const fn remaining_ms(&self, now: Time) -> u64 {
        match self.lost {
            None | Some(Loss::Unrenewed) => self.ends_at().ms_since(now),
            Some(_) => 0,
        }
    }

    /// Whether the lock is held, its connection stands, and it will be held for `span_ms` more.
    pub(super) const fn is_valid_for(&self, now: Time, span_ms: u64) -> bool {
        let stands = self.lost.is_none() && !self.broken && !self.stale;
        stands && self.remaining_ms(now) >= span_ms && self.remaining_ms(now) > 0
    }

    /// Whether the server may still know the lock, so that it must be claimed.
    const fn is_worth_a_claim(&self, now: Time) -> bool {
        match self.lost {
            None => true,
            // Its holder may need the rest of the lease to stop.
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

/// All leases of a client.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    agenda: BTreeSet<(Time, LeaseId)>,
    count: u64,
    /// Leases whose claim was refused, and that were not lost before.
    refused: Vec<LeaseId>,
}

impl Leases {
    /// A lock was granted to a request sent at `asked_at`.
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

    /// The lock is released, or its guard was dropped.
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

    /// Whether a lock is held that is not lost.
    pub(super) fn any_live(&self) -> bool {
        self.all.values().any(|hold| hold.lost.is_none())
    }

    /// A renewal is in flight.
    pub(super) fn renewing(&mut self, id: LeaseId) {
        self.update(id, |hold| hold.renew_at = None);
    }

    /// The grant may be old: the lease is not valid before a renewal is answered.
    pub(super) fn stale(&mut self, id: LeaseId) {
        self.update(id, |hold| {
            hold.stale = true;
            hold.renew_at = None;
        });
    }

    /// The lease was renewed by a request sent at `asked_at`.
    pub(super) fn renewed(&mut self, id: LeaseId, asked_at: Time, lease_ms: u64, grace_ms: u64) {
        self.update(id, |hold| hold.prove(asked_at, lease_ms, grace_ms));
    }

    /// The agent cannot reach the server: the lease is not valid, and the renewal is repeated soon.
    pub(super) fn not_renewed(&mut self, id: LeaseId, now: Time) {
        self.update(id, |hold| {
            hold.broken = true;
            let pause_ms = (hold.validity_ms / 12).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
            hold.renew_at = Some(now.after_ms(pause_ms));
        });
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self) {
        for id in self.ids() {
            self.update(id, |hold| {
                hold.broken = true;
                hold.renew_at = None;
            });
        }
    }

    /// The claim was accepted. A renewal follows at once and gives the new lease.
    pub(super) fn claimed(&mut self, id: LeaseId, now: Time) {
        self.update(id, |hold| {
            hold.broken = false;
            hold.renew_at = Some(now);
        });
    }

    /// The lock is lost. Returns whether it was not lost before.
    pub(super) fn lose(&mut self, id: LeaseId, loss: Loss) -> bool {
        let is_news = self.all.get(&id).is_some_and(|hold| hold.lost.is_none());
        // A refusal by the server overrides other reasons.
        self.update(id, |hold| {
            hold.lost = if is_news || loss == Loss::Refused { Some(loss) } else { hold.lost }
        });
        is_news
    }

    /// All locks are lost. Returns the newly lost ones.
    pub(super) fn lose_all(&mut self, loss: Loss) -> Vec<LeaseId> {
        self.ids().into_iter().filter(|id| self.lose(*id, loss)).collect()
    }

    /// When [`next_due`](Self::next_due) will have something.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// The next lease with something due now. The caller changes the lease, so that it is no longer due.
    pub(super) fn next_due(&self, now: Time) -> Option<LeaseAction> {
        let (_, id) = *self.agenda.first().filter(|(due, _)| *due <= now)?;
        let is_lost = self.all.get(&id).is_some_and(|hold| hold.lost_at() <= now);
        Some(if is_lost { LeaseAction::Lost(id) } else { LeaseAction::Renew(id) })
    }

    /// Takes the leases lost by refused claims.
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
    fn lease_is_valid_for_the_lesser_of_lease_and_grace() {
        for (lease_ms, grace_ms) in [(9_000, 10_000), (10_000, 9_000)] {
            let (holds, id) = held(lease_ms, grace_ms);
            assert!(is_valid_for(&holds, id, 1_000, 9_000));
            assert!(!is_valid_for(&holds, id, 1_001, 9_000));
            assert!(is_valid_for(&holds, id, 9_999, 1));
            assert!(!is_valid_for(&holds, id, 10_000, 0), "not for no time either");
        }
    }

    #[test]
    fn lease_is_renewed_after_a_third_and_lost_before_its_end() {
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
    fn long_validity_ends_with_bounded_notice() {
        let (mut holds, id) = held(100_000, 60_000);
        holds.renewing(id);
        assert_eq!(holds.deadline(), Some(at(61_000 - 2_500)));
    }

    #[test]
    fn lost_lock_stays_lost_after_renewal_and_claim() {
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
    fn disconnected_lease_is_not_valid_until_claimed() {
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
    fn stale_grant_is_valid_from_its_renewal() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.stale(id);
        assert_eq!(holds.next_due(at(60_000)), None);
        assert!(!is_valid_for(&holds, id, 1_000, 0));
        holds.renewed(id, at(60_000), 9_000, 9_000);
        assert!(is_valid_for(&holds, id, 60_000, 9_000));
    }

    #[test]
    fn failed_renewal_is_repeated_soon() {
        let (mut holds, id) = held(9_000, 9_000);
        holds.not_renewed(id, at(4_000));
        assert!(!is_valid_for(&holds, id, 4_000, 0));
        assert_eq!(holds.deadline(), Some(at(4_750)));
        holds.renewed(id, at(4_750), 9_000, 9_000);
        assert!(is_valid_for(&holds, id, 4_750, 9_000));
    }

    #[test]
    fn claims_name_leases_that_the_server_may_know() {
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
