//! The server process: the real service and machines, driven as the server's driver drives them.
//!
//! It can be killed, stopped and continued, and be an *original* one, which differs in two things: its
//! answers carry patch level 0, and what is not of class 0 must never be sent to it. Another one may send
//! the answers to what it has read at once in any order, as the protocol allows.

use super::network::{End, Network};
use super::pipe::Incoming;
use super::sabotage::{BadStore, Sabotage};
use super::scenario::ServerPlan;
use super::trace::Note;
use super::violation::{Remnant, Violation};
use libdc::id::ConnectionId;
use libdc::limits::FRAME_HEADER_BYTES;
use libdc::proto::outbox::Outbox;
use libdc::proto::server::{ServerConnection, ServerFault, Turn};
use libdc::service::{Effects, LinkSettings, Service, Tally};
use libdc::table::{Fences, LockSettings, Locks, SessionLimits, SessionStore, ShardedSessions};
use libdc::time::Time;
use libdc::wire::frame::{Direction, Operation};
use libdc::wire::message::MessageReader;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As the program's `-read-timeout` and `-write-timeout`.
const READ_TIMEOUT_MS: u64 = 23_000;
const WRITE_TIMEOUT_MS: u64 = 5_000;

/// The server process.
pub(crate) struct ServerHost {
    plan: ServerPlan,
    sabotage: Sabotage,
    state: ServerState,
    original: bool,
    service: Service,
    connections: BTreeMap<u32, Serving>,
    input: Vec<u8>,
    output: Vec<u8>,
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

/// A connection to an agent.
struct Serving {
    end: End,
    agent: usize,
    machine: ServerConnection,
    outbox: Outbox,
    refused: Option<ServerFault>,
    overheard: Overheard,
}

impl ServerHost {
    /// A server that runs and stores nothing yet.
    pub(crate) fn new(plan: ServerPlan, sabotage: Sabotage) -> Self {
        Self {
            service: new_service(&plan, sabotage),
            original: plan.original,
            plan,
            sabotage,
            state: ServerState::Running,
            connections: BTreeMap::new(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Whether it runs.
    pub(crate) const fn state(&self) -> ServerState {
        self.state
    }

    /// Killed: all connections break, all sessions are lost.
    pub(crate) fn kill(&mut self, net: &mut Network) {
        net.note(Note::Killed);
        self.state = ServerState::Dead;
        for (connection, serving) in std::mem::take(&mut self.connections) {
            net.cut(connection);
            net.close(serving.end);
        }
    }

    /// Started again.
    pub(crate) fn start(&mut self, net: &mut Network) {
        if self.plan.may_change {
            self.original = net.random.chance(500);
        }
        net.note(Note::Started { original: self.original });
        self.state = ServerState::Running;
        self.count_evictions(net);
        if self.sabotage != Sabotage::SurviveRestart {
            self.service = new_service(&self.plan, self.sabotage);
        }
    }

    /// Stopped, as by SIGSTOP.
    pub(crate) fn stop(&mut self, net: &mut Network) {
        net.note(Note::Stopped);
        self.state = ServerState::Stopped;
    }

    /// Goes on after a stop.
    pub(crate) fn go_on(&mut self, net: &mut Network) {
        if self.state == ServerState::Stopped {
            net.note(Note::Continued);
            self.state = ServerState::Running;
            for serving in self.connections.values() {
                net.call(serving.end);
            }
        }
    }

    /// An agent connected. While the process is stopped, the system does that for it.
    pub(crate) fn accept(&mut self, net: &mut Network, end: End, agent: usize) {
        let serving = Serving {
            end,
            agent,
            machine: ServerConnection::new(
                net.now(),
                ConnectionId::new(u64::from(end.connection)),
                &self.service,
            ),
            outbox: Outbox::new(),
            refused: None,
            overheard: Overheard::default(),
        };
        self.connections.insert(end.connection, serving);
        net.call(end);
    }

    /// The connections that this agent has, or has left without the server's having seen it.
    pub(crate) fn connections_of(&self, agent: usize) -> impl Iterator<Item = u32> {
        self.connections.iter().filter(move |(_, serving)| serving.agent == agent).map(|(number, _)| *number)
    }

    /// The turn of a connection.
    pub(crate) fn turn(&mut self, net: &mut Network, end: End) {
        if self.state != ServerState::Running {
            return;
        }
        let Some(mut serving) = self.connections.remove(&end.connection) else {
            return;
        };
        let open = self.serve(net, &mut serving) && serving.keeps_times(net);
        if open {
            self.connections.insert(end.connection, serving);
        } else {
            net.close(end);
        }
        if net.random.chance(20) {
            self.service.sessions().expire(net.now());
            self.check_limits(net);
        }
    }

    /// Whether everything is as if nothing had happened, once `now` is late enough.
    ///
    /// # Errors
    /// What is left.
    pub(crate) fn check_idle(&self, agents: usize, now: Time) -> Result<(), Remnant> {
        if self.connections.values().any(|it| !it.machine.is_idle() || !it.outbox.is_empty()) {
            return Err(Remnant::Server);
        }
        if self.connections.len() > agents {
            return Err(Remnant::ServerConnections { connections: self.connections.len(), agents });
        }
        let sessions = self.service.sessions();
        while sessions.expire(now).sessions > 0 {}
        match sessions.totals(now).sessions {
            0 => Ok(()),
            sessions => Err(Remnant::Sessions { sessions }),
        }
    }

    /// Reads, answers and writes until there is nothing more to do. Returns whether the connection is open.
    fn serve(&mut self, net: &mut Network, serving: &mut Serving) -> bool {
        loop {
            match serving.write(net) {
                Written::All => {}
                Written::Blocked => return true,
                Written::Broken => return false,
            }
            if serving.refused.is_some() {
                return false;
            }
            self.input.clear();
            if !serving.machine.is_stalled() {
                match net.read(serving.end, &mut self.input) {
                    Incoming::Bytes(_) => {}
                    Incoming::Nothing => return true,
                    Incoming::Finished | Incoming::Broken => return false,
                }
            }
            if self.original && serving.overheard.hears_of_extensions(&self.input) {
                net.fail(Violation::NotForOriginals { agent: serving.agent });
            }
            self.output.clear();
            let (mut effects, mut tally) = (Effects::new(), Tally::default());
            let mut turn = Turn {
                now: net.now(),
                service: &self.service,
                out: &mut self.output,
                effects: &mut effects,
                tally: &mut tally,
            };
            serving.refused = serving.machine.handle_input(&mut turn, &self.input).err();
            // A link that was made anew may be heard of before the end of the one before it.
            if let Some(fault) = serving.refused
                && fault != ServerFault::TakenOver
            {
                net.fail(Violation::BadRequest { agent: serving.agent, fault });
            }
            if self.original && self.sabotage != Sabotage::OriginalPretends {
                set_patch_level_0(&mut self.output);
            }
            let mut answers = split_messages(&self.output);
            if self.plan.answers_in_any_order && !self.original {
                net.random.shuffle(&mut answers);
            }
            for answer in answers {
                serving.outbox.buffer().extend_from_slice(answer);
            }
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

enum Written {
    All,
    Blocked,
    Broken,
}

impl Serving {
    fn write(&mut self, net: &mut Network) -> Written {
        if self.outbox.is_empty() {
            return Written::All;
        }
        match net.write(self.end, self.outbox.pending()) {
            Err(_) => return Written::Broken,
            Ok(0) => {}
            Ok(count) => self.outbox.advance(count),
        }
        if self.outbox.is_empty() {
            Written::All
        } else {
            self.outbox.block(net.now());
            Written::Blocked
        }
    }

    fn keeps_times(&self, net: &mut Network) -> bool {
        let read = self.machine.deadline(READ_TIMEOUT_MS);
        let write = self.outbox.blocked_since().map(|since| since.after_ms(WRITE_TIMEOUT_MS));
        let deadline = [read, write].into_iter().flatten().min();
        if deadline.is_some_and(|deadline| deadline <= net.now()) {
            return false;
        }
        net.set_timer(self.end, deadline);
        true
    }
}

/// Reads along with what an original server is sent.
#[derive(Default)]
struct Overheard {
    reader: MessageReader,
    unread: Vec<u8>,
}

impl Overheard {
    /// Whether there is something in it that an original server does not understand.
    fn hears_of_extensions(&mut self, bytes: &[u8]) -> bool {
        self.unread.extend_from_slice(bytes);
        let mut input = self.unread.as_slice();
        let mut heard = false;
        while let Ok(Some(message)) = self.reader.next(&mut input) {
            let right_way = message.head.direction == Direction::Request;
            heard |= !(right_way && matches!(message.head.operation, Operation::Session(_)));
        }
        let used = self.unread.len() - input.len();
        self.unread.drain(..used);
        heard
    }
}

fn new_service(plan: &ServerPlan, sabotage: Sabotage) -> Service {
    let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
    let locks = Locks::new(1, settings, Fences::starting_at(1), [3; 32]);
    let links = LinkSettings { grace_ms: 10_000, auto_release: true };
    Service::new(new_store(plan, sabotage), locks, links, None)
}

fn new_store(plan: &ServerPlan, sabotage: Sabotage) -> Arc<dyn SessionStore> {
    let limits = if sabotage == Sabotage::IgnoreLimits { SessionLimits::default() } else { plan.limits };
    let store = ShardedSessions::new(plan.shards, limits, plan.hash_seed);
    if sabotage.is_of_the_store() { Arc::new(BadStore::new(store, sabotage)) } else { Arc::new(store) }
}

/// Whole messages, each by itself.
fn split_messages(messages: &[u8]) -> Vec<&[u8]> {
    let mut split = Vec::new();
    let (mut start, mut end) = (0, 0);
    while let Some(header) = messages[end..].first_chunk::<FRAME_HEADER_BYTES>() {
        end += FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([header[12], header[13]]));
        let complete = header[11] == 1;
        if complete {
            split.push(&messages[start..end]);
            start = end;
        }
    }
    split
}

/// Writes patch level 0 into every frame of whole messages.
fn set_patch_level_0(messages: &mut [u8]) {
    let mut rest = messages;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<FRAME_HEADER_BYTES>() {
        header[2..4].fill(0);
        let len = usize::from(u16::from_be_bytes([header[12], header[13]]));
        rest = &mut behind[len..];
    }
}
