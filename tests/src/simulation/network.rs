//! The environment of the simulated processes: connections and the time.
//!
//! A connection has two ends, of which end 0 connected, and a pipe in each direction. Activity at an end is
//! an event; the owner of the end then reads and writes until both would block.

use super::event_queue::{EventQueue, EventTime, SimEvent};
use super::pipe::{Incoming, Pipe, PipeBroken, PipeQuality};
use super::random::SeededRng;
use super::timeline::Witness;
use super::trace::{Trace, TraceEvent};
use super::violation::Violation;
use libdc::proto::agent::local::LocalId;
use libdc::time::Time;

/// Longest time until the closing of one end of a stalled connection is detected, in milliseconds.
const CLOSE_MS_MAX: u64 = 30_000;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NetworkEnd {
    /// The index of the connection.
    pub(crate) connection: u32,
    /// 0 at the connecting end, 1 at the other.
    pub(crate) side: usize,
}

impl NetworkEnd {
    /// The other end.
    pub(crate) const fn peer(self) -> Self {
        Self { connection: self.connection, side: 1 - self.side }
    }
}

/// The owner of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// An application, towards its agent.
    Application(usize),
    /// A locker, towards an agent or the server.
    Locker {
        /// The index of the locker.
        locker: usize,
        /// It is connected to the server without an agent.
        direct: bool,
    },
    /// An application that sends no request.
    Idle,
    /// An agent, towards an application.
    Local {
        /// The agent.
        agent: usize,
        /// The agent's id of the connection.
        id: LocalId,
    },
    /// An agent, towards the server.
    Link(usize),
    /// A direct client, towards the server.
    Direct(usize),
    /// The server.
    Server {
        /// The agent at the other end; `None` for a direct connection.
        agent: Option<usize>,
    },
}

impl Party {
    const fn name(self) -> &'static str {
        match self {
            Self::Application(_) => "application",
            Self::Idle => "idle application",
            Self::Locker { .. } => "locker",
            Self::Local { .. } => "agent (local)",
            Self::Link(_) => "agent (link)",
            Self::Direct(_) => "direct client",
            Self::Server { .. } => "server",
        }
    }
}

/// The network of a run, with its clock, random numbers and observations.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) agenda: EventQueue,
    pub(crate) random: SeededRng,
    pub(crate) trace: Trace,
    connections: Vec<NetworkConnection>,
    disturbed_until: Time,
    violation: Option<Violation>,
}

#[derive(Debug)]
struct NetworkConnection {
    ends: [Option<Party>; 2],
    /// Indexed by the side of the writer.
    pipes: [Pipe; 2],
    /// The earliest pending timer of each end.
    timers: [Option<Time>; 2],
    /// Whether a turn of each end is scheduled.
    called: [bool; 2],
    cut: bool,
    /// The time at which it was cut or one of its ends was closed, whichever was first.
    over: Option<EventTime>,
    /// The times at which its ends were closed.
    closed: [Option<EventTime>; 2],
    /// Data was held up, for however short a time.
    held: bool,
    /// The time skipped by leaps before it began, in milliseconds.
    leapt_ms: u64,
    witness: Witness,
}

impl Network {
    /// A network without connections.
    pub(crate) fn new(mut random: SeededRng, lines: bool) -> Self {
        let agenda = EventQueue::new(random.fork());
        Self {
            agenda,
            random,
            trace: Trace::new(lines),
            connections: Vec::new(),
            disturbed_until: Time::default(),
            violation: None,
        }
    }

    /// The current time.
    pub(crate) const fn now(&self) -> Time {
        self.agenda.now()
    }

    /// The current point in time.
    pub(crate) const fn moment(&mut self) -> EventTime {
        self.agenda.moment()
    }

    /// Adds an event to the trace.
    pub(crate) fn note(&mut self, note: TraceEvent) {
        self.trace.note(self.agenda.now(), note);
    }

