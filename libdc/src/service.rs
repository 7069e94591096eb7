//! Request processing of a server: a message and the time go in, the answer and effects on other connections
//! come out.
//!
//! The service owns the tables. The answer to a session request is the same for every connection. A lock
//! request depends on its [`Requester`], and its effects on other connections are returned as
//! [`Completion`]s. The requests of one connection are answered in their order, except while they wait
//! for a lock.

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
    shutting_down: AtomicBool,
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
    /// The time of the next [`advance_locks`](Service::advance_locks) may have changed, without a request
    /// about locks.
    pub expiry_changed: bool,
}

impl Effects {
    /// No effects.
    #[must_use]
    pub const fn new() -> Self {
        Self { completions: Vec::new(), taken_over: Vec::new(), link_opened: false, expiry_changed: false }
    }

    /// Whether there are no effects.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.taken_over.is_empty() && !self.link_opened && !self.expiry_changed
    }
}

impl Service {
    /// A service with these tables. If `auth` is set, clients must present the token.
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
            shutting_down: AtomicBool::new(false),
            totals: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Starts the shutdown: no further lock is granted, since it would be lost with the server. Requests for
    /// a lock are answered `error_disconnected`. Blocked requests stay in their queues until their
    /// connections cancel them.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::SeqCst);
        // For requests that are already blocked: they wait until their connections cancel them.
        self.locks.hold_off(Time::from_ms(u64::MAX));
    }

    /// Whether the shutdown has started.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
    }

    /// The links of all agents.
    #[must_use]
    pub const fn links(&self) -> &LinkTable {
        &self.links
    }

    /// The auth token that clients must present, if any.
    #[must_use]
    pub const fn auth(&self) -> Option<&AuthToken> {
        self.auth.as_ref()
    }

    /// Handles timed events of locks and links: leases and wait timeouts end, broken links are forgotten.
    /// Returns when to call again; that is not later than `now` if more events are due, and other work should
    /// run first.
    pub fn advance_locks(&self, now: Time, effects: &mut Effects) -> Option<Time> {
        let link = self.links.expire(now, &self.locks, &mut effects.completions);
        let lock = self.locks.advance(now, &mut effects.completions);
        [link, lock].into_iter().flatten().min()
    }

    /// Cleans up after a connection that is not a link: cancels its requests and releases its locks.
    pub fn end_connection(&self, now: Time, connection: ConnectionId, effects: &mut Effects) {
        if self.links.settings().auto_release {
            self.locks.release_connection(now, connection, &mut effects.completions);
        } else {
            self.locks.forget_waiters(now, connection, &mut effects.completions);
        }
    }

    /// Cleans up after one owner of a link.
    pub fn end_owner(&self, now: Time, owner: Owner, effects: &mut Effects) {
        if self.links.settings().auto_release {
            self.locks.release_owner(now, owner, &mut effects.completions);
        } else {
            self.locks.forget_owner_waiters(now, owner, &mut effects.completions);
        }
    }

    /// The store of sessions.
    #[must_use]
    pub fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    /// The table of locks.
    #[must_use]
    pub const fn locks(&self) -> &ShardedLocks {
        &self.locks
    }

    /// The number of open connections, for the statistics.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts an opened connection.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a closed connection.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Appends the answer to a session request to `out`, and counts the request in `counters`.
    ///
    /// # Errors
    /// [`DecodeError`] if the request is malformed. The connection must be closed then, and `out` is
    /// unchanged.
    pub fn session(
        &self,
        now: Time,
        operation: SessionOperation,
        head: MessageHead,
        data: &[u8],
        out: &mut Vec<u8>,
        counters: &mut RequestCounters,
    ) -> Result<(), DecodeError> {
        let head = head.response();
        if operation == SessionOperation::Add {
            let status = match AddRequest::parse(data)? {
                Ok(add) => self.add(now, &add),
                Err(status) => status,
            };
            counters.count(operation, status == SessionStatus::Ok);
            let writer = MessageWriter::begin(out, head);
            out.push(status as u8);
            writer.finish(out);
            return Ok(());
        }
        let writer = MessageWriter::begin(out, head);
        // An id of invalid length cannot be stored: the request is an ordinary miss.
        let found = SessionId::new(data).is_some_and(|id| match operation {
            SessionOperation::Get => self.sessions.get(now, id, out),
            SessionOperation::Remove => self.sessions.remove(now, id),
            SessionOperation::Have | SessionOperation::Add => self.sessions.have(now, id),
        });
        counters.count(operation, found);
        if !(found && operation == SessionOperation::Get) {
            out.push(if found { SessionStatus::Ok } else { SessionStatus::NotOk } as u8);
        }
        writer.finish(out);
        Ok(())
    }

    /// Adds the counters of a connection to the totals.
    pub fn record(&self, counters: &RequestCounters) {
        for (total, count) in self.totals.iter().zip(counters.counts) {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// The counters of all requests since the start.
    #[must_use]
    pub fn totals(&self) -> RequestCounters {
        let mut counters = RequestCounters::default();
        for (count, total) in counters.counts.iter_mut().zip(&self.totals) {
            *count = total.load(Ordering::Relaxed);
        }
        counters
    }

    fn add(&self, now: Time, add: &AddRequest<'_>) -> SessionStatus {
        match self.sessions.add(now, add.id, add.session, add.timeout_ms) {
            AddOutcome::Stored { .. } => SessionStatus::Ok,
            AddOutcome::Matching => SessionStatus::MatchingSession,
            AddOutcome::TooLarge => SessionStatus::DataRange,
        }
    }
}

/// The number of requests and of successful ones, by operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounters {
    counts: [u64; Self::KINDS],
}

