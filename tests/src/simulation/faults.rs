//! The faults of a run, in addition to the misbehaviour of applications.

use super::event_queue::{EventTime, SimEvent};
use super::network::{NetworkEnd, Party};
use super::server::{SHUTDOWN_TIMEOUT_MS, ServerState};
use super::trace::TraceEvent;
use super::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A link breaks.
    CutLink,
    /// An application's connection breaks.
    CutLocal,
    /// One direction of a link stalls for a while.
    StallLink,
    /// One direction of an application's connection stalls for a while.
    StallLocal,
    /// The server is killed and restarted later.
    Kill,
    /// The server is stopped and continued later.
    Stop,
    /// The clock moves ahead.
    Leap,
    /// An agent is killed and restarted later.
    KillAgent,
    /// An agent shuts down gracefully and is restarted later.
    EndAgent,
    /// The server sends GOAWAY to an agent.
    GoAway,
    /// The next links of an agent break as soon as they are up.
    Flap,
    /// The server shuts down gracefully and is restarted later.
    EndServer,
}

impl FaultKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 12] = [
        Self::CutLink,
        Self::CutLocal,
        Self::StallLink,
        Self::StallLocal,
        Self::Kill,
        Self::Stop,
        Self::Leap,
        Self::KillAgent,
        Self::EndAgent,
        Self::GoAway,
        Self::Flap,
        Self::EndServer,
    ];
}

const STALLS_MS: [u64; 5] = [5, 200, 2_000, 8_000, 40_000];
const OUTAGES_MS: [u64; 5] = [0, 100, 500, 2_000, 20_000];
/// Probability per mille that a stalled link never recovers; its ends have to detect that.
const LOST_FOREVER: u64 = 100;
const FOREVER_MS: u64 = 1 << 40;
const LEAPS_MS: [u64; 5] = [1, 500, 6_000, 120_000, 1_000_000_000];

impl World {
    /// Injects a fault.
    pub(crate) fn inflict(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::CutLink => {
                if let Some(connection) = self.pick_connection(true) {
                    self.net.cut(connection);
                }
            }
            FaultKind::CutLocal => {
                if let Some(connection) = self.pick_connection(false) {
                    self.net.cut(connection);
                }
            }
            FaultKind::StallLink => self.stall(true),
            FaultKind::StallLocal => self.stall(false),
            FaultKind::Kill => {
                if self.server.state() != ServerState::Dead {
                    self.server.kill(&mut self.net);
                    self.process_ended();
                }
            }
            FaultKind::EndServer => {
                if self.server.state() == ServerState::Running {
                    if self.net.random.chance(500) {
                        // Bytes that arrive until then are in the kernel when the shutdown begins.
                        self.server.stop(&mut self.net);
                        self.drains_on_continue = Some(self.net.moment());
                        let pause_ms = self.net.random.between(1..=200);
                        self.net.disturb(self.net.now().after_ms(pause_ms));
                        self.net.agenda.after_ms(pause_ms, SimEvent::Continue);
                    } else {
                        let began = self.net.moment();
                        self.drain_server(began);
                    }
                }
            }
            FaultKind::Stop => {
                if self.server.state() == ServerState::Running {
                    self.server.stop(&mut self.net);
                    let pause_ms = self.draw_up_to(&STALLS_MS);
                    self.net.disturb(self.net.now().after_ms(pause_ms));
                    self.net.agenda.after_ms(pause_ms, SimEvent::Continue);
                }
            }
            FaultKind::Leap => {
                let ms = self.draw_up_to(&LEAPS_MS);
                self.net.note(TraceEvent::Leap { ms });
                self.net.agenda.leap(ms);
                self.net.disturb(self.net.now());
            }
            FaultKind::KillAgent => {
                let agent = self.net.random.below(self.agents.len() as u64) as usize;
                self.agents[agent].kill(&mut self.net);
            }
            FaultKind::EndAgent => {
                let agent = self.net.random.below(self.agents.len() as u64) as usize;
                if self.net.random.chance(300) {
                    self.connect_idle(agent);
                }
                self.agents[agent].finish(&mut self.net);
            }
            FaultKind::GoAway => {
                let agent = self.net.random.below(self.agents.len() as u64) as usize;
                self.agents[agent].send_goaway(&mut self.net);
            }
            FaultKind::Flap => {
                let agent = self.net.random.below(self.agents.len() as u64) as usize;
                let links = self.net.random.between(1..=12);
                self.agents[agent].flap(&mut self.net, links);
            }
        }
    }

    /// Shuts the server down. It has been idle since `idle_since`.
    pub(crate) fn drain_server(&mut self, idle_since: EventTime) {
        self.server.drain(&mut self.net);
        let began = self.net.now();
        self.locking.drained(idle_since, began, began.after_ms(SHUTDOWN_TIMEOUT_MS));
        self.drains += 1;
        self.net.agenda.after_ms(SHUTDOWN_TIMEOUT_MS, SimEvent::ShutdownTimeout(self.drains));
    }

    /// Handles the end of the server process, graceful or not; a restart is scheduled.
    pub(crate) fn process_ended(&mut self) {
        let ended = self.net.moment();
        self.history.kills.push(ended);
        self.locking.process_ended(ended);
        // The clock advances in any case, as the fences may be derived from it.
        let outage_ms = 1 + self.draw_up_to(&OUTAGES_MS);
        self.net.agenda.after_ms(outage_ms, SimEvent::Start);
    }

    fn stall(&mut self, link: bool) {
        if let Some(connection) = self.pick_connection(link) {
            if link && self.net.random.chance(LOST_FOREVER) {
                for side in 0..2 {
                    self.net.stall(NetworkEnd { connection, side }, FOREVER_MS);
                }
                return;
            }
            let ms = self.draw_up_to(&STALLS_MS);
            let side = self.net.random.below(2) as usize;
            self.net.stall(NetworkEnd { connection, side }, ms);
        }
    }

    fn draw_up_to(&mut self, choices: &[u64]) -> u64 {
        let most = self.net.random.pick(choices);
        self.net.random.between(0..=most)
    }

    /// Picks an open link, or an open connection of an application.
    fn pick_connection(&mut self, link: bool) -> Option<u32> {
        let is_wanted = |connection: &u32| {
            let near = self.net.owner(NetworkEnd { connection: *connection, side: 0 });
            match near {
                Some(Party::Link(_) | Party::Direct(_) | Party::Locker { direct: true, .. }) => link,
                Some(Party::Application(_) | Party::Locker { direct: false, .. }) => !link,
                _ => false,
            }
        };
        let open: Vec<u32> = self.net.open_connections().filter(is_wanted).collect();
        (!open.is_empty()).then(|| self.net.random.pick(&open))
    }
}
