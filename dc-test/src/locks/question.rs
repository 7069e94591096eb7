//! Requests about locks, and the meaning of plausible answers.

use crate::counters::CounterTable;
use crate::wrong_answer::WrongAnswer;
use libdc::id::{LockKey, Token};
use libdc::time::Time;
use libdc::wire::frame::Operation;
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest};

/// How a run on locks is counted: by [`PendingLockOp::row`] and [`LockOpOutcome::column`].
pub(crate) const SHEET: CounterTable = CounterTable {
    unit: "rounds",
    rows: &["free", "busy", "try", "enqueue", "wait", "renew", "release", "misuse", "connect"],
    columns: &[
        ("ok", "ok"),
        ("timeout", "timeout"),
        ("queued", "queued"),
        ("refused", "refused"),
        ("lost", "lost"),
    ],
    always: 4,
    total: false,
};
/// The counter row of connecting, which is not a request.
pub(super) const CONNECT: usize = 8;
/// The row of releases.
pub(crate) const RELEASE: usize = 6;

/// An operation with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockAct {
    /// Ask for the lock and wait for it; 0 is a try.
    Acquire {
        timeout_ms: u64,
    },
    /// Ask for a place in the queue.
    Enqueue,
    /// Wait for the place to be a lock.
    Wait {
        timeout_ms: u64,
    },
    /// Ask for a lock that is held with another limit than it has: refused.
    OtherLimit,
    /// Ask to hold it for longer.
    Renew,
    Release,
    /// Release a lock that was released or has expired: refused.
    ReleaseEnded,
    /// Renew a lock that was released or has expired: refused.
    RenewEnded,
}

/// An operation in flight.
#[derive(Clone, Debug)]
pub(super) struct PendingLockOp {
    pub(super) key: usize,
    pub(super) name: String,
    pub(super) act: LockAct,
    /// The requester: the number of its seat, and of the lock that it becomes.
    pub(super) seat: u64,
    /// Its place in the order of all that was asked and answered.
    pub(super) tick: u64,
    pub(super) asked: Time,
    pub(super) limit: u32,
    pub(super) lease_ms: u64,
    pub(super) token: Option<Token>,
    /// Whether the lock was certainly available without waiting.
    pub(super) free: bool,
}

/// The meaning of a plausible answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockOpOutcome {
    /// It is held now, with this token.
    Held(Token),
    /// There is a place in the queue.
    Queued,
    /// It was not had in time.
    TimedOut,
    /// It is renewed or released.
    Done,
    /// It was refused, as it should be.
    Refused,
    /// The hold or queue position is lost.
    Lost,
}

/// An outcome, and whether it is right in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: LockOpOutcome,
    pub(super) doubt: Option<Uncertainty>,
}

/// An answer is wrong unless something failed since then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uncertainty {
    pub(super) since: Time,
    pub(super) wrong: Box<WrongAnswer>,
}

impl PendingLockOp {
    /// The request that asks this.
    pub(super) fn write(&self, uid: u32, out: &mut Vec<u8>) {
        let Some(key) = LockKey::new(&self.name) else { unreachable!("{} is no key", self.name) };
        let Self { limit, lease_ms, .. } = *self;
        let token = self.token.unwrap_or(Token::new(0, 0));
        let action = match self.act {
            LockAct::Acquire { timeout_ms } => LockAction::Acquire { key, limit, timeout_ms, lease_ms },
            LockAct::OtherLimit => LockAction::Acquire { key, limit, timeout_ms: 0, lease_ms },
            LockAct::Enqueue => LockAction::Enqueue { key, limit, lease_ms },
            LockAct::Wait { timeout_ms } => LockAction::Wait { key, timeout_ms },
            LockAct::Renew | LockAct::RenewEnded => LockAction::Renew { key, token, lease_ms },
            LockAct::Release | LockAct::ReleaseEnded => LockAction::Release { key, token },
        };
        LockRequest { owner: 0, action }.write(uid, out);
    }

    /// Its operation on the wire.
    pub(super) const fn operation(&self) -> libdc::wire::frame::LockOperation {
        use libdc::wire::frame::LockOperation::{Acquire, Enqueue, Release, Renew, Wait};
        match self.act {
            LockAct::Acquire { .. } | LockAct::OtherLimit => Acquire,
            LockAct::Enqueue => Enqueue,
            LockAct::Wait { .. } => Wait,
            LockAct::Renew | LockAct::RenewEnded => Renew,
            LockAct::Release | LockAct::ReleaseEnded => Release,
        }
    }

    /// Time that the server may block before it answers, in addition to its latency.
    pub(super) const fn may_block_ms(&self) -> u64 {
        match self.act {
            LockAct::Acquire { timeout_ms } | LockAct::Wait { timeout_ms } => timeout_ms,
            _ => 0,
        }
    }

    /// Its row of the [`SHEET`].
    pub(super) const fn row(&self) -> usize {
        match self.act {
            LockAct::Acquire { timeout_ms: 0 } => 2,
            LockAct::Acquire { .. } if self.free => 0,
            LockAct::Acquire { .. } => 1,
            LockAct::Enqueue => 3,
            LockAct::Wait { .. } => 4,
            LockAct::Renew => 5,
            LockAct::Release => 6,
            LockAct::OtherLimit | LockAct::ReleaseEnded | LockAct::RenewEnded => 7,
        }
    }

    /// The error that `answer` arrived and not `expected`.
    pub(super) fn wrong(&self, expected: impl Into<String>, answer: LockAnswer<'_>) -> Box<WrongAnswer> {
        let got = match answer {
            LockAnswer::Grant { grant, .. } => {
                format!("fence {} for {} ms", grant.token.fence(), grant.lease_ms)
            }
            LockAnswer::Renewed { lease_ms } => format!("ok for {lease_ms} ms"),
            other => other.status().name().to_owned(),
        };
        self.wrong_for(expected, got)
    }

    /// The same, where it is not the answer alone that is wrong.
    pub(super) fn wrong_for(&self, expected: impl Into<String>, got: impl Into<String>) -> Box<WrongAnswer> {
        let mut asked = format!("{} of {}", Operation::Lock(self.operation()).name(), self.name);
        match self.act {
            LockAct::Acquire { timeout_ms } | LockAct::Wait { timeout_ms } => {
                asked += &format!(" within {timeout_ms} ms");
            }
            LockAct::OtherLimit => asked += &format!(" with limit {}", self.limit),
            _ => {}
        }
        if let Some(token) = self.token {
            asked += &format!(" with fence {}", token.fence());
        }
        WrongAnswer::new(asked, expected.into(), got.into())
    }
}

impl LockOpOutcome {
    /// Its column of the [`SHEET`].
    pub(super) const fn column(self) -> usize {
        match self {
            Self::Held(_) | Self::Done => 0,
            Self::TimedOut => 1,
            Self::Queued => 2,
            Self::Refused => 3,
            Self::Lost => 4,
        }
    }
}

impl Verdict {
    pub(super) const fn right(outcome: LockOpOutcome) -> Self {
        Self { outcome, doubt: None }
    }

    pub(super) const fn unless_failed(outcome: LockOpOutcome, since: Time, wrong: Box<WrongAnswer>) -> Self {
        Self { outcome, doubt: Some(Uncertainty { since, wrong }) }
    }
}
