//! Lock requests: the conversion of the table's outcomes to answers.

use crate::id::{Grant, Owner};
use crate::service::stats;
use crate::service::{RequestCounters, Service};
use crate::table::{Completion, LockOutcome, OwnerKey, ReplyTo, WaiterId};
use crate::time::Time;
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};

/// The sender of a request, and the destination of a late answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The owner of a granted lock.
    pub owner: Owner,
    /// Identifies the request if it blocks.
    pub reply: ReplyTo,
}

/// The immediate result of a lock request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// The request is answered at once.
    Answer(LockAnswer<'static>),
    /// The request is blocked; a [`Completion`] with this id will answer it.
    Blocked(WaiterId),
    /// The state of the table, as JSON.
    Stats(Vec<u8>),
}

impl Service {
    /// Handles a lock request. Its effects on other connections are appended to `effects`.
    ///
    /// CANCEL is answered `error` here: the connection handles it, since it keeps the ids of its blocked
    /// requests.
    pub fn lock(
        &self,
        now: Time,
        action: &LockAction<'_>,
        requester: Requester,
        effects: &mut Vec<Completion>,
        counters: &mut RequestCounters,
    ) -> LockReply {
        let locks = self.locks();
        let owner_key = |key| OwnerKey { owner: requester.owner, key };
        let reply = match *action {
            _ if action.may_grant() && self.is_shutting_down() => status_reply(LockStatus::ErrorDisconnected),
            LockAction::Acquire { key, limit, timeout_ms, lease_ms } => reply(
                locks.acquire(now, owner_key(key), limit, lease_ms, timeout_ms, requester.reply, effects),
                LockStatus::Ok,
            ),
            LockAction::Enqueue { key, limit, lease_ms } => {
                reply(locks.enqueue(now, owner_key(key), limit, lease_ms, effects), LockStatus::Acquired)
            }
            LockAction::Wait { key, timeout_ms } => {
                reply(locks.wait(now, owner_key(key), timeout_ms, requester.reply, effects), LockStatus::Ok)
            }
            LockAction::Release { key, token } => {
                let released = locks.release(now, key, token, effects);
                status_reply(if released { LockStatus::Ok } else { LockStatus::Error })
            }
            LockAction::Renew { key, token, lease_ms } => {
                match locks.renew(now, key, token, lease_ms, effects) {
                    Some(lease_ms) => LockReply::Answer(LockAnswer::Renewed { lease_ms }),
                    None => status_reply(LockStatus::Error),
                }
            }
            LockAction::Cancel { .. } => status_reply(LockStatus::Error),
            LockAction::Stats => LockReply::Stats(stats::json(&locks.stats(now), self.connections())),
        };
        // A timeout would mean that another owner holds the lock, which no longer applies during the
        // shutdown.
        let reply = if reply == status_reply(LockStatus::Timeout) && self.is_shutting_down() {
            status_reply(LockStatus::ErrorDisconnected)
        } else {
            reply
        };
        counters.count_lock(action.operation(), reply.has_succeeded());
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

fn status_reply(status: LockStatus) -> LockReply {
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
