//! Models contenders and holders of locks as far as they can be known, and judges whether an answer agrees.
//!
//! The time of a grant is only known to lie between request and answer. A lock is known to be held from the
//! answer until its release is requested or its lease, counted from the request, has expired. It follows:
//!
//! - a fence is greater than every fence seen when the lock was requested;
//! - of two waiters, the certainly earlier one has the smaller fence. The order is certain on one connection,
//!   and if an answer showed that the server had read the first request before the second was sent;
//! - a waiter that was overtaken does not time out without the lock;
//! - more concurrent grants than the limit are wrong once as many as the limit prove by a release or a
//!   renewal that they were valid all the time. Before that, the connection of one may have broken unnoticed;
//! - a request for a free key without contenders is granted at once, and no request waits [`SETTLE_MS`] for a
//!   free key. Within [`RECOVERY_MS`] of a failure an unknown holder may exist, so this is not checked;
//! - a held lock can be released and renewed for as long as requested, and is refused to a request with
//!   another limit. Only a failure excuses a loss; the caller records failures.

use super::key::{Contender, ContenderHold, KeyModel, MARGIN_MS, Overlap, SETTLE_MS};
use super::question::{LockAct, LockOpOutcome, PendingLockOp, Verdict};
use super::round::Lapse;
use super::workload::LockWorkload;
use crate::wrong_answer::WrongAnswer;
use libdc::id::Grant;
use libdc::time::Time;
use libdc::wire::lock::{LockAnswer, LockStatus};
use std::cell::Cell;
use std::rc::Rc;

/// Time after a failure in which a server may have unknown holders, or grant no locks.
const RECOVERY_MS: u64 = 60_000;
/// Spacing of rounds with an expiry and with a renewed lease: each takes a sixth of one key's time.
const EXPIRY_INTERVAL_MS: u64 = 2000;
const RENEWAL_INTERVAL_MS: u64 = 5000;

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct LockModel {
    keys: Vec<KeyModel>,
    shape: LockWorkload,
    /// Number of requests and answers.
    tick: u64,
    /// The greatest fence seen.
    fence: u64,
    connections: u64,
    /// No short lease is requested before this time.
    lapses: [(Lapse, Time); 2],
}

/// The origin of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContenderId {
    pub(super) connection: u64,
    pub(super) key: usize,
    /// Its seat, if it has one.
    pub(super) seat: Option<u64>,
    /// The token of the held lock, if this is a release.
    pub(super) token: Option<libdc::id::Token>,
    pub(super) lease_ms: u64,
}

impl LockModel {
    /// Keys that no other run has, as far as `seed` is random.
    pub(crate) fn new(shape: &LockWorkload, seed: u64) -> Self {
        let keys =
            (0..shape.keys).map(|number| KeyModel::new(format!("dc_test-{seed:016x}-{number}"))).collect();
        let lapses = [Lapse::Expires, Lapse::IsRenewed].map(|lapse| (lapse, Time::from_ms(0)));
        Self { keys, shape: *shape, tick: 0, fence: 0, connections: 0, lapses }
    }

    pub(super) const fn shape(&self) -> &LockWorkload {
        &self.shape
    }

    /// A number for one more connection.
    pub(super) const fn next_connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// The short lease for which it is time. Each takes so long that few are enough.
    pub(super) fn take_lapse(&mut self, now: Time) -> Option<Lapse> {
        let (lapse, due) = self.lapses.iter_mut().find(|(_, due)| *due <= now)?;
        *due = now.after_ms(match lapse {
            Lapse::Expires => EXPIRY_INTERVAL_MS,
            Lapse::IsRenewed => RENEWAL_INTERVAL_MS,
        });
        Some(*lapse)
    }

