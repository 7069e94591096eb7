//! The server's side of one connection.
//!
//! ```text
//!           handle_input                        output
//!   bytes ─────────────▶ unread ─▶ requests ─▶ Service ─▶ answers ─▶ (the driver's socket)
//!                          ▲                     │ │
//!                          │                     │ └─▶ effects ─▶ (the driver) ─▶ handle_answer of others
//!                          └── stalled, blocked ◀┘
//! ```
//!
//! The first byte says what is spoken: 0x00 frames (`frames`), a small letter text (`text`). The machine
//! keeps what has been read and not yet used: the beginning of a request, or whole requests that wait until the
//! peer has read earlier answers or, in text, until a lock is granted. An idle connection keeps no memory at all.

use crate::id::ConnectionId;
use crate::limits::{AUTH_FAILURE_DELAY_MS, LINE_BYTES_MAX, OUTBOX_BYTES_MAX};
use crate::proto::server::frames::FrameProtocol;
use crate::proto::server::lines::LineProtocol;
use crate::service::{Completion, Effects, RequestCounters, Service};
use crate::time::Time;
use crate::wire::detect::Protocol;
use crate::wire::frame::DecodeError;
use crate::wire::line::LineTooLong;
use thiserror::Error;

/// Most bytes read ahead of a blocked request. They are read only to notice that the peer has gone.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// One connection, as the server sees it.
#[derive(Debug)]
pub struct ServerConnection {
    peer: PeerState,
    speech: ServerProtocol,
    unread: Vec<u8>,
    stalled: bool,
    opened: Time,
    unfinished_since: Option<Time>,
}

/// What is known of the peer whatever it speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerState {
    pub(super) id: ConnectionId,
    /// Whether it may ask for anything: it said the right token, or none is needed.
    pub(super) admitted: bool,
    /// Whether a whole request came in this step.
    pub(super) has_asked: bool,
}

/// What the peer speaks.
#[derive(Debug)]
enum ServerProtocol {
    /// Nothing yet.
    Unknown,
    Frames(FrameProtocol),
    Text(LineProtocol),
}

/// One step of a connection: the time, the service, and where answers and effects go.
pub struct ServerContext<'a> {
    /// When.
    pub now: Time,
    /// Who answers.
    pub service: &'a Service,
    /// Where the answers to this connection are appended.
    pub out: &'a mut Vec<u8>,
    /// Where it is told what follows for others.
    pub effects: &'a mut Effects,
    /// What was asked.
    pub tally: &'a mut RequestCounters,
}

