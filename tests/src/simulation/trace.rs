//! The events of a run: as a digest that distinguishes runs, and as lines for debugging a failure.

use super::event_queue::SimEvent;
use super::history::{ObservedOutcome, SessionOpKind};
use super::lock::{LockOpKind, ObservedLockReply};
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::link::{LinkError, LinkState};
use libdc::time::Time;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// An event of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TraceEvent {
    /// A scheduled event occurs.
    Event(SimEvent),
    /// Two parties are connected.
    Connected { connection: u32, near: &'static str, far: &'static str },
    /// A connection breaks.
    Cut { connection: u32 },
    /// One direction of a connection stalls for a while.
    Stalled { connection: u32, side: usize, ms: u64 },
    /// The clock moves ahead.
    Leap { ms: u64 },
    /// The server is killed.
    Killed,
    /// The server begins to shut down.
    ServerDrains,
    /// The server has shut down.
    ServerEnds,
    /// The server is started, possibly as a distcache 1.x server.
    Started { original: bool },
    /// The server is stopped.
    Stopped,
    /// The stopped server continues.
    Continued,
    /// The state of an agent's link changed.
    Link { agent: usize, state: LinkState },
    /// An agent detected an error on its link.
    LinkFault { agent: usize, fault: LinkError },
    /// An agent detected an error on a local connection.
    LocalFault { connection: u32, fault: LocalCloseReason },
    /// An application sends a request.
    Asked { application: usize, connection: u32, uid: u32, operation: usize, id: usize, kind: SessionOpKind },
    /// The operation of an application ended.
    Ended { application: usize, operation: usize, outcome: ObservedOutcome },
    /// A locker sends a request.
    LockAsked { locker: usize, connection: u32, operation: usize, key: usize, locking: LockOpKind },
    /// The operation of a locker ended.
    LockEnded { locker: usize, operation: usize, reply: ObservedLockReply },
    /// An agent is killed.
    AgentKilled { agent: usize },
    /// An agent starts a graceful shutdown.
    AgentEnds { agent: usize },
    /// An application misbehaves.
    Misbehaves { application: usize, how: &'static str },
    /// An application closes a connection.
    Left { application: usize, connection: u32 },
}

