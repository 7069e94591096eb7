//! The virtual clock and the scheduled events.
//!
//! The time advances from one event to the next, so a simulated hour without events costs nothing. Events in
//! the same millisecond run in an order drawn from the seed.
//!
//! A *leap* moves the clock past pending events, as when the machine was suspended: they all run late, at the
//! time after the leap.

use super::network::NetworkEnd;
use super::random::SeededRng;
use libdc::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SimEvent {
    /// Bytes, or the end of a stream, arrive at this end.
    Arrive(NetworkEnd),
    /// The owner of this end takes a turn: there is room to write again, or a deadline has passed.
    Turn(NetworkEnd),
    /// A timer of the owner of this end expires.
    Timer(NetworkEnd),
    /// An agent has output for the server.
    LinkTurn(usize),
    /// An agent, in the process of this number, tries to connect to the server.
    Attempt(usize, u32),
    /// The attempt succeeds if the server is running.
    Connected(usize, u32),
    /// A shutdown deadline of an agent has passed.
    AgentEnds(usize, u32),
    /// An agent that ended or was killed is started again.
    AgentStart(usize),
    /// An application takes a step.
    Application(usize),
    /// A locker takes a step.
    Locker(usize),
    /// A direct client takes a step.
    Direct(usize),
    /// The server's worker may be free for the next turn.
    ServerWorker,
    /// The shutdown of this number has reached the server's shutdown timeout.
    ShutdownTimeout(u32),
    /// A lease or a wait timeout of the server may have expired.
    LockTime,
    /// A fault is injected.
    Fault,
    /// The killed server is started again.
    Start,
    /// The stopped server continues.
    Continue,
}

/// A point in time; the order distinguishes events in the same millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventTime {
    /// A counter of events.
    pub(crate) order: u64,
    /// The time of the clock.
    pub(crate) at: Time,
}

impl EventTime {
    /// After all events.
    pub(crate) const NEVER: Self = Self { order: u64::MAX, at: Time::from_ms(u64::MAX) };
}

/// Virtual time and the pending events.
#[derive(Debug)]
pub(crate) struct EventQueue {
    now: Time,
    order: u64,
    leapt_ms: u64,
    random: SeededRng,
    events: BinaryHeap<Reverse<(Time, u32, u64, SimEvent)>>,
}

impl EventQueue {
    /// Starts at a time drawn from the seed.
    pub(crate) fn new(mut random: SeededRng) -> Self {
        let now = Time::from_ms(random.below(1 << 40));
        Self { now, order: 0, leapt_ms: 0, random, events: BinaryHeap::new() }
    }

    /// The current time.
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    /// The current point in time; each call returns a later one.
    pub(crate) const fn moment(&mut self) -> EventTime {
        self.order += 1;
        EventTime { order: self.order, at: self.now }
    }

    /// The total time skipped by leaps, in milliseconds.
    pub(crate) const fn leapt_ms(&self) -> u64 {
        self.leapt_ms
    }

    /// Schedules `event` at this time, or now if it has passed.
    pub(crate) fn at(&mut self, time: Time, event: SimEvent) {
        self.order += 1;
        let shuffle = self.random.next() as u32;
        self.events.push(Reverse((time.max(self.now), shuffle, self.order, event)));
    }

    /// Schedules `event` after a delay in milliseconds.
    pub(crate) fn after_ms(&mut self, ms: u64, event: SimEvent) {
        self.at(self.now.after_ms(ms), event);
    }

    /// Advances to the next event up to `end`; `None` if no event is due by then.
    pub(crate) fn next(&mut self, end: Time) -> Option<SimEvent> {
        if self.events.peek()?.0.0 > end {
            return None;
        }
        let Reverse((time, _, _, event)) = self.events.pop()?;
        self.now = self.now.max(time);
        Some(event)
    }

    /// Moves the clock ahead, past any pending events.
    pub(crate) const fn leap(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.leapt_ms += ms;
    }
}
