//! A client that sends session requests directly to the server, without an agent. After connecting it may
//! stay silent for a while; then it sends one small request at a time, or pipelines as much as the connection
//! takes.
//!
//! Its requests are HAVE with data that equals no session id, so they change nothing. It checks the handling
//! of connections: each request that reached the server is answered once before the server closes the
//! connection, a connection on which nothing was sent is kept exactly for its drain grace, and a small
//! request does not starve beside a large one.

use super::event_queue::SimEvent;
use super::network::{Network, NetworkEnd, Party};
use super::pipe::{Incoming, PipeQuality};
use super::random::SeededRng;
use super::scenario::Scenario;
use super::server::{ServerState, SimServer};
use super::violation::Violation;
use libdc::limits::DRAIN_GRACE_MS;
use libdc::proto::outbox::Outbox;
use libdc::time::Time;
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{MessageReader, write_message};
use std::collections::VecDeque;

/// Longest pause after the end of a connection, in milliseconds.
const RETRY_MS_MAX: u64 = 2_000;
/// Wait time for answers over a stalled connection, in milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// Time without reading, in milliseconds: longer than the server's shutdown timeout.
const DEAF_MS: u64 = 40_000;
/// Tolerance for a connection that outlives its drain grace: the time of a turn.
const LATE_MS_MAX: u64 = 200;

/// How a direct client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectPlan {
    /// Total number of requests.
    pub(crate) operations: usize,
    /// Maximum number of requests in flight.
    pub(crate) depth: usize,
    /// Bytes of data in a request.
    pub(crate) data_bytes: usize,
    /// Longest pause between two requests, in milliseconds.
    pub(crate) think_ms: u64,
    /// Longest silence after connecting, in milliseconds.
    pub(crate) silent_ms: u64,
    /// Probability per mille of closing the connection in a turn without a request in flight.
    pub(crate) leaves: u64,
    /// Longest time to an answer, in milliseconds. `None` where faults may delay it.
    pub(crate) latency_ms_max: Option<u64>,
    /// Probability per mille of not reading for a while after sending requests.
    pub(crate) deaf: u64,
    /// Probability per mille of sending a malformed frame after requests.
    pub(crate) spoils: u64,
    /// Capacity in bytes of each direction of its connections. `None` is the network's default.
    pub(crate) capacity: Option<usize>,
}

/// A direct client of the server.
pub(crate) struct DirectClient {
    number: usize,
    plan: DirectPlan,
    random: SeededRng,
    left: usize,
    uid: u32,
    connection: Option<DirectConnection>,
    /// A call to [`wake`](Self::wake) is scheduled.
    called: bool,
}

struct DirectConnection {
    end: NetworkEnd,
    opened: Time,
    reader: MessageReader,
    unread: Vec<u8>,
    outgoing: Outbox,
    open: VecDeque<OpenRequest>,
    /// Bytes of requests sent.
    asked: u64,
    patience: Time,
    /// Does not read before this time.
    deaf_until: Time,
    was_deaf: bool,
    /// A malformed frame was sent, so no more requests can follow.
    spoiled: bool,
}

struct OpenRequest {
    uid: u32,
    asked_at: Time,
    /// Its end offset in the stream of requests.
    end: u64,
}

impl DirectClient {
    /// A client that is not connected yet.
    pub(crate) fn new(number: usize, plan: DirectPlan, random: SeededRng) -> Self {
        Self { number, left: plan.operations, plan, random, uid: 0, connection: None, called: true }
    }

