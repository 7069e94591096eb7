//! Checks whether the observations of the lockers are possible: linearizability of FIFO locks with leases.
//!
//! The general problem is NP-complete (Gibbons and Korach, "Testing Shared Memories", SIAM Journal on
//! Computing 26(4), 1997), and a checker has to search for an order (Wing and Gong, 1993; Lowe, 2017). No
//! search is needed if the history gives the order of state changes, as Gibbons and Korach show for registers
//! with a known order of writes. Here it does: every grant has a fencing token (fence), and the fences give
//! the order of all grants. Each rule therefore only compares intervals.
//!
//! The checker computes two intervals for each grant. The grant was *certainly* in force while its holder
//! could rely on it. This interval starts with the answer. It ends when the holder sends the release,
//! receives an answer that reports the loss, or loses its connection. It also ends when the lease has
//! elapsed, counted from before the request; behind a link, the grace period has the same effect if it is
//! shorter. The grant *may* have been in force from the request until its end is certain. An operation
//! without an answer may have been granted, and the lock may be held, until the operation is settled.
//!
//! 1. The certain holds of a key never exceed its limit ([`LockViolation::NotExclusive`]).
//! 2. Each grant can be assigned a time between its request and its answer so that the times are in the order
//!    of the fences ([`LockViolation::FencesNotInOrder`]). No fence occurs twice
//!    ([`LockViolation::FenceTwice`]).
//! 3. A waiter certainly queued before another request begins is granted first
//!    ([`LockViolation::Overtaken`]).
//! 4. A request times out only if the key may have reached its limit of holders
//!    ([`LockViolation::NeedlessTimeout`]).
//! 5. A certain hold can be renewed and released ([`LockViolation::LostHold`]). A hold that was released,
//!    lost or expired cannot, nor can a hold whose server process or connection has ended
//!    ([`LockViolation::Revived`]).

use super::conversation::{KEYS, limit_of};
use super::history::{LockHistory, LockOpKind, ObservedLockReply, RecordedLockOp, Shutdown};
use super::violation::{Ended, LockViolation};
use crate::simulation::event_queue::EventTime;
use libdc::id::Token;
use libdc::time::Time;
use libdc::wire::lock::LockStatus;
use std::collections::BTreeMap;

impl LockHistory {
    /// Looks for answers that are impossible.
    ///
    /// # Errors
    /// The first violation found.
    pub(crate) fn verify(&self) -> Result<(), LockViolation> {
        self.check_drains()?;
        let mut holds = self.holds()?;
        check_fences(&holds)?;
        for hold in &mut holds {
            self.follow(hold)?;
        }
        for key in 0..KEYS.len() {
            let of_key: Vec<&GrantHistory> = holds.iter().filter(|hold| hold.key == key).collect();
            check_exclusive(&of_key, limit_of(key))?;
            self.check_order(&of_key)?;
            self.check_timeouts(key, &of_key)?;
        }
        self.check_places()
    }

    /// Checks that no lock was both requested and granted while the server was shutting down.
    fn check_drains(&self) -> Result<(), LockViolation> {
        for (operation, it) in self.operations.iter().enumerate() {
            let within = |shutdown: &Shutdown| it.begun > shutdown.idle_since && it.ended < shutdown.ended;
            if matches!(it.reply, ObservedLockReply::Granted(_)) && self.shutdowns.iter().any(within) {
                return Err(LockViolation::GrantedWhileDraining { operation });
            }
        }
        Ok(())
    }

