//! The requests that a client has made and that have not been answered.
//!
//! ```text
//!            ┌────────── the agent has no server ───────────┐
//!            ▼                                              │
//!  ask ─▶ Waiting ──────── the link is up ────────────▶ Sent ─── granted long after it was asked ──▶ Confirming
//!            ▲                                           │ │                                            │
//!            └── the link broke, and the asker is patient ┘ └──────────────▶ answered ◀─────────────────┘
//! ```
//!
//! Requests that block are sent only up to [`BLOCKED_MAX`] at once; the others wait here. So there is always room
//! on the connection for what renews and releases. Nothing here panics.

use crate::client::lock::lease::LeaseId;
use crate::id::{OwnedLockKey, Token};
use crate::limits::{LOCAL_IN_FLIGHT_MAX, LOCK_MS_MAX};
use crate::time::Time;
use crate::wire::lock::LockAction;
use std::collections::{BTreeMap, BTreeSet};

/// Most requests that may block at the server at once. An agent reads no more from a connection with
/// [`LOCAL_IN_FLIGHT_MAX`] requests under way.
pub(super) const BLOCKED_MAX: usize = LOCAL_IN_FLIGHT_MAX / 2;

/// Names a request within its client, in the order in which they were made; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallId(u64);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum LockCall {
    /// A lock. The patient ask again over the next connection when one is lost.
    Acquire { key: OwnedLockKey, limit: u32, lease_ms: u64, until: WaitLimit, patient: bool },
    /// A place in a queue.
    Enqueue { key: OwnedLockKey, limit: u32, lease_ms: u64 },
    /// The lock for which there is a place in the queue, taken over the connection with this number.
    Wait { key: OwnedLockKey, until: WaitLimit, connection: u64 },
    /// That a lock be released.
    Release { key: OwnedLockKey, token: Token },
    /// A new lease.
    Renew { hold: LeaseId },
    /// The state of the server.
    Stats,
    /// Nothing: only that the link is up.
    Ready,
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitLimit {
    /// Not at all.
    Now,
    /// Until then.
    Time(Time),
    /// For ever.
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

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStage {
    /// To be sent; not before the time, if there is one.
    Waiting(Option<Time>),
    /// Under way since then, under this uid.
    Sent { uid: u32, at: Time },
    /// Granted, and being renewed since then, because the grant may be old.
    Confirming { hold: LeaseId, uid: u32, at: Time },
}

/// A request that has not been answered.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) ask: LockCall,
    pub(super) stage: CallStage,
    made_at: Time,
    /// Whether anybody is there to be told the answer.
    pub(super) is_heard: bool,
    due: Option<Time>,
}

impl PendingCall {
    /// Whether it is to be sent again over the next connection if this one is lost.
    pub(super) const fn retries(&self) -> bool {
        matches!(self.ask, LockCall::Acquire { patient: true, .. })
    }

    /// Whether the answer may be long in coming.
    pub(super) const fn may_block(&self) -> bool {
        matches!(
            self.ask,
            LockCall::Acquire { until: WaitLimit::Time(_) | WaitLimit::Forever, .. }
                | LockCall::Wait { until: WaitLimit::Time(_) | WaitLimit::Forever, .. }
        )
    }

    /// The request as it is sent; `None` for a renewal, which only the hold knows how to ask for, and for what
    /// is not sent at all.
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

    /// When something is to be done if nothing happens: sending, or giving up.
    fn due(&self, timeout_ms: u64) -> Option<Time> {
        let until = match self.ask {
            LockCall::Acquire { until, .. } | LockCall::Wait { until, .. } => until,
            _ => WaitLimit::Now,
        };
        match (self.stage, until) {
            (CallStage::Sent { .. } | CallStage::Confirming { .. }, _) if !self.is_heard => None,
            // A lock that nobody holds is released as soon as it can be.
            (CallStage::Waiting(later), _) if !self.is_heard => later,
            (CallStage::Confirming { at, .. }, _) => Some(at.after_ms(timeout_ms)),
            (CallStage::Waiting(None), WaitLimit::Time(end)) => Some(end),
            (CallStage::Waiting(Some(later)), WaitLimit::Time(end)) => Some(end.min(later)),
            (CallStage::Waiting(later), WaitLimit::Forever) => later,
            (CallStage::Waiting(Some(later)), WaitLimit::Now) => {
                Some(later.min(self.made_at.after_ms(timeout_ms)))
            }
            (_, WaitLimit::Now) => Some(self.made_at.after_ms(timeout_ms)),
            // The server counts the time, and is given some for its answer.
            (CallStage::Sent { .. }, WaitLimit::Time(end)) => Some(end.after_ms(timeout_ms)),
            (CallStage::Sent { .. }, WaitLimit::Forever) => None,
        }
    }
}

/// All requests of a client that have not been answered.
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
    /// None yet. One that does not block has to be answered within `timeout_ms`.
    pub(super) fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, ..Self::default() }
    }

    /// A new one, to be sent.
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

    /// It is answered, or given up.
    pub(super) fn remove(&mut self, id: CallId) -> Option<PendingCall> {
        self.unfile(id);
        self.all.remove(&id)
    }

    /// It has reached another stage.
    pub(super) fn set_stage(&mut self, id: CallId, stage: CallStage) {
        self.update(id, |request| request.stage = stage);
    }

    /// Nobody will be told the answer.
    pub(super) fn abandon(&mut self, id: CallId) {
        self.update(id, |request| request.is_heard = false);
    }

    /// The next one to be sent over a link that is up.
    pub(super) fn next_to_send(&self) -> Option<CallId> {
        let blocking = self.blocking.first().filter(|_| self.blocked < BLOCKED_MAX);
        self.prompt.first().or(blocking).copied()
    }

    /// Whether there is one that wants a connection, and whether one wants it now or wants to be told that there is none.
    pub(super) fn wanted(&self) -> (bool, bool) {
        let is_hasty = |id: &CallId| self.all.get(id).is_some_and(|request| !request.retries());
        let hasty = self.prompt.iter().chain(&self.blocking).any(is_hasty);
        (!self.prompt.is_empty() || !self.blocking.is_empty(), hasty)
    }

    /// All of them, in the order in which they were made.
    pub(super) fn ids(&self) -> Vec<CallId> {
        self.all.keys().copied().collect()
    }

    /// When [`next_due`](Self::next_due) will have something.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// One for which the time is up: that to wait before it is sent, or that for its answer.
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

    /// Takes it out of all lists.
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
