//! What a server does with a request about a lock: the table's outcomes made into answers.

use crate::id::{Grant, Owner};
use crate::service::stats;
use crate::service::{RequestCounters, Service};
use crate::table::{Completion, LockOutcome, OwnerKey, ReplyTo, WaiterId};
use crate::time::Time;
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};

/// Who asks, and where a late answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// Who will hold what is granted.
    pub owner: Owner,
    /// The request, if it blocks.
    pub reply: ReplyTo,
}

/// What a request about a lock comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// This answer.
    Answer(LockAnswer<'static>),
    /// It waits; the answer will be an [`Completion`] with this ticket.
    Blocked(WaiterId),
    /// The state of the table, as JSON.
    Stats(Vec<u8>),
}

impl Service {
    /// Answers a request about a lock. What it causes for others is appended to `effects`.
    ///
    /// CANCEL is the connection's own affair, which knows the tickets: it is answered `error` here.
    pub fn lock(
        &self,
        now: Time,
        action: &LockAction<'_>,
        asker: Requester,
        effects: &mut Vec<Completion>,
        tally: &mut RequestCounters,
    ) -> LockReply {
        let locks = self.locks();
        let who = |key| OwnerKey { owner: asker.owner, key };
        let reply = match *action {
            _ if action.may_grant() && self.is_shutting_down() => word(LockStatus::ErrorDisconnected),
            LockAction::Acquire { key, limit, timeout_ms, lease_ms } => reply(
                locks.acquire(now, who(key), limit, lease_ms, timeout_ms, asker.reply, effects),
                LockStatus::Ok,
            ),
            LockAction::Enqueue { key, limit, lease_ms } => {
                reply(locks.enqueue(now, who(key), limit, lease_ms, effects), LockStatus::Acquired)
            }
            LockAction::Wait { key, timeout_ms } => {
                reply(locks.wait(now, who(key), timeout_ms, asker.reply, effects), LockStatus::Ok)
            }
            LockAction::Release { key, token } => {
                let released = locks.release(now, key, token, effects);
                word(if released { LockStatus::Ok } else { LockStatus::Error })
            }
            LockAction::Renew { key, token, lease_ms } => {
                match locks.renew(now, key, token, lease_ms, effects) {
                    Some(lease_ms) => LockReply::Answer(LockAnswer::Renewed { lease_ms }),
                    None => word(LockStatus::Error),
                }
            }
            LockAction::Cancel { .. } => word(LockStatus::Error),
            LockAction::Stats => LockReply::Stats(stats::json(&locks.stats(now), self.connections())),
        };
        // That it was not to be had says that somebody holds it, and here nobody may.
        let reply = if reply == word(LockStatus::Timeout) && self.is_shutting_down() {
            word(LockStatus::ErrorDisconnected)
        } else {
            reply
        };
        tally.count_lock(action.operation(), reply.has_succeeded());
        reply
    }
}

impl LockReply {
    fn has_succeeded(&self) -> bool {
        match self {
            Self::Answer(LockAnswer::Status(status)) => {
                matches!(status, LockStatus::Ok | LockStatus::Acquired | LockStatus::Queued)
            }
            _ => true,
        }
    }
}

/// The answer to a blocked request.
#[must_use]
pub fn late_answer(outcome: LockOutcome) -> LockAnswer<'static> {
    answer(outcome, LockStatus::Ok)
}

fn reply(outcome: LockOutcome, granted: LockStatus) -> LockReply {
    match outcome {
        LockOutcome::Waiting(ticket) => LockReply::Blocked(ticket),
        outcome => LockReply::Answer(answer(outcome, granted)),
    }
}

fn word(status: LockStatus) -> LockReply {
    LockReply::Answer(LockAnswer::Status(status))
}

fn answer(outcome: LockOutcome, granted: LockStatus) -> LockAnswer<'static> {
    LockAnswer::Status(match outcome {
        LockOutcome::Granted(grant) => return held(granted, grant),
        LockOutcome::Queued => LockStatus::Queued,
        LockOutcome::Timeout => LockStatus::Timeout,
        LockOutcome::MaxLocks => LockStatus::ErrorMaxLocks,
        LockOutcome::MaxWaiters => LockStatus::ErrorMaxWaiters,
        LockOutcome::LimitMismatch => LockStatus::ErrorLimitMismatch,
        LockOutcome::AlreadyEnqueued => LockStatus::ErrorAlreadyEnqueued,
        LockOutcome::NotEnqueued => LockStatus::ErrorNotEnqueued,
        LockOutcome::LeaseExpired => LockStatus::ErrorLeaseExpired,
        LockOutcome::Waiting(_) => LockStatus::Error,
    })
}

const fn held(status: LockStatus, grant: Grant) -> LockAnswer<'static> {
    LockAnswer::Grant { status, grant }
}
