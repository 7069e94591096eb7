//! What a server does with a request: a message and the time in, the answer out.
//!
//! The service owns the tables. It knows nothing of connections: the same request gives the same answer
//! whoever asks. Requests of one connection are answered in their order.

use crate::id::SessionId;
use crate::table::Added;
use crate::table::SessionStore;
use crate::time::Time;
use crate::wire::frame::{Corruption, LinkOperation, Operation, SessionOperation};
use crate::wire::message::{MessageRef, MessageWriter};
use crate::wire::session::{Add, Status};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Answers requests from the tables.
pub struct Service {
    sessions: Arc<dyn SessionStore>,
    totals: [AtomicU64; Tally::KINDS],
}

impl Service {
    /// A service over these sessions.
    #[must_use]
    pub fn new(sessions: Arc<dyn SessionStore>) -> Self {
        Self { sessions, totals: Default::default() }
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    /// Appends the answer to `request` to `out`, and counts it in `tally`.
    ///
    /// # Errors
    /// [`Corruption`] if the request can't be answered; the connection is of no more use then, and
    /// `out` is as it was.
    pub fn answer(
        &self,
        now: Time,
        request: MessageRef<'_>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<(), Corruption> {
        let head = request.head.response();
        match request.head.operation {
            Operation::Session(SessionOperation::Add) => {
                let status = match Add::parse(request.data)? {
                    Ok(add) => self.add(now, &add),
                    Err(status) => status,
                };
                tally.count(SessionOperation::Add, status == Status::Ok);
                let writer = MessageWriter::begin(out, head);
                out.push(status as u8);
                writer.finish(out);
            }
            Operation::Session(operation) => {
                let writer = MessageWriter::begin(out, head);
                // An id of no or too many bytes can't have been stored: an ordinary miss.
                let found = SessionId::new(request.data).is_some_and(|id| match operation {
                    SessionOperation::Get => self.sessions.get(now, id, out),
                    SessionOperation::Remove => self.sessions.remove(now, id),
                    SessionOperation::Have | SessionOperation::Add => self.sessions.have(now, id),
                });
                tally.count(operation, found);
                if !(found && operation == SessionOperation::Get) {
                    out.push(if found { Status::Ok } else { Status::NotOk } as u8);
                }
                writer.finish(out);
            }
            Operation::Link(LinkOperation::Ping) => MessageWriter::begin(out, head).finish(out),
            operation @ (Operation::Lock(_) | Operation::Link(_)) => {
                return Err(Corruption::Data { operation: operation.name(), problem: "not served here" });
            }
        }
        Ok(())
    }

    /// Adds what a connection counted to the totals.
    pub fn record(&self, tally: &Tally) {
        for (total, count) in self.totals.iter().zip(tally.counts) {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// What was asked and found since the start.
    #[must_use]
    pub fn totals(&self) -> Tally {
        let mut tally = Tally::default();
        for (count, total) in tally.counts.iter_mut().zip(&self.totals) {
            *count = total.load(Ordering::Relaxed);
        }
        tally
    }

    fn add(&self, now: Time, add: &Add<'_>) -> Status {
        match self.sessions.add(now, add.id, add.session, add.timeout_ms) {
            Added::Stored { .. } => Status::Ok,
            Added::Matching => Status::MatchingSession,
            Added::TooLarge => Status::DataRange,
        }
    }
}

/// How many requests of each kind were made, and how many of them succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; Self::KINDS],
}

impl Tally {
    const KINDS: usize = 8;

    /// Counts a request; `succeeded` says that it stored, found or removed what it named.
    pub fn count(&mut self, operation: SessionOperation, succeeded: bool) {
        self.counts[2 * operation as usize + usize::from(succeeded)] += 1;
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

    /// Requests of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }
}
