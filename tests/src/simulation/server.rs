//! The simulated server process: the real service, and the real protocol machines of its connections.
//!
//! It can be killed, stopped and continued, and shut down gracefully. It can be a distcache 1.x server, which
//! differs in two ways: its answers carry patch level 0, and it must be sent only messages of class 0. Other
//! servers may answer the requests of one read in any order, as the protocol allows.
//!
//! After a restart, a server with a state directory restores the highest fence and whether there were links;
//! if so, it grants no locks during the grace period. A server without one derives its fences from the clock.
//!
//! Its connections share one worker. If requests cost time, turns that come due while the worker is busy are
//! queued.

use super::event_queue::SimEvent;
use super::network::{Network, NetworkEnd, Party};
use super::planted_bug::{FaultyStore, PlantedBug};
use super::scenario::ServerPlan;
use super::server_connection::SimConnection;
use super::trace::TraceEvent;
use super::turn_env::TurnEnv;
use super::violation::{Remnant, Violation};
use libdc::id::ConnectionId;
use libdc::proto::server::{Notification, ServerConnection, ServerTimeouts};
use libdc::service::{Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, SessionStore, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Fences per millisecond of the clock, as in the program without a state directory.
const FENCES_PER_MS_BITS: u32 = 20;
/// Number of fences reserved ahead, with a state directory.
const FENCES_RESERVED: u64 = 1_000;
/// As the program's `-read-timeout` and `-write-timeout`.
const TIMEOUTS: ServerTimeouts = ServerTimeouts { read_ms: 23_000, write_ms: 5_000 };
/// As the program's `-shutdown-timeout`: longer than all timeouts of its peers.
pub(crate) const SHUTDOWN_TIMEOUT_MS: u64 = 30_000;

/// The server process.
pub(crate) struct SimServer {
    plan: ServerPlan,
    planted: PlantedBug,
    state: ServerState,
    original: bool,
    service: Service,
    fences: FenceSource,
    /// A link was opened in this process.
    knows_links: bool,
    /// No locks are granted before this time.
    held_off_until: Time,
    /// The beginning of the last shutdown.
    pub(crate) drained: Option<Time>,
    connections: BTreeMap<u32, SimConnection>,
    /// The time of the next valid [`SimEvent::LockTime`].
    expiry: Option<Time>,
    worker: SimWorker,
}

/// The state of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// It is running.
    Running,
    /// It is shutting down.
    Draining,
    /// It is suspended, as by SIGSTOP; its sockets stay open.
    Stopped,
    /// There is no process.
    Dead,
}

/// The thread that runs the turns of all connections.
#[derive(Debug, Default)]
struct SimWorker {
    busy_until: Time,
    /// The remainder below a millisecond, in microseconds.
    rest_us: u64,
    queue: VecDeque<NetworkEnd>,
}

impl SimWorker {
    /// Accounts for the cost of a turn that began now.
    fn spend(&mut self, now: Time, us: u64) {
        self.rest_us += us;
        self.busy_until = now.after_ms(self.rest_us / 1_000);
        self.rest_us %= 1_000;
    }
}

impl SimServer {
    /// A running server with an empty store.
    pub(crate) fn new(plan: ServerPlan, planted: PlantedBug, now: Time) -> Self {
        let fences = FenceSource::starting_at(now.as_ms() << FENCES_PER_MS_BITS);
        Self {
            service: new_service(&plan, planted, &fences),
            fences,
            original: plan.original,
            plan,
            planted,
            state: ServerState::Running,
            knows_links: false,
            held_off_until: now,
            drained: None,
            connections: BTreeMap::new(),
            expiry: None,
            worker: SimWorker::default(),
        }
    }

    /// The state of the process.
    pub(crate) const fn state(&self) -> ServerState {
        self.state
    }

    /// Kills the process: all connections break, all sessions are lost.
    pub(crate) fn kill(&mut self, net: &mut Network) {
        net.note(TraceEvent::Killed);
        self.state = ServerState::Dead;
        for (number, connection) in std::mem::take(&mut self.connections) {
            net.cut(number);
            net.close(connection.end);
        }
        self.worker.queue.clear();
    }

    /// Starts a graceful shutdown.
    pub(crate) fn drain(&mut self, net: &mut Network) {
        net.note(TraceEvent::ServerDrains);
        self.state = ServerState::Draining;
        self.drained = Some(net.now());
        if self.planted != PlantedBug::GrantWhileDraining {
            self.service.shut_down();
        }
        for connection in self.connections.values_mut() {
            let is_deaf = match self.planted {
                PlantedBug::KeepWaiters => !connection.machine.is_idle(),
                PlantedBug::KeepNewcomers => net.written_total(connection.end.peer()) == 0,
                _ => false,
            };
            if !is_deaf {
                connection.mail.push_back(Notification::Drain);
                net.call(connection.end);
            }
        }
    }