    /// Records a violation. The run ends with the first of them.
    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// The first violation, if any.
    pub(crate) const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Connects two parties, and schedules a turn of both.
    pub(crate) fn connect(&mut self, near: Party, far: Party, quality: [PipeQuality; 2]) -> u32 {
        let connection = self.connections.len() as u32;
        self.note(TraceEvent::Connected { connection, near: near.name(), far: far.name() });
        self.connections.push(NetworkConnection {
            ends: [Some(near), Some(far)],
            pipes: quality.map(Pipe::new),
            timers: [None; 2],
            called: [false; 2],
            cut: false,
            over: None,
            closed: [None; 2],
            held: false,
            leapt_ms: self.agenda.leapt_ms(),
            witness: Witness::default(),
        });
        connection
    }

    /// The owner of this end; `None` once it is closed.
    pub(crate) fn owner(&self, end: NetworkEnd) -> Option<Party> {
        self.at(end).ends[end.side]
    }

    /// The connections with an open end.
    pub(crate) fn open_connections(&self) -> impl Iterator<Item = u32> {
        let open =
            |(_, connection): &(usize, &NetworkConnection)| connection.ends.iter().any(Option::is_some);
        self.connections.iter().enumerate().filter(open).map(|(number, _)| number as u32)
    }

    /// Writes as much of `bytes` as fits.
    ///
    /// # Errors
    /// [`PipeBroken`] if the connection is broken, or the other end no longer reads.
    pub(crate) fn write(&mut self, end: NetworkEnd, bytes: &[u8]) -> Result<usize, PipeBroken> {
        let pipe = &mut self.connections[end.connection as usize].pipes[end.side];
        let count = pipe.write(self.agenda.now(), bytes, &mut self.random)?;
        self.announce(end);
        Ok(count)
    }

    /// Appends the bytes that have arrived to `out`.
    pub(crate) fn read(&mut self, end: NetworkEnd, out: &mut Vec<u8>) -> Incoming {
        let pipe = &mut self.connections[end.connection as usize].pipes[1 - end.side];
        let incoming = pipe.read(out);
        if matches!(incoming, Incoming::Bytes(_)) && pipe.take_waiting_writer() {
            self.call(end.peer());
        }
        incoming
    }

    /// Closes the write side.
    pub(crate) fn finish(&mut self, end: NetworkEnd) {
        let now = self.agenda.now();
        self.connections[end.connection as usize].pipes[end.side].finish(now);
        self.announce(end);
    }

    /// Closes an end. Data written before still arrives; the other end of a stalled connection detects it
    /// later.
    pub(crate) fn close(&mut self, end: NetworkEnd) {
        self.finish(end);
        let stalled_ms = self.random.below(CLOSE_MS_MAX);
        let until = self.now().after_ms(stalled_ms);
        self.connections[end.connection as usize].pipes[end.side].release(until);
        self.announce_again(end);
        let closed = self.moment();
        let connection = &mut self.connections[end.connection as usize];
        connection.over.get_or_insert(closed);
        connection.closed[end.side].get_or_insert(closed);
        connection.ends[end.side] = None;
        connection.pipes[1 - end.side].abandon();
        if connection.ends[1 - end.side].is_none() {
            connection.pipes[end.side].abandon();
        } else {
            // Wakes a writer waiting for room, so that it detects the close.
            self.call(end.peer());
        }
    }

    /// Cuts a connection, at any byte of either direction.
    pub(crate) fn cut(&mut self, connection: u32) {
        self.note(TraceEvent::Cut { connection });
        let forget_unread = self.random.chance(300);
        let cut = self.moment();
        let entry = &mut self.connections[connection as usize];
        entry.cut = true;
        entry.over.get_or_insert(cut);
        for pipe in &mut entry.pipes {
            let keep = self.random.below(pipe.under_way() as u64 + 1) as usize;
            pipe.cut(keep, forget_unread);
        }
        for side in 0..2 {
            self.call(NetworkEnd { connection, side });
        }
    }

    /// Stalls the direction towards this end for this time.
    pub(crate) fn stall(&mut self, end: NetworkEnd, ms: u64) {
        self.note(TraceEvent::Stalled { connection: end.connection, side: end.side, ms });
        let until = self.now().after_ms(ms);
        self.disturb(until);
        let connection = &mut self.connections[end.connection as usize];
        connection.held = true;
        connection.pipes[1 - end.side].hold(until);
    }

    /// Extends the time until which delays are excused.
    pub(crate) fn disturb(&mut self, until: Time) {
        self.disturbed_until = self.disturbed_until.max(until);
    }

