//! An agent process: the real multiplexer, driven as the agent's driver drives it, with its way of keeping a
//! link: again at once if the server was there, after the pause of `-retry` if not.
//!
//! It can be killed, and end in good order: then it lets go who is not in the middle of something, later everybody,
//! and says goodbye to the server. Started again it is another link.

use super::event_queue::SimEvent;
use super::network::{Network, NetworkEnd, Party};
use super::pipe::{Incoming, PipeQuality};
use super::planted_bug::PlantedBug;
use super::scenario::AgentPlan;
use super::timeline::Mark;
use super::trace::TraceEvent;
use super::violation::{Remnant, Violation};
use libdc::id::LinkId;
use libdc::limits::LINK_OUTBOX_BYTES_MAX;
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::{Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::{LinkError, LinkState};
use libdc::time::Time;

/// How long a process that ends waits for those who are served, and then for the server.
const SHUTDOWN_MS: u64 = 500;
const GOODBYE_MS: u64 = 2_000;

/// An agent process, and those after it.
pub(crate) struct SimAgent {
    number: usize,
    process: AgentPhase,
    /// Processes so far. What was planned for another one does not concern this one.
    generation: u32,
    plan: AgentPlan,
    deaf: bool,
    multiplexer: Multiplexer,
    /// By [`LocalId::place`].
    locals: Vec<Option<SimLocalSocket>>,
    link: Option<SimLinkSocket>,
    state: LinkState,
    losses: u64,
    link_called: bool,
    scratch: Vec<u8>,
}

/// What becomes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AgentPhase {
    /// It serves.
    Running,
    /// It lets connections go that are not in the middle of something.
    Draining,
    /// It has no connections, and waits for the server to hear that it ends.
    Leaving,
    /// There is none.
    Dead,
}

#[derive(Clone, Copy)]
struct SimLinkSocket {
    end: NetworkEnd,
    /// When something came last.
    heard_at: Time,
    proven_at: Option<Time>,
}

struct SimLocalSocket {
    id: LocalId,
    end: NetworkEnd,
    /// The application will ask nothing more.
    finished: bool,
    refused: Option<LocalCloseReason>,
    broken: bool,
    received: u64,
    written: u64,
}

enum SimLocalEnd {
    Lost,
    Fault(LocalCloseReason),
}

impl SimAgent {
    /// An agent without connections, which will try to reach the server.
    pub(crate) fn new(number: usize, plan: AgentPlan, sabotage: PlantedBug) -> Self {
        Self {
            number,
            process: AgentPhase::Running,
            generation: 0,
            plan,
            deaf: sabotage == PlantedBug::DeafAgent,
            multiplexer: new_multiplexer(number, 0, plan),
            locals: Vec::new(),
            link: None,
            state: LinkState::Down,
            losses: 0,
            link_called: false,
            scratch: Vec::new(),
        }
    }

    /// The longest time that it may take to answer, in milliseconds; 0 is any.
    pub(crate) const fn timeout_ms(&self) -> u64 {
        self.plan.timeout_ms
    }

    /// Requests that it knows to be under way.
    pub(crate) const fn in_flight(&self) -> usize {
        self.multiplexer.in_flight()
    }

    /// Whether applications can connect.
    pub(crate) fn is_there(&self) -> bool {
        self.process == AgentPhase::Running
    }

