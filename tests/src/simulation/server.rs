//! The server process: the real service and machines, driven as the server's driver drives them.
//!
//! It can be killed, stopped and continued, and be an *original* one, which differs in two things: its
//! answers carry patch level 0, and what is not of class 0 must never be sent to it. Another one may send
//! the answers to what it has read at once in any order, as the protocol allows.
//!
//! One that keeps a state directory knows, started again, how far the fences had come, and whether there were links:
//! then it grants nothing before their grace is over. One without takes its fences from the clock, and knows nothing.

use super::event_queue::SimEvent;
use super::network::{Network, NetworkEnd};
use super::planted_bug::{FaultyStore, PlantedBug};
use super::scenario::ServerPlan;
use super::serving::{Serving, ServingStep, SimNotification};
use super::trace::TraceEvent;
use super::violation::{Remnant, Violation};
use libdc::id::ConnectionId;
use libdc::service::{Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, SessionStore, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fences for each millisecond of the clock, as the program takes them without a state directory.
const FENCES_PER_MS_BITS: u32 = 20;
/// With one, so many are reserved ahead.
const FENCES_RESERVED: u64 = 1_000;

/// The server process.
pub(crate) struct SimServer {
    plan: ServerPlan,
    sabotage: PlantedBug,
    state: ServerState,
    original: bool,
    service: Service,
    fences: FenceSource,
    /// A link was opened in this run.
    knows_links: bool,
    connections: BTreeMap<u32, Serving>,
    /// When the next [`SimEvent::LockTime`] comes that counts.
    alarm: Option<Time>,
}

/// Whether the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// It does.
    Running,
    /// It exists, and its sockets do, but it does nothing.
    Stopped,
    /// It does not exist.
    Dead,
}

impl SimServer {
    /// A server that runs and stores nothing yet.
    pub(crate) fn new(plan: ServerPlan, sabotage: PlantedBug, now: Time) -> Self {
        let fences = FenceSource::starting_at(now.as_ms() << FENCES_PER_MS_BITS);
        Self {
            service: new_service(&plan, sabotage, &fences),
            fences,
            original: plan.original,
            plan,
            sabotage,
            state: ServerState::Running,
            knows_links: false,
            connections: BTreeMap::new(),
            alarm: None,
        }
    }

    /// Whether it runs.
    pub(crate) const fn state(&self) -> ServerState {
        self.state
    }

    /// Killed: all connections break, all sessions are lost.
    pub(crate) fn kill(&mut self, net: &mut Network) {
        net.note(TraceEvent::Killed);
        self.state = ServerState::Dead;
        for (connection, serving) in std::mem::take(&mut self.connections) {
            net.cut(connection);
            net.close(serving.end);
        }
    }

    /// Started again. Returns whether it grants nothing for a while.
    pub(crate) fn start(&mut self, net: &mut Network) -> bool {
        if self.plan.may_change {
            self.original = net.random.chance(500);
        }
        net.note(TraceEvent::Started { original: self.original });
        self.state = ServerState::Running;
        self.count_evictions(net);
        self.alarm = None;
        self.fences = match self.sabotage {
            PlantedBug::RepeatFences => FenceSource::starting_at(1),
            _ if self.plan.keeps_state => FenceSource::starting_at(self.fences.current() + FENCES_RESERVED),
            _ => FenceSource::starting_at(net.now().as_ms() << FENCES_PER_MS_BITS),
        };
        if self.sabotage != PlantedBug::SurviveRestart {
            self.service = new_service(&self.plan, self.sabotage, &self.fences);
        }
        // Those of the run before may still hold something, whatever becomes of this run until the grace is over.
        let holds_off = self.plan.keeps_state && self.knows_links && self.sabotage != PlantedBug::GrantAtOnce;
        self.knows_links = self.knows_links && self.plan.keeps_state;
        if holds_off {
            net.trace.count("grants held off", 1);
            self.service.locks().hold_off(net.now().after_ms(self.plan.grace_ms.into()));
        }
        holds_off
    }

    /// Stopped, as by SIGSTOP.
    pub(crate) fn stop(&mut self, net: &mut Network) {
        net.note(TraceEvent::Stopped);
        self.state = ServerState::Stopped;
    }

    /// Goes on after a stop.
    pub(crate) fn go_on(&mut self, net: &mut Network) {
        if self.state == ServerState::Stopped {
            net.note(TraceEvent::Continued);
            self.state = ServerState::Running;
            for serving in self.connections.values() {
                net.call(serving.end);
            }
            self.alarm = None;
            self.wake_at(net, Some(net.now()));
        }
    }