    /// Ends the process if it is shutting down and has no connections left. Returns whether it ended.
    pub(crate) fn finish_drain(&mut self, net: &mut Network) -> bool {
        let is_over = self.state == ServerState::Draining && self.connections.is_empty();
        if is_over {
            net.note(TraceEvent::ServerEnds);
            self.state = ServerState::Dead;
            // The record is clean if no lock is held and this process may grant.
            let is_clean = self.service.locks().totals().holders == 0 && net.now() >= self.held_off_until;
            self.knows_links &= !is_clean;
        }
        is_over
    }

    /// Handles the shutdown timeout: closes the remaining connections. Only the network may have delayed the
    /// shutdown this long.
    pub(crate) fn drain_timeout(&mut self, net: &mut Network) {
        let is_late = |connection: &&u32| !net.was_held(**connection);
        if let Some(&connection) = self.connections.keys().find(is_late) {
            net.fail(Violation::ShutdownOverdue { connection });
        }
        net.trace.count("shutdowns that timed out", 1);
        self.kill(net);
    }

    /// Starts a new process. Returns whether it begins with a grace period.
    pub(crate) fn start(&mut self, net: &mut Network) -> bool {
        if self.plan.may_change {
            self.original = net.random.chance(500);
        }
        net.note(TraceEvent::Started { original: self.original });
        self.state = ServerState::Running;
        self.count_evictions(net);
        self.expiry = None;
        self.worker = SimWorker::default();
        self.held_off_until = net.now();
        self.fences = match self.planted {
            PlantedBug::RepeatFences => FenceSource::starting_at(1),
            _ if self.plan.keeps_state => FenceSource::starting_at(self.fences.current() + FENCES_RESERVED),
            _ => FenceSource::starting_at(net.now().as_ms() << FENCES_PER_MS_BITS),
        };
        if self.planted != PlantedBug::SurviveRestart {
            self.service = new_service(&self.plan, self.planted, &self.fences);
        }
        // Clients of the previous process may still hold locks until the grace period is over, even if this
        // process ends before.
        let holds_off = self.plan.keeps_state && self.knows_links && self.planted != PlantedBug::GrantAtOnce;
        self.knows_links = self.knows_links && self.plan.keeps_state;
        if holds_off {
            net.trace.count("grants held off", 1);
            self.held_off_until = net.now().after_ms(self.plan.grace_ms.into());
            self.service.locks().hold_off(net.now().after_ms(self.plan.grace_ms.into()));
        }
        holds_off
    }

    /// Suspends the process, as SIGSTOP does.
    pub(crate) fn stop(&mut self, net: &mut Network) {
        net.note(TraceEvent::Stopped);
        self.state = ServerState::Stopped;
    }

    /// Continues the suspended process.
    pub(crate) fn go_on(&mut self, net: &mut Network) {
        if self.state == ServerState::Stopped {
            net.note(TraceEvent::Continued);
            self.state = ServerState::Running;
            for connection in self.connections.values() {
                net.call(connection.end);
            }
            self.expiry = None;
            self.wake_at(net, Some(net.now()));
        }
    }

    /// Accepts a connection. While the process is suspended, the kernel accepts on its behalf.
    pub(crate) fn accept(&mut self, net: &mut Network, end: NetworkEnd, agent: Option<usize>) {
        let id = ConnectionId::new(u64::from(end.connection));
        self.service.connection_opened();
        let machine = ServerConnection::new(net.now(), id, &self.service, TIMEOUTS);
        let is_direct = matches!(net.owner(end.peer()), Some(Party::Direct(_)));
        let connection = SimConnection::new(end, (agent, is_direct), machine, self.planted);
        self.connections.insert(end.connection, connection);
        net.call(end);
    }

    /// The connections of this agent, including closed ones whose end the server has not detected.
    pub(crate) fn connections_of(&self, agent: usize) -> impl Iterator<Item = u32> {
        self.connections
            .iter()
            .filter(move |(_, connection)| connection.agent == Some(agent))
            .map(|(number, _)| *number)
    }

    /// Schedules a turn of a connection, as soon as the worker is free.
    pub(crate) fn wake(&mut self, net: &mut Network, end: NetworkEnd) {
        if !self.is_active() {
            return;
        }
        if self.worker.busy_until <= net.now() && self.worker.queue.is_empty() {
            self.turn(net, end);
        } else if !self.worker.queue.contains(&end) {
            net.trace.count("turns that wait for the worker", 1);
            self.worker.queue.push_back(end);
        }
        self.wake_worker(net);
    }

    /// The worker is free for the next turn.
    pub(crate) fn work(&mut self, net: &mut Network) {
        if self.is_active()
            && self.worker.busy_until <= net.now()
            && let Some(end) = self.worker.queue.pop_front()
        {
            self.turn(net, end);
            self.wake_worker(net);
        }
    }

    fn wake_worker(&self, net: &mut Network) {
        if !self.worker.queue.is_empty() {
            net.agenda.at(self.worker.busy_until, SimEvent::ServerWorker);
        }
    }

    const fn is_active(&self) -> bool {
        matches!(self.state, ServerState::Running | ServerState::Draining)
    }

