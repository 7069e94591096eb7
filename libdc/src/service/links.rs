//! The links of a server: the connection of each link, and the links that may still be resumed.
//!
//! ```text
//!            HELLO                        it breaks
//!   (new) ──────────▶ attached(connection) ────────▶ lingering(until) ──▶ (forgotten: all is released)
//!                      ▲   │ HELLO elsewhere             │        grace over
//!                      └───┴─────────────────────────────┘
//!                         resumes: what is not claimed until OPEN is released
//! ```
//!
//! In the lock table, the locks of a link's owners belong to the number of the link: that of the connection
//! on which it was first opened. Nothing has to be moved when the link resumes on another connection.
//!
//! A connection whose link was taken over may still be running on another thread. Every operation on behalf
//! of a link is therefore done inside [`LinkEntry::act`], which refuses a connection that no longer owns the
//! link.

use crate::id::{ConnectionId, LinkId};
use crate::table::{Completion, ShardedLocks};
use crate::time::Time;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The settings for links and for the cleanup after connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPolicy {
    /// The grace period of a broken link, during which it may resume, in milliseconds.
    pub grace_ms: u32,
    /// Whether locks are released when their connection or link is gone.
    pub auto_release: bool,
}

/// The links of a server, by their ids.
#[derive(Debug)]
pub struct LinkTable {
    settings: LinkPolicy,
    by_id: Mutex<BTreeMap<LinkId, Arc<LinkEntry>>>,
}

/// One link and its attachment to a connection.
#[derive(Debug)]
pub struct LinkEntry {
    id: LinkId,
    number: ConnectionId,
    state: Mutex<LinkAttachment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkAttachment {
    Attached(ConnectionId),
    Lingering { until: Time },
    Forgotten,
}

/// The outcome of a HELLO.
#[derive(Debug)]
pub struct HelloOutcome {
    /// The link that was opened or resumed.
    pub link: Arc<LinkEntry>,
    /// The connection that the link was taken over from, which must be closed.
    pub taken_from: Option<ConnectionId>,
    /// The number of locks remembered for the link.
    pub remembered: u32,
}

impl LinkTable {
    /// A table without any links.
    #[must_use]
    pub fn new(settings: LinkPolicy) -> Self {
        Self { settings, by_id: Mutex::default() }
    }

    /// The settings that apply to all links.
    #[must_use]
    pub const fn settings(&self) -> LinkPolicy {
        self.settings
    }

    /// Opens the link `id` on a connection, or resumes it.
    pub fn hello(
        &self,
        now: Time,
        id: LinkId,
        connection: ConnectionId,
        locks: &ShardedLocks,
        effects: &mut Vec<Completion>,
    ) -> HelloOutcome {
        loop {
            let link = Arc::clone(self.lock().entry(id).or_insert_with(|| {
                let state = Mutex::new(LinkAttachment::Attached(connection));
                Arc::new(LinkEntry { id, number: connection, state })
            }));
            let mut state = link.lock();
            let taken_from = match *state {
                // The link was forgotten between the two locks, so that a new one can be inserted.
                LinkAttachment::Forgotten => continue,
                LinkAttachment::Attached(old) => (old != connection).then_some(old),
                LinkAttachment::Lingering { .. } => None,
            };
            *state = LinkAttachment::Attached(connection);
            if taken_from.is_some() {
                locks.forget_waiters(now, link.number, effects);
            }
            let remembered = locks.begin_claims(link.number);
            drop(state);
            return HelloOutcome { link, taken_from, remembered };
        }
    }

    /// Starts the grace period of a link whose connection ended without a BYE.
    pub fn broke(
        &self,
        now: Time,
        link: &LinkEntry,
        connection: ConnectionId,
        locks: &ShardedLocks,
        effects: &mut Vec<Completion>,
    ) {
        let mut state = link.lock();
        if *state == LinkAttachment::Attached(connection) {
            locks.forget_waiters(now, link.number, effects);
            *state = LinkAttachment::Lingering { until: now.after_ms(self.settings.grace_ms.into()) };
        }
    }

    /// Forgets a link that its agent shut down with a BYE.
    pub fn bye(
        &self,
        now: Time,
        link: &LinkEntry,
        connection: ConnectionId,
        locks: &ShardedLocks,
        effects: &mut Vec<Completion>,
    ) {
        let mut all = self.lock();
        let mut state = link.lock();
        if *state == LinkAttachment::Attached(connection) {
            self.forget(now, link, &mut state, locks, effects);
            all.remove(&link.id);
        }
    }

    /// Forgets the links whose grace period has passed. Returns when to call again.
    pub fn expire(&self, now: Time, locks: &ShardedLocks, effects: &mut Vec<Completion>) -> Option<Time> {
        let mut next = None;
        self.lock().retain(|_, link| {
            let mut state = link.lock();
            let LinkAttachment::Lingering { until } = *state else { return true };
            if until <= now {
                self.forget(now, link, &mut state, locks, effects);
                return false;
            }
            next = Some(next.map_or(until, |next: Time| next.min(until)));
            true
        });
        next
    }

    /// Whether no link is connected or in its grace period.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn forget(
        &self,
        now: Time,
        link: &LinkEntry,
        state: &mut LinkAttachment,
        locks: &ShardedLocks,
        effects: &mut Vec<Completion>,
    ) {
        *state = LinkAttachment::Forgotten;
        if self.settings.auto_release {
            locks.release_connection(now, link.number, effects);
        } else {
            locks.forget_waiters(now, link.number, effects);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<LinkEntry>>> {
        // Nothing panics under this lock; if it did, the stored links would still be consistent.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkEntry {
    /// The connection number that owns the link's locks in the table.
    #[must_use]
    pub const fn number(&self) -> ConnectionId {
        self.number
    }

    /// Runs `act` on behalf of the link, unless the link has moved to another connection.
    pub fn act<R>(&self, connection: ConnectionId, act: impl FnOnce() -> R) -> Option<R> {
        let state = self.lock();
        (*state == LinkAttachment::Attached(connection)).then(act)
    }

    fn lock(&self) -> MutexGuard<'_, LinkAttachment> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