    /// Records a request.
    pub(super) fn ask(&mut self, asker: &ContenderId, act: LockAct, now: Time) -> PendingLockOp {
        self.tick += 1;
        let tick = self.tick;
        let LockWorkload { limit, .. } = self.shape;
        let key = &mut self.keys[asker.key];
        let seat = asker.seat.unwrap_or(tick);
        let asks_anew = matches!(act, LockAct::Acquire { .. } | LockAct::Enqueue);
        let free = key.held() + key.places.len() < limit as usize;
        if asks_anew {
            key.asked += 1;
            let is_alone = key.places.is_empty() && key.holders.is_empty() && key.settled <= now;
            key.places.push(Contender {
                seat,
                connection: asker.connection,
                asked: now,
                known: None,
                stays_until: now,
                overtaken: None,
                floor: self.fence,
                alone: is_alone.then_some(key.asked),
            });
        }
        let waits_ms = match act {
            LockAct::Acquire { timeout_ms } | LockAct::Wait { timeout_ms } => timeout_ms,
            _ => 0,
        };
        if let Some(place) = key.contender(seat) {
            place.stays_until = now.after_ms(waits_ms);
        }
        let held = key.holder(seat);
        let token = held.as_ref().map_or(asker.token, |holder| Some(holder.token));
        if let Some(holder) = held {
            holder.releasing |= act == LockAct::Release;
            if act == LockAct::Renew {
                holder.ends = holder.ends.max(now.after_ms(asker.lease_ms));
            }
        }
        let limit = limit + u32::from(act == LockAct::OtherLimit);
        let token = token.filter(|_| !asks_anew && act != LockAct::OtherLimit);
        let (name, lease_ms) = (key.name.clone(), asker.lease_ms);
        PendingLockOp { key: asker.key, name, act, seat, tick, asked: now, limit, lease_ms, token, free }
    }

    /// Judges the answer to `question`.
    ///
    /// # Errors
    ///
    /// [`WrongAnswer`] if no correct server could have given it, whatever failures occurred.
    pub(super) fn judge(
        &mut self,
        question: &PendingLockOp,
        answer: LockAnswer<'_>,
        now: Time,
    ) -> Result<Verdict, Box<WrongAnswer>> {
        self.tick += 1;
        match (question.act, answer) {
            (
                LockAct::Acquire { .. } | LockAct::Wait { .. } | LockAct::Enqueue,
                LockAnswer::Grant { grant, .. },
            ) => self.judge_grant(question, grant, now),
            (LockAct::Acquire { .. } | LockAct::Wait { .. }, LockAnswer::Status(LockStatus::Timeout)) => {
                self.judge_timeout(question, now)
            }
            (LockAct::Enqueue, LockAnswer::Status(LockStatus::Queued)) => {
                Ok(self.judge_queued(question, now))
            }
            (LockAct::Wait { .. }, LockAnswer::Status(status)) => {
                self.judge_lost_place(question, status, answer, now)
            }
            (
                LockAct::Renew | LockAct::Release,
                LockAnswer::Renewed { .. } | LockAnswer::Status(LockStatus::Ok),
            ) => self.judge_holding(question, answer, now),
            (LockAct::Renew | LockAct::Release, LockAnswer::Status(LockStatus::Error)) => {
                self.judge_loss(question, answer, now)
            }
            (LockAct::OtherLimit, LockAnswer::Status(LockStatus::ErrorLimitMismatch)) => {
                Ok(Verdict::right(LockOpOutcome::Refused))
            }
            (LockAct::OtherLimit, _) => self.judge_loss(question, answer, now),
            (LockAct::ReleaseEnded | LockAct::RenewEnded, LockAnswer::Status(LockStatus::Error)) => {
                self.judge_end(question, now)
            }
            (LockAct::ReleaseEnded | LockAct::RenewEnded, _) => {
                Err(question.wrong("error, as it had been released or had expired", answer))
            }
            _ => Err(question.wrong("a lock or a reason that is one", answer)),
        }
    }

    /// Records that the server has read the request for this seat.
    pub(super) fn note_read(&mut self, key: usize, seat: u64) {
        let tick = self.tick;
        if let Some(place) = self.keys[key].contender(seat) {
            place.known.get_or_insert(tick);
        }
    }

    /// The lease of this hold has certainly expired.
    pub(super) fn expire(&mut self, key: usize, seat: u64, now: Time) {
        let key = &mut self.keys[key];
        key.make_room(self.shape.limit, now);
        if let Some(holder) = key.holder(seat) {
            holder.ended = true;
        }
    }

    /// When that is so.
    pub(super) fn lease_end(&mut self, key: usize, seat: u64) -> Option<Time> {
        self.keys[key].holder(seat).map(|holder| holder.ends.after_ms(MARGIN_MS))
    }

    /// A connection is closed, with its holds and waiters.
    pub(super) fn disconnected(&mut self, connection: u64, now: Time) {
        for key in &mut self.keys {
            key.disconnected(connection, now);
        }
    }