    fn turn(&mut self, net: &mut Network, end: NetworkEnd) {
        let Some(mut connection) = self.connections.remove(&end.connection) else { return };
        let mut env = TurnEnv {
            service: &self.service,
            original: self.original,
            any_order: self.plan.answers_in_any_order && !self.original,
            output: Vec::new(),
            effects: Effects::new(),
            counters: RequestCounters::default(),
        };
        let open = connection.turn(net, &mut env);
        if !open {
            connection.close(net, &mut env);
        }
        let TurnEnv { effects, counters, .. } = env;
        if open {
            self.connections.insert(end.connection, connection);
        } else {
            self.service.connection_closed();
            net.close(end);
        }
        self.worker.spend(net.now(), counters.total() * self.plan.request_us);
        self.apply_effects(net, effects, &counters);
        if net.random.chance(20) {
            self.service.sessions().expire(net.now());
            self.check_limits(net);
        }
    }

    /// Handles expired leases and waits, and discards forgotten links.
    pub(crate) fn keep_time(&mut self, net: &mut Network) {
        if !self.is_active() || self.expiry.is_none_or(|expiry| expiry > net.now()) {
            return;
        }
        self.expiry = None;
        if self.planted == PlantedBug::SleepOverLocks {
            return;
        }
        let mut effects = Effects::new();
        let next = self.service.advance_locks(net.now(), &mut effects);
        self.deliver(net, effects);
        self.wake_at(net, next);
    }

    /// Applies the effects of a turn, as the server's driver does.
    fn apply_effects(&mut self, net: &mut Network, effects: Effects, counters: &RequestCounters) {
        self.service.record(counters);
        self.knows_links |= effects.link_opened;
        let expiry_changed = effects.expiry_changed;
        self.deliver(net, effects);
        if expiry_changed {
            self.wake_at(net, Some(net.now()));
        } else if counters.locking() > 0 {
            self.wake_at(net, self.service.locks().soonest());
        }
    }

    fn deliver(&mut self, net: &mut Network, effects: Effects) {
        let taken = effects.taken_over.into_iter().map(|id| (id, Notification::LinkTakenOver));
        let completions = effects
            .completions
            .into_iter()
            .map(|completion| (completion.reply.connection, Notification::Completion(completion)));
        for (id, notification) in taken.chain(completions) {
            if let Some(connection) = self.connections.get_mut(&(id.number() as u32)) {
                if self.planted == PlantedBug::LoseGrant && net.random.chance(100) {
                    continue;
                }
                connection.mail.push_back(notification);
                net.call(connection.end);
            }
        }
    }

    fn wake_at(&mut self, net: &mut Network, at: Option<Time>) {
        if let Some(at) = at
            && self.expiry.is_none_or(|expiry| expiry > at)
        {
            self.expiry = Some(at);
            net.agenda.at(at, SimEvent::LockTime);
        }
    }

    /// Checks that the server is idle, once `now` is late enough.
    ///
    /// # Errors
    /// The remnant that was found.
    pub(crate) fn check_idle(&self, agents: usize, now: Time) -> Result<(), Remnant> {
        if self.connections.values().any(|it| !it.is_idle()) {
            return Err(Remnant::Server);
        }
        if self.connections.len() > agents {
            return Err(Remnant::ServerConnections { connections: self.connections.len(), agents });
        }
        let locks = self.service.locks().totals();
        if locks.holders + locks.waiters > 0 {
            return Err(Remnant::Locks { holders: locks.holders, waiters: locks.waiters });
        }
        let sessions = self.service.sessions();
        while sessions.expire(now).sessions > 0 {}
        match sessions.totals(now).sessions {
            0 => Ok(()),
            sessions => Err(Remnant::Sessions { sessions }),
        }
    }

    /// Counts evicted sessions.
    pub(crate) fn count_evictions(&self, net: &mut Network) {
        let evicted = self.service.sessions().totals(net.now()).evicted;
        net.trace.count("sessions evicted", evicted);
    }

    fn check_limits(&self, net: &mut Network) {
        let totals = self.service.sessions().totals(net.now());
        let limits = self.plan.limits;
        let above = |number: u64, limit: u64| limit > 0 && number > limit;
        if above(totals.sessions, limits.sessions) || above(totals.bytes, limits.bytes) {
            net.fail(Violation::LimitExceeded { sessions: totals.sessions, bytes: totals.bytes });
        }
    }
}

fn new_service(plan: &ServerPlan, planted: PlantedBug, fences: &FenceSource) -> Service {
    let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
    let locks = ShardedLocks::new(plan.shards, settings, fences.clone(), [3; 32]);
    let grace_ms = if planted == PlantedBug::ForgetGrace { 1 } else { plan.grace_ms };
    let links = LinkPolicy { grace_ms, auto_release: planted != PlantedBug::KeepLocksOfTheDead };
    Service::new(new_store(plan, planted), locks, links, None)
}

fn new_store(plan: &ServerPlan, planted: PlantedBug) -> Arc<dyn SessionStore> {
    let limits = if planted == PlantedBug::IgnoreLimits { SessionLimits::default() } else { plan.limits };
    let store = ShardedSessions::new(plan.shards, limits, plan.hash_seed);
    if planted.is_of_the_store() { Arc::new(FaultyStore::new(store, planted)) } else { Arc::new(store) }
}
