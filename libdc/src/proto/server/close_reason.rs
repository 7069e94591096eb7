//! Why a server closes a connection.

use crate::limits::AUTH_FAILURE_DELAY_MS;
use crate::wire::frame::DecodeError;
use crate::wire::line::LineTooLong;
use thiserror::Error;

/// Why a connection of the server ends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ServerCloseReason {
    /// A malformed frame.
    #[error("{0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// A line without an end.
    #[error(transparent)]
    LineTooLong(#[from] LineTooLong),
    /// A TLS handshake where TLS is not configured.
    #[error("a TLS handshake on a port without TLS")]
    Tls,
    /// The first request did not present the auth token.
    #[error("not authenticated: {0}")]
    NotAuthenticated(&'static str),
    /// A wrong auth token.
    #[error("a wrong auth token")]
    WrongToken,
    /// A request was begun and not completed.
    #[error("a request was not whole within the read timeout")]
    ReadTimeout,
    /// No output was taken for the write timeout, in milliseconds.
    #[error("no answer was read for {0} ms")]
    WriteTimeout(u64),
    /// No request in the line protocol while no lock is held.
    #[error("idle for the read timeout")]
    Idle,
    /// No byte over a link.
    #[error("the link was silent for longer than the read timeout")]
    Silent,
    /// Another connection resumed the link.
    #[error("the link was taken over by a newer connection")]
    TakenOver,
    /// BYE was received.
    #[error("the link ended")]
    Bye,
    /// The end of input.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The server is shutting down, and nothing is in flight.
    #[error("the server is shutting down")]
    Drained,
}

impl ServerCloseReason {
    /// How long to wait before the connection is closed, in milliseconds: this slows down guessing tokens.
    #[must_use]
    pub const fn delay_ms(&self) -> u64 {
        match self {
            Self::NotAuthenticated(_) | Self::WrongToken => AUTH_FAILURE_DELAY_MS,
            _ => 0,
        }
    }

    /// Whether it is the usual end of a connection. For any other an operator may have to act.
    #[must_use]
    pub const fn is_graceful(&self) -> bool {
        matches!(self, Self::Bye | Self::Idle | Self::PeerClosed | Self::Drained)
    }
}
