//! What the simulated system gives to a process: connections and the time.
//!
//! A connection has two ends, 0 being the one that connected, and a pipe in each direction. What happens at
//! an end is an event; its owner then reads and writes until there is nothing more to read or no room.

use super::event_queue::{EventQueue, EventTime, SimEvent};
use super::pipe::{Incoming, Pipe, PipeBroken, PipeQuality};
use super::random::SeededRng;
use super::timeline::Witness;
use super::trace::{Trace, TraceEvent};
use super::violation::Violation;
use libdc::proto::agent::local::LocalId;
use libdc::time::Time;

/// The longest time after which a stalled connection that one end has closed is known to be closed, in milliseconds.
const CLOSE_MS_MAX: u64 = 30_000;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NetworkEnd {
    /// Which connection.
    pub(crate) connection: u32,
    /// 0 is the one that connected.
    pub(crate) side: usize,
}

impl NetworkEnd {
    /// The other end.
    pub(crate) const fn peer(self) -> Self {
        Self { connection: self.connection, side: 1 - self.side }
    }
}

/// Whose an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// An application's.
    Application(usize),
    /// That of an application that wants locks.
    Locker {
        /// Which.
        locker: usize,
        /// It speaks to the server itself.
        direct: bool,
    },
    /// An application's that asks nothing.
    Idle,
    /// An agent's, towards an application.
    Local {
        /// The agent.
        agent: usize,
        /// What it calls the connection.
        id: LocalId,
    },
    /// An agent's, towards the server.
    Link(usize),
    /// That of a client that speaks to the server directly.
    Direct(usize),
    /// The server's.
    Server {
        /// The agent at the other end; none if it is an application.
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

/// The network of a run, its clock, its chance, and what was seen.
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
    /// By the side of the writer.
    pipes: [Pipe; 2],
    /// Earliest timer asked for at each end.
    timers: [Option<Time>; 2],
    /// A turn of each end is on the agenda.
    called: [bool; 2],
    cut: bool,
    /// When it was cut, or one of its ends closed, whichever was first.
    over: Option<EventTime>,
    /// When its ends were closed.
    closed: [Option<EventTime>; 2],
    /// Something was held up, however short.
    held: bool,
    /// How much time had been leapt over when it began, in milliseconds.
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

    /// What the clock says.
    pub(crate) const fn now(&self) -> Time {
        self.agenda.now()
    }

    /// This very moment.
    pub(crate) const fn moment(&mut self) -> EventTime {
        self.agenda.moment()
    }

    /// Writes something down.
    pub(crate) fn note(&mut self, note: TraceEvent) {
        self.trace.note(self.agenda.now(), note);
    }

    /// Something happened that must not. The run ends with the first of these.
    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// What happened that must not.
    pub(crate) const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Connects two parties, and calls both.
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

    /// Whose this end is; `None` once it is closed.
    pub(crate) fn owner(&self, end: NetworkEnd) -> Option<Party> {
        self.at(end).ends[end.side]
    }

    /// The connections that are not closed at both ends.
    pub(crate) fn open_connections(&self) -> impl Iterator<Item = u32> {
        let open =
            |(_, connection): &(usize, &NetworkConnection)| connection.ends.iter().any(Option::is_some);
        self.connections.iter().enumerate().filter(open).map(|(number, _)| number as u32)
    }

    /// Writes as much of `bytes` as there is room for.
    ///
    /// # Errors
    /// [`PipeBroken`] if the connection is, or nobody reads at the other end.
    pub(crate) fn write(&mut self, end: NetworkEnd, bytes: &[u8]) -> Result<usize, PipeBroken> {
        let pipe = &mut self.connections[end.connection as usize].pipes[end.side];
        let count = pipe.write(self.agenda.now(), bytes, &mut self.random)?;
        self.announce(end);
        Ok(count)
    }

    /// Appends what has arrived to `out`.
    pub(crate) fn read(&mut self, end: NetworkEnd, out: &mut Vec<u8>) -> Incoming {
        let pipe = &mut self.connections[end.connection as usize].pipes[1 - end.side];
        let incoming = pipe.read(out);
        if matches!(incoming, Incoming::Bytes(_)) && pipe.take_waiting_writer() {
            self.call(end.peer());
        }
        incoming
    }

    /// Says that no more will be written.
    pub(crate) fn finish(&mut self, end: NetworkEnd) {
        let now = self.agenda.now();
        self.connections[end.connection as usize].pipes[end.side].finish(now);
        self.announce(end);
    }

    /// Closes an end. What was written before still arrives; if the connection is stalled, after some time.
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
            // Who waits for room learns that there will be none.
            self.call(end.peer());
        }
    }

    /// Breaks a connection, at any byte of either direction.
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

    /// Lets nothing arrive at this end for so long.
    pub(crate) fn stall(&mut self, end: NetworkEnd, ms: u64) {
        self.note(TraceEvent::Stalled { connection: end.connection, side: end.side, ms });
        let until = self.now().after_ms(ms);
        self.disturb(until);
        let connection = &mut self.connections[end.connection as usize];
        connection.held = true;
        connection.pipes[1 - end.side].hold(until);
    }

    /// Until then things may take longer than they should.
    pub(crate) fn disturb(&mut self, until: Time) {
        self.disturbed_until = self.disturbed_until.max(until);
    }

    /// Until when things may take longer than they should.
    pub(crate) const fn disturbed_until(&self) -> Time {
        self.disturbed_until
    }

    /// Whether one direction of the connection carries nothing now.
    pub(crate) fn is_stalled(&self, connection: u32) -> bool {
        let now = self.now();
        self.connections[connection as usize].pipes.iter().any(|pipe| pipe.is_held(now))
    }

    /// When the connection was cut, or one of its ends closed.
    pub(crate) fn over(&self, connection: u32) -> Option<EventTime> {
        self.connections[connection as usize].over
    }

    /// When this end was closed.
    pub(crate) fn closed(&self, end: NetworkEnd) -> Option<EventTime> {
        self.at(end).closed[end.side]
    }

    /// Whether the connection broke.
    pub(crate) fn was_cut(&self, connection: u32) -> bool {
        self.connections[connection as usize].cut
    }

    /// Whether something of the connection was ever held up, or the clock leapt.
    pub(crate) fn was_held(&self, connection: u32) -> bool {
        let connection = &self.connections[connection as usize];
        connection.held || connection.leapt_ms < self.agenda.leapt_ms()
    }

    /// How many bytes were ever written at this end.
    pub(crate) fn written_total(&self, end: NetworkEnd) -> u64 {
        self.at(end).pipes[end.side].written_total
    }

    /// How many bytes have arrived at this end, until it was closed.
    pub(crate) fn arrived_total(&self, end: NetworkEnd) -> u64 {
        self.at(end).pipes[1 - end.side].arrived_total
    }

    /// What was seen at the agent's end of a local connection.
    pub(crate) fn witness(&mut self, connection: u32) -> &mut Witness {
        &mut self.connections[connection as usize].witness
    }

    /// Has the owner of this end look at it soon.
    pub(crate) fn call(&mut self, end: NetworkEnd) {
        let called = &mut self.connections[end.connection as usize].called[end.side];
        if !std::mem::replace(called, true) {
            self.agenda.after_ms(0, SimEvent::Turn(end));
        }
    }

    /// The turn that [`call`](Self::call) asked for has come.
    pub(crate) fn turn_came(&mut self, end: NetworkEnd) {
        self.connections[end.connection as usize].called[end.side] = false;
    }

    /// Has the owner of this end look at it at this time.
    pub(crate) fn set_timer(&mut self, end: NetworkEnd, deadline: Option<Time>) {
        let timer = &mut self.connections[end.connection as usize].timers[end.side];
        if let Some(deadline) = deadline
            && timer.is_none_or(|set| set > deadline)
        {
            *timer = Some(deadline);
            self.agenda.at(deadline, SimEvent::Timer(end));
        }
    }

    /// A timer that was set came. Returns whether it is the one that counts.
    pub(crate) fn timer_came(&mut self, end: NetworkEnd) -> bool {
        let now = self.agenda.now();
        let timer = &mut self.connections[end.connection as usize].timers[end.side];
        timer.take_if(|set| *set <= now).is_some()
    }

    /// The next piece arrives at this end. Returns whether there is something to look at.
    pub(crate) fn arrive(&mut self, end: NetworkEnd) -> bool {
        let now = self.agenda.now();
        let pipe = &mut self.connections[end.connection as usize].pipes[1 - end.side];
        pipe.announced = false;
        let arrived = pipe.arrive(now);
        self.announce(end.peer());
        arrived
    }

    /// As [`announce`](Self::announce), when it may be earlier than was announced.
    fn announce_again(&mut self, end: NetworkEnd) {
        self.connections[end.connection as usize].pipes[end.side].announced = false;
        self.announce(end);
    }

    /// Puts the arrival of the next piece from this end on the agenda.
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
