//! An application on an agent's host, well-behaved or not.
//!
//! ```text
//!             connect                          all answered, no more to ask
//!   (alone) ───────────▶ asks, reads answers ──────────────────────────────▶ (alone)
//!      ▲                    │ misbehaves: vanishes, is deaf for a while, ends its side,
//!      └────────────────────┘             sends garbage or half a message
//! ```

use super::agenda::Event;
use super::agent::AgentHost;
use super::history::History;
use super::network::{End, Network};
use super::pipe::Incoming;
use super::random::Random;
use super::request::{Expects, Request};
use super::sabotage::{Sabotage, Tamperer};
use super::scenario::{ApplicationPlan, Scenario};
use super::trace::Note;
use super::violation::Violation;
use libdc::limits::FRAME_HEADER_BYTES;
use libdc::proto::local::LocalFault;
use libdc::time::Time;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use std::collections::VecDeque;

/// Longest time that an application does not read, in milliseconds: longer than the agent waits.
const DEAF_MS_MAX: u64 = 20_000;
/// Longest pause after a DISCONNECTED, in milliseconds.
const DISCOURAGED_MS: u64 = 3_000;

/// An application.
pub(crate) struct Application {
    number: usize,
    plan: ApplicationPlan,
    random: Random,
    sabotage: Sabotage,
    /// Operations that it still wants to make.
    left: usize,
    connection: Option<Connection>,
    uid: u32,
    /// A call to [`wake`](Self::wake) is on the agenda.
    called: bool,
    discouraged: bool,
}

struct Connection {
    end: End,
    reader: MessageReader,
    unread: Vec<u8>,
    outgoing: Vec<u8>,
    /// Bytes of requests made, and of answers read.
    asked: u64,
    received: u64,
    open: VecDeque<OpenRequest>,
    deaf_until: Time,
    was_deaf: bool,
    manner: Manner,
    tamperer: Tamperer,
}

/// A request that has no answer.
struct OpenRequest {
    uid: u32,
    code: Operation,
    operation: usize,
    expects: Expects,
    /// Where it ends in the stream of requests.
    end: u64,
}

/// What is to be expected of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Questions and answers.
    Good,
    /// Answers, but no more questions.
    Ending,
    /// As before, and the other side knows.
    Ended,
    /// Its end: what was sent can't be understood.
    Spoiled,
}

impl Application {
    /// An application that has done nothing yet.
    pub(crate) fn new(
        number: usize,
        plan: ApplicationPlan,
        scenario: &Scenario,
        mut random: Random,
        sabotage: Sabotage,
    ) -> Self {
        debug_assert!(plan.agent < scenario.agents.len());
        Self {
            number,
            left: plan.operations,
            plan,
            sabotage,
            connection: None,
            // Now and then the numbers of different applications, and connections, are the same.
            uid: if random.chance(500) { 0 } else { random.next() as u32 },
            random,
            called: true,
            discouraged: false,
        }
    }

    /// The agent that it uses.
    pub(crate) const fn agent(&self) -> usize {
        self.plan.agent
    }

