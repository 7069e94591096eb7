//! The agent's end of the link: whether there is one, what is under way on it, whether the server lives.
//!
//! ```text
//!          connect               the probe is answered
//!   Down ───────────▶ Probing ────────────────────────▶ Up { patch_level }
//!     ▲                  │ fault, end                       │ fault, end
//!     └──────────────────┴──────────────────────────────────┘
//! ```

use crate::limits::{LINK_OUTBOX_BYTES_MAX, LINK_SILENCE_MS_MAX, LINK_SILENCE_MS_MIN, PING_INTERVAL_MS};
use crate::proto::flight::{Asker, Flight, InFlight};
use crate::proto::outbox::Outbox;
use crate::time::Time;
use crate::wire::frame::{Corruption, Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use crate::wire::message::{MessageReader, write_message};
use thiserror::Error;

/// Why the link is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LinkFault {
    /// What the server sent can't be read.
    #[error("the server sent {0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] Corruption),
    /// The server wants the link to be made anew.
    #[error("the server asks to reconnect")]
    GoAway,
    /// An answer came that nobody had asked for.
    #[error("the server answered a request that was not made")]
    Unasked,
    /// An answer names another operation than its request.
    #[error("the server answered another operation than was asked")]
    OtherOperation,
    /// Something was asked, and nothing at all came back.
    #[error("the server has been silent for {silent_ms} ms")]
    Silent {
        /// For how long.
        silent_ms: u64,
    },
}

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Down,
    /// There is one; the server has not answered yet.
    Probing,
    /// The server answers, at this patch level.
    Up {
        /// 0 is a distcache 1.x server.
        patch_level: u16,
    },
}

/// The agent's end of the link.
#[derive(Debug)]
pub(crate) struct Link {
    /// How long the server may be silent although something was asked, in milliseconds.
    silence_ms_max: u64,
    pub(crate) state: LinkState,
    pub(crate) reader: MessageReader,
    pub(crate) unread: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) flight: Flight,
    last_heard: Time,
    /// Since when something has been asked and nothing came.
    silent_since: Option<Time>,
    ping_under_way: bool,
}

impl Link {
    pub(crate) fn new(timeout_ms: u64) -> Self {
        let silence_ms_max = match timeout_ms {
            0 => LINK_SILENCE_MS_MAX,
            timeout_ms => timeout_ms.clamp(LINK_SILENCE_MS_MIN, LINK_SILENCE_MS_MAX),
        };
        Self {
            silence_ms_max,
            state: LinkState::Down,
            reader: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            outbox: Outbox::new(),
            flight: Flight::default(),
            last_heard: Time::default(),
            silent_since: None,
            ping_under_way: false,
        }
    }

    /// There is a connection: asks who the server is.
    pub(crate) fn connect(&mut self, now: Time, probe_id: &[u8; 32]) {
        self.state = LinkState::Probing;
        self.last_heard = now;
        let probe = InFlight { asker: Asker::Agent, operation: Operation::Session(SessionOperation::Have) };
        self.send(now, probe, probe_id, None);
    }

    /// There is no connection any more. Gives back the requests that were under way.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = InFlight> + use<> {
        self.state = LinkState::Down;
        self.reader = MessageReader::link(Direction::Response);
        self.unread = Vec::new();
        self.outbox.clear();
        self.silent_since = None;
        self.ping_under_way = false;
        self.flight.drain()
    }

    /// Whether one more request may be sent.
    pub(crate) const fn has_room(&self) -> bool {
        self.outbox.len() < LINK_OUTBOX_BYTES_MAX && !self.flight.is_full()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, now: Time, request: InFlight, data: &[u8], deadline: Option<Time>) {
        let uid = self.flight.insert(request, deadline);
        write_message(self.outbox.buffer(), MessageHead::request(uid, request.operation), data);
        self.silent_since.get_or_insert(now);
    }

    /// Something came from the server.
    pub(crate) fn heard(&mut self, now: Time) {
        self.last_heard = now;
        self.silent_since = (!self.flight.is_empty()).then_some(now);
    }

    /// The server answered a question of the agent's own.
    pub(crate) fn learn(&mut self, answer: MessageHead) {
        if answer.operation == Operation::Link(LinkOperation::Ping) {
            self.ping_under_way = false;
        } else {
            self.state = LinkState::Up { patch_level: answer.patch_level };
        }
    }

    /// The server asks something itself.
    pub(crate) fn take_request(&mut self, request: MessageHead) -> Result<(), LinkFault> {
        match request.operation {
            Operation::Link(LinkOperation::Ping) => {
                write_message(self.outbox.buffer(), request.response(), &[]);
                Ok(())
            }
            // The reader lets nothing else come this way.
            _ => Err(LinkFault::GoAway),
        }
    }

    /// When [`check`](Self::check) has to be called.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let silence = self.silent_since.map(|since| since.after_ms(self.silence_ms_max));
        let ping = self.may_ping().then(|| self.last_heard.after_ms(PING_INTERVAL_MS));
        [silence, ping, self.flight.next_deadline()].into_iter().flatten().min()
    }

    /// Whether the link can be used on; asks whether the server is there when it has long said nothing.
    pub(crate) fn check(&mut self, now: Time) -> Result<(), LinkFault> {
        let silent_ms = self.silent_since.map_or(0, |since| now.ms_since(since));
        if silent_ms >= self.silence_ms_max {
            return Err(LinkFault::Silent { silent_ms });
        }
        if self.may_ping() && now.ms_since(self.last_heard) >= PING_INTERVAL_MS {
            self.ping_under_way = true;
            let ping = InFlight { asker: Asker::Agent, operation: Operation::Link(LinkOperation::Ping) };
            self.send(now, ping, &[], None);
        }
        Ok(())
    }

    /// A server at patch level 0 does not know pings.
    fn may_ping(&self) -> bool {
        !self.ping_under_way && matches!(self.state, LinkState::Up { patch_level } if patch_level > 0)
    }
}
