//! An agent process: the real multiplexer and reconnect policy, driven in the same way as by the agent's
//! driver.
//!
//! It can be killed or end gracefully; in the latter case it drains its connections and sends BYE to the
//! server. After a restart it opens a new link.

mod attempts;
mod link;
mod local;
mod monitor;
mod observed;
mod reconnect;

use self::attempts::AttemptMonitor;
use self::link::SimLinkSocket;
use self::local::SimLocalSocket;
use super::event_queue::SimEvent;
use super::network::Network;
use super::planted_bug::PlantedBug;
use super::scenario::AgentPlan;
use super::trace::TraceEvent;
use super::violation::{Remnant, Violation};
use libdc::id::LinkId;
use libdc::limits::DRAIN_GRACE_MS;
use libdc::proto::agent::multiplexer::{Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::LinkState;
use libdc::proto::reconnect::{ReconnectPolicy, ReconnectSettings};

/// Shutdown deadlines: for the connections to drain, and then for the server to answer BYE.
const SHUTDOWN_MS: u64 = DRAIN_GRACE_MS + 1_000;
const BYE_TIMEOUT_MS: u64 = 1_000;

/// An agent: the current process and its successors.
pub(crate) struct SimAgent {
    number: usize,
    phase: AgentPhase,
    /// Number of processes so far. Events scheduled for an earlier process are ignored.
    generation: u32,
    plan: AgentPlan,
    bug: PlantedBug,
    multiplexer: Multiplexer,
    reconnect: ReconnectPolicy,
    /// Indexed by [`LocalId::slot`](libdc::proto::agent::local::LocalId::slot).
    locals: Vec<Option<SimLocalSocket>>,
    link: Option<SimLinkSocket>,
    state: LinkState,
    losses: u64,
    link_called: bool,
    attempts: AttemptMonitor,
    /// Number of upcoming links that break as soon as they are up.
    flaps: u64,
    /// The skipped part of the virtual time when the shutdown began, in milliseconds.
    drain_leapt_ms: u64,
    input: Vec<u8>,
}

/// The life cycle of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AgentPhase {
    Running,
    /// Closes connections that have no request in flight.
    Draining,
    /// Has no connections left and waits for the server to answer BYE.
    Leaving,
    Dead,
}

impl SimAgent {
    /// An agent without connections, which will try to connect to the server.
    pub(crate) fn new(number: usize, plan: AgentPlan, bug: PlantedBug) -> Self {
        Self {
            number,
            phase: AgentPhase::Running,
            generation: 0,
            plan,
            bug,
            multiplexer: new_multiplexer(number, 0, plan),
            reconnect: new_policy(plan),
            locals: Vec::new(),
            link: None,
            state: LinkState::Down,
            losses: 0,
            link_called: false,
            attempts: AttemptMonitor::new(number, plan.retry_ms, plan.at_once),
            flaps: 0,
            drain_leapt_ms: 0,
            input: Vec::new(),
        }
    }

    /// The request timeout in milliseconds; 0 disables it.
    pub(crate) const fn timeout_ms(&self) -> u64 {
        self.plan.timeout_ms
    }

    /// Number of unanswered requests.
    pub(crate) const fn in_flight(&self) -> usize {
        self.multiplexer.in_flight()
    }

    /// Whether it accepts connections from applications.
    pub(crate) fn is_there(&self) -> bool {
        self.phase == AgentPhase::Running
    }

    /// Whether its link is up.
    pub(crate) const fn is_linked(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    /// The number of the current process, counted over all restarts of the agent.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The connection that carries the link, if any.
    pub(crate) fn link_connection(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.end.connection)
    }

    // ---- the process

    /// Kills the process: all its connections break.
    pub(crate) fn kill(&mut self, net: &mut Network) {
        if self.phase == AgentPhase::Dead {
            return;
        }
        net.note(TraceEvent::AgentKilled { agent: self.number });
        self.end_process(net);
    }

    /// Starts a graceful shutdown.
    pub(crate) fn finish(&mut self, net: &mut Network) {
        if self.phase != AgentPhase::Running {
            return;
        }
        net.note(TraceEvent::AgentEnds { agent: self.number });
        self.phase = AgentPhase::Draining;
        self.drain_leapt_ms = net.agenda.leapt_ms();
        self.multiplexer.drain(net.now());
        self.deliver(net);
        net.agenda.after_ms(SHUTDOWN_MS, SimEvent::AgentEnds(self.number, self.generation));
        self.leave_if_drained(net);
    }

