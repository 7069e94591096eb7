//! A run: all participants, and the loop that processes the events.

use super::agent::SimAgent;
use super::application::Application;
use super::direct::DirectClient;
use super::event_queue::{EventQueue, EventTime, SimEvent};
use super::history::History;
use super::lock::{LockHistory, LockViolation, Locker, LockerEnv};
use super::network::{Network, NetworkEnd, Party};
use super::planted_bug::PlantedBug;
use super::random::SeededRng;
use super::scenario::Scenario;
use super::server::{ServerState, SimServer};
use super::violation::{Remnant, Violation};
use libdc::limits::SESSION_TIMEOUT_MS_MAX;

/// Faults are injected only before this virtual time.
const FAULTS_MS: u64 = 10 * 60_000;
/// Maximum number of faults in a run.
const FAULTS_MAX: u64 = 100;
/// Maximum number of events in a run: many times that of the longest one.
const EVENTS_MAX: u64 = 3_000_000;
/// All applications have finished by this time.
const RUN_MS_MAX: u64 = 4 * 60 * 60_000;
/// Everything is idle this long after the last answer: longer than any stall, silence or pause.
const QUIET_MS_MAX: u64 = 5 * 60_000;

/// All participants of a run.
pub(crate) struct World {
    pub(crate) net: Network,
    pub(crate) server: SimServer,
    pub(crate) history: History,
    pub(crate) locking: LockHistory,
    scenario: Scenario,
    pub(crate) agents: Vec<SimAgent>,
    lockers: Vec<Locker>,
    applications: Vec<Application>,
    direct: Vec<DirectClient>,
    events: u64,
    faults: u64,
    /// Number of shutdowns of the server.
    pub(crate) drains: u32,
    /// The server was stopped at this time, and shuts down when it continues.
    pub(crate) drains_on_continue: Option<EventTime>,
}

impl World {
    /// The run of a seed, before its first event.
    pub(crate) fn new(seed: u64, sabotage: PlantedBug, lines: bool) -> Self {
        let mut random = SeededRng::new(seed);
        let scenario = Scenario::draw(&mut random);
        let mut net = Network::new(random.fork(), lines);
        let agents = scenario.agents.iter().enumerate();
        let agents: Vec<_> = agents.map(|(number, plan)| SimAgent::new(number, *plan, sabotage)).collect();
        let plans = scenario.applications.iter().enumerate();
        let applications: Vec<_> = plans
            .map(|(number, plan)| Application::new(number, plan.clone(), &scenario, random.fork(), sabotage))
            .collect();
        for agent in 0..agents.len() {
            net.agenda.after_ms(0, SimEvent::Attempt(agent, 0));
        }
        for application in 0..applications.len() {
            net.agenda.after_ms(0, SimEvent::Application(application));
        }
        let plans = scenario.lockers.iter().enumerate();
        let lockers: Vec<_> = plans.map(|(number, plan)| Locker::new(number, *plan, random.fork())).collect();
        for locker in 0..lockers.len() {
            net.agenda.after_ms(0, SimEvent::Locker(locker));
        }
        let plans = scenario.direct.iter().enumerate();
        let direct: Vec<_> =
            plans.map(|(number, plan)| DirectClient::new(number, *plan, random.fork())).collect();
        for client in 0..direct.len() {
            net.agenda.after_ms(0, SimEvent::Direct(client));
        }
        net.agenda.after_ms(scenario.faults.interval_ms, SimEvent::Fault);
        let server = SimServer::new(scenario.server, sabotage, net.now());
        Self {
            net,
            server,
            locking: LockHistory::new(scenario.server.keeps_state, scenario.server.grace_ms),
            lockers,
            history: History::new(scenario.ids.len(), scenario.server.evicts()),
            agents,
            applications,
            direct,
            scenario,
            events: 0,
            faults: 0,
            drains: 0,
            drains_on_continue: None,
        }
    }

