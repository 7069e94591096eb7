//! What was asked and answered, as the applications saw it.
//!
//! An operation takes effect at one moment between its beginning and its end, if it does. One whose answer
//! was lost, or was DISCONNECTED, may take effect later, or never: its end is the moment from which the
//! run knows that nothing of that agent is on its way to the server any more.

use super::event_queue::EventTime;
use super::network::Network;
use super::trace::TraceEvent;
use super::violation::Violation;
use std::rc::Rc;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOpKind {
    /// Store a session for so long, in milliseconds.
    Add { timeout_ms: u32 },
    /// Fetch it.
    Get,
    /// Forget it.
    Remove,
    /// Is it there?
    Have,
    /// Something that touches no session.
    Nothing,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObservedOutcome {
    /// It has not.
    Open,
    /// Nobody knows.
    Unknown,
    /// The ADD stored its session.
    Stored,
    /// The GET found the session that this operation stored, or others that stored the same.
    Found(usize),
    /// The HAVE found a session, or the ADD one in its way.
    Present,
    /// The REMOVE removed one.
    Removed,
    /// There was no session.
    Missing,
    /// It had no effect, and says nothing.
    Refused,
}

/// An operation.
#[derive(Clone, Debug)]
pub(crate) struct RecordedSessionOp {
    pub(crate) id: usize,
    pub(crate) kind: SessionOpKind,
    /// What an ADD wants to store.
    pub(crate) session: Rc<[u8]>,
    pub(crate) begun: EventTime,
    /// After this it has no effect any more.
    pub(crate) ended: EventTime,
    pub(crate) outcome: ObservedOutcome,
}

/// All operations of a run.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) operations: Vec<RecordedSessionOp>,
    /// Operations on each id, as they began.
    pub(crate) of_id: Vec<Vec<usize>>,
    /// When the server was killed.
    pub(crate) kills: Vec<EventTime>,
    /// Whether sessions may go before their time.
    pub(crate) evicts: bool,
    unresolved: Vec<Unresolved>,
}

/// An operation that may yet take effect.
#[derive(Clone, Copy, Debug)]
struct Unresolved {
    operation: usize,
    agent: usize,
    /// The connection it was made on, unless the agent has answered it itself.
    connection: Option<u32>,
}

impl History {
    /// Nothing has happened to so many ids.
    pub(crate) fn new(ids: usize, evicts: bool) -> Self {
        let of_id = vec![Vec::new(); ids];
        Self { operations: Vec::new(), of_id, kills: Vec::new(), evicts, unresolved: Vec::new() }
    }

    /// Something is asked for.
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

    /// It was answered.
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

    /// The agent answered that the server could not be reached.
    pub(crate) fn disconnected(
        &mut self,
        net: &mut Network,
        application: usize,
        operation: usize,
        agent: usize,
    ) {
        self.leave_open(net, application, operation, Unresolved { operation, agent, connection: None });
    }

    /// The connection ended before the answer came.
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

    /// Whether [`settle`](Self::settle) would settle anything.
    pub(crate) fn is_unsettled(&self, agent: usize) -> bool {
        self.unresolved.iter().any(|it| it.agent == agent)
    }

    /// Nothing that this agent took is on its way to the server, or will ever be. `is_gone` says whether the
    /// agent has closed a connection, so that it takes nothing more from it.
    pub(crate) fn resolve_gone(&mut self, now: EventTime, agent: usize, is_gone: impl Fn(u32) -> bool) {
        let operations = &mut self.operations;
        self.unresolved.retain(|it| {
            let settled = it.agent == agent && it.connection.is_none_or(&is_gone);
            if settled {
                operations[it.operation].ended = now;
            }
            !settled
        });
    }

    /// The operation under this id that stored, or may have stored, these bytes.
    ///
    /// # Errors
    /// The [`Violation`] if there is none.
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
