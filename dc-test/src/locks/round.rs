//! A round: one locker and one lock, from request to release. Most rounds are plain. Some send invalid
//! requests, let the lease expire, hold the lock beyond the first lease, or disconnect without a release.

use super::key::MARGIN_MS;
use super::question::LockAct;
use super::workload::LockWorkload;
use fastrand::Rng;
use std::collections::VecDeque;
use std::time::Duration;

/// The lease of a lock that is left to expire: longer than any margin, and no longer than needed.
const EXPIRING_LEASE_MS: u64 = 250;
/// Lease of a lock that is extended by a renewal: long enough for a busy machine.
const RENEWED_LEASE_MS: u64 = 750;
/// When it is renewed, after it was had.
const RENEWED_AFTER_MS: u64 = RENEWED_LEASE_MS / 2;
/// When it is released: the first lease has certainly ended, and the second is far from it.
const RENEWED_UNTIL_MS: u64 = RENEWED_LEASE_MS + MARGIN_MS;
const _: () = assert!(RENEWED_UNTIL_MS + 2 * MARGIN_MS <= RENEWED_AFTER_MS + RENEWED_LEASE_MS);
/// A locker that disconnects without a release does so within this time.
const LEAVE_WITHIN_MS: u64 = 4;
/// One in so many rounds ends without a word, where connections are kept.
const LEAVERS: usize = 200;
/// And where each round has its own.
const LEAVERS_OF_ONE: usize = 8;

/// The remaining steps of a round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) key: usize,
    pub(super) steps: VecDeque<RoundStep>,
    pub(super) lease_ms: u64,
    /// Disconnects after this time, even with answers pending.
    pub(super) leaves_after: Option<Duration>,
}

/// One step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoundStep {
    Ask(LockAct),
    Hold,
    /// Hold it until so many milliseconds after it was had.
    HoldUntil(u64),
    /// Hold it until its lease has ended.
    Outlive,
    /// The lease has ended.
    Expire,
    /// Idle until it leaves.
    Rest,
    Leave,
}

/// How a round treats a short lease until it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lapse {
    Expires,
    /// It is renewed in time, and so the lock is held still.
    IsRenewed,
}

/// The choices available to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllowedActs {
    /// The key has no place of this connection that was queued for.
    pub(super) may_queue: bool,
    /// A short lease is to end.
    pub(super) lapse: Option<Lapse>,
    /// The connection is kept.
    pub(super) persistent: bool,
    /// Lockers of the connection.
    pub(super) pipeline: usize,
}

impl Round {
    /// A round about `key`.
    pub(super) fn draw(rng: &mut Rng, shape: &LockWorkload, key: usize, freedom: AllowedActs) -> Self {
        let AllowedActs { may_queue, lapse, persistent, pipeline } = freedom;
        let leavers = if persistent { LEAVERS.saturating_mul(pipeline) } else { LEAVERS_OF_ONE };
        let leaves_after = (rng.usize(..leavers) == 0 && lapse.is_none())
            .then(|| Duration::from_millis(rng.u64(..=LEAVE_WITHIN_MS)));
        let wait = RoundStep::Ask(LockAct::Wait { timeout_ms: shape.wait_ms });
        let mut steps = VecDeque::new();
        match rng.u8(..10) {
            0 => steps.push_back(RoundStep::Ask(LockAct::Acquire { timeout_ms: 0 })),
            1 | 2 if may_queue && lapse.is_none() => steps.extend([RoundStep::Ask(LockAct::Enqueue), wait]),
            _ => steps.push_back(RoundStep::Ask(LockAct::Acquire { timeout_ms: shape.wait_ms })),
        }
        let ended = RoundStep::Ask(if rng.bool() { LockAct::ReleaseEnded } else { LockAct::RenewEnded });
        if leaves_after.is_some() {
            steps.push_back(RoundStep::Rest);
        } else if lapse == Some(Lapse::IsRenewed) {
            steps.extend([RoundStep::HoldUntil(RENEWED_AFTER_MS), RoundStep::Ask(LockAct::Renew)]);
            steps.extend([RoundStep::HoldUntil(RENEWED_UNTIL_MS), RoundStep::Ask(LockAct::Release)]);
        } else if lapse == Some(Lapse::Expires) {
            steps.extend([RoundStep::Outlive, ended]);
        } else {
            let one_in = |rng: &mut Rng, rounds: u8| rng.u8(..rounds) == 0;
            steps.extend(one_in(rng, 50).then_some(RoundStep::Ask(LockAct::OtherLimit)));
            steps.extend(one_in(rng, 6).then_some(RoundStep::Ask(LockAct::Renew)));
            steps.extend([RoundStep::Hold, RoundStep::Ask(LockAct::Release)]);
            steps.extend(one_in(rng, 20).then_some(ended));
        }
        if !persistent {
            steps.push_back(RoundStep::Leave);
        }
        let lease_ms = match lapse {
            Some(Lapse::Expires) => EXPIRING_LEASE_MS,
            Some(Lapse::IsRenewed) => RENEWED_LEASE_MS,
            None => shape.lease_ms,
        };
        Self { key, steps, lease_ms, leaves_after }
    }

    /// Whether it queues for its lock.
    pub(super) fn queues(&self) -> bool {
        self.steps.contains(&RoundStep::Ask(LockAct::Enqueue))
    }

    /// The lock was granted at once: skips the wait.
    pub(super) fn skip_wait(&mut self) {
        if matches!(self.steps.front(), Some(RoundStep::Ask(LockAct::Wait { .. }))) {
            self.steps.pop_front();
        }
    }

    /// The lock was not had, or is lost.
    pub(super) fn finish(&mut self) {
        self.steps.retain(|step| *step == RoundStep::Leave);
        self.leaves_after = None;
    }
}
