//! What was asked about locks, and answered, as the applications saw it.
//!
//! An operation whose answer was lost, or was `error_disconnected`, may have had its effect or not. From a moment on
//! that the run knows, nothing of it is under way any more, and what it was granted is held at most for the grace: it
//! is *settled*.

use crate::simulation::agenda::Moment;
use crate::simulation::network::Network;
use crate::simulation::trace::Note;
use libdc::id::{Grant, Token};
use libdc::time::Time;
use libdc::wire::lock::LockStatus;
use std::collections::BTreeMap;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locking {
    Acquire {
        timeout_ms: u64,
        lease_ms: u64,
    },
    Enqueue {
        lease_ms: u64,
    },
    Wait {
        timeout_ms: u64,
    },
    Release {
        token: Token,
    },
    Renew {
        token: Token,
        lease_ms: u64,
    },
    /// Give up this operation.
    Cancel {
        operation: usize,
    },
    /// After a link was made anew.
    Claim {
        token: Token,
    },
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing yet.
    Open,
    /// The connection ended before.
    Lost,
    /// A word.
    Status(LockStatus),
    Granted(Grant),
    /// For so long from now, in milliseconds.
    Renewed(u64),
}

impl Reply {
    /// Whether it says nothing of what was done.
    pub(crate) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Open | Self::Lost | Self::Status(LockStatus::ErrorDisconnected))
    }
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockOperation {
    pub(crate) key: usize,
    pub(crate) connection: u32,
    pub(crate) locking: Locking,
    pub(crate) begun: Moment,
    pub(crate) ended: Moment,
    pub(crate) reply: Reply,
    /// If its answer was `error_disconnected`: nothing of it is under way any more.
    pub(crate) settled: Moment,
}

/// A connection on which locks were asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Through which agent; none is straight to the server.
    pub(crate) agent: Option<usize>,
    /// What it holds outlives it for the grace: it is a link, or through one.
    pub(crate) link: bool,
    /// Which of the lockers' own links it is, if it is one: holds go from one connection to the next.
    pub(crate) own_link: Option<usize>,
    /// From then on nobody can be sure to hold anything over it.
    pub(crate) over: Moment,
    /// Nothing of it is under way to the server any more, and the server knows that it is gone.
    pub(crate) settled: Moment,
}

/// All operations on locks of a run.
#[derive(Debug)]
pub(crate) struct LockHistory {
    pub(crate) operations: Vec<LockOperation>,
    pub(crate) routes: BTreeMap<u32, Route>,
    /// When the server was killed.
    pub(crate) kills: Vec<Moment>,
    /// Times in which nothing is granted, after a restart.
    pub(crate) held_off: Vec<(Moment, Time)>,
    /// Whether the server remembers across restarts that there may be holders.
    pub(crate) keeps_state: bool,
    pub(crate) grace_ms: u64,
    unresolved: Vec<usize>,
    unsettled: Vec<u32>,
}

impl LockHistory {
    /// Nothing has happened.
    pub(crate) fn new(keeps_state: bool, grace_ms: u32) -> Self {
        Self {
            operations: Vec::new(),
            routes: BTreeMap::new(),
            kills: Vec::new(),
            held_off: Vec::new(),
            keeps_state,
            grace_ms: grace_ms.into(),
            unresolved: Vec::new(),
            unsettled: Vec::new(),
        }
    }

    /// A locker connected.
    pub(crate) fn connected(&mut self, connection: u32, agent: Option<usize>, own_link: Option<usize>) {
        let link = agent.is_some() || own_link.is_some();
        let (over, settled) = (Moment::NEVER, Moment::NEVER);
        self.routes.insert(connection, Route { agent, link, own_link, over, settled });
    }

    /// Something is asked for.
    pub(crate) fn begin(
        &mut self,
        net: &mut Network,
        locker: usize,
        connection: u32,
        key: usize,
        locking: Locking,
    ) -> usize {
        let operation = self.operations.len();
        let (begun, never) = (net.moment(), Moment::NEVER);
        net.note(Note::LockAsked { locker, connection, operation, key, locking });
        let reply = Reply::Open;
        let asked = LockOperation { key, connection, locking, begun, ended: never, reply, settled: never };
        self.operations.push(asked);
        operation
    }