    /// Processes events to the end of the run.
    ///
    /// # Errors
    /// The first violation.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let start = self.net.now();
        let end = |agenda: &EventQueue, ms: u64| start.after_ms(ms + agenda.leapt_ms());
        while !self.is_done() {
            let Some(event) = self.net.agenda.next(end(&self.net.agenda, RUN_MS_MAX)) else {
                return Err(self.unanswered());
            };
            let breaks = event != SimEvent::Fault || self.net.now() < end(&self.net.agenda, FAULTS_MS);
            if breaks {
                self.happen(event)?;
            }
        }
        self.finish()?;
        self.server.count_evictions(&mut self.net);
        self.history.verify()?;
        self.locking.verify().map_err(Violation::Locking)
    }

    /// Whether all participants have finished.
    fn is_done(&self) -> bool {
        self.applications.iter().all(Application::is_done)
            && self.lockers.iter().all(Locker::is_done)
            && self.direct.iter().all(DirectClient::is_done)
    }

    /// The violation for an operation that did not finish.
    fn unanswered(&self) -> Violation {
        let locking = || {
            let operation = self.locking.open();
            operation.map(|operation| Violation::Locking(LockViolation::Unanswered { operation }))
        };
        let session = self.history.open().map(|operation| Violation::Unanswered { operation });
        let remnant = || Violation::NotIdle(Remnant::Locals { agent: 0, connections: 1 });
        let direct = || self.direct.iter().find_map(DirectClient::unanswered);
        session.or_else(locking).or_else(direct).unwrap_or_else(remnant)
    }

    /// Number of events processed.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    /// Processes events until everything is idle.
    fn finish(&mut self) -> Result<(), Violation> {
        let end = self.net.now().after_ms(QUIET_MS_MAX);
        while let Err(remnant) = self.check_idle() {
            match self.net.agenda.next(end) {
                Some(SimEvent::Fault) => {}
                Some(event) => self.happen(event)?,
                None => return Err(remnant.into()),
            }
        }
        Ok(())
    }

    fn check_idle(&self) -> Result<(), Remnant> {
        for agent in &self.agents {
            agent.check_idle(&self.net)?;
        }
        let late = self.net.now().after_ms(u64::from(SESSION_TIMEOUT_MS_MAX));
        self.server.check_idle(self.agents.len(), late)
    }

    fn happen(&mut self, event: SimEvent) -> Result<(), Violation> {
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(Violation::Endless { events: self.events });
        }
        self.net.note(super::trace::TraceEvent::Event(event));
        self.dispatch(event);
        if self.server.finish_drain(&mut self.net) {
            self.process_ended();
        }
        self.run_until_idle();
        self.net.violation().cloned().map_or(Ok(()), Err)
    }

    fn dispatch(&mut self, event: SimEvent) {
        match event {
            SimEvent::Arrive(end) => {
                if self.net.arrive(end) {
                    self.turn(end);
                }
            }
            SimEvent::Turn(end) => {
                self.net.turn_came(end);
                self.turn(end);
            }
            SimEvent::Timer(end) => {
                if self.net.timer_came(end) {
                    self.turn(end);
                }
            }
            SimEvent::LinkTurn(agent) => self.agents[agent].turn_link(&mut self.net),
            SimEvent::Attempt(agent, generation)
            | SimEvent::Connected(agent, generation)
            | SimEvent::AgentEnds(agent, generation)
                if generation != self.agents[agent].generation() => {}
            SimEvent::Attempt(agent, generation) => self.attempt(agent, generation),
            SimEvent::Connected(agent, _) => self.connected(agent),
            SimEvent::AgentEnds(agent, _) => self.agents[agent].finish_on(&mut self.net),
            SimEvent::AgentStart(agent) => self.agents[agent].start(&mut self.net),
            SimEvent::Direct(client) => {
                self.direct[client].wake(&mut self.net, &mut self.server, &self.scenario);
            }
            SimEvent::ServerWorker => self.server.work(&mut self.net),
            SimEvent::ShutdownTimeout(drain) => {
                if drain == self.drains && self.server.state() == ServerState::Draining {
                    self.server.drain_timeout(&mut self.net);
                    self.process_ended();
                }
            }
            SimEvent::LockTime => self.server.keep_time(&mut self.net),
            SimEvent::Locker(locker) => {
                let mut around = LockerEnv {
                    net: &mut self.net,
                    agents: &mut self.agents,
                    server: &mut self.server,
                    history: &mut self.locking,
                };
                self.lockers[locker].wake(&mut around, &self.scenario);
            }
            SimEvent::Application(application) => {
                let application = &mut self.applications[application];
                let agent = &mut self.agents[application.agent()];
                application.wake(&mut self.net, agent, &mut self.history, &self.scenario);
            }
            SimEvent::Fault => self.fault(),
            SimEvent::Start => {
                if self.server.start(&mut self.net) {
                    self.locking.held_off(self.net.moment());
                }
            }
            SimEvent::Continue => self.continue_server(),
        }
    }

    fn continue_server(&mut self) {
        self.server.go_on(&mut self.net);
        if let Some(stopped) = self.drains_on_continue.take()
            && self.server.state() == ServerState::Running
        {
            self.drain_server(stopped);
        }
    }

    /// Gives the owner of this end a turn.
    fn turn(&mut self, end: NetworkEnd) {
        match self.net.owner(end) {
            Some(Party::Application(application)) => {
                let application = &mut self.applications[application];
                let agent = &self.agents[application.agent()];
                application.turn(&mut self.net, agent, &mut self.history);
            }
            Some(Party::Locker { locker, .. }) => {
                self.lockers[locker].turn(&mut self.net, &mut self.locking);
            }
            Some(Party::Local { agent, id }) => self.agents[agent].turn_local(&mut self.net, id),
            Some(Party::Link(agent)) => self.agents[agent].turn_link(&mut self.net),
            Some(Party::Direct(client)) => self.direct[client].turn(&mut self.net, &self.server),
            Some(Party::Server { .. }) => self.server.wake(&mut self.net, end),
            Some(Party::Idle) | None => {}
        }
    }

    /// Connects an application that sends no request to an agent that is about to shut down.
    pub(crate) fn connect_idle(&mut self, agent: usize) {
        if self.agents[agent].is_there() {
            self.net.trace.count("connections without a request drained", 1);
            let quality = self.scenario.network.local(&mut self.net.random);
            self.agents[agent].accept(&mut self.net, Party::Idle, quality);
        }
    }

    /// An agent tries to connect to the server.
    fn attempt(&mut self, agent: usize, generation: u32) {
        self.agents[agent].note_attempt(&mut self.net);
        let plan = self.scenario.network;
        let takes_ms = self.net.random.between(0..=plan.connect_ms);
        self.net.agenda.after_ms(takes_ms, SimEvent::Connected(agent, generation));
    }

    /// The attempt succeeds or fails.
    fn connected(&mut self, agent: usize) {
        let plan = self.scenario.network;
        // Once all participants have finished, the network is fault-free.
        let calm = self.is_done();
        let fails = !calm && self.net.random.chance(plan.attempts_failing);
        if fails || !matches!(self.server.state(), ServerState::Running | ServerState::Stopped) {
            self.agents[agent].attempt_failed(&mut self.net);
            return;
        }
        let quality = plan.link(&mut self.net.random);
        let connection = self.net.connect(Party::Link(agent), Party::Server { agent: Some(agent) }, quality);
        self.server.accept(&mut self.net, NetworkEnd { connection, side: 1 }, Some(agent));
        self.agents[agent].link_connected(&mut self.net, NetworkEnd { connection, side: 0 });
    }

    fn fault(&mut self) {
        let plan = &self.scenario.faults;
        if plan.kinds.is_empty() || self.faults == FAULTS_MAX {
            return;
        }
        self.faults += 1;
        let kind = self.net.random.pick(&plan.kinds);
        let pause_ms = self.net.random.between(0..=plan.interval_ms);
        self.net.agenda.after_ms(pause_ms, SimEvent::Fault);
        self.inflict(kind);
    }

    /// Finds the points in time after which abandoned requests can have no effect.
    fn run_until_idle(&mut self) {
        for (number, agent) in self.agents.iter().enumerate() {
            let unsettled = self.history.is_unsettled(number) || self.locking.is_unsettled(number);
            if !unsettled || agent.in_flight() > 0 {
                continue;
            }
            let link = agent.link_connection();
            if self.server.connections_of(number).all(|connection| Some(connection) == link) {
                let now = self.net.moment();
                let net = &self.net;
                let is_gone = |connection| net.owner(NetworkEnd { connection, side: 1 }).is_none();
                self.history.resolve_gone(now, number, is_gone);
                if agent.is_linked() {
                    self.locking.resolve_gone(now, number, is_gone);
                }
            }
        }
        let net = &self.net;
        self.locking.settle_direct(|connection| net.closed(NetworkEnd { connection, side: 1 }));
    }
}