    /// Whether its link is up.
    pub(crate) const fn is_linked(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    /// Which process it is, of those that the agent has been.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The connection that is its link, if there is one.
    pub(crate) fn link_connection(&self) -> Option<u32> {
        self.link.map(|link| link.end.connection)
    }

    // ---- the process

    /// It is killed: all its connections break.
    pub(crate) fn kill(&mut self, net: &mut Network) {
        if self.process == AgentPhase::Dead {
            return;
        }
        net.note(TraceEvent::AgentKilled { agent: self.number });
        self.stop(net);
    }

    /// It is asked to end in good order.
    pub(crate) fn finish(&mut self, net: &mut Network) {
        if self.process != AgentPhase::Running {
            return;
        }
        net.note(TraceEvent::AgentEnds { agent: self.number });
        self.process = AgentPhase::Draining;
        for local in self.locals.iter().flatten() {
            net.call(local.end);
        }
        net.agenda.after_ms(SHUTDOWN_MS, SimEvent::AgentEnds(self.number, self.generation));
    }

    /// It has waited long enough for what it waits for.
    pub(crate) fn finish_on(&mut self, net: &mut Network) {
        match self.process {
            AgentPhase::Draining => {
                self.process = AgentPhase::Leaving;
                for local in std::mem::take(&mut self.locals).into_iter().flatten() {
                    net.cut(local.end.connection);
                    self.close_local(net, &local, None);
                }
                if self.multiplexer.send_bye(net.now()) {
                    self.wake_link(net);
                    net.agenda.after_ms(GOODBYE_MS, SimEvent::AgentEnds(self.number, self.generation));
                } else {
                    self.stop(net);
                }
            }
            AgentPhase::Leaving => self.stop(net),
            AgentPhase::Running | AgentPhase::Dead => {}
        }
    }

    fn stop(&mut self, net: &mut Network) {
        for local in std::mem::take(&mut self.locals).into_iter().flatten() {
            net.cut(local.end.connection);
            net.close(local.end);
        }
        if let Some(link) = self.link.take() {
            net.cut(link.end.connection);
            net.close(link.end);
        }
        self.process = AgentPhase::Dead;
        self.generation += 1;
        self.multiplexer = new_multiplexer(self.number, self.generation, self.plan);
        self.note_state(net);
        self.losses += 1;
        self.link_called = false;
        let pause_ms = net.random.below(2 * self.plan.retry_ms + 1);
        net.agenda.after_ms(pause_ms, SimEvent::AgentStart(self.number));
    }

    /// It is started again.
    pub(crate) fn start(&mut self, net: &mut Network) {
        self.process = AgentPhase::Running;
        net.agenda.after_ms(0, SimEvent::Attempt(self.number, self.generation));
    }

    // ---- local connections

    /// An application connects.
    pub(crate) fn accept(
        &mut self,
        net: &mut Network,
        application: Party,
        quality: [PipeQuality; 2],
    ) -> NetworkEnd {
        let id = self.multiplexer.open_local(net.now());
        let local = Party::Local { agent: self.number, id };
        let connection = net.connect(application, local, quality);
        let end = NetworkEnd { connection, side: 1 };
        let socket = SimLocalSocket {
            id,
            end,
            finished: false,
            refused: None,
            broken: false,
            received: 0,
            written: 0,
        };
        if self.locals.len() <= id.slot() {
            self.locals.resize_with(id.slot() + 1, || None);
        }
        self.locals[id.slot()] = Some(socket);
        net.call(end);
        end.peer()
    }

    /// The turn of a local connection.
    pub(crate) fn turn_local(&mut self, net: &mut Network, id: LocalId) {
        let Some(mut local) = self.locals.get_mut(id.slot()).and_then(|it| it.take_if(|it| it.id == id))
        else {
            return;
        };
        let ended = self.serve_local(net, &mut local).err();
        if !self.multiplexer.link_output().is_empty() {
            self.wake_link(net);
        }
        let ended = ended.map_or_else(
            || {
                let ends = local.finished || self.process == AgentPhase::Draining;
                if ends && self.multiplexer.can_close_local(id) {
                    return Some(None);
                }
                let had_output = !self.multiplexer.local_output(id).is_empty();
                let fault = self.multiplexer.check_local(net.now(), id).err();
                if !had_output && !self.multiplexer.local_output(id).is_empty() {
                    // A last word, before the connection ends.
                    net.call(local.end);
                }
                fault.map(Some)
            },
            |end| match end {
                SimLocalEnd::Lost => Some(None),
                SimLocalEnd::Fault(fault) => Some(Some(fault)),
            },
        );
        match ended {
            Some(fault) => self.close_local(net, &local, fault),
            None => {
                let next_look = (self.plan.idle_ms > 0).then(|| net.now().after_ms(self.plan.idle_ms));
                net.set_timer(local.end, self.multiplexer.local_deadline(id).or(next_look));
                self.locals[id.slot()] = Some(local);
            }
        }
    }

    fn close_local(&mut self, net: &mut Network, local: &SimLocalSocket, fault: Option<LocalCloseReason>) {
        if let Some(fault) = fault {
            net.note(TraceEvent::LocalFault { connection: local.end.connection, fault });
            net.witness(local.end.connection).fault = Some(fault);
        }
        self.multiplexer.close_local(net.now(), local.id);
        net.close(local.end);
        if !self.multiplexer.link_output().is_empty() {
            self.wake_link(net);
        }
    }

    fn serve_local(&mut self, net: &mut Network, local: &mut SimLocalSocket) -> Result<(), SimLocalEnd> {
        loop {
            if local.broken {
                return Err(SimLocalEnd::Lost);
            }
            let blocked = self.write_local(net, local);
            if local.broken {
                return Err(SimLocalEnd::Lost);
            }
            if let Some(fault) = local.refused
                && !blocked
            {
                return Err(SimLocalEnd::Fault(fault));
            }
            if local.finished || local.refused.is_some() {
                return Ok(());
            }
            if !self.multiplexer.wants_input(local.id) {
                net.trace.count("applications held back", 1);
                return Ok(());
            }
            self.scratch.clear();
            match net.read(local.end, &mut self.scratch) {
                Incoming::Nothing => return Ok(()),
                Incoming::Broken => return Err(SimLocalEnd::Lost),
                Incoming::Finished => {
                    local.finished = true;
                    self.multiplexer.finish_local(net.now(), local.id);
                }
                Incoming::Bytes(count) => {
                    local.received += count as u64;
                    local.refused = self.multiplexer.handle_local(net.now(), local.id, &self.scratch).err();
                    self.observe(net, local);
                }
            }
        }
    }

    /// Writes what the connection takes. Returns whether something is left.
    fn write_local(&mut self, net: &mut Network, local: &mut SimLocalSocket) -> bool {
        loop {
            self.observe(net, local);
            let output = self.multiplexer.local_output(local.id);
            let (count, blocked) = if output.is_empty() {
                (0, false)
            } else {
                let Ok(count) = net.write(local.end, output) else {
                    local.broken = true;
                    return false;
                };
                (count, count < output.len())
            };
            local.written += count as u64;
            if let Err(fault) = self.multiplexer.local_written(net.now(), local.id, count, blocked) {
                local.refused.get_or_insert(fault);
            }
            self.observe(net, local);
            if blocked || self.multiplexer.local_output(local.id).is_empty() {
                return blocked;
            }
        }
    }

    /// Notes how far the connection has come.
    fn observe(&self, net: &mut Network, local: &SimLocalSocket) {
        let mark = Mark {
            offset: local.received,
            at: net.now(),
            leapt_ms: net.agenda.leapt_ms(),
            link_up: matches!(self.state, LinkState::Up { .. }),
            link_losses: self.losses,
        };
        let ready = local.written + self.multiplexer.local_output(local.id).len() as u64;
        let takes_more = self.multiplexer.wants_input(local.id);
        if !takes_more && ready == 0 && self.multiplexer.link_output().len() >= LINK_OUTBOX_BYTES_MAX {
            net.trace.count("applications held back by a full link", 1);
        }
        let witness = net.witness(local.end.connection);
        witness.handed.push(mark);
        if takes_more {
            witness.taken.push(mark);
        }
        witness.answered.push(Mark { offset: ready, ..mark });
    }

    /// Writes to every local connection what has come for it.
    fn deliver(&mut self, net: &mut Network) {
        while let Some(id) = self.multiplexer.poll_ready() {
            let Some(mut local) = self.locals.get_mut(id.slot()).and_then(|it| it.take_if(|it| it.id == id))
            else {
                continue;
            };
            let was_stalled = self.multiplexer.is_local_stalled(id);
            let was_read = self.multiplexer.wants_input(id);
            let blocked = self.write_local(net, &mut local);
            let readable_again = (was_stalled && !self.multiplexer.is_local_stalled(id))
                || (!was_read && self.multiplexer.wants_input(id));
            let ends = local.finished
                || self.process == AgentPhase::Draining
                || local.broken
                || local.refused.is_some()
                || self.multiplexer.is_local_ending(id);
            if blocked || readable_again || ends {
                net.call(local.end);
            }
            self.locals[id.slot()] = Some(local);
        }
    }

    // ---- the link

    /// The server is connected.
    pub(crate) fn link_connected(&mut self, net: &mut Network, end: NetworkEnd) {
        let mut probe_id = [0; 32];
        net.random.fill(&mut probe_id);
        self.link = Some(SimLinkSocket { end, heard_at: net.now(), proven_at: None });
        self.multiplexer.link_connected(net.now(), &probe_id);
        self.note_state(net);
        net.call(end);
    }

    /// An attempt to connect failed.
    pub(crate) fn attempt_failed(&self, net: &mut Network) {
        if self.process != AgentPhase::Leaving {
            net.agenda.after_ms(self.plan.retry_ms, SimEvent::Attempt(self.number, self.generation));
        }
    }

    /// The turn of the link, if there is one.
    pub(crate) fn turn_link(&mut self, net: &mut Network) {
        self.link_called = false;
        let Some(link) = self.link else {
            return;
        };
        if self.multiplexer.link_output().len() >= LINK_OUTBOX_BYTES_MAX {
            net.trace.count("links full", 1);
        }
        if let Err(fault) = self.serve_link(net, link.end) {
            self.lose_link(net, fault);
            return;
        }
        if self.multiplexer.link_state() == LinkState::Left {
            net.trace.count("agents that said goodbye", 1);
            self.lose_link(net, None);
            return;
        }
        if !self.deaf {
            net.set_timer(link.end, self.multiplexer.link_deadline());
        }
    }

    fn serve_link(&mut self, net: &mut Network, end: NetworkEnd) -> Result<(), Option<LinkError>> {
        let read = self.read_link(net, end);
        self.note_state(net);
        self.deliver(net);
        read?;
        if !self.deaf {
            self.multiplexer.handle_timeout(net.now())?;
        }
        loop {
            self.deliver(net);
            let output = self.multiplexer.link_output();
            if output.is_empty() {
                return Ok(());
            }
            match net.write(end, output) {
                Ok(0) => return Ok(()),
                Ok(count) => self.multiplexer.link_written(net.now(), count),
                Err(_) => return Err(None),
            }
        }
    }

    fn read_link(&mut self, net: &mut Network, end: NetworkEnd) -> Result<(), Option<LinkError>> {
        loop {
            self.scratch.clear();
            match net.read(end, &mut self.scratch) {
                Incoming::Nothing => return Ok(()),
                Incoming::Bytes(_) => {
                    if let Some(link) = &mut self.link {
                        link.heard_at = net.now();
                    }
                    self.multiplexer.handle_link(net.now(), &self.scratch)?;
                }
                Incoming::Finished | Incoming::Broken => return Err(None),
            }
        }
    }

    fn lose_link(&mut self, net: &mut Network, fault: Option<LinkError>) {
        let Some(link) = self.link.take() else { return };
        let silent_for_ms = net.now().ms_since(link.heard_at);
        match fault {
            None => {}
            Some(fault @ LinkError::Silent { silent_ms }) if silent_ms <= silent_for_ms => {
                net.note(TraceEvent::LinkFault { agent: self.number, fault });
            }
            Some(fault) => net.fail(Violation::BadLink { agent: self.number, fault }),
        }
        let now = net.now();
        self.losses += 1;
        self.multiplexer.link_lost(now);
        self.note_state(net);
        self.deliver(net);
        net.close(link.end);
        if self.process == AgentPhase::Leaving {
            self.stop(net);
            return;
        }
        let was_there = link.proven_at.is_some_and(|since| now.ms_since(since) >= self.plan.retry_ms);
        let pause_ms = if was_there { 0 } else { self.plan.retry_ms };
        net.agenda.after_ms(pause_ms, SimEvent::Attempt(self.number, self.generation));
    }

    fn note_state(&mut self, net: &mut Network) {
        let state = self.multiplexer.link_state();
        if std::mem::replace(&mut self.state, state) != state {
            net.note(TraceEvent::Link { agent: self.number, state });
        }
        if let Some(link) = &mut self.link
            && matches!(state, LinkState::Up { .. })
        {
            link.proven_at.get_or_insert(net.now());
        }
    }

    fn wake_link(&mut self, net: &mut Network) {
        if self.link.is_some() && !std::mem::replace(&mut self.link_called, true) {
            net.agenda.after_ms(0, SimEvent::LinkTurn(self.number));
        }
    }

    /// Whether everything is as if nothing had happened.
    ///
    /// # Errors
    /// What is left.
    pub(crate) fn check_idle(&self, net: &Network) -> Result<(), Remnant> {
        let agent = self.number;
        if self.process != AgentPhase::Running {
            return Err(Remnant::LinkDown { agent });
        }
        let connections = self.locals.iter().flatten().count();
        if connections > 0 {
            return Err(Remnant::Locals { agent, connections });
        }
        let LinkState::Up { patch_level } = self.state else {
            return Err(Remnant::LinkDown { agent });
        };
        // One at patch level 0 can't be asked whether it is there.
        if patch_level > 0 && self.link.is_some_and(|link| net.is_stalled(link.end.connection)) {
            return Err(Remnant::DeadLink { agent });
        }
        match (self.multiplexer.in_flight(), self.multiplexer.link_output().len()) {
            (0, 0) => Ok(()),
            (0, bytes) => Err(Remnant::Unwritten { agent, bytes }),
            (requests, _) => Err(Remnant::InFlight { agent, requests }),
        }
    }
}

/// What a process begins with. Its link has a name of its own.
fn new_multiplexer(number: usize, generation: u32, plan: AgentPlan) -> Multiplexer {
    let settings = MultiplexerSettings { timeout_ms: plan.timeout_ms, idle_ms: plan.idle_ms };
    let mut link_id = [0; LinkId::BYTES];
    link_id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    link_id[12..].copy_from_slice(&generation.to_be_bytes());
    Multiplexer::new(settings, LinkIdentity { link_id: LinkId::new(link_id), auth_token: None })
}