impl TraceEvent {
    /// The name of its counter, if it has one.
    const fn label(&self) -> Option<&'static str> {
        Some(match self {
            Self::Cut { .. } => "connections broken",
            Self::Stalled { .. } => "streams stalled",
            Self::Leap { .. } => "leaps of the clock",
            Self::Killed => "server killed",
            Self::ServerDrains => "server asked to shut down",
            Self::ServerEnds => "server shut down gracefully",
            Self::Started { original: false } => "server started",
            Self::Started { original: true } => "original server started",
            Self::Stopped => "server stopped",
            Self::Link { state: LinkState::Up { patch_level: 0 }, .. } => "link up to an original",
            Self::Link { state: LinkState::Up { .. }, .. } => "link up",
            Self::LinkFault { .. } => "server found silent",
            Self::LocalFault {
                fault:
                    LocalCloseReason::Corruption(_) | LocalCloseReason::Tls | LocalCloseReason::LineTooLong(_),
                ..
            } => "garbage refused",
            Self::LocalFault { fault: LocalCloseReason::Idle, .. } => "idle applications closed",
            Self::LocalFault { fault: LocalCloseReason::ReadTimeout, .. } => "half messages given up",
            Self::LocalFault { fault: LocalCloseReason::WriteTimeout, .. } => "deaf applications closed",
            Self::LocalFault { fault: LocalCloseReason::Drained, .. } => "applications drained",
            Self::Misbehaves { how, .. } => how,
            Self::AgentKilled { .. } => "agents killed",
            Self::AgentEnds { .. } => "agents ended",
            Self::LocalFault { fault: LocalCloseReason::PeerFinished, .. }
            | Self::Event(_)
            | Self::Connected { .. }
            | Self::Continued
            | Self::Link { .. }
            | Self::Asked { .. }
            | Self::Ended { .. }
            | Self::LockAsked { .. }
            | Self::LockEnded { .. }
            | Self::Left { .. } => return None,
        })
    }
}

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    digest: TraceDigest,
    lines: Option<Vec<String>>,
    /// Number of occurrences of each kind of event, except operations.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// A trace that keeps its lines, or only its digest.
    pub(crate) fn new(lines: bool) -> Self {
        Self {
            digest: TraceDigest(0xcbf2_9ce4_8422_2325),
            lines: lines.then(Vec::new),
            counts: BTreeMap::new(),
        }
    }

    /// Records an event.
    pub(crate) fn note(&mut self, now: Time, note: TraceEvent) {
        (now, std::mem::discriminant(&note)).hash(&mut self.digest);
        match note {
            TraceEvent::Event(event) => event.hash(&mut self.digest),
            TraceEvent::Asked { uid, operation, id, .. } => (uid, operation, id).hash(&mut self.digest),
            TraceEvent::Ended { operation, outcome, .. } => (operation, outcome).hash(&mut self.digest),
            TraceEvent::LockAsked { operation, key, .. } => (operation, key).hash(&mut self.digest),
            TraceEvent::LockEnded { operation, reply, .. } => {
                (operation, std::mem::discriminant(&reply)).hash(&mut self.digest);
            }
            _ => {}
        }
        if let Some(label) = note.label() {
            self.count(label, 1);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>14}  {note}", now.as_ms()));
        }
    }

    /// Adds to a counter, without a line in the trace.
    pub(crate) fn count(&mut self, label: &'static str, times: u64) {
        *self.counts.entry(label).or_default() += times;
    }

    /// A digest, equal in two runs only if the same events happened.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The lines, if they were recorded.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Event(event) => write!(f, "  {event:?}"),
            Self::Connected { connection, near, far } => {
                write!(f, "#{connection} {near} to {far}: connected")
            }
            Self::Cut { connection } => write!(f, "#{connection} breaks"),
            Self::Stalled { connection, side, ms } => {
                write!(f, "#{connection}: nothing arrives at side {side} for {ms} ms")
            }
            Self::Leap { ms } => write!(f, "the clock leaps {ms} ms"),
            Self::Killed => write!(f, "the server is killed"),
            Self::ServerDrains => write!(f, "the server begins to shut down"),
            Self::ServerEnds => write!(f, "the server has shut down"),
            Self::Started { original: false } => write!(f, "the server is started"),
            Self::Started { original: true } => write!(f, "an original server is started"),
            Self::Stopped => write!(f, "the server is stopped"),
            Self::Continued => write!(f, "the server is continued"),
            Self::Link { agent, state } => write!(f, "agent {agent}: the link is {state:?}"),
            Self::LinkFault { agent, fault } => write!(f, "agent {agent}: {fault}"),
            Self::LocalFault { connection, fault } => {
                write!(f, "#{connection} is closed by the agent: {fault}")
            }
            Self::Asked { application, connection, uid, operation, id, kind } => write!(
                f,
                "application {application} asks: operation {operation}, {kind:?} of id {id} (#{connection}, uid {uid})"
            ),
            Self::Ended { application, operation, outcome } => {
                write!(f, "application {application} knows: operation {operation} is {outcome:?}")
            }
            Self::LockAsked { locker, connection, operation, key, locking } => write!(
                f,
                "locker {locker} asks: operation {operation} on key {key}, {locking:?} (#{connection})"
            ),
            Self::LockEnded { locker, operation, reply } => {
                write!(f, "locker {locker} knows: operation {operation} is {reply:?}")
            }
            Self::AgentKilled { agent } => write!(f, "agent {agent} is killed"),
            Self::AgentEnds { agent } => write!(f, "agent {agent} is asked to end"),
            Self::Misbehaves { application, how } => write!(f, "application {application} {how}"),
            Self::Left { application, connection } => {
                write!(f, "application {application} leaves #{connection}")
            }
        }
    }
}

/// FNV-1a over words: unlike the standard library's hashers, the same on every machine and in every version.
#[derive(Debug)]
struct TraceDigest(u64);

impl TraceDigest {
    const fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

impl Hasher for TraceDigest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.mix(word as u64);
    }
}
