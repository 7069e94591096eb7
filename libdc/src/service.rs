//! What a server does with a request: a message and the time in, the answer and effects on others out.
//!
//! The service owns the tables. About sessions the same request gives the same answer whoever asks; about locks
//! it matters who does ([`Requester`]), and what follows for others comes out as [`Completion`]s.
//! Requests of one connection are answered in their order, but for those that wait for a lock.

mod links;
mod locks;
mod stats;

pub use crate::table::{Completion, ReplyTo, WaiterId};
pub use links::{HelloOutcome, LinkEntry, LinkPolicy, LinkTable};
pub use locks::{LockReply, Requester, late_answer};

use crate::id::{ConnectionId, Owner, SessionId};
use crate::secret::AuthToken;
use crate::table::{AddOutcome, SessionStore, ShardedLocks};
use crate::time::Time;
use crate::wire::frame::{DecodeError, LockOperation, MessageHead, SessionOperation};
use crate::wire::message::MessageWriter;
use crate::wire::session::{AddRequest, SessionStatus};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Answers requests from the tables.
pub struct Service {
    sessions: Arc<dyn SessionStore>,
    locks: ShardedLocks,
    links: LinkTable,
    auth: Option<AuthToken>,
    connections: AtomicU64,
    ends: AtomicBool,
    totals: [AtomicU64; RequestCounters::KINDS],
}

/// Effects of a step on other connections, and on the program.
#[derive(Debug, Default)]
pub struct Effects {
    /// Blocked requests that have their answers now.
    pub completions: Vec<Completion>,
    /// Connections whose link another connection has taken over, to be closed.
    pub taken_over: Vec<ConnectionId>,
    /// A link was opened or resumed. Its client may rely on a grant beyond the end of the server.
    pub link_opened: bool,
    /// The time of the next [`advance_locks`](Service::advance_locks) may have changed, without a request about locks.
    pub expiry_changed: bool,
}

impl Effects {
    /// No effects.
    #[must_use]
    pub const fn new() -> Self {
        Self { completions: Vec::new(), taken_over: Vec::new(), link_opened: false, expiry_changed: false }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.taken_over.is_empty() && !self.link_opened && !self.expiry_changed
    }
}

