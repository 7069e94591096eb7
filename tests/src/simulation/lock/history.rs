//! What was asked about locks, and answered, as the applications saw it.
//!
//! An operation whose answer was lost, or was `error_disconnected`, may have had its effect or not. From a moment on
//! that the run knows, nothing of it is under way any more, and what it was granted is held at most for the grace: it
//! is *settled*.

use crate::simulation::event_queue::EventTime;
use crate::simulation::network::Network;
use crate::simulation::trace::TraceEvent;
use libdc::id::{Grant, Token};
use libdc::time::Time;
use libdc::wire::lock::LockStatus;
use std::collections::BTreeMap;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockOpKind {
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
pub(crate) enum ObservedLockReply {
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

impl ObservedLockReply {
    /// Whether it says nothing of what was done.
    pub(crate) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Open | Self::Lost | Self::Status(LockStatus::ErrorDisconnected))
    }
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedLockOp {
    pub(crate) key: usize,
    pub(crate) connection: u32,
    pub(crate) locking: LockOpKind,
    pub(crate) begun: EventTime,
    pub(crate) ended: EventTime,
    pub(crate) reply: ObservedLockReply,
    /// If its answer was `error_disconnected`: nothing of it is under way any more.
    pub(crate) settled: EventTime,
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
    pub(crate) over: EventTime,
    /// Nothing of it is under way to the server any more, and the server knows that it is gone.
    pub(crate) settled: EventTime,
}

/// A graceful end of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shutdown {
    /// From then on the server has granted nothing: it was stopped before.
    pub(crate) idle_since: EventTime,
    pub(crate) began: Time,
    /// When the process ended.
    pub(crate) ended: EventTime,
}

