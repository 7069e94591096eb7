//! The links that a server knows: which connection each is on, and which are waited for.
//!
//! ```text
//!            HELLO                        it breaks
//!   (new) ──────────▶ attached(connection) ────────▶ lingering(until) ──▶ (forgotten: all is released)
//!                      ▲   │ HELLO elsewhere             │        grace over
//!                      └───┴─────────────────────────────┘
//!                         resumes: what is not claimed until OPEN is released
//! ```
//!
//! What a link's owners hold belongs, in the table, to the link's number: that of the connection it was opened
//! over first. So nothing has to be moved when it is resumed over another.
//!
//! A connection that was taken over may still be in the middle of something, on another thread. So whatever is
//! done for a link is done under [`LinkEntry::act`], which refuses who is not the link's connection any more.

use crate::id::{ConnectionId, LinkId};
use crate::table::{Completion, ShardedLocks};
use crate::time::Time;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How links are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPolicy {
    /// How long a broken link's locks wait for it, in milliseconds.
    pub grace_ms: u32,
    /// Whether what a connection or link held is released when it is gone.
    pub auto_release: bool,
}

/// The links of a server.
#[derive(Debug)]
pub struct LinkTable {
    settings: LinkPolicy,
    by_id: Mutex<HashMap<LinkId, Arc<LinkEntry>, RandomState>>,
}

/// One link.
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

/// What a HELLO comes to.
#[derive(Debug)]
pub struct HelloOutcome {
    /// The link.
    pub link: Arc<LinkEntry>,
    /// The connection that it was taken from, to be closed.
    pub taken_from: Option<ConnectionId>,
    /// How many locks are remembered for it.
    pub remembered: u32,
}

impl LinkTable {
    /// No links yet.
    #[must_use]
    pub fn new(settings: LinkPolicy) -> Self {
        Self { settings, by_id: Mutex::default() }
    }

    /// How links are treated.
    #[must_use]
    pub const fn settings(&self) -> LinkPolicy {
        self.settings
    }

    /// A connection opens the link `id`, or resumes it.
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
                // It was forgotten between the two locks; there is a place for a new one now.
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

    /// The connection of a link ended without a BYE.
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

    /// The link's agent says that it ends.
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

    /// Forgets the links whose grace is over. Returns when to call again.
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

    /// Whether a link that is not connected is still waited for, or one that is could be resumed.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkId, Arc<LinkEntry>, RandomState>> {
        // Nothing under this lock panics; if it did, the links that are there would still be right.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkEntry {
    /// The connection in whose name the link's locks are held.
    #[must_use]
    pub const fn number(&self) -> ConnectionId {
        self.number
    }

    /// Does something for the link, unless `connection` is not its connection any more.
    pub fn act<R>(&self, connection: ConnectionId, act: impl FnOnce() -> R) -> Option<R> {
        let state = self.lock();
        (*state == LinkAttachment::Attached(connection)).then(act)
    }

    fn lock(&self) -> MutexGuard<'_, LinkAttachment> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
