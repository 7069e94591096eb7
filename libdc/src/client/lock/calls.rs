//! The calls of a client that have not been answered.
//!
//! ```text
//!            ┌──────────── agent disconnected ──────────────┐
//!            ▼                                              │
//!   ask ─▶ Waiting ───────────── link up ────────────▶ Sent ┴── granted long after it was sent ──▶ Confirming
//!            ▲                                           │ │                                            │
//!            └──────── link lost, the call retries ──────┘ └──────────────▶ answered ◀──────────────────┘
//! ```
//!
//! At most [`BLOCKED_MAX`] blocking calls are sent at a time; the others wait here. So the connection always
//! has capacity for renewals and releases. Nothing here panics.

use crate::client::lock::lease::LeaseId;
use crate::id::{OwnedLockKey, Token};
use crate::limits::{LOCAL_IN_FLIGHT_MAX, LOCK_MS_MAX};
use crate::time::Time;
use crate::wire::lock::LockAction;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of calls blocked at the server. An agent stops reading a connection that has
/// [`LOCAL_IN_FLIGHT_MAX`] requests in flight.
pub(super) const BLOCKED_MAX: usize = LOCAL_IN_FLIGHT_MAX / 2;

/// Names a call of a client, in the order of the calls. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallId(u64);

#[derive(Clone, Debug)]
pub(super) enum LockCall {
    /// Acquires a lock. If `patient`, the call is sent again when the connection is lost.
    Acquire { key: OwnedLockKey, limit: u32, lease_ms: u64, until: WaitLimit, patient: bool },
    /// Takes a position in a queue.
    Enqueue { key: OwnedLockKey, limit: u32, lease_ms: u64 },
    /// Waits for the lock of a queue. The position was taken over the connection with this number.
    Wait { key: OwnedLockKey, until: WaitLimit, connection: u64 },
    /// Releases the lock that has this token.
    Release { key: OwnedLockKey, token: Token },
    /// Renews a lease for its previous duration.
    Renew { hold: LeaseId },
    /// Asks for the state of the server.
    Stats,
    /// Waits until the link is up; nothing is sent.
    Ready,
}

/// The wait timeout of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitLimit {
    Now,
    Time(Time),
    Forever,
}

impl WaitLimit {
    const fn timeout_ms(self, now: Time) -> u64 {
        match self {
            Self::Now => 0,
            Self::Time(end) => end.ms_since(now),
            Self::Forever => LOCK_MS_MAX,
        }
    }
}

/// The stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStage {
    /// To be sent; not before this time.
    Waiting(Option<Time>),
    /// Sent at this time, with this uid.
    Sent { uid: u32, at: Time },
    /// Granted, and being renewed since this time, because the grant may be old.
    Confirming { hold: LeaseId, uid: u32, at: Time },
}

/// A call that has not been answered.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) ask: LockCall,
    pub(super) stage: CallStage,
    made_at: Time,
    /// Whether the application waits for the answer.
    pub(super) is_heard: bool,
    due: Option<Time>,
}

impl PendingCall {
    /// Whether the call is sent again when the connection is lost.
    pub(super) const fn retries(&self) -> bool {
        matches!(self.ask, LockCall::Acquire { patient: true, .. })
    }

    /// Whether the server may answer late.
    pub(super) const fn may_block(&self) -> bool {
        matches!(
            self.ask,
            LockCall::Acquire { until: WaitLimit::Time(_) | WaitLimit::Forever, .. }
                | LockCall::Wait { until: WaitLimit::Time(_) | WaitLimit::Forever, .. }
        )
    }

    /// The request to send; `None` for a renewal, whose token is in its lease, and for [`LockCall::Ready`].
    pub(super) fn action(&self, now: Time) -> Option<LockAction<'_>> {
        Some(match &self.ask {
            LockCall::Acquire { key, limit, lease_ms, until, .. } => LockAction::Acquire {
                key: key.as_key(),
                limit: *limit,
                timeout_ms: until.timeout_ms(now),
                lease_ms: *lease_ms,
            },
            LockCall::Enqueue { key, limit, lease_ms } => {
                LockAction::Enqueue { key: key.as_key(), limit: *limit, lease_ms: *lease_ms }
            }
            LockCall::Wait { key, until, .. } => {
                LockAction::Wait { key: key.as_key(), timeout_ms: until.timeout_ms(now) }
            }
            LockCall::Release { key, token } => LockAction::Release { key: key.as_key(), token: *token },
            LockCall::Renew { .. } | LockCall::Ready => return None,
            LockCall::Stats => LockAction::Stats,
        })
    }

    /// When the call must be sent, or must fail.
    fn due(&self, timeout_ms: u64) -> Option<Time> {
        let until = match self.ask {
            LockCall::Acquire { until, .. } | LockCall::Wait { until, .. } => until,
            _ => WaitLimit::Now,
        };
        match (self.stage, until) {
            (CallStage::Sent { .. } | CallStage::Confirming { .. }, _) if !self.is_heard => None,
            // A lock without a guard is released as soon as possible.
            (CallStage::Waiting(later), _) if !self.is_heard => later,
            (CallStage::Confirming { at, .. }, _) => Some(at.after_ms(timeout_ms)),
            (CallStage::Waiting(None), WaitLimit::Time(end)) => Some(end),
            (CallStage::Waiting(Some(later)), WaitLimit::Time(end)) => Some(end.min(later)),
            (CallStage::Waiting(later), WaitLimit::Forever) => later,
            (CallStage::Waiting(Some(later)), WaitLimit::Now) => {
                Some(later.min(self.made_at.after_ms(timeout_ms)))
            }
            (_, WaitLimit::Now) => Some(self.made_at.after_ms(timeout_ms)),
            // The server counts the wait timeout; its answer has the call timeout on top.
            (CallStage::Sent { .. }, WaitLimit::Time(end)) => Some(end.after_ms(timeout_ms)),
            (CallStage::Sent { .. }, WaitLimit::Forever) => None,
        }
    }
}