    /// All grants, in the order of their fences.
    fn holds(&self) -> Result<Vec<GrantHistory>, LockViolation> {
        let mut by_fence: BTreeMap<u64, GrantHistory> = BTreeMap::new();
        for (number, it) in self.operations.iter().enumerate() {
            let ObservedLockReply::Granted(grant) = it.reply else { continue };
            let asked = match it.locking {
                LockOpKind::Wait { .. } => self.enqueued_by(number).unwrap_or(number),
                _ => number,
            };
            let hold = GrantHistory::new(number, asked, it, self.operations[asked].begun, grant.token);
            match by_fence.entry(grant.token.fence()) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(hold);
                }
                // WAIT restarts the lease of a lock acquired by ENQUEUE.
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let one = entry.get();
                    if one.token != grant.token || one.key != it.key || one.asked != asked {
                        return Err(LockViolation::FenceTwice { one: one.granted, other: number });
                    }
                }
            }
        }
        Ok(by_fence.into_values().collect())
    }

    /// The ENQUEUE that a WAIT belongs to.
    fn enqueued_by(&self, wait: usize) -> Option<usize> {
        let it = &self.operations[wait];
        (0..wait).rev().find(|number| {
            let other = &self.operations[*number];
            let is_place = matches!(
                other.reply,
                ObservedLockReply::Granted(_)
                    | ObservedLockReply::Status(LockStatus::Queued)
                    | ObservedLockReply::Lost
            );
            is_place
                && matches!(other.locking, LockOpKind::Enqueue { .. })
                && (other.connection, other.key) == (it.connection, it.key)
        })
    }

    /// How long a holder can rely on a lease over this connection, in milliseconds from before the request.
    fn reliable_ms(&self, connection: u32, lease_ms: u64) -> u64 {
        if self.routes[&connection].link { lease_ms.min(self.grace_ms) } else { lease_ms }
    }

    /// Follows a grant through all operations with its token, and computes its two intervals.
    fn follow(&self, hold: &mut GrantHistory) -> Result<(), LockViolation> {
        let mut at = Reliance::new();
        for (number, it) in self.operations.iter().enumerate() {
            // A WAIT whose answer was lost may have restarted the lease.
            if let (LockOpKind::Wait { .. }, LockOpKind::Enqueue { lease_ms }) =
                (it.locking, self.operations[hold.asked].locking)
                && it.reply.is_unknown()
                && self.enqueued_by(number) == Some(hold.asked)
            {
                hold.over_at = hold.over_at.max(self.settled(it).after_ms(lease_ms));
            }
            if !it.concerns(hold) {
                continue;
            }
            self.follow_one(hold, &mut at, it, number)?;
        }
        if at.since.is_some() {
            hold.sure.extend(at.stop(EventTime::NEVER, self.over(at.connection)));
        }
        // A holder that has sent a release relies on the lock no longer, regardless of later answers.
        let is_release =
            |it: &&RecordedLockOp| matches!(it.locking, LockOpKind::Release { .. }) && it.concerns(hold);
        let released = self.operations.iter().find(is_release).map(|it| it.begun);
        let killed = if self.keeps_state { None } else { self.kill_after(hold.asked_at) };
        for end in [released, killed].into_iter().flatten() {
            hold.sure.retain_mut(|sure| {
                sure.until = sure.until.min(end);
                sure.since < sure.until
            });
        }
        hold.may_until = self.may_until(hold);
        Ok(())
    }

    /// Applies one operation with the token of the grant.
    fn follow_one(
        &self,
        hold: &mut GrantHistory,
        at: &mut Reliance,
        it: &RecordedLockOp,
        number: usize,
    ) -> Result<(), LockViolation> {
        if let LockOpKind::Renew { lease_ms, .. } = it.locking {
            // The new lease may be shorter than the old one.
            at.until = at.until.min(it.begun.at.after_ms(lease_ms));
        }
        match (it.locking, it.reply) {
            (_, ObservedLockReply::Granted(grant)) => {
                let until = it.begun.at.after_ms(self.reliable_ms(it.connection, grant.lease_ms));
                let lease_end = it.begun.at.after_ms(grant.lease_ms);
                hold.sure.extend(at.stop(it.ended, self.over(at.connection)));
                at.rely(it.connection, it.ended, until, lease_end);
                hold.over_at = hold.over_at.max(it.ended.at.after_ms(grant.lease_ms));
            }
            (LockOpKind::Claim { .. }, ObservedLockReply::Status(LockStatus::Ok)) => {
                self.check_alive(hold, it, number)?;
                let until = it.begun.at.after_ms(self.grace_ms).min(at.lease_end);
                hold.sure.extend(at.stop(it.begun, self.over(at.connection)));
                at.rely(it.connection, it.ended, until, at.lease_end);
            }
            (LockOpKind::Renew { .. }, ObservedLockReply::Renewed(lease_ms)) => {
                self.check_alive(hold, it, number)?;
                let until = it.begun.at.after_ms(self.reliable_ms(it.connection, lease_ms));
                if it.connection == at.connection && at.since.is_some() {
                    hold.sure.extend(at.stop(it.ended, self.over(at.connection)));
                    at.rely(it.connection, it.ended, until, it.begun.at.after_ms(lease_ms));
                }
                hold.over_at = hold.over_at.max(it.ended.at.after_ms(lease_ms));
            }
            (LockOpKind::Release { .. }, reply) => {
                if reply == ObservedLockReply::Status(LockStatus::Ok) {
                    self.check_alive(hold, it, number)?;
                } else if reply == ObservedLockReply::Status(LockStatus::Error) {
                    self.check_lost(hold, at, it, number)?;
                }
                hold.sure.extend(at.stop(it.begun, self.over(at.connection)));
                if !reply.is_unknown() {
                    hold.close(
                        it.ended,
                        if reply == ObservedLockReply::Status(LockStatus::Ok) {
                            Ended::Released
                        } else {
                            Ended::Lost
                        },
                    );
                }
            }
            (LockOpKind::Renew { lease_ms, .. }, reply) if reply.is_unknown() => {
                hold.over_at = hold.over_at.max(self.settled(it).after_ms(lease_ms));
            }
            (LockOpKind::Renew { .. } | LockOpKind::Claim { .. }, ObservedLockReply::Status(_)) => {
                self.check_lost(hold, at, it, number)?;
                hold.sure.extend(at.stop(it.ended, self.over(at.connection)));
                hold.close(it.ended, Ended::Lost);
            }
            _ => {}
        }
        Ok(())
    }

    /// When holders over a connection could no longer rely on their locks.
    fn over(&self, connection: u32) -> EventTime {
        self.routes.get(&connection).map_or(EventTime::NEVER, |route| route.over)
    }

    /// The time until which a hold may have been in force.
    fn may_until(&self, hold: &GrantHistory) -> Time {
        let route = &self.routes[&hold.connection];
        // Holds over a locker's own link move from connection to connection.
        let gone = match route.own_link {
            Some(_) => Time::from_ms(u64::MAX),
            None => route.settled.at.after_ms(if route.link { self.grace_ms } else { 0 }),
        };
        let kill = self.kill_after(hold.answered).map_or(Time::from_ms(u64::MAX), |kill| kill.at);
        let ended = hold.ended.map_or(Time::from_ms(u64::MAX), |(moment, _)| moment.at);
        hold.over_at.min(gone).min(kill).min(ended)
    }

    /// The time from which an operation without an answer can have no further effect.
    fn settled(&self, it: &RecordedLockOp) -> Time {
        it.settled.min(self.routes[&it.connection].settled).at
    }

    fn kill_after(&self, moment: EventTime) -> Option<EventTime> {
        self.kills.get(self.kills.partition_point(|kill| *kill < moment)).copied()
    }

    /// Checks that an operation can have found the hold still in force.
    fn check_alive(
        &self,
        hold: &GrantHistory,
        it: &RecordedLockOp,
        number: usize,
    ) -> Result<(), LockViolation> {
        let revived = |reason| Err(LockViolation::Revived { operation: number, reason });
        if let Some((_, reason)) = hold.ended.filter(|(ended, _)| *ended < it.begun) {
            return revived(reason);
        }
        if it.begun.at >= hold.over_at {
            return revived(Ended::Expired);
        }
        if self.kill_after(hold.answered).is_some_and(|kill| kill < it.begun) {
            return revived(Ended::Restarted);
        }
        let route = &self.routes[&hold.connection];
        let grace_ms = if route.link { self.grace_ms } else { 0 };
        if route.own_link.is_none() && it.begun.at > route.settled.at.after_ms(grace_ms) {
            return revived(Ended::Dead);
        }
        Ok(())
    }

    /// Checks that an operation can have found the hold lost.
    fn check_lost(
        &self,
        hold: &GrantHistory,
        at: &Reliance,
        it: &RecordedLockOp,
        number: usize,
    ) -> Result<(), LockViolation> {
        let own_link = self.routes[&it.connection].own_link;
        let same = it.connection == at.connection || own_link.is_some();
        let was_sure = at.since.is_some_and(|since| since < it.begun) && it.ended.at < at.until && same;
        let was_killed = self.kill_after(hold.asked_at).is_some_and(|kill| kill < it.ended);
        if was_sure && !was_killed && hold.ended.is_none() {
            return Err(LockViolation::LostHold { operation: number });
        }
        Ok(())
    }

    /// Checks that waiters were granted in FIFO order.
    fn check_order(&self, holds: &[&GrantHistory]) -> Result<(), LockViolation> {
        for second in holds {
            let asked_at = self.operations[second.asked].begun;
            // Later grants, by their fences, to waiters that were queued earlier.
            for first in holds.iter().filter(|first| first.token.fence() > second.token.fence()) {
                if self.waits_since(first.asked).is_some_and(|since| since < asked_at) {
                    return Err(LockViolation::Overtaken { first: first.asked, second: second.asked });
                }
            }
            let key = self.operations[second.asked].key;
            for (number, it) in self.operations.iter().enumerate().filter(|(_, it)| it.key == key) {
                let LockOpKind::Acquire { timeout_ms, .. } = it.locking else { continue };
                let waited_on = it.reply == ObservedLockReply::Status(LockStatus::Timeout)
                    && second.answered.at < it.begun.at.after_ms(timeout_ms)
                    && second.answered < it.ended
                    && !self.is_cancelled(number);
                if waited_on && self.waits_since(number).is_some_and(|since| since < asked_at) {
                    return Err(LockViolation::Overtaken { first: number, second: second.asked });
                }
            }
        }
        Ok(())
    }

    /// The moment from which a request certainly had its position in the queue. An ENQUEUE has it once it is
    /// answered `queued`; others, once the server has answered a later request on the same connection.
    fn waits_since(&self, number: usize) -> Option<EventTime> {
        let it = &self.operations[number];
        if let LockOpKind::Enqueue { .. } = it.locking {
            return (it.reply == ObservedLockReply::Status(LockStatus::Queued)).then_some(it.ended);
        }
        let behind = self.operations[number + 1..].iter().filter(|other| {
            other.connection == it.connection
                && matches!(
                    other.locking,
                    LockOpKind::Renew { .. } | LockOpKind::Release { .. } | LockOpKind::Acquire { .. }
                )
                && !other.reply.is_unknown()
        });
        behind.map(|other| other.ended).min()
    }

    fn is_cancelled(&self, number: usize) -> bool {
        let cancels = |it: &RecordedLockOp| it.locking == LockOpKind::Cancel { operation: number };
        self.operations.iter().any(cancels)
    }

    /// Checks that every timeout has a possible reason: the key may have reached its limit, or the server
    /// granted nothing at that time.
    fn check_timeouts(&self, key: usize, holds: &[&GrantHistory]) -> Result<(), LockViolation> {
        let unknown: Vec<(EventTime, Time)> = self.possible(key);
        for (number, it) in self.operations.iter().enumerate().filter(|(_, it)| it.key == key) {
            let waits = matches!(it.locking, LockOpKind::Acquire { .. } | LockOpKind::Wait { .. });
            if !waits
                || it.reply != ObservedLockReply::Status(LockStatus::Timeout)
                || self.is_cancelled(number)
            {
                continue;
            }
            let held_off =
                |(started, until): &(EventTime, Time)| *started < it.ended && it.begun.at <= *until;
            let may_hold = |since: EventTime, until: Time| since < it.ended && until >= it.begun.at;
            let known = holds.iter().filter(|hold| may_hold(hold.asked_at, hold.may_until)).count();
            let others = unknown.iter().filter(|(since, until)| may_hold(*since, *until)).count();
            if known + others < limit_of(key) as usize && !self.held_off.iter().any(held_off) {
                return Err(LockViolation::NeedlessTimeout { operation: number });
            }
        }
        Ok(())
    }

    /// Grants of a key that may have been made but were not observed: the start and end of each.
    fn possible(&self, key: usize) -> Vec<(EventTime, Time)> {
        let of_key = self.operations.iter().enumerate().filter(|(_, it)| it.key == key);
        let possible = |(number, it): (usize, &RecordedLockOp)| {
            let settled = self.settled(it);
            match it.locking {
                LockOpKind::Acquire { lease_ms, .. } if it.reply.is_unknown() => {
                    Some((it.begun, settled.after_ms(lease_ms)))
                }
                LockOpKind::Enqueue { lease_ms }
                    if it.reply.is_unknown() || it.reply == ObservedLockReply::Status(LockStatus::Queued) =>
                {
                    let behind = self.operations[number..].iter().find(|other| {
                        matches!(other.locking, LockOpKind::Wait { .. })
                            && (other.connection, other.key) == (it.connection, key)
                            && !other.reply.is_unknown()
                    });
                    let consumed = behind.map_or(Time::from_ms(u64::MAX), |wait| wait.ended.at);
                    Some((it.begun, settled.after_ms(lease_ms).min(consumed)))
                }
                // The WAIT may have been granted, or may have restarted the lease.
                LockOpKind::Wait { .. } if it.reply.is_unknown() => {
                    let enqueued = self.enqueued_by(number).map(|number| self.operations[number].locking);
                    let Some(LockOpKind::Enqueue { lease_ms }) = enqueued else { return None };
                    Some((it.begun, settled.after_ms(lease_ms)))
                }
                _ => None,
            }
        };
        of_key.filter_map(possible).collect()
    }

    /// Checks that no queue position was lost over unbroken connections straight to the server.
    fn check_places(&self) -> Result<(), LockViolation> {
        for (number, it) in self.operations.iter().enumerate() {
            let lost = it.reply == ObservedLockReply::Status(LockStatus::ErrorNotEnqueued);
            if !lost || self.routes[&it.connection].agent.is_some() {
                continue;
            }
            let mut before = self.operations[..number]
                .iter()
                .enumerate()
                .filter(|(_, other)| (other.connection, other.key) == (it.connection, it.key))
                .rev();
            let last = before.find(|(_, other)| {
                matches!(other.locking, LockOpKind::Wait { .. } | LockOpKind::Enqueue { .. })
                    && other.reply != ObservedLockReply::Status(LockStatus::ErrorAlreadyEnqueued)
            });
            if let Some((enqueued, other)) = last
                && other.reply == ObservedLockReply::Status(LockStatus::Queued)
                && other.ended < it.begun
            {
                return Err(LockViolation::LostPlace { operation: number, enqueued });
            }
        }
        Ok(())
    }
}

