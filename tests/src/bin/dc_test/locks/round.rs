//! A round: what one locker does with one lock, from asking to giving back. Most are plain; some do what must be refused,
//! let the lease pass, or are gone without a word.

use super::model::Shape;
use super::question::Act;
use fastrand::Rng;
use std::collections::VecDeque;
use std::time::Duration;

/// The lease of a lock that is left to expire: longer than any margin, and no longer than needed.
const EXPIRING_LEASE_MS: u64 = 250;
/// A locker that goes without a word does so within this time.
const LEAVE_WITHIN_MS: u64 = 4;
/// One in so many rounds ends without a word, where connections are kept.
const LEAVERS: usize = 200;
/// And where each round has its own.
const LEAVERS_OF_ONE: usize = 8;

/// What is left of a round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) key: usize,
    pub(super) steps: VecDeque<Step>,
    pub(super) lease_ms: u64,
    /// Gone after this, whatever has been answered.
    pub(super) leaves_after: Option<Duration>,
}

/// One step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ask(Act),
    /// Hold the lock.
    Hold,
    /// Hold it until its lease has ended.
    Outlive,
    /// The lease has ended.
    Expire,
    /// Do nothing, until it leaves.
    Rest,
    /// Close the connection.
    Leave,
}

/// What a client is free to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freedom {
    /// The key has no place of this connection that was queued for.
    pub(super) may_queue: bool,
    /// A lock may be left to expire.
    pub(super) may_expire: bool,
    /// The connection is kept.
    pub(super) persistent: bool,
    /// Lockers of the connection.
    pub(super) pipeline: usize,
}

impl Round {
    /// A round about `key`.
    pub(super) fn draw(rng: &mut Rng, shape: &Shape, key: usize, freedom: Freedom) -> Self {
        let Freedom { may_queue, may_expire, persistent, pipeline } = freedom;
        let leavers = if persistent { LEAVERS.saturating_mul(pipeline) } else { LEAVERS_OF_ONE };
        let leaves_after = (rng.usize(..leavers) == 0 && !may_expire)
            .then(|| Duration::from_millis(rng.u64(..=LEAVE_WITHIN_MS)));
        let wait = Step::Ask(Act::Wait { timeout_ms: shape.wait_ms });
        let mut steps = VecDeque::new();
        match rng.u8(..10) {
            0 => steps.push_back(Step::Ask(Act::Acquire { timeout_ms: 0 })),
            1 | 2 if may_queue && !may_expire => steps.extend([Step::Ask(Act::Enqueue), wait]),
            _ => steps.push_back(Step::Ask(Act::Acquire { timeout_ms: shape.wait_ms })),
        }
        let ended = Step::Ask(if rng.bool() { Act::ReleaseEnded } else { Act::RenewEnded });
        if leaves_after.is_some() {
            steps.push_back(Step::Rest);
        } else if may_expire {
            steps.extend([Step::Outlive, ended]);
        } else {
            let one_in = |rng: &mut Rng, rounds: u8| rng.u8(..rounds) == 0;
            steps.extend(one_in(rng, 50).then_some(Step::Ask(Act::OtherLimit)));
            steps.extend(one_in(rng, 6).then_some(Step::Ask(Act::Renew)));
            steps.extend([Step::Hold, Step::Ask(Act::Release)]);
            steps.extend(one_in(rng, 20).then_some(ended));
        }
        if !persistent {
            steps.push_back(Step::Leave);
        }
        let lease_ms = if may_expire { EXPIRING_LEASE_MS } else { shape.lease_ms };
        Self { key, steps, lease_ms, leaves_after }
    }

    /// Whether it queues for its lock.
    pub(super) fn queues(&self) -> bool {
        self.steps.contains(&Step::Ask(Act::Enqueue))
    }

    /// The lock was had: there is no need to wait for it.
    pub(super) fn skip_wait(&mut self) {
        if matches!(self.steps.front(), Some(Step::Ask(Act::Wait { .. }))) {
            self.steps.pop_front();
        }
    }

    /// The lock was not had, or is lost.
    pub(super) fn end(&mut self) {
        self.steps.retain(|step| *step == Step::Leave);
        self.leaves_after = None;
    }
}