    /// The time until which delays are excused.
    pub(crate) const fn disturbed_until(&self) -> Time {
        self.disturbed_until
    }

    /// Whether one direction of the connection is stalled.
    pub(crate) fn is_stalled(&self, connection: u32) -> bool {
        let now = self.now();
        self.connections[connection as usize].pipes.iter().any(|pipe| pipe.is_held(now))
    }

    /// The time at which the connection was cut or one of its ends was closed.
    pub(crate) fn over(&self, connection: u32) -> Option<EventTime> {
        self.connections[connection as usize].over
    }

    /// The time at which this end was closed.
    pub(crate) fn closed(&self, end: NetworkEnd) -> Option<EventTime> {
        self.at(end).closed[end.side]
    }

    /// Whether the connection was cut.
    pub(crate) fn was_cut(&self, connection: u32) -> bool {
        self.connections[connection as usize].cut
    }

    /// Whether data of the connection was ever held up, or the clock leapt.
    pub(crate) fn was_held(&self, connection: u32) -> bool {
        let connection = &self.connections[connection as usize];
        connection.held || connection.leapt_ms < self.agenda.leapt_ms()
    }

    /// Total bytes written at this end.
    pub(crate) fn written_total(&self, end: NetworkEnd) -> u64 {
        self.at(end).pipes[end.side].written_total
    }

    /// Total bytes that arrived at this end, until it was closed.
    pub(crate) fn arrived_total(&self, end: NetworkEnd) -> u64 {
        self.at(end).pipes[1 - end.side].arrived_total
    }

    /// The observations at the agent's end of a local connection.
    pub(crate) fn witness(&mut self, connection: u32) -> &mut Witness {
        &mut self.connections[connection as usize].witness
    }

    /// Schedules a turn of this end, as soon as possible.
    pub(crate) fn call(&mut self, end: NetworkEnd) {
        let called = &mut self.connections[end.connection as usize].called[end.side];
        if !std::mem::replace(called, true) {
            self.agenda.after_ms(0, SimEvent::Turn(end));
        }
    }

    /// Handles the turn scheduled by [`call`](Self::call).
    pub(crate) fn turn_came(&mut self, end: NetworkEnd) {
        self.connections[end.connection as usize].called[end.side] = false;
    }

    /// Schedules a turn of this end at this time.
    pub(crate) fn set_timer(&mut self, end: NetworkEnd, deadline: Option<Time>) {
        let timer = &mut self.connections[end.connection as usize].timers[end.side];
        if let Some(deadline) = deadline
            && timer.is_none_or(|set| set > deadline)
        {
            *timer = Some(deadline);
            self.agenda.at(deadline, SimEvent::Timer(end));
        }
    }

    /// Handles an expired timer. Returns whether it is the current one of this end.
    pub(crate) fn timer_came(&mut self, end: NetworkEnd) -> bool {
        let now = self.agenda.now();
        let timer = &mut self.connections[end.connection as usize].timers[end.side];
        timer.take_if(|set| *set <= now).is_some()
    }

    /// The next piece arrives at this end. Returns whether there is new input.
    pub(crate) fn arrive(&mut self, end: NetworkEnd) -> bool {
        let now = self.agenda.now();
        let pipe = &mut self.connections[end.connection as usize].pipes[1 - end.side];
        pipe.announced = false;
        let arrived = pipe.arrive(now);
        self.announce(end.peer());
        arrived
    }

    /// As [`announce`](Self::announce), for an arrival that may be earlier than announced.
    fn announce_again(&mut self, end: NetworkEnd) {
        self.connections[end.connection as usize].pipes[end.side].announced = false;
        self.announce(end);
    }

    /// Schedules the arrival of the next piece from this end.
    fn announce(&mut self, end: NetworkEnd) {
        let pipe = &mut self.connections[end.connection as usize].pipes[end.side];
        if !pipe.announced
            && let Some(at) = pipe.next_arrival()
        {
            pipe.announced = true;
            self.agenda.at(at, SimEvent::Arrive(end.peer()));
        }
    }

    fn at(&self, end: NetworkEnd) -> &NetworkConnection {
        &self.connections[end.connection as usize]
    }
}
