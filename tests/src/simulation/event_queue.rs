//! The virtual clock, and what is to happen when.
//!
//! Time moves from one event to the next and never else, so a simulated hour without events costs nothing.
//! Events of the same millisecond come in an order drawn from the seed.
//!
//! A *leap* moves the clock ahead over events that are due, as when the machine was suspended: they all
//! come late, at the time after the leap.

use super::network::NetworkEnd;
use super::random::SeededRng;
use libdc::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SimEvent {
    /// Bytes, or the end of a stream, arrive at this end.
    Arrive(NetworkEnd),
    /// The owner of this end has to look at it: there is room to write again, or its time is up.
    Turn(NetworkEnd),
    /// The owner of this end asked to be called at this time.
    Timer(NetworkEnd),
    /// There is something to write to the server.
    LinkTurn(usize),
    /// An agent, in this of its processes, tries to connect to the server.
    Attempt(usize, u32),
    /// The attempt succeeds, if the server is there then.
    Connected(usize, u32),
    /// An agent that ends has waited long enough.
    AgentEnds(usize, u32),
    /// An agent that ended, or was killed, is started again.
    AgentStart(usize),
    /// An application wants to do something.
    Application(usize),
    /// One that wants locks does.
    Locker(usize),
    /// A direct client does.
    Direct(usize),
    /// The server's worker may have time for the next turn.
    ServerWorker,
    /// The shutdown of the server, the one of this number, has taken as long as it may.
    ShutdownTimeout(u32),
    /// A lease or a wait of the server may be over.
    LockTime,
    /// Something breaks.
    Fault,
    /// The killed server is started again.
    Start,
    /// The stopped server is continued.
    Continue,
}

/// A moment: of two at the same time, the one with the lower order was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventTime {
    /// Counts what happens.
    pub(crate) order: u64,
    /// What the clock says.
    pub(crate) at: Time,
}

impl EventTime {
    /// After everything.
    pub(crate) const NEVER: Self = Self { order: u64::MAX, at: Time::from_ms(u64::MAX) };
}

/// Virtual time and the events that wait for theirs.
#[derive(Debug)]
pub(crate) struct EventQueue {
    now: Time,
    order: u64,
    leapt_ms: u64,
    random: SeededRng,
    events: BinaryHeap<Reverse<(Time, u32, u64, SimEvent)>>,
}

impl EventQueue {
    /// Begins at a time drawn from the seed.
    pub(crate) fn new(mut random: SeededRng) -> Self {
        let now = Time::from_ms(random.below(1 << 40));
        Self { now, order: 0, leapt_ms: 0, random, events: BinaryHeap::new() }
    }

    /// What the clock says.
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    /// This very moment; every call gives a later one.
    pub(crate) const fn moment(&mut self) -> EventTime {
        self.order += 1;
        EventTime { order: self.order, at: self.now }
    }

    /// How much of the time that passed was leapt over, in milliseconds.
    pub(crate) const fn leapt_ms(&self) -> u64 {
        self.leapt_ms
    }

    /// Lets `event` happen at this time, or now if it has passed.
    pub(crate) fn at(&mut self, time: Time, event: SimEvent) {
        self.order += 1;
        let shuffle = self.random.next() as u32;
        self.events.push(Reverse((time.max(self.now), shuffle, self.order, event)));
    }

    /// Lets `event` happen in so many milliseconds.
    pub(crate) fn after_ms(&mut self, ms: u64, event: SimEvent) {
        self.at(self.now.after_ms(ms), event);
    }

    /// Moves on to the next event; `None` if there is none until `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<SimEvent> {
        if self.events.peek()?.0.0 > end {
            return None;
        }
        let Reverse((time, _, _, event)) = self.events.pop()?;
        self.now = self.now.max(time);
        Some(event)
    }

    /// Moves the clock ahead, over whatever is due meanwhile.
    pub(crate) const fn leap(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.leapt_ms += ms;
    }
}