    /// Somebody connected. While the process is stopped, the system does that for it.
    pub(crate) fn accept(&mut self, net: &mut Network, end: NetworkEnd, agent: Option<usize>) {
        let id = ConnectionId::new(u64::from(end.connection));
        self.service.connection_opened();
        self.connections
            .insert(end.connection, Serving::new(net.now(), end, agent, id, &self.service, self.sabotage));
        net.call(end);
    }

    /// The connections that this agent has, or has left without the server's having seen it.
    pub(crate) fn connections_of(&self, agent: usize) -> impl Iterator<Item = u32> {
        self.connections
            .iter()
            .filter(move |(_, serving)| serving.agent == Some(agent))
            .map(|(number, _)| *number)
    }

    /// The turn of a connection.
    pub(crate) fn turn(&mut self, net: &mut Network, end: NetworkEnd) {
        if self.state != ServerState::Running {
            return;
        }
        let Some(mut serving) = self.connections.remove(&end.connection) else {
            return;
        };
        let mut step = self.step();
        let open = serving.serve(net, &mut step) && serving.keep_times(net, &mut step);
        if !open {
            serving.close(net.now(), &mut step);
        }
        let ServingStep { effects, tally, .. } = step;
        if open {
            self.connections.insert(end.connection, serving);
        } else {
            self.service.connection_closed();
            net.close(end);
        }
        self.apply_effects(net, effects, &tally, !open);
        if net.random.chance(20) {
            self.service.sessions().expire(net.now());
            self.check_limits(net);
        }
    }

    /// Leases and waits may have ended, or links are forgotten.
    pub(crate) fn keep_time(&mut self, net: &mut Network) {
        if self.state != ServerState::Running || self.alarm.is_none_or(|alarm| alarm > net.now()) {
            return;
        }
        self.alarm = None;
        if self.sabotage == PlantedBug::SleepOverLocks {
            return;
        }
        let mut effects = Effects::new();
        let next = self.service.advance_locks(net.now(), &mut effects);
        self.deliver(net, effects);
        self.wake_at(net, next);
    }

    fn step(&self) -> ServingStep<'_> {
        ServingStep {
            service: &self.service,
            original: self.original,
            any_order: self.plan.answers_in_any_order && !self.original,
            effects: Effects::new(),
            tally: RequestCounters::default(),
        }
    }

    /// What follows from a step is done, as the server's driver does it.
    fn apply_effects(&mut self, net: &mut Network, effects: Effects, tally: &RequestCounters, closed: bool) {
        self.service.record(tally);
        self.knows_links |= effects.greeted;
        self.deliver(net, effects);
        if closed {
            self.wake_at(net, Some(net.now()));
        } else if tally.locking() > 0 {
            self.wake_at(net, self.service.locks().soonest());
        }
    }

    fn deliver(&mut self, net: &mut Network, effects: Effects) {
        let taken = effects.taken_over.into_iter().map(|id| (id, SimNotification::TakenOver));
        let answers = effects
            .answers
            .into_iter()
            .map(|answer| (answer.reply.connection, SimNotification::Answer(answer)));
        for (id, letter) in taken.chain(answers) {
            if let Some(serving) = self.connections.get_mut(&(id.number() as u32)) {
                if self.sabotage == PlantedBug::LoseGrant && net.random.chance(100) {
                    continue;
                }
                serving.letters.push_back(letter);
                net.call(serving.end);
            }
        }
    }

    fn wake_at(&mut self, net: &mut Network, at: Option<Time>) {
        if let Some(at) = at
            && self.alarm.is_none_or(|alarm| alarm > at)
        {
            self.alarm = Some(at);
            net.agenda.at(at, SimEvent::LockTime);
        }
    }

    /// Whether everything is as if nothing had happened, once `now` is late enough.
    ///
    /// # Errors
    /// What is left.
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

    /// Counts what had to make room for something else.
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

fn new_service(plan: &ServerPlan, sabotage: PlantedBug, fences: &FenceSource) -> Service {
    let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
    let locks = ShardedLocks::new(plan.shards, settings, fences.clone(), [3; 32]);
    let grace_ms = if sabotage == PlantedBug::ForgetGrace { 1 } else { plan.grace_ms };
    let links = LinkPolicy { grace_ms, auto_release: sabotage != PlantedBug::KeepLocksOfTheDead };
    Service::new(new_store(plan, sabotage), locks, links, None)
}

fn new_store(plan: &ServerPlan, sabotage: PlantedBug) -> Arc<dyn SessionStore> {
    let limits = if sabotage == PlantedBug::IgnoreLimits { SessionLimits::default() } else { plan.limits };
    let store = ShardedSessions::new(plan.shards, limits, plan.hash_seed);
    if sabotage.is_of_the_store() { Arc::new(FaultyStore::new(store, sabotage)) } else { Arc::new(store) }
}