/// A grant with its later history.
#[derive(Debug)]
struct GrantHistory {
    /// The operation answered with the grant.
    granted: usize,
    /// The operation that requested the lock; for a WAIT, its ENQUEUE.
    asked: usize,
    key: usize,
    connection: u32,
    token: Token,
    asked_at: EventTime,
    answered: EventTime,
    sure: Vec<CertainInterval>,
    /// When its lease had certainly ended.
    over_at: Time,
    /// When it had certainly ended for another reason.
    ended: Option<(EventTime, Ended)>,
    may_until: Time,
}

/// A period in which the holder could rely on the grant.
#[derive(Clone, Copy, Debug)]
struct CertainInterval {
    since: EventTime,
    until: EventTime,
    until_at: Time,
}

impl GrantHistory {
    fn new(granted: usize, asked: usize, it: &RecordedLockOp, asked_at: EventTime, token: Token) -> Self {
        Self {
            granted,
            asked,
            key: it.key,
            connection: it.connection,
            token,
            asked_at,
            answered: it.ended,
            sure: Vec::new(),
            over_at: Time::default(),
            ended: None,
            may_until: Time::default(),
        }
    }

    fn close(&mut self, moment: EventTime, reason: Ended) {
        self.ended.get_or_insert((moment, reason));
    }
}