    /// Handles a shutdown deadline: of the connections, or of the answer to BYE.
    pub(crate) fn finish_on(&mut self, net: &mut Network) {
        match self.phase {
            AgentPhase::Draining => {
                for local in std::mem::take(&mut self.locals).into_iter().flatten() {
                    self.judge_cut(net, &local);
                    net.cut(local.end.connection);
                    self.close_local(net, &local, None);
                }
                self.leave(net);
            }
            AgentPhase::Leaving => self.stop(net),
            AgentPhase::Running | AgentPhase::Dead => {}
        }
    }

    fn leave_if_drained(&mut self, net: &mut Network) {
        if self.phase == AgentPhase::Draining && self.locals.iter().all(Option::is_none) {
            net.trace.count("agents drained", 1);
            self.leave(net);
        }
    }

    fn leave(&mut self, net: &mut Network) {
        self.phase = AgentPhase::Leaving;
        self.reconnect.shut_down();
        if self.bug != PlantedBug::NoBye && self.multiplexer.send_bye(net.now()) {
            self.note_state(net);
            self.wake_link(net);
            net.agenda.after_ms(BYE_TIMEOUT_MS, SimEvent::AgentEnds(self.number, self.generation));
        } else {
            self.stop(net);
        }
    }

    /// Ends the process, after its chance to send BYE.
    fn stop(&mut self, net: &mut Network) {
        let is_up = matches!(self.state, LinkState::Up { patch_level: 1.. } | LinkState::Leaving);
        if let Some(link) = self.link.as_ref().filter(|link| is_up && !link.monitor.said_bye) {
            let connection = link.end.connection;
            let is_hindered = net.was_held(connection) || net.was_cut(connection);
            if !is_hindered && self.multiplexer.link_poll_output().is_empty() {
                net.fail(Violation::EndedWithoutBye { agent: self.number });
            }
        }
        self.end_process(net);
    }

    fn end_process(&mut self, net: &mut Network) {
        for local in std::mem::take(&mut self.locals).into_iter().flatten() {
            net.cut(local.end.connection);
            net.close(local.end);
        }
        if let Some(link) = self.link.take() {
            net.cut(link.end.connection);
            net.close(link.end);
        }
        self.phase = AgentPhase::Dead;
        self.generation += 1;
        self.multiplexer = new_multiplexer(self.number, self.generation, self.plan);
        self.reconnect = new_policy(self.plan);
        self.attempts = AttemptMonitor::new(self.number, self.plan.retry_ms, self.plan.at_once);
        self.flaps = 0;
        self.note_state(net);
        self.losses += 1;
        self.link_called = false;
        let pause_ms = net.random.below(2 * self.plan.retry_ms + 1);
        net.agenda.after_ms(pause_ms, SimEvent::AgentStart(self.number));
    }

    /// Starts the process again.
    pub(crate) fn start(&mut self, net: &mut Network) {
        self.phase = AgentPhase::Running;
        net.agenda.after_ms(0, SimEvent::Attempt(self.number, self.generation));
    }

    /// Checks that the agent is idle, with no remnants of the run.
    ///
    /// # Errors
    /// The remnant that was found.
    pub(crate) fn check_idle(&self, net: &Network) -> Result<(), Remnant> {
        let agent = self.number;
        if self.phase != AgentPhase::Running {
            return Err(Remnant::LinkDown { agent });
        }
        let connections = self.locals.iter().flatten().count();
        if connections > 0 {
            return Err(Remnant::Locals { agent, connections });
        }
        let LinkState::Up { patch_level } = self.state else {
            return Err(Remnant::LinkDown { agent });
        };
        // A server at patch level 0 cannot be pinged.
        if patch_level > 0 && self.link_connection().is_some_and(|connection| net.is_stalled(connection)) {
            return Err(Remnant::DeadLink { agent });
        }
        match (self.multiplexer.in_flight(), self.multiplexer.link_poll_output().len()) {
            (0, 0) => Ok(()),
            (0, bytes) => Err(Remnant::Unwritten { agent, bytes }),
            (requests, _) => Err(Remnant::InFlight { agent, requests }),
        }
    }
}

/// The multiplexer of a new process. Each process has a different link id.
fn new_multiplexer(number: usize, generation: u32, plan: AgentPlan) -> Multiplexer {
    let settings = MultiplexerSettings { timeout_ms: plan.timeout_ms, idle_ms: plan.idle_ms };
    let mut link_id = [0; LinkId::BYTES];
    link_id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    link_id[12..].copy_from_slice(&generation.to_be_bytes());
    Multiplexer::new(settings, LinkIdentity { link_id: LinkId::new(link_id), auth_token: None })
}

const fn new_policy(plan: AgentPlan) -> ReconnectPolicy {
    ReconnectPolicy::new(ReconnectSettings::agent(plan.retry_ms, plan.at_once))
}