    /// It was answered, or never will be.
    pub(crate) fn end(&mut self, net: &mut Network, locker: usize, operation: usize, reply: Reply) {
        net.note(Note::LockEnded { locker, operation, reply });
        let it = &mut self.operations[operation];
        it.reply = reply;
        it.ended = net.moment();
        if reply == Reply::Status(LockStatus::ErrorDisconnected) {
            self.unresolved.push(operation);
        }
        net.trace.count(label(self.operations[operation].locking, reply), 1);
    }

    /// A connection is over for its locker, and `over` for its holds.
    pub(crate) fn left(&mut self, connection: u32, over: Moment) {
        if let Some(route) = self.routes.get_mut(&connection) {
            route.over = over;
            self.unsettled.push(connection);
        }
    }

    /// The server was started again, and grants nothing while the grace runs.
    pub(crate) fn held_off(&mut self, started: Moment) {
        self.held_off.push((started, started.at.after_ms(self.grace_ms)));
    }

    /// Whether [`settle`](Self::settle) would settle anything of this agent.
    pub(crate) fn is_unsettled(&self, agent: usize) -> bool {
        let is_its = |connection: &u32| self.routes[connection].agent == Some(agent);
        self.unsettled.iter().any(is_its)
            || self.unresolved.iter().any(|it| is_its(&self.operations[*it].connection))
    }

    /// Nothing that this agent took is on its way to the server, or will ever be. `is_gone` says whether the
    /// agent has closed a connection.
    pub(crate) fn settle(&mut self, now: Moment, agent: usize, is_gone: impl Fn(u32) -> bool) {
        let (routes, operations) = (&mut self.routes, &mut self.operations);
        self.unresolved.retain(|it| {
            let settled = routes[&operations[*it].connection].agent == Some(agent);
            if settled {
                operations[*it].settled = now;
            }
            !settled
        });
        self.unsettled.retain(|connection| {
            let settled = routes[connection].agent == Some(agent) && is_gone(*connection);
            if settled && let Some(route) = routes.get_mut(connection) {
                route.settled = now;
            }
            !settled
        });
    }

    /// The same for connections straight to the server: `closed` says when it closed its end.
    pub(crate) fn settle_direct(&mut self, closed: impl Fn(u32) -> Option<Moment>) {
        let routes = &mut self.routes;
        self.unsettled.retain(|connection| {
            let Some(route) = routes.get_mut(connection).filter(|route| route.agent.is_none()) else {
                return true;
            };
            let closed = closed(*connection);
            route.settled = closed.unwrap_or(Moment::NEVER);
            closed.is_none()
        });
    }

    /// An operation that has not ended.
    pub(crate) fn open(&self) -> Option<usize> {
        self.operations.iter().position(|it| it.reply == Reply::Open)
    }
}

const fn label(locking: Locking, reply: Reply) -> &'static str {
    match (locking, reply) {
        (_, Reply::Lost) => "lock operations of unknown effect",
        (_, Reply::Status(LockStatus::ErrorDisconnected)) => "lock operations answered disconnected",
        (Locking::Wait { .. }, Reply::Granted(_)) => "locks granted to who had a place",
        (_, Reply::Granted(_)) => "locks granted",
        (_, Reply::Renewed(_)) => "locks renewed",
        (Locking::Release { .. }, Reply::Status(LockStatus::Ok)) => "locks released",
        (Locking::Cancel { .. }, Reply::Status(LockStatus::Ok)) => "lock requests cancelled",
        (Locking::Claim { .. }, Reply::Status(LockStatus::Ok)) => "locks claimed",
        (Locking::Claim { .. }, _) => "locks claimed in vain",
        (Locking::Renew { .. } | Locking::Release { .. }, _) => "locks found lost",
        (_, Reply::Status(LockStatus::Queued)) => "places in queues",
        (_, Reply::Status(LockStatus::Timeout)) => "lock requests timed out",
        (_, Reply::Status(LockStatus::ErrorLeaseExpired)) => "leases expired before the wait",
        (_, Reply::Status(LockStatus::ErrorNotEnqueued)) => "places in queues not found",
        _ => "other answers about locks",
    }
}
