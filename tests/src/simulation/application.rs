//! An application on an agent's host, well-behaved or not.
//!
//! ```text
//!             connect                           all answered, nothing left to send
//!   (alone) ───────────▶ sends, reads answers ─────────────────────────────────────▶ (alone)
//!      ▲                    │ misbehaves: disconnects, stops reading, half-closes,
//!      └────────────────────┘             sends garbage or half a message
//! ```

use super::agent::SimAgent;
use super::conversation::{ConnectionExpectation, SessionConnection};
use super::event_queue::SimEvent;
use super::history::History;
use super::network::{Network, Party};
use super::planted_bug::{AnswerTamperer, PlantedBug};
use super::random::SeededRng;
use super::request::SimRequest;
use super::scenario::{ApplicationPlan, Scenario};
use super::trace::TraceEvent;
use super::violation::Violation;

/// Longest time that an application does not read, in milliseconds: longer than the agent's write timeout.
const DEAF_MS_MAX: u64 = 20_000;
/// Shortest pause after a refused connection, in milliseconds.
const REFUSED_MS: u64 = 20;
/// Longest pause after a DISCONNECTED, in milliseconds.
const DISCOURAGED_MS: u64 = 3_000;

/// An application with its connection and plan.
pub(crate) struct Application {
    number: usize,
    plan: ApplicationPlan,
    random: SeededRng,
    sabotage: PlantedBug,
    /// Operations left to start.
    left: usize,
    connection: Option<SessionConnection>,
    uid: u32,
    /// A call to [`wake`](Self::wake) is scheduled.
    called: bool,
    discouraged: bool,
    /// The agent was not listening at the last attempt.
    is_refused: bool,
}

impl Application {
    /// An application before its first operation.
    pub(crate) fn new(
        number: usize,
        plan: ApplicationPlan,
        scenario: &Scenario,
        mut random: SeededRng,
        sabotage: PlantedBug,
    ) -> Self {
        debug_assert!(plan.agent < scenario.agents.len());
        Self {
            number,
            left: plan.operations,
            plan,
            sabotage,
            connection: None,
            // In some runs, the uids of different applications and connections are equal.
            uid: if random.chance(500) { 0 } else { random.next() as u32 },
            random,
            called: true,
            discouraged: false,
            is_refused: false,
        }
    }

    /// Index of the agent it connects to.
    pub(crate) const fn agent(&self) -> usize {
        self.plan.agent
    }