/// All operations on locks of a run.
#[derive(Debug)]
pub(crate) struct LockHistory {
    pub(crate) operations: Vec<RecordedLockOp>,
    pub(crate) routes: BTreeMap<u32, Route>,
    /// When the server was killed.
    pub(crate) kills: Vec<EventTime>,
    /// Times in which nothing is granted, after a restart.
    pub(crate) held_off: Vec<(EventTime, Time)>,
    pub(crate) shutdowns: Vec<Shutdown>,
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
            shutdowns: Vec::new(),
            keeps_state,
            grace_ms: grace_ms.into(),
            unresolved: Vec::new(),
            unsettled: Vec::new(),
        }
    }

    /// A locker connected.
    pub(crate) fn connected(&mut self, connection: u32, agent: Option<usize>, own_link: Option<usize>) {
        let link = agent.is_some() || own_link.is_some();
        let (over, settled) = (EventTime::NEVER, EventTime::NEVER);
        self.routes.insert(connection, Route { agent, link, own_link, over, settled });
    }

    /// Something is asked for.
    pub(crate) fn begin(
        &mut self,
        net: &mut Network,
        locker: usize,
        connection: u32,
        key: usize,
        locking: LockOpKind,
    ) -> usize {
        let operation = self.operations.len();
        let (begun, never) = (net.moment(), EventTime::NEVER);
        net.note(TraceEvent::LockAsked { locker, connection, operation, key, locking });
        let reply = ObservedLockReply::Open;
        let asked = RecordedLockOp { key, connection, locking, begun, ended: never, reply, settled: never };
        self.operations.push(asked);
        operation
    }

    /// It was answered, or never will be.
    pub(crate) fn finish(
        &mut self,
        net: &mut Network,
        locker: usize,
        operation: usize,
        reply: ObservedLockReply,
    ) {
        net.note(TraceEvent::LockEnded { locker, operation, reply });
        let it = &mut self.operations[operation];
        it.reply = reply;
        it.ended = net.moment();
        if reply == ObservedLockReply::Status(LockStatus::ErrorDisconnected) {
            self.unresolved.push(operation);
        }
        net.trace.count(label(self.operations[operation].locking, reply), 1);
    }

    /// A connection is over for its locker, and `over` for its holds.
    pub(crate) fn left(&mut self, connection: u32, over: EventTime) {
        if let Some(route) = self.routes.get_mut(&connection) {
            route.over = over;
            self.unsettled.push(connection);
        }
    }

    /// The server was started again, and grants nothing while the grace runs.
    pub(crate) fn held_off(&mut self, started: EventTime) {
        self.held_off.push((started, started.at.after_ms(self.grace_ms)));
    }

    /// The server begins to shut down: nothing is granted until the process ends.
    pub(crate) fn drained(&mut self, idle_since: EventTime, began: Time, until: Time) {
        self.shutdowns.push(Shutdown { idle_since, began, ended: EventTime::NEVER });
        self.held_off.push((idle_since, until));
    }

    /// The process ended, gracefully or not.
    pub(crate) fn process_ended(&mut self, moment: EventTime) {
        self.kills.push(moment);
        if let Some(shutdown) = self.shutdowns.last_mut() {
            shutdown.ended = shutdown.ended.min(moment);
        }
    }

    /// Whether [`settle`](Self::settle) would settle anything of this agent.
    pub(crate) fn is_unsettled(&self, agent: usize) -> bool {
        let is_its = |connection: &u32| self.routes[connection].agent == Some(agent);
        self.unsettled.iter().any(is_its)
            || self.unresolved.iter().any(|it| is_its(&self.operations[*it].connection))
    }

    /// Nothing that this agent took is on its way to the server, or will ever be. `is_gone` says whether the
    /// agent has closed a connection.
    pub(crate) fn resolve_gone(&mut self, now: EventTime, agent: usize, is_gone: impl Fn(u32) -> bool) {
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
    pub(crate) fn settle_direct(&mut self, closed: impl Fn(u32) -> Option<EventTime>) {
        let routes = &mut self.routes;
        self.unsettled.retain(|connection| {
            let Some(route) = routes.get_mut(connection).filter(|route| route.agent.is_none()) else {
                return true;
            };
            let closed = closed(*connection);
            route.settled = closed.unwrap_or(EventTime::NEVER);
            closed.is_none()
        });
    }

    /// An operation that has not ended.
    pub(crate) fn open(&self) -> Option<usize> {
        self.operations.iter().position(|it| it.reply == ObservedLockReply::Open)
    }
}

const fn label(locking: LockOpKind, reply: ObservedLockReply) -> &'static str {
    match (locking, reply) {
        (_, ObservedLockReply::Lost) => "lock operations of unknown effect",
        (_, ObservedLockReply::Status(LockStatus::ErrorDisconnected)) => {
            "lock operations answered disconnected"
        }
        (LockOpKind::Wait { .. }, ObservedLockReply::Granted(_)) => "locks granted to who had a place",
        (_, ObservedLockReply::Granted(_)) => "locks granted",
        (_, ObservedLockReply::Renewed(_)) => "locks renewed",
        (LockOpKind::Release { .. }, ObservedLockReply::Status(LockStatus::Ok)) => "locks released",
        (LockOpKind::Cancel { .. }, ObservedLockReply::Status(LockStatus::Ok)) => "lock requests cancelled",
        (LockOpKind::Claim { .. }, ObservedLockReply::Status(LockStatus::Ok)) => "locks claimed",
        (LockOpKind::Claim { .. }, _) => "locks claimed in vain",
        (LockOpKind::Renew { .. } | LockOpKind::Release { .. }, _) => "locks found lost",
        (_, ObservedLockReply::Status(LockStatus::Queued)) => "places in queues",
        (_, ObservedLockReply::Status(LockStatus::Timeout)) => "lock requests timed out",
        (_, ObservedLockReply::Status(LockStatus::ErrorLeaseExpired)) => "leases expired before the wait",
        (_, ObservedLockReply::Status(LockStatus::ErrorNotEnqueued)) => "places in queues not found",
        _ => "other answers about locks",
    }
}