    /// Records that `question` will not be answered. A held lock counts as lost.
    pub(super) fn fail(&mut self, question: &PendingLockOp, now: Time) {
        let key = &mut self.keys[question.key];
        key.take_place(question.seat);
        key.take_holder(question.seat, self.shape.limit, now);
        key.unsettle(now);
    }

    fn judge_grant(
        &mut self,
        question: &PendingLockOp,
        grant: Grant,
        now: Time,
    ) -> Result<Verdict, Box<WrongAnswer>> {
        let Grant { token, lease_ms } = grant;
        let fence = token.fence();
        let (limit, tick) = (self.shape.limit, self.tick);
        let key = &mut self.keys[question.key];
        let Some(place) = key.take_place(question.seat) else {
            return Err(question.wrong_for("an end", "a lock"));
        };
        let wrong = |expected: String| Err(question.wrong_for(expected, format!("fence {fence}")));
        if lease_ms != question.lease_ms {
            let got = format!("fence {fence} for {lease_ms} ms");
            return Err(question.wrong_for(format!("a lease of {} ms", question.lease_ms), got));
        }
        if fence <= place.floor {
            return wrong(format!("a fence above {}, which had been granted before", place.floor));
        }
        if let Some((overtaker, _)) = place.overtaken.filter(|(overtaker, _)| *overtaker <= fence) {
            return wrong(format!("to be granted before fence {overtaker}, which was requested later"));
        }
        let mut holder = ContenderHold {
            seat: question.seat,
            connection: place.connection,
            token,
            asked: place.asked,
            until: question.asked.after_ms(lease_ms),
            ends: now.after_ms(lease_ms),
            releasing: false,
            ended: false,
            rivalries: Vec::new(),
        };
        if limit == 1 && fence <= key.fence && key.holders.is_empty() {
            // The other is released already, but was granted while this one was held.
            let confirmed = Cell::new(0);
            let rivalry = Overlap { fence: key.fence, is_over: true, tick, confirmed };
            holder.rivalries.push(Rc::new(rivalry));
        }
        key.note_grant(&place, fence, now);
        key.holders.push(holder);
        key.find_rivals(limit, tick, now);
        self.fence = self.fence.max(fence);
        Ok(Verdict::right(LockOpOutcome::Held(token)))
    }

    fn judge_timeout(&mut self, question: &PendingLockOp, now: Time) -> Result<Verdict, Box<WrongAnswer>> {
        let limit = self.shape.limit;
        let key = &mut self.keys[question.key];
        let Some(place) = key.take_place(question.seat) else {
            return Err(question.wrong_for("an end", "timeout"));
        };
        let wrong = |expected: String| question.wrong_for(expected, "timeout");
        if now.after_ms(MARGIN_MS) < place.stays_until {
            return Err(wrong(format!("it after no less than {} ms", question.may_block_ms())));
        }
        if let Some((fence, at)) = place.overtaken
            && at.after_ms(MARGIN_MS) < place.stays_until
        {
            return Err(wrong(format!("to be granted before fence {fence}, which was requested later")));
        }
        let is_spare = key.held() < limit as usize;
        let spare_ms = now.ms_since(key.spare_since.max(place.asked));
        let expected = if place.alone == Some(key.asked) {
            "to be granted, as no other client held or requested it".to_owned()
        } else if question.may_block_ms() > 0 && is_spare && spare_ms > SETTLE_MS {
            format!("to be granted, as it was free for {spare_ms} ms")
        } else {
            return Ok(Verdict::right(LockOpOutcome::TimedOut));
        };
        Ok(Verdict::unless_failed(LockOpOutcome::TimedOut, recovering(now), wrong(expected)))
    }

    fn judge_queued(&mut self, question: &PendingLockOp, now: Time) -> Verdict {
        let key = &mut self.keys[question.key];
        let asked = key.asked;
        let is_alone = key.contender(question.seat).is_some_and(|place| place.alone == Some(asked));
        self.note_read(question.key, question.seat);
        if is_alone {
            let wrong = question.wrong_for("acquired, as no other client held or requested it", "queued");
            return Verdict::unless_failed(LockOpOutcome::Queued, recovering(now), wrong);
        }
        Verdict::right(LockOpOutcome::Queued)
    }