    /// Whether it has finished all operations of its plan.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0 && self.connection.is_none()
    }

    /// Runs a scheduled step: connects, misbehaves, sends.
    pub(crate) fn wake(
        &mut self,
        net: &mut Network,
        agent: &mut SimAgent,
        history: &mut History,
        scenario: &Scenario,
    ) {
        self.called = false;
        self.is_refused = !agent.is_there();
        if self.connection.is_none()
            && self.left > 0
            && !self.random.chance(scenario.network.refusals)
            && agent.is_there()
        {
            let quality = scenario.network.local(&mut net.random);
            let end = agent.accept(net, Party::Application(self.number), quality);
            self.connection = Some(SessionConnection::new(end, AnswerTamperer::new(self.sabotage)));
        }
        if self.random.chance(self.plan.misbehaves) {
            self.misbehave(net, history);
        }
        self.ask(net, history, scenario);
        self.turn(net, agent, history);
    }

    /// Reads and writes, and closes the connection when it is no longer needed.
    pub(crate) fn turn(&mut self, net: &mut Network, agent: &SimAgent, history: &mut History) {
        let Some(mut connection) = self.connection.take() else {
            self.call_again(net);
            return;
        };
        let stays_open = self.read(net, agent, history, &mut connection).unwrap_or_else(|violation| {
            net.fail(violation);
            false
        });
        connection.write(net);
        if !stays_open {
            if let Some(violation) = connection.abandoned(net) {
                net.fail(violation);
            }
            self.close(net, history, connection);
        } else if self.is_content(&connection) {
            net.note(TraceEvent::Left { application: self.number, connection: connection.end.connection });
            net.close(connection.end);
        } else {
            self.connection = Some(connection);
        }
        self.call_again(net);
    }

    /// Whether the connection is no longer needed.
    fn is_content(&self, connection: &SessionConnection) -> bool {
        let is_last = self.left == 0 || (self.plan.temporary && connection.asked > 0);
        connection.manner == ConnectionExpectation::Good && connection.is_idle() && is_last
    }

    /// Schedules the next step if there are operations left.
    fn call_again(&mut self, net: &mut Network) {
        let may_ask = self.connection.as_ref().is_none_or(|it| {
            it.manner == ConnectionExpectation::Good
                && it.open.len() < self.plan.depth
                && !(self.plan.temporary && it.asked > 0)
        });
        if self.left > 0 && may_ask && !self.called {
            self.called = true;
            let discouraged_ms = if std::mem::take(&mut self.discouraged) { DISCOURAGED_MS } else { 0 };
            let refused_ms = if self.is_refused { REFUSED_MS } else { 0 };
            let pause_ms = refused_ms + self.random.between(0..=self.plan.think_ms + discouraged_ms);
            net.agenda.after_ms(pause_ms, SimEvent::Application(self.number));
        }
    }

    fn ask(&mut self, net: &mut Network, history: &mut History, scenario: &Scenario) {
        let Some(connection) = &mut self.connection else { return };
        if connection.manner != ConnectionExpectation::Good {
            return;
        }
        let capacity = self.plan.depth.saturating_sub(connection.open.len()).min(self.left);
        if capacity == 0 || (self.plan.temporary && connection.asked > 0) {
            return;
        }
        for _ in 0..self.random.between(1..=capacity as u64) {
            let request = SimRequest::draw(&self.plan, scenario, &mut self.random);
            self.left -= 1;
            self.uid = self.uid.wrapping_add(1);
            let start = net.moment();
            let (kind, session) = (request.expects.kind(), request.session.clone());
            let operation = history.begin(start, request.id, kind, session);
            net.note(TraceEvent::Asked {
                application: self.number,
                connection: connection.end.connection,
                uid: self.uid,
                operation,
                id: request.id,
                kind,
            });
            connection.ask(&request, self.uid, self.plan.patch_level, operation);
        }
    }

    /// Reads all available answers. Returns whether the connection stays open.
    fn read(
        &mut self,
        net: &mut Network,
        agent: &SimAgent,
        history: &mut History,
        connection: &mut SessionConnection,
    ) -> Result<bool, Violation> {
        let mut answers = Vec::new();
        let unreadable = |fault| Violation::Unreadable { application: self.number, fault };
        let stays_open = connection.read(net, &mut answers).map_err(unreadable)?;
        for (answer, end) in answers {
            let from = (self.number, agent);
            let (operation, outcome) = connection.accept(net, history, &answer, end, from)?;
            match outcome {
                Some(outcome) => history.finish(net, self.number, operation, outcome),
                None => {
                    self.discouraged = true;
                    history.disconnected(net, self.number, operation, self.plan.agent);
                }
            }
        }
        Ok(stays_open)
    }

    /// Records the open requests as lost, with unknown effect, and closes the connection.
    fn close(&self, net: &mut Network, history: &mut History, connection: SessionConnection) {
        for request in connection.open {
            let from = (self.plan.agent, connection.end.connection);
            history.lose(net, self.number, request.operation, from);
        }
        net.close(connection.end);
    }

    fn misbehave(&mut self, net: &mut Network, history: &mut History) {
        let Some(mut connection) = self.connection.take_if(|it| it.manner == ConnectionExpectation::Good)
        else {
            return;
        };
        let application = self.number;
        let (how, vanishes) = match self.random.below(5) {
            0 => ("vanishes", true),
            1 => {
                let until = net.now().after_ms(self.random.between(1..=DEAF_MS_MAX));
                connection.be_deaf(until);
                net.agenda.at(until, SimEvent::Turn(connection.end));
                ("reads no answers for a while", false)
            }
            2 => {
                connection.manner = ConnectionExpectation::Ending;
                ("asks nothing more on this connection", false)
            }
            3 => {
                connection.send_garbage(&mut self.random);
                ("sends garbage", false)
            }
            _ => {
                connection.send_half_a_message(&mut self.random);
                connection.write(net);
                ("sends half a message", self.random.chance(500))
            }
        };
        net.note(TraceEvent::Misbehaves { application, how });
        if vanishes {
            self.close(net, history, connection);
        } else {
            self.connection = Some(connection);
        }
    }
}