impl RecordedLockOp {
    /// Whether the operation concerns this hold.
    fn concerns(&self, hold: &GrantHistory) -> bool {
        match self.locking {
            LockOpKind::Release { token } | LockOpKind::Renew { token, .. } | LockOpKind::Claim { token } => {
                token == hold.token && self.key == hold.key
            }
            _ => matches!(self.reply, ObservedLockReply::Granted(grant) if grant.token == hold.token),
        }
    }
}

/// The period a holder currently relies on, while its history is followed.
struct Reliance {
    connection: u32,
    since: Option<EventTime>,
    until: Time,
    lease_end: Time,
}

impl Reliance {
    fn new() -> Self {
        Self { connection: 0, since: None, until: Time::default(), lease_end: Time::default() }
    }

    fn rely(&mut self, connection: u32, since: EventTime, until: Time, lease_end: Time) {
        *self = Self { connection, since: Some(since), until, lease_end };
    }

    /// Ends the current period, and returns its certain interval if it is not empty.
    fn stop(&mut self, now: EventTime, over: EventTime) -> Option<CertainInterval> {
        let since = self.since.take()?;
        let until = now.min(over);
        (since < until && since.at < self.until).then_some(CertainInterval {
            since,
            until,
            until_at: self.until,
        })
    }
}