impl Service {
    /// A service over these sessions and locks. With `auth` nobody is served who does not know the token.
    #[must_use]
    pub fn new(
        sessions: Arc<dyn SessionStore>,
        locks: ShardedLocks,
        links: LinkPolicy,
        auth: Option<AuthToken>,
    ) -> Self {
        Self {
            sessions,
            locks,
            links: LinkTable::new(links),
            auth,
            connections: AtomicU64::new(0),
            ends: AtomicBool::new(false),
            totals: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The server is about to end: from now on nothing is granted, since the grant would be lost with the server at once.
    /// Requests for a lock are answered `error_disconnected`. Blocked requests stay in their queues until their
    /// connections cancel them on [`Notification::Drain`](crate::proto::server::Notification::Drain).
    pub fn shut_down(&self) {
        self.ends.store(true, Ordering::SeqCst);
        // Requests that were blocked before stay blocked until they are cancelled.
        self.locks.hold_off(Time::from_ms(u64::MAX));
    }

    /// Whether the server is about to end.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    /// The links.
    #[must_use]
    pub const fn links(&self) -> &LinkTable {
        &self.links
    }

    /// The token that everybody must know, if there is one.
    #[must_use]
    pub const fn auth(&self) -> Option<&AuthToken> {
        self.auth.as_ref()
    }

    /// Does what the time brings for locks and links: leases and waits end, broken links are forgotten. Returns
    /// when to call again; not later than `now` if there is more to do, after serving others.
    pub fn advance_locks(&self, now: Time, effects: &mut Effects) -> Option<Time> {
        let link = self.links.expire(now, &self.locks, &mut effects.completions);
        let lock = self.locks.advance(now, &mut effects.completions);
        [link, lock].into_iter().flatten().min()
    }

    /// A connection that is no link ended: gives up what it waited for, and what it held.
    pub fn end_connection(&self, now: Time, connection: ConnectionId, effects: &mut Effects) {
        if self.links.settings().auto_release {
            self.locks.release_connection(now, connection, &mut effects.completions);
        } else {
            self.locks.forget_waiters(now, connection, &mut effects.completions);
        }
    }

    /// One owner of a link is gone.
    pub fn end_owner(&self, now: Time, owner: Owner, effects: &mut Effects) {
        if self.links.settings().auto_release {
            self.locks.release_owner(now, owner, &mut effects.completions);
        } else {
            self.locks.forget_owner_waiters(now, owner, &mut effects.completions);
        }
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    /// The locks.
    #[must_use]
    pub const fn locks(&self) -> &ShardedLocks {
        &self.locks
    }

    /// Connections at the moment, for the statistics.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A connection was opened.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Appends the answer to a request about a session to `out`, and counts it in `tally`.
    ///
    /// # Errors
    /// [`DecodeError`] if the request can't be answered; the connection is of no more use then, and
    /// `out` is as it was.
    pub fn session(
        &self,
        now: Time,
        operation: SessionOperation,
        head: MessageHead,
        data: &[u8],
        out: &mut Vec<u8>,
        tally: &mut RequestCounters,
    ) -> Result<(), DecodeError> {
        let head = head.response();
        if operation == SessionOperation::Add {
            let status = match AddRequest::parse(data)? {
                Ok(add) => self.add(now, &add),
                Err(status) => status,
            };
            tally.count(operation, status == SessionStatus::Ok);
            let writer = MessageWriter::begin(out, head);
            out.push(status as u8);
            writer.finish(out);
            return Ok(());
        }
        let writer = MessageWriter::begin(out, head);
        // An id of no or too many bytes can't have been stored: an ordinary miss.
        let found = SessionId::new(data).is_some_and(|id| match operation {
            SessionOperation::Get => self.sessions.get(now, id, out),
            SessionOperation::Remove => self.sessions.remove(now, id),
            SessionOperation::Have | SessionOperation::Add => self.sessions.have(now, id),
        });
        tally.count(operation, found);
        if !(found && operation == SessionOperation::Get) {
            out.push(if found { SessionStatus::Ok } else { SessionStatus::NotOk } as u8);
        }
        writer.finish(out);
        Ok(())
    }

    /// Adds what a connection counted to the totals.
    pub fn record(&self, tally: &RequestCounters) {
        for (total, count) in self.totals.iter().zip(tally.counts) {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// What was asked and found since the start.
    #[must_use]
    pub fn totals(&self) -> RequestCounters {
        let mut tally = RequestCounters::default();
        for (count, total) in tally.counts.iter_mut().zip(&self.totals) {
            *count = total.load(Ordering::Relaxed);
        }
        tally
    }

    fn add(&self, now: Time, add: &AddRequest<'_>) -> SessionStatus {
        match self.sessions.add(now, add.id, add.session, add.timeout_ms) {
            AddOutcome::Stored { .. } => SessionStatus::Ok,
            AddOutcome::Matching => SessionStatus::MatchingSession,
            AddOutcome::TooLarge => SessionStatus::DataRange,
        }
    }
}

/// How many requests of each kind were made, and how many of them succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounters {
    counts: [u64; Self::KINDS],
}

impl RequestCounters {
    const SESSIONS: usize = 8;
    const WRONG_TOKENS: usize = Self::SESSIONS + 14;
    const KINDS: usize = Self::WRONG_TOKENS + 1;

    /// Counts a request; `succeeded` says that it stored, found or removed what it named.
    pub fn count(&mut self, operation: SessionOperation, succeeded: bool) {
        self.counts[2 * operation as usize + usize::from(succeeded)] += 1;
    }

    /// Counts a request about a lock; `succeeded` says that it was granted, queued or done.
    pub fn count_lock(&mut self, operation: LockOperation, succeeded: bool) {
        self.counts[Self::SESSIONS + 2 * operation as usize + usize::from(succeeded)] += 1;
    }

    /// Counts a wrong token of authentication.
    pub fn count_wrong_token(&mut self) {
        self.counts[Self::WRONG_TOKENS] += 1;
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts == [0; Self::KINDS]
    }

    /// Wrong tokens of authentication.
    #[must_use]
    pub const fn wrong_tokens(&self) -> u64 {
        self.counts[Self::WRONG_TOKENS]
    }

    /// Requests about locks of all kinds.
    #[must_use]
    pub fn locking(&self) -> u64 {
        self.counts[Self::SESSIONS..Self::WRONG_TOKENS].iter().sum()
    }

    /// Requests about locks of this kind.
    #[must_use]
    pub const fn lock_requests(&self, operation: LockOperation) -> u64 {
        let place = Self::SESSIONS + 2 * operation as usize;
        self.counts[place] + self.counts[place + 1]
    }

    /// Requests of this kind.
    #[must_use]
    pub const fn requests(&self, operation: SessionOperation) -> u64 {
        let place = 2 * operation as usize;
        self.counts[place] + self.counts[place + 1]
    }

    /// Requests of this kind that succeeded.
    #[must_use]
    pub const fn successes(&self, operation: SessionOperation) -> u64 {
        self.counts[2 * operation as usize + 1]
    }

    /// What was counted of sessions, and nothing else.
    #[must_use]
    pub fn of_sessions(mut self) -> Self {
        self.counts[Self::SESSIONS..].fill(0);
        self
    }

    /// What was counted of locks and of authentication, and nothing else.
    #[must_use]
    pub fn of_locks(mut self) -> Self {
        self.counts[..Self::SESSIONS].fill(0);
        self
    }

    /// Requests of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts[..Self::WRONG_TOKENS].iter().sum()
    }
}

impl AddAssign for RequestCounters {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }
}