/// Why a connection has to be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ServerCloseReason {
    /// What it sent can't be read.
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// It sent a line without an end.
    #[error(transparent)]
    LineTooLong(#[from] LineTooLong),
    /// It speaks TLS where there is none.
    #[error("a TLS handshake on a port without TLS")]
    Tls,
    /// It did not begin with the token of authentication.
    #[error("not authenticated: {0}")]
    NotAuthenticated(&'static str),
    /// It offered a wrong token of authentication.
    #[error("a wrong token of authentication")]
    WrongToken,
    /// It began a request and did not end it.
    #[error("a request was not whole within the read timeout")]
    ReadTimeout,
    /// It spoke text, held nothing, and asked for nothing.
    #[error("idle for the read timeout")]
    Idle,
    /// It is a link, and said nothing for longer than links may.
    #[error("the link was silent for longer than the read timeout")]
    Silent,
    /// Another connection resumed its link.
    #[error("the link was taken over by a newer connection")]
    TakenOver,
    /// It said goodbye.
    #[error("the link ended")]
    Bye,
}

impl ServerCloseReason {
    /// How long to wait before the connection is closed, in milliseconds: guessing tokens is made slow.
    #[must_use]
    pub const fn delay_ms(&self) -> u64 {
        match self {
            Self::NotAuthenticated(_) | Self::WrongToken => AUTH_FAILURE_DELAY_MS,
            _ => 0,
        }
    }

    /// Whether it is the usual end of a connection.
    #[must_use]
    pub const fn is_graceful(&self) -> bool {
        matches!(self, Self::Bye | Self::Idle)
    }
}

impl ServerConnection {
    /// A connection on which nothing has happened.
    #[must_use]
    pub const fn new(now: Time, id: ConnectionId, service: &Service) -> Self {
        Self {
            peer: PeerState { id, admitted: service.auth().is_none(), has_asked: false },
            speech: ServerProtocol::Unknown,
            unread: Vec::new(),
            stalled: false,
            opened: now,
            unfinished_since: None,
        }
    }

    /// Takes bytes that arrived and appends the answers to the turn's output.
    ///
    /// Stops when that holds more than [`OUTBOX_BYTES_MAX`], or at a request of text that is blocked; call again
    /// with no bytes once the output has been written.
    ///
    /// # Errors
    /// [`ServerCloseReason`]: what came before it has been answered; the connection must be closed once that is written
    /// and the fault's [pause](ServerCloseReason::delay_ms) is over.
    pub fn handle_input(
        &mut self,
        turn: &mut ServerContext<'_>,
        bytes: &[u8],
    ) -> Result<(), ServerCloseReason> {
        if self.unread.is_empty() {
            let mut input = bytes;
            self.handle_requests(turn, &mut input)?;
            self.unread.extend_from_slice(input);
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            self.handle_requests(turn, &mut input)?;
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                self.unread = unread;
            }
        }
        Ok(())
    }

    /// Takes the answer to a request of this connection that was blocked.
    ///
    /// # Errors
    /// As [`handle_input`](Self::handle_input): requests that were held back are taken now.
    pub fn handle_completion(
        &mut self,
        turn: &mut ServerContext<'_>,
        answer: &Completion,
    ) -> Result<(), ServerCloseReason> {
        match &mut self.speech {
            ServerProtocol::Unknown => Ok(()),
            ServerProtocol::Frames(frames) => {
                frames.handle_completion(turn, answer);
                Ok(())
            }
            ServerProtocol::Text(text) => {
                if text.handle_completion(turn, answer) {
                    self.handle_input(turn, &[])?;
                }
                Ok(())
            }
        }
    }

    /// Answers `error_disconnected` to the requests of this connection that wait for a lock; to be called when the
    /// [service ends](Service::shut_down), as often as there may be some. Returns whether there were any.
    ///
    /// # Errors
    /// As [`handle_input`](Self::handle_input): requests that were held back are taken now.
    pub fn cancel_waiters(&mut self, turn: &mut ServerContext<'_>) -> Result<bool, ServerCloseReason> {
        match &mut self.speech {
            ServerProtocol::Unknown => Ok(false),
            ServerProtocol::Frames(frames) => Ok(frames.cancel_waiters(turn)),
            ServerProtocol::Text(text) => {
                let some = text.cancel_waiters(turn);
                if some {
                    self.handle_input(turn, &[])?;
                }
                Ok(some)
            }
        }
    }

    /// Whether answers from elsewhere may come for this connection.
    #[must_use]
    pub fn expects_mail(&self) -> bool {
        match &self.speech {
            ServerProtocol::Unknown => false,
            ServerProtocol::Frames(frames) => frames.expects_mail(),
            ServerProtocol::Text(text) => text.is_blocked(),
        }
    }

    /// Whether bytes should be read. While a request is blocked that goes on, to notice when the peer leaves.
    #[must_use]
    pub const fn wants_input(&self) -> bool {
        !self.stalled && self.unread.len() < READ_AHEAD_BYTES_MAX
    }

    /// Whether requests wait here for room in the output. No input is needed then.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether nothing is under way: no part of a request, no request without an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty()
            && match &self.speech {
                ServerProtocol::Unknown => true,
                ServerProtocol::Frames(frames) => frames.is_idle(),
                ServerProtocol::Text(text) => !text.is_blocked(),
            }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called. The timeout is in milliseconds; 0 is none.
    #[must_use]
    pub fn deadline(&self, read_timeout_ms: u64) -> Option<Time> {
        if read_timeout_ms == 0 {
            return None;
        }
        let unadmitted = (!self.peer.admitted).then_some(self.opened);
        let since = match &self.speech {
            ServerProtocol::Unknown | ServerProtocol::Frames(_) => None,
            ServerProtocol::Text(text) => text.waits_since(),
        };
        let since = [unadmitted, since, self.unfinished_since].into_iter().flatten().min();
        let link = match &self.speech {
            ServerProtocol::Frames(frames) => frames.deadline(read_timeout_ms),
            ServerProtocol::Unknown | ServerProtocol::Text(_) => None,
        };
        [since.map(|since| since.after_ms(read_timeout_ms)), link].into_iter().flatten().min()
    }

    /// Whether the connection may go on; to be asked at its [`deadline`](Self::deadline). A link that has been silent for
    /// half of the time is pinged.
    ///
    /// # Errors
    /// The [`ServerCloseReason`] for which it must be closed; text is told `error` before.
    pub fn handle_timeout(
        &mut self,
        turn: &mut ServerContext<'_>,
        read_timeout_ms: u64,
    ) -> Result<(), ServerCloseReason> {
        if self.deadline(read_timeout_ms).is_none_or(|deadline| deadline > turn.now) {
            return Ok(());
        }
        let started = self.unfinished_since.is_some() || !self.unread.is_empty();
        match &mut self.speech {
            _ if !self.peer.admitted => {
                Err(ServerCloseReason::NotAuthenticated("nothing came within the read timeout"))
            }
            ServerProtocol::Text(text) => text.handle_timeout(turn, self.peer.id, started, read_timeout_ms),
            ServerProtocol::Frames(frames)
                if self.unfinished_since.is_none_or(|since| since.after_ms(read_timeout_ms) > turn.now) =>
            {
                frames.handle_timeout(turn)
            }
            ServerProtocol::Frames(_) | ServerProtocol::Unknown => Err(ServerCloseReason::ReadTimeout),
        }
    }

    /// The connection is gone: gives up what it waited for and, unless its link may be resumed, what it held.
    /// Returns whether it had to do with locks at all.
    pub fn close(&mut self, turn: &mut ServerContext<'_>) -> bool {
        match std::mem::replace(&mut self.speech, ServerProtocol::Unknown) {
            ServerProtocol::Unknown => false,
            ServerProtocol::Frames(frames) => frames.close(turn, self.peer.id),
            ServerProtocol::Text(_) => {
                turn.service.end_connection(turn.now, self.peer.id, turn.effects);
                true
            }
        }
    }

    fn handle_requests(
        &mut self,
        turn: &mut ServerContext<'_>,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        if matches!(self.speech, ServerProtocol::Unknown)
            && let Some(first) = input.first()
        {
            self.speech = match Protocol::detect(*first) {
                Protocol::Text => ServerProtocol::Text(LineProtocol::new(turn.now)),
                Protocol::Tls => return Err(ServerCloseReason::Tls),
                // Of what is unknown the first frame's corruption says what is wrong.
                Protocol::Frames | Protocol::Unknown(_) => ServerProtocol::Frames(FrameProtocol::default()),
            };
        }
        self.peer.has_asked = false;
        let result = match &mut self.speech {
            ServerProtocol::Unknown => Ok(()),
            ServerProtocol::Frames(frames) => frames.handle_requests(turn, &mut self.peer, input),
            ServerProtocol::Text(text) => text.handle_requests(turn, &mut self.peer, input),
        };
        let blocked = matches!(&self.speech, ServerProtocol::Text(text) if text.is_blocked());
        self.stalled = turn.out.len() >= OUTBOX_BYTES_MAX && !input.is_empty() && !blocked;
        let inside = matches!(&self.speech, ServerProtocol::Frames(frames) if frames.is_inside_message());
        if self.stalled || blocked || (input.is_empty() && !inside) {
            self.unfinished_since = None;
        } else if self.peer.has_asked || self.unfinished_since.is_none() {
            self.unfinished_since = Some(turn.now);
        }
        result
    }
}

const _: () = assert!(
    READ_AHEAD_BYTES_MAX > 4 * LINE_BYTES_MAX,
    "a request that is blocked holds back others, not itself"
);