    /// A granted waiter may have expired, and one may be lost with a link.
    fn judge_lost_place(
        &mut self,
        question: &PendingLockOp,
        status: LockStatus,
        answer: LockAnswer<'_>,
        now: Time,
    ) -> Result<Verdict, Box<WrongAnswer>> {
        let Some(place) = self.keys[question.key].take_place(question.seat) else {
            return Err(question.wrong("an end", answer));
        };
        let wrong = question.wrong("the lock that was queued for, or timeout", answer);
        match status {
            LockStatus::ErrorLeaseExpired
                if now.after_ms(MARGIN_MS) >= place.asked.after_ms(question.lease_ms) =>
            {
                Ok(Verdict::right(LockOpOutcome::TimedOut))
            }
            LockStatus::ErrorNotEnqueued => {
                Ok(Verdict::unless_failed(LockOpOutcome::Lost, place.asked, wrong))
            }
            _ => Err(wrong),
        }
    }

    fn judge_holding(
        &mut self,
        question: &PendingLockOp,
        answer: LockAnswer<'_>,
        now: Time,
    ) -> Result<Verdict, Box<WrongAnswer>> {
        let limit = self.shape.limit;
        let key = &mut self.keys[question.key];
        let Some(holder) = key.holder(question.seat) else {
            return Err(question.wrong("an end", answer));
        };
        if let Some(rival) = holder.confirm(question.tick, limit) {
            return Err(holder.rivaled(question, &rival, "it was valid still"));
        }
        match (question.act, answer) {
            (LockAct::Renew, LockAnswer::Renewed { lease_ms }) if lease_ms == question.lease_ms => {
                holder.until = holder.until.max(question.asked.after_ms(lease_ms));
                holder.ends = now.after_ms(lease_ms);
            }
            (LockAct::Release, LockAnswer::Status(_)) => {
                key.take_holder(question.seat, limit, now);
            }
            _ => {
                return Err(question.wrong(format!("ok for {} ms", question.lease_ms), answer));
            }
        }
        Ok(Verdict::right(LockOpOutcome::Done))
    }

    /// The model has a hold that the server denies.
    fn judge_loss(
        &mut self,
        question: &PendingLockOp,
        answer: LockAnswer<'_>,
        now: Time,
    ) -> Result<Verdict, Box<WrongAnswer>> {
        let key = &mut self.keys[question.key];
        let Some(holder) = key.take_holder(question.seat, self.shape.limit, now) else {
            return Err(question.wrong("an end", answer));
        };
        key.unsettle(now);
        let expected = match question.act {
            LockAct::OtherLimit => "error_limit_mismatch, as it is held with another",
            _ => "ok, as it was held",
        };
        if now.after_ms(MARGIN_MS) >= holder.until {
            // It took so long that the lease may have ended.
            return Ok(Verdict::right(LockOpOutcome::Lost));
        }
        Ok(Verdict::unless_failed(LockOpOutcome::Lost, holder.asked, question.wrong(expected, answer)))
    }

    /// A released or expired lock is refused. If it expired, it was held before.
    fn judge_end(&mut self, question: &PendingLockOp, now: Time) -> Result<Verdict, Box<WrongAnswer>> {
        let limit = self.shape.limit;
        let holder = self.keys[question.key].take_holder(question.seat, limit, now);
        let Some((mut holder, rival)) = holder.and_then(|mut holder| {
            let rival = holder.confirm(question.tick, limit)?;
            Some((holder, rival))
        }) else {
            return Ok(Verdict::right(LockOpOutcome::Refused));
        };
        holder.rivalries.clear();
        let wrong = holder.rivaled(question, &rival, "its lease had not ended");
        Ok(Verdict::unless_failed(LockOpOutcome::Refused, holder.asked, wrong))
    }
}

impl ContenderHold {
    fn rivaled(&self, question: &PendingLockOp, rivalry: &Overlap, why: &str) -> Box<WrongAnswer> {
        let (own, rival, limit) = (self.token.fence(), rivalry.fence, question.limit);
        if rivalry.is_over {
            let expected = format!("a fence above {rival}, which the key had been granted with before");
            return question.wrong_for(expected, format!("fence {own}, and {why}"));
        }
        let expected = format!("no more than {limit} at a time to hold it with fence {own}");
        question.wrong_for(expected, format!("fence {rival} too while {why}"))
    }
}

/// A failure since then may explain a lock that seems to have no holder.
const fn recovering(now: Time) -> Time {
    Time::from_ms(now.as_ms().saturating_sub(RECOVERY_MS))
}