/// Checks that the grants can have been made in the order of their fences.
fn check_fences(holds: &[GrantHistory]) -> Result<(), LockViolation> {
    let mut latest: Option<&GrantHistory> = None;
    for hold in holds {
        // A grant can be made only after its request, and after all grants with smaller fences.
        if let Some(before) = latest.filter(|before| before.asked_at > hold.answered) {
            return Err(LockViolation::FencesNotInOrder { earlier: before.granted, later: hold.granted });
        }
        if latest.is_none_or(|before| before.asked_at < hold.asked_at) {
            latest = Some(hold);
        }
    }
    Ok(())
}

/// Checks that the certain holds of a key never exceed its limit.
fn check_exclusive(holds: &[&GrantHistory], limit: u32) -> Result<(), LockViolation> {
    for hold in holds {
        for sure in &hold.sure {
            let is_within = |other: &CertainInterval| {
                other.since < sure.since && sure.since < other.until && sure.since.at < other.until_at
            };
            let mut others =
                holds.iter().filter(|other| other.token != hold.token && other.sure.iter().any(is_within));
            if others.clone().count() >= limit as usize
                && let Some(other) = others.next()
            {
                return Err(LockViolation::NotExclusive { one: other.granted, other: hold.granted });
            }
        }
    }
    Ok(())
}