/// All calls of a client that have not been answered.
#[derive(Debug, Default)]
pub(super) struct CallTable {
    timeout_ms: u64,
    all: BTreeMap<CallId, PendingCall>,
    agenda: BTreeSet<(Time, CallId)>,
    prompt: BTreeSet<CallId>,
    blocking: BTreeSet<CallId>,
    blocked: usize,
    count: u64,
}

impl CallTable {
    /// An empty table. A call that does not block fails after `timeout_ms`.
    pub(super) fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, ..Self::default() }
    }

    /// Adds a call to be sent.
    pub(super) fn insert(&mut self, now: Time, ask: LockCall, is_heard: bool) -> CallId {
        self.count += 1;
        let id = CallId(self.count);
        let request = PendingCall { ask, stage: CallStage::Waiting(None), made_at: now, is_heard, due: None };
        self.all.insert(id, request);
        self.update(id, |_| {});
        id
    }

    pub(super) fn get(&self, id: CallId) -> Option<&PendingCall> {
        self.all.get(&id)
    }

    /// The call is answered, or abandoned.
    pub(super) fn remove(&mut self, id: CallId) -> Option<PendingCall> {
        self.unfile(id);
        self.all.remove(&id)
    }

    /// The call has reached another stage.
    pub(super) fn set_stage(&mut self, id: CallId, stage: CallStage) {
        self.update(id, |request| request.stage = stage);
    }

    /// The application no longer waits for the answer.
    pub(super) fn abandon(&mut self, id: CallId) {
        self.update(id, |request| request.is_heard = false);
    }

    /// The next call to send over a link that is up.
    pub(super) fn next_to_send(&self) -> Option<CallId> {
        let blocking = self.blocking.first().filter(|_| self.blocked < BLOCKED_MAX);
        self.prompt.first().or(blocking).copied()
    }

    /// Whether a call needs a connection, and whether such a call must fail rather than wait for one.
    pub(super) fn wanted(&self) -> (bool, bool) {
        let is_hasty = |id: &CallId| self.all.get(id).is_some_and(|request| !request.retries());
        let hasty = self.prompt.iter().chain(&self.blocking).any(is_hasty);
        (!self.prompt.is_empty() || !self.blocking.is_empty(), hasty)
    }

    /// All calls, in the order in which they were made.
    pub(super) fn ids(&self) -> Vec<CallId> {
        self.all.keys().copied().collect()
    }

    /// When [`next_due`](Self::next_due) will have something.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// A call that is due to be sent, or whose deadline has passed.
    pub(super) fn next_due(&self, now: Time) -> Option<CallId> {
        self.agenda.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }

    fn update(&mut self, id: CallId, change: impl FnOnce(&mut PendingCall)) {
        self.unfile(id);
        let Some(request) = self.all.get_mut(&id) else { return };
        change(request);
        request.due = request.due(self.timeout_ms);
        self.agenda.extend(request.due.map(|due| (due, id)));
        match (request.stage, request.may_block()) {
            (CallStage::Waiting(None), true) => drop(self.blocking.insert(id)),
            (CallStage::Waiting(None), false) => drop(self.prompt.insert(id)),
            (CallStage::Sent { .. }, true) => self.blocked += 1,
            _ => {}
        }
    }

    /// Removes the call from all lists.
    fn unfile(&mut self, id: CallId) {
        let Some(request) = self.all.get(&id) else { return };
        if let Some(due) = request.due {
            self.agenda.remove(&(due, id));
        }
        if matches!(request.stage, CallStage::Sent { .. }) && request.may_block() {
            self.blocked -= 1;
        }
        self.prompt.remove(&id);
        self.blocking.remove(&id);
    }
}