    /// Whether all its requests have been answered.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0 && self.connection.is_none()
    }

    /// The violation, if an answer is still missing at the end of the run.
    pub(crate) fn unanswered(&self) -> Option<Violation> {
        (!self.is_done()).then_some(Violation::DirectUnanswered { client: self.number })
    }

    /// Runs a scheduled step.
    pub(crate) fn wake(&mut self, net: &mut Network, server: &mut SimServer, scenario: &Scenario) {
        self.called = false;
        if self.connection.is_none() && self.left > 0 {
            let silent_ms = self.connect(net, server, scenario);
            if silent_ms > 0 {
                self.call_after(net, silent_ms);
                return;
            }
        }
        self.ask(net);
        self.turn(net, server);
    }

    /// Reads, writes, and disconnects once everything is answered.
    pub(crate) fn turn(&mut self, net: &mut Network, server: &SimServer) {
        if let Some(mut connection) = self.connection.take() {
            let goes_on = self.read(net, server, &mut connection).unwrap_or_else(|violation| {
                net.fail(violation);
                false
            });
            connection.write(net);
            let is_content = self.left == 0 && connection.open.is_empty() && !connection.spoiled;
            if goes_on && !is_content && connection.keeps_waiting(net) {
                self.connection = Some(connection);
            } else {
                net.close(connection.end);
            }
        }
        self.call_again(net);
    }

    /// Connects, if the server accepts. Returns the length of the initial silence, in milliseconds.
    fn connect(&mut self, net: &mut Network, server: &mut SimServer, scenario: &Scenario) -> u64 {
        if !matches!(server.state(), ServerState::Running | ServerState::Stopped) {
            return self.random.between(1..=RETRY_MS_MAX);
        }
        let mut quality = scenario.network.link(&mut net.random);
        if let Some(capacity) = self.plan.capacity {
            quality = quality.map(|quality| PipeQuality { capacity, ..quality });
        }
        let connection = net.connect(Party::Direct(self.number), Party::Server { agent: None }, quality);
        server.accept(net, NetworkEnd { connection, side: 1 }, None);
        self.connection = Some(DirectConnection::new(NetworkEnd { connection, side: 0 }, net.now()));
        if self.plan.silent_ms == 0 { 0 } else { self.random.below(self.plan.silent_ms) }
    }

    fn ask(&mut self, net: &mut Network) {
        let Some(connection) = &mut self.connection else { return };
        if connection.spoiled {
            return;
        }
        let room = self.plan.depth.saturating_sub(connection.open.len()).min(self.left);
        let may_leave = connection.open.is_empty() && connection.asked > 0;
        if may_leave && self.random.chance(self.plan.leaves) {
            net.close(connection.end);
            self.connection = None;
            return;
        }
        for _ in 0..room {
            self.left -= 1;
            self.uid += 1;
            let head = MessageHead::request(self.uid, Operation::Session(SessionOperation::Have));
            let outgoing = connection.outgoing.buffer();
            let before = outgoing.len();
            write_message(
                outgoing,
                MessageHead { patch_level: 0, ..head },
                &vec![0xee; self.plan.data_bytes],
            );
            connection.asked += (outgoing.len() - before) as u64;
            let (uid, asked_at, end) = (self.uid, net.now(), connection.asked);
            connection.open.push_back(OpenRequest { uid, asked_at, end });
        }
        if self.random.chance(self.plan.deaf) {
            net.trace.count("direct clients that read nothing", 1);
            connection.was_deaf = true;
            connection.deaf_until = net.now().after_ms(DEAF_MS);
            net.set_timer(connection.end, Some(connection.deaf_until));
        }
        if self.random.chance(self.plan.spoils) {
            net.trace.count("direct clients that send a malformed frame", 1);
            connection.spoiled = true;
            connection.outgoing.buffer().extend_from_slice(&[0, 0x11, 0, 0, 7]);
        }
    }

    fn call_again(&mut self, net: &mut Network) {
        let has_room = |it: &DirectConnection| !it.spoiled && it.open.len() < self.plan.depth;
        let may_ask = self.connection.as_ref().is_none_or(has_room);
        if self.left > 0 && may_ask {
            let most_ms = if self.connection.is_some() { self.plan.think_ms } else { RETRY_MS_MAX };
            let pause_ms = self.random.between(0..=most_ms);
            self.call_after(net, pause_ms);
        }
    }

    fn call_after(&mut self, net: &mut Network, ms: u64) {
        if !self.called {
            self.called = true;
            net.agenda.after_ms(ms, SimEvent::Direct(self.number));
        }
    }

    /// Reads all available answers. Returns whether the connection stays open.
    fn read(
        &self,
        net: &mut Network,
        server: &SimServer,
        connection: &mut DirectConnection,
    ) -> Result<bool, Violation> {
        if connection.deaf_until > net.now() {
            net.set_timer(connection.end, Some(connection.deaf_until));
            return Ok(true);
        }
        let incoming = loop {
            match net.read(connection.end, &mut connection.unread) {
                Incoming::Bytes(_) => {}
                incoming => break incoming,
            }
        };
        let (client, unread) = (self.number, std::mem::take(&mut connection.unread));
        let mut input = unread.as_slice();
        while let Ok(Some(answer)) = connection.reader.next(&mut input) {
            let uid = answer.head.uid;
            let position = connection.open.iter().position(|request| request.uid == uid);
            let Some(request) = position.and_then(|position| connection.open.remove(position)) else {
                return Err(Violation::DirectNotAsked { client, uid });
            };
            net.trace.count("direct requests answered", 1);
            connection.patience = net.now().after_ms(PATIENCE_MS);
            let after_ms = net.now().ms_since(request.asked_at);
            if self.plan.latency_ms_max.is_some_and(|most| after_ms > most) {
                return Err(Violation::Starved { client, after_ms });
            }
        }
        connection.unread = input.to_vec();
        if incoming == Incoming::Finished {
            self.check_close(net, server, connection)?;
        }
        Ok(incoming == Incoming::Nothing)
    }

    /// Handles the server's closing of the connection, and checks whether that was allowed.
    fn check_close(
        &self,
        net: &mut Network,
        server: &SimServer,
        connection: &DirectConnection,
    ) -> Result<(), Violation> {
        let number = connection.end.connection;
        if net.was_cut(number) || net.was_held(number) || connection.was_deaf {
            return Ok(());
        }
        let far = connection.end.peer();
        let arrived = net.arrived_total(far);
        if let Some(request) = connection.open.iter().find(|request| request.end <= arrived) {
            return Err(Violation::Unserved { client: self.number, connection: number, uid: request.uid });
        }
        let Some(closed) = net.closed(far).filter(|_| arrived == 0) else { return Ok(()) };
        net.trace.count("connections closed in their drain grace", 1);
        let grace_end = connection.opened.after_ms(DRAIN_GRACE_MS);
        if closed.at < grace_end {
            let after_ms = closed.at.ms_since(connection.opened);
            return Err(Violation::DrainGraceCut { connection: number, after_ms });
        }
        let end = server.drained.map_or(grace_end, |drained| drained.max(grace_end));
        let after_ms = closed.at.ms_since(end);
        if after_ms > LATE_MS_MAX && net.disturbed_until() < connection.opened {
            return Err(Violation::DrainGraceExceeded { connection: number, after_ms });
        }
        Ok(())
    }
}

impl DirectConnection {
    fn new(end: NetworkEnd, now: Time) -> Self {
        Self {
            end,
            opened: now,
            reader: MessageReader::new(Some(Direction::Response)),
            unread: Vec::new(),
            outgoing: Outbox::new(),
            open: VecDeque::new(),
            asked: 0,
            patience: now.after_ms(PATIENCE_MS),
            deaf_until: now,
            was_deaf: false,
            spoiled: false,
        }
    }

    fn write(&mut self, net: &mut Network) {
        if !self.outgoing.is_empty() {
            match net.write(self.end, self.outgoing.pending()) {
                Ok(count) => self.outgoing.advance(count),
                // Earlier answers may still be readable.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// Whether it keeps waiting for answers. It gives up on a stalled connection, which may never recover.
    fn keeps_waiting(&mut self, net: &mut Network) -> bool {
        if self.open.is_empty() && !self.spoiled {
            return true;
        }
        if self.patience <= net.now() {
            if net.is_stalled(self.end.connection) {
                return false;
            }
            self.patience = net.now().after_ms(PATIENCE_MS);
        }
        net.set_timer(self.end, Some(self.patience));
        true
    }
}