impl RequestCounters {
    const SESSIONS: usize = 8;
    const WRONG_TOKENS: usize = Self::SESSIONS + 14;
    const KINDS: usize = Self::WRONG_TOKENS + 1;

    /// Counts a session request. It succeeded if it stored, found or removed the session.
    pub fn count(&mut self, operation: SessionOperation, succeeded: bool) {
        self.counts[2 * operation as usize + usize::from(succeeded)] += 1;
    }

    /// Counts a lock request. It succeeded if it was granted, queued or carried out.
    pub fn count_lock(&mut self, operation: LockOperation, succeeded: bool) {
        self.counts[Self::SESSIONS + 2 * operation as usize + usize::from(succeeded)] += 1;
    }

    /// Counts an attempt with a wrong auth token.
    pub fn count_wrong_token(&mut self) {
        self.counts[Self::WRONG_TOKENS] += 1;
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts == [0; Self::KINDS]
    }

    /// The number of attempts with a wrong auth token.
    #[must_use]
    pub const fn wrong_tokens(&self) -> u64 {
        self.counts[Self::WRONG_TOKENS]
    }

    /// The number of lock requests of all operations.
    #[must_use]
    pub fn locking(&self) -> u64 {
        self.counts[Self::SESSIONS..Self::WRONG_TOKENS].iter().sum()
    }

    /// The number of lock requests of this operation.
    #[must_use]
    pub const fn lock_requests(&self, operation: LockOperation) -> u64 {
        let index = Self::SESSIONS + 2 * operation as usize;
        self.counts[index] + self.counts[index + 1]
    }

    /// The number of session requests of this operation.
    #[must_use]
    pub const fn requests(&self, operation: SessionOperation) -> u64 {
        let index = 2 * operation as usize;
        self.counts[index] + self.counts[index + 1]
    }

    /// The number of successful session requests of this operation.
    #[must_use]
    pub const fn successes(&self, operation: SessionOperation) -> u64 {
        self.counts[2 * operation as usize + 1]
    }

    /// Only the counters of session requests; the others are 0.
    #[must_use]
    pub fn of_sessions(mut self) -> Self {
        self.counts[Self::SESSIONS..].fill(0);
        self
    }

    /// Only the counters of locks and of authentication; the others are 0.
    #[must_use]
    pub fn of_locks(mut self) -> Self {
        self.counts[..Self::SESSIONS].fill(0);
        self
    }

    /// The number of requests of all operations.
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