    /// Whether it has all that it wanted.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0 && self.connection.is_none()
    }

    /// It is time to do something.
    pub(crate) fn wake(
        &mut self,
        net: &mut Network,
        agent: &mut AgentHost,
        history: &mut History,
        scenario: &Scenario,
    ) {
        self.called = false;
        if self.connection.is_none() && self.left > 0 && !self.random.chance(scenario.network.refusals) {
            let quality = scenario.network.local(&mut net.random);
            let end = agent.accept(net, self.number, quality);
            self.connection = Some(Connection::new(end, Tamperer::new(self.sabotage)));
        }
        if self.random.chance(self.plan.misbehaves) {
            self.misbehave(net, history);
        }
        self.ask(net, history, scenario);
        self.turn(net, agent, history);
    }

    /// Reads, writes, and leaves when everything is said.
    pub(crate) fn turn(&mut self, net: &mut Network, agent: &AgentHost, history: &mut History) {
        let Some(mut connection) = self.connection.take() else {
            self.call_again(net);
            return;
        };
        let goes_on = self.read(net, agent, history, &mut connection) && connection.write(net);
        if !goes_on {
            self.lost(net, history, &connection);
        } else if self.is_content(&connection) {
            net.note(Note::Left { application: self.number, connection: connection.end.connection });
            net.close(connection.end);
        } else {
            self.connection = Some(connection);
        }
        self.call_again(net);
    }

    /// Whether nothing more is to be done with the connection.
    fn is_content(&self, connection: &Connection) -> bool {
        let nothing_open = connection.open.is_empty() && connection.outgoing.is_empty();
        let enough = self.left == 0 || (self.plan.temporary && connection.asked > 0);
        connection.manner == Manner::Good && nothing_open && enough
    }

    /// Sees to it that there is a next time.
    fn call_again(&mut self, net: &mut Network) {
        let may_ask = self.connection.as_ref().is_none_or(|it| {
            it.manner == Manner::Good
                && it.open.len() < self.plan.depth
                && !(self.plan.temporary && it.asked > 0)
        });
        if self.left > 0 && may_ask && !self.called {
            self.called = true;
            let discouraged_ms = if std::mem::take(&mut self.discouraged) { DISCOURAGED_MS } else { 0 };
            let pause_ms = self.random.between(0..=self.plan.think_ms + discouraged_ms);
            net.agenda.after_ms(pause_ms, Event::Application(self.number));
        }
    }

    fn ask(&mut self, net: &mut Network, history: &mut History, scenario: &Scenario) {
        let Some(connection) = &mut self.connection else { return };
        if connection.manner != Manner::Good {
            return;
        }
        let room = self.plan.depth.saturating_sub(connection.open.len()).min(self.left);
        if room == 0 || (self.plan.temporary && connection.asked > 0) {
            return;
        }
        for _ in 0..self.random.between(1..=room as u64) {
            let request = Request::draw(&self.plan, scenario, &mut self.random);
            self.left -= 1;
            self.uid = self.uid.wrapping_add(1);
            let begun = net.moment();
            let (kind, session) = (request.expects.kind(), request.session.clone());
            let operation = history.begin(begun, request.id, kind, session);
            net.note(Note::Asked {
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

    /// Reads what there is. Returns whether the connection goes on.
    fn read(
        &mut self,
        net: &mut Network,
        agent: &AgentHost,
        history: &mut History,
        connection: &mut Connection,
    ) -> bool {
        if connection.deaf_until > net.now() {
            return true;
        }
        loop {
            let before = connection.unread.len();
            match net.read(connection.end, &mut connection.unread) {
                Incoming::Nothing => return true,
                Incoming::Finished | Incoming::Broken => return false,
                Incoming::Bytes(_) => {
                    connection.received += (connection.unread.len() - before) as u64;
                    let taken = self.take_answers(net, agent, history, connection);
                    if let Err(violation) = taken {
                        net.fail(violation);
                        return false;
                    }
                }
            }
        }
    }

    fn take_answers(
        &mut self,
        net: &mut Network,
        agent: &AgentHost,
        history: &mut History,
        connection: &mut Connection,
    ) -> Result<(), Violation> {
        let unread = std::mem::take(&mut connection.unread);
        let mut input = unread.as_slice();
        loop {
            let next = connection.reader.next(&mut input);
            let unreadable = |fault| Violation::Unreadable { application: self.number, fault };
            let Some(answer) = next.map_err(unreadable)? else { break };
            let answer = Message::from(answer);
            let end = connection.received - input.len() as u64;
            for answer in connection.tamperer.pass(answer) {
                self.take_answer(net, agent, history, connection, &answer, end)?;
            }
        }
        connection.unread.extend_from_slice(input);
        Ok(())
    }

    fn take_answer(
        &mut self,
        net: &mut Network,
        agent: &AgentHost,
        history: &mut History,
        connection: &mut Connection,
        answer: &Message,
        end: u64,
    ) -> Result<(), Violation> {
        let uid = answer.head.uid;
        let place = connection.open.iter().position(|it| it.uid == uid);
        let Some(request) = place.and_then(|place| connection.open.remove(place)) else {
            return Err(Violation::NotAsked { application: self.number, uid });
        };
        let operation = request.operation;
        if answer.head.operation != request.code {
            return Err(Violation::OtherOperation { operation });
        }
        let origin = || history.origin(operation, &answer.data);
        let outcome = request.expects.read(operation, &answer.data, origin)?;
        connection.check_times(net, agent, &request, end, outcome.is_none())?;
        match outcome {
            Some(outcome) => history.end(net, self.number, operation, outcome),
            None => {
                self.discouraged = true;
                history.disconnected(net, self.number, operation, self.plan.agent);
            }
        }
        Ok(())
    }

    /// The connection ended, and not by us.
    fn lost(&self, net: &mut Network, history: &mut History, connection: &Connection) {
        let number = connection.end.connection;
        let fault = net.witness(number).fault;
        let was_held = net.was_held(number);
        let excused = net.was_cut(number)
            || connection.manner == Manner::Spoiled
            || match fault {
                Some(LocalFault::WriteTimeout) => was_held || connection.was_deaf,
                Some(LocalFault::ReadTimeout) => was_held,
                Some(LocalFault::Idle | LocalFault::Corruption(_)) | None => false,
            };
        for request in &connection.open {
            let operation = request.operation;
            if !excused && net.witness(number).handed.reached(request.end).is_some() {
                net.fail(Violation::Abandoned { operation, fault });
            }
            history.lose(net, self.number, operation, (self.plan.agent, number));
        }
        net.close(connection.end);
    }

    fn misbehave(&mut self, net: &mut Network, history: &mut History) {
        let Some(mut connection) = self.connection.take_if(|it| it.manner == Manner::Good) else { return };
        let how = match self.random.below(5) {
            0 => {
                self.vanish(net, history, connection);
                return;
            }
            1 => {
                let ms = self.random.between(1..=DEAF_MS_MAX);
                connection.deaf_until = net.now().after_ms(ms);
                connection.was_deaf = true;
                net.agenda.at(connection.deaf_until, Event::Turn(connection.end));
                "reads no answers for a while"
            }
            2 => {
                connection.manner = Manner::Ending;
                "asks nothing more on this connection"
            }
            3 => {
                connection.spoil(garbage(&mut self.random));
                "sends garbage"
            }
            _ => {
                connection.spoil(half_message(&mut self.random));
                if self.random.chance(500) && connection.write(net) {
                    self.vanish(net, history, connection);
                    return;
                }
                "sends half a message"
            }
        };
        net.note(Note::Misbehaves { application: self.number, how });
        self.connection = Some(connection);
    }

    /// It is gone, whatever is under way.
    fn vanish(&self, net: &mut Network, history: &mut History, connection: Connection) {
        net.note(Note::Misbehaves { application: self.number, how: "vanishes" });
        for request in connection.open {
            let from = (self.plan.agent, connection.end.connection);
            history.lose(net, self.number, request.operation, from);
        }
        net.close(connection.end);
    }
}

impl Connection {
    fn new(end: End, tamperer: Tamperer) -> Self {
        Self {
            end,
            reader: MessageReader::new(Some(Direction::Response)),
            unread: Vec::new(),
            outgoing: Vec::new(),
            asked: 0,
            received: 0,
            open: VecDeque::new(),
            deaf_until: Time::default(),
            was_deaf: false,
            manner: Manner::Good,
            tamperer,
        }
    }

    fn ask(&mut self, request: &Request, uid: u32, patch_level: u16, operation: usize) {
        let before = self.outgoing.len();
        let head = MessageHead { patch_level, ..MessageHead::request(uid, request.operation) };
        write_message(&mut self.outgoing, head, &request.data);
        self.asked += (self.outgoing.len() - before) as u64;
        let (code, expects, end) = (request.operation, request.expects, self.asked);
        self.open.push_back(OpenRequest { uid, code, operation, expects, end });
    }

    fn spoil(&mut self, bytes: Vec<u8>) {
        self.outgoing.extend(bytes);
        self.manner = Manner::Spoiled;
    }

    /// Writes what the connection takes. Returns whether it goes on.
    fn write(&mut self, net: &mut Network) -> bool {
        if !self.outgoing.is_empty() {
            match net.write(self.end, &self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                // What was answered before may still be there to be read.
                Err(_) => self.outgoing.clear(),
            }
        }
        if self.outgoing.is_empty() && self.manner == Manner::Ending {
            self.manner = Manner::Ended;
            net.finish(self.end);
        }
        true
    }

    /// Whether the agent took its time, or gave up too soon.
    fn check_times(
        &self,
        net: &mut Network,
        agent: &AgentHost,
        request: &OpenRequest,
        answer_end: u64,
        disconnected: bool,
    ) -> Result<(), Violation> {
        let timeout_ms = agent.timeout_ms();
        let operation = request.operation;
        let witness = net.witness(self.end.connection);
        let (Some(handed), Some(answered)) =
            (witness.handed.reached(request.end), witness.answered.reached(answer_end))
        else {
            return Ok(());
        };
        if let Some(taken) = witness.taken.reached(request.end) {
            let leapt_ms = answered.leapt_ms.saturating_sub(taken.leapt_ms);
            let after_ms = answered.at.ms_since(taken.at).saturating_sub(leapt_ms);
            if timeout_ms > 0 && after_ms > timeout_ms {
                return Err(Violation::Late { operation, after_ms, timeout_ms });
            }
        }
        let after_ms = answered.at.ms_since(handed.at);
        let timed_out = timeout_ms > 0 && after_ms >= timeout_ms;
        let was_down = !handed.link_up || answered.link_losses != handed.link_losses;
        if disconnected && !timed_out && !was_down {
            return Err(Violation::NeedlesslyDisconnected { operation, after_ms });
        }
        Ok(())
    }
}

/// Bytes that no message begins with.
fn garbage(random: &mut Random) -> Vec<u8> {
    if random.chance(500) {
        let mut bytes = vec![0; random.between(1..=60) as usize];
        random.fill(&mut bytes);
        bytes[0] |= 1;
        return bytes;
    }
    let mut bytes = have();
    let (offset, wrong) = random.pick(&[(1, 0x12), (4, 2), (9, 9), (9, 1), (10, 99), (11, 7), (12, 0x7f)]);
    bytes[offset] = wrong;
    bytes
}

/// The beginning of a good message.
fn half_message(random: &mut Random) -> Vec<u8> {
    let mut bytes = have();
    bytes.truncate(random.between(1..=FRAME_HEADER_BYTES as u64 + 20) as usize);
    bytes
}

fn have() -> Vec<u8> {
    let mut bytes = Vec::new();
    let operation = Operation::Session(SessionOperation::Have);
    write_message(&mut bytes, MessageHead::request(1, operation), &[3; 32]);
    bytes
}
