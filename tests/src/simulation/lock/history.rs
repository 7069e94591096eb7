//! The history of lock requests and answers as the applications observed them.
//!
//! An operation whose answer was lost, or was `error_disconnected`, may or may not have taken effect. The run
//! determines a moment from which nothing of the operation is in flight any more. A lock granted by it is
//! held for at most the grace period from then on: the operation is *settled*.

use crate::simulation::event_queue::EventTime;
use crate::simulation::network::Network;
use crate::simulation::trace::TraceEvent;
use libdc::id::{Grant, Token};
use libdc::time::Time;
use libdc::wire::lock::LockStatus;
use std::collections::BTreeMap;

/// The request of a lock operation.
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
    /// Cancels the operation with this number.
    Cancel {
        operation: usize,
    },
    /// Claims a hold after the link was re-established.
    Claim {
        token: Token,
    },
}

/// The answer to a lock operation, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedLockReply {
    /// No answer has arrived yet.
    Open,
    /// The connection ended before the answer.
    Lost,
    Status(LockStatus),
    Granted(Grant),
    /// The renewed lease, in milliseconds.
    Renewed(u64),
}

impl ObservedLockReply {
    /// Whether it leaves open if the operation took effect.
    pub(crate) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Open | Self::Lost | Self::Status(LockStatus::ErrorDisconnected))
    }
}

/// A lock operation with its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedLockOp {
    pub(crate) key: usize,
    pub(crate) connection: u32,
    pub(crate) locking: LockOpKind,
    pub(crate) begun: EventTime,
    pub(crate) ended: EventTime,
    pub(crate) reply: ObservedLockReply,
    /// After `error_disconnected`: when nothing of the operation was in flight any more.
    pub(crate) settled: EventTime,
}

/// A connection that carries lock requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The agent it leads to; `None` for a connection straight to the server.
    pub(crate) agent: Option<usize>,
    /// The connection is a link or leads through one: its holds outlive it by the grace period.
    pub(crate) link: bool,
    /// The locker that uses it as its own link, if any: holds move from one connection to the next.
    pub(crate) own_link: Option<usize>,
    /// From then on no holder can rely on a hold over it.
    pub(crate) over: EventTime,
    /// From then on its requests are no longer in flight, and the server has detected its end.
    pub(crate) settled: EventTime,
}

/// A graceful shutdown of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shutdown {
    /// From then on the server granted nothing: the shutdown began, or the process was stopped before it.
    pub(crate) idle_since: EventTime,
    pub(crate) began: Time,
    /// When the process ended.
    pub(crate) ended: EventTime,
}

/// All lock operations of a run.
#[derive(Debug)]
pub(crate) struct LockHistory {
    pub(crate) operations: Vec<RecordedLockOp>,
    pub(crate) routes: BTreeMap<u32, Route>,
    /// When server processes ended, gracefully or not.
    pub(crate) kills: Vec<EventTime>,
    /// Periods in which nothing is granted: the grace after a restart, and a shutdown.
    pub(crate) held_off: Vec<(EventTime, Time)>,
    pub(crate) shutdowns: Vec<Shutdown>,
    /// Whether the server records across restarts that locks may be held.
    pub(crate) keeps_state: bool,
    pub(crate) grace_ms: u64,
    unresolved: Vec<usize>,
    unsettled: Vec<u32>,
}

impl LockHistory {
    /// A history without any operations yet.
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

    /// Records the new connection of a locker.
    pub(crate) fn connected(&mut self, connection: u32, agent: Option<usize>, own_link: Option<usize>) {
        let link = agent.is_some() || own_link.is_some();
        let (over, settled) = (EventTime::NEVER, EventTime::NEVER);
        self.routes.insert(connection, Route { agent, link, own_link, over, settled });
    }

    /// Records a new request, and returns its operation number.
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

    /// Records the answer, or that none will arrive.
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

    /// Records that a locker left its connection. Its holds cannot be relied on from `over` on.
    pub(crate) fn left(&mut self, connection: u32, over: EventTime) {
        if let Some(route) = self.routes.get_mut(&connection) {
            route.over = over;
            self.unsettled.push(connection);
        }
    }

    /// Records a restart of the server, which grants nothing during the grace period.
    pub(crate) fn held_off(&mut self, started: EventTime) {
        self.held_off.push((started, started.at.after_ms(self.grace_ms)));
    }

    /// Records the start of a shutdown. The server grants nothing until the process ends, which it does by
    /// `until` at the latest.
    pub(crate) fn drained(&mut self, idle_since: EventTime, began: Time, until: Time) {
        self.shutdowns.push(Shutdown { idle_since, began, ended: EventTime::NEVER });
        self.held_off.push((idle_since, until));
    }

    /// Records the end of the server process, graceful or not.
    pub(crate) fn process_ended(&mut self, moment: EventTime) {
        self.kills.push(moment);
        if let Some(shutdown) = self.shutdowns.last_mut() {
            shutdown.ended = shutdown.ended.min(moment);
        }
    }

    /// Whether [`resolve_gone`](Self::resolve_gone) has operations or connections of this agent to settle.
    pub(crate) fn is_unsettled(&self, agent: usize) -> bool {
        let is_its = |connection: &u32| self.routes[connection].agent == Some(agent);
        self.unsettled.iter().any(is_its)
            || self.unresolved.iter().any(|it| is_its(&self.operations[*it].connection))
    }

    /// Settles the operations and connections of this agent, whose requests can no longer reach the server.
    /// `is_gone` returns whether the agent has closed a connection.
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

    /// Settles connections straight to the server. `closed` returns when the server closed its end.
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

    /// The first operation that has not ended.
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
