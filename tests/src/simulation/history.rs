//! The operations and their outcomes, as the applications saw them.
//!
//! An operation takes effect, if at all, at one moment between its start and its end. If its answer was lost
//! or was DISCONNECTED, it may take effect later, or never. Its end is then the moment from which no request
//! of that agent is in flight to the server.

use super::event_queue::EventTime;
use super::network::Network;
use super::trace::TraceEvent;
use super::violation::Violation;
use std::rc::Rc;

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOpKind {
    /// Stores a session; the timeout is in milliseconds.
    Add { timeout_ms: u32 },
    /// Fetches the session.
    Get,
    /// Removes the session.
    Remove,
    /// Checks whether the session is present.
    Have,
    /// A request that affects no session.
    Nothing,
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObservedOutcome {
    /// Not ended yet.
    Open,
    /// The effect is unknown: the answer was lost or DISCONNECTED.
    Unknown,
    /// The ADD stored its session.
    Stored,
    /// The GET found the session that this operation stored, or an equal one of another.
    Found(usize),
    /// The HAVE found a session, or the ADD was refused because of one.
    Present,
    /// The REMOVE removed a session.
    Removed,
    /// No session was present.
    Missing,
    /// The request was refused without effect, and proves nothing.
    Refused,
}

/// An operation, with start, end and outcome.
#[derive(Clone, Debug)]
pub(crate) struct RecordedSessionOp {
    pub(crate) id: usize,
    pub(crate) kind: SessionOpKind,
    /// The session to be stored by an ADD.
    pub(crate) session: Rc<[u8]>,
    pub(crate) begun: EventTime,
    /// The operation has no effect after this.
    pub(crate) ended: EventTime,
    pub(crate) outcome: ObservedOutcome,
}

/// All operations of a run.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) operations: Vec<RecordedSessionOp>,
    /// Operations on each id, in order of their start.
    pub(crate) of_id: Vec<Vec<usize>>,
    /// The times at which the server was killed.
    pub(crate) kills: Vec<EventTime>,
    /// Whether sessions may be evicted before they expire.
    pub(crate) evicts: bool,
    unresolved: Vec<Unresolved>,
}

/// An operation that may still take effect.
#[derive(Clone, Copy, Debug)]
struct Unresolved {
    operation: usize,
    agent: usize,
    /// The connection of the request; `None` if the agent answered DISCONNECTED.
    connection: Option<u32>,
}

impl History {
    /// An empty history of this many ids.
    pub(crate) fn new(ids: usize, evicts: bool) -> Self {
        let of_id = vec![Vec::new(); ids];
        Self { operations: Vec::new(), of_id, kills: Vec::new(), evicts, unresolved: Vec::new() }
    }

    /// Records the start of an operation. Returns its number.
    pub(crate) fn begin(
        &mut self,
        begun: EventTime,
        id: usize,
        kind: SessionOpKind,
        session: Rc<[u8]>,
    ) -> usize {
        let number = self.operations.len();
        let ended = EventTime::NEVER;
        self.operations.push(RecordedSessionOp {
            id,
            kind,
            session,
            begun,
            ended,
            outcome: ObservedOutcome::Open,
        });
        if kind != SessionOpKind::Nothing {
            self.of_id[id].push(number);
        }
        number
    }

    /// Records the answer to an operation.
    pub(crate) fn finish(
        &mut self,
        net: &mut Network,
        application: usize,
        operation: usize,
        outcome: ObservedOutcome,
    ) {
        net.note(TraceEvent::Ended { application, operation, outcome });
        let recorded = &mut self.operations[operation];
        recorded.outcome = outcome;
        recorded.ended = net.moment();
    }

    /// Records that the agent answered DISCONNECTED.
    pub(crate) fn disconnected(
        &mut self,
        net: &mut Network,
        application: usize,
        operation: usize,
        agent: usize,
    ) {
        self.leave_open(net, application, operation, Unresolved { operation, agent, connection: None });
    }

    /// Records that the connection ended before the answer arrived.
    pub(crate) fn lose(
        &mut self,
        net: &mut Network,
        application: usize,
        operation: usize,
        from: (usize, u32),
    ) {
        let (agent, connection) = from;
        let unresolved = Unresolved { operation, agent, connection: Some(connection) };
        self.leave_open(net, application, operation, unresolved);
    }

    fn leave_open(
        &mut self,
        net: &mut Network,
        application: usize,
        operation: usize,
        unresolved: Unresolved,
    ) {
        net.note(TraceEvent::Ended { application, operation, outcome: ObservedOutcome::Unknown });
        self.operations[operation].outcome = ObservedOutcome::Unknown;
        self.unresolved.push(unresolved);
    }

    /// Whether [`resolve_gone`](Self::resolve_gone) has operations to resolve.
    pub(crate) fn is_unsettled(&self, agent: usize) -> bool {
        self.unresolved.iter().any(|it| it.agent == agent)
    }

    /// Ends the operations of this agent that can no longer reach the server. `is_gone` returns whether the
    /// agent has closed a connection, and so accepts no more requests from it.
    pub(crate) fn resolve_gone(&mut self, now: EventTime, agent: usize, is_gone: impl Fn(u32) -> bool) {
        let operations = &mut self.operations;
        self.unresolved.retain(|it| {
            let resolved = it.agent == agent && it.connection.is_none_or(&is_gone);
            if resolved {
                operations[it.operation].ended = now;
            }
            !resolved
        });
    }

    /// The operation on the same id that stored, or may have stored, these bytes.
    ///
    /// # Errors
    /// The [`Violation`] if there is no such operation.
    pub(crate) fn origin(&self, operation: usize, bytes: &[u8]) -> Result<usize, Violation> {
        let stores = |number: &usize| {
            let it = &self.operations[*number];
            matches!(it.kind, SessionOpKind::Add { .. }) && *it.session == *bytes
        };
        if let Some(number) = self.of_id[self.operations[operation].id].iter().copied().find(stores) {
            return Ok(number);
        }
        match (0..self.operations.len()).find(stores) {
            Some(stored_by) => Err(Violation::OtherId { operation, stored_by }),
            None => Err(Violation::Invented { operation }),
        }
    }

    /// An operation that has not ended.
    pub(crate) fn open(&self) -> Option<usize> {
        self.operations.iter().position(|it| it.outcome == ObservedOutcome::Open)
    }
}
