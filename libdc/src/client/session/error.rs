//! The errors of session operations, and the reasons for which an ADD is refused.
//!
//! A missing session is an answer, not an error: GET returns `None`, REMOVE and HAVE return `false`.

use crate::net::address::Address;
use crate::wire::frame::{DecodeError, Operation};
use crate::wire::session::SessionStatus;
use std::io;
use thiserror::Error;

/// Why an operation has no result.
///
/// After any error but [`Refused`](Self::Refused) and [`Disconnected`](Self::Disconnected) the connection is
/// closed, so that a late answer is never taken for another operation's. The next operation opens a new
/// connection. It is then unknown whether a failed ADD or REMOVE took effect.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be opened.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address of the agent or server.
        address: Address,
        /// The error of the system.
        source: io::Error,
    },
    /// The timeout of the operation has passed.
    #[error("no answer in time: {phase}")]
    Timeout {
        /// The phase that was not completed.
        phase: OperationPhase,
    },
    /// The peer closed the connection before the answer was complete.
    #[error("the connection was closed before the answer")]
    Closed,
    /// The connection failed.
    #[error("the connection failed while {phase}: {source}")]
    Io {
        /// The phase in which it failed.
        phase: OperationPhase,
        /// The error of the system.
        source: io::Error,
    },
    /// The agent currently cannot reach the server.
    #[error("the agent cannot reach the server")]
    Disconnected,
    /// The request cannot be carried out. Detected before sending where possible, otherwise by the server.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer violated the protocol.
    #[error("malformed answer: {0}")]
    Corruption(#[from] DecodeError),
    /// The peer sent an answer to a request that was not sent.
    #[error("unexpected answer to {} with uid {uid}", operation.name())]
    NotAsked {
        /// The uid in the answer.
        uid: u32,
        /// The operation in the answer.
        operation: Operation,
    },
    /// The peer sent a status that does not exist for this operation.
    #[error("{} is not a valid answer to {}", status.name(), operation.name())]
    Unexpected {
        /// The operation of the request.
        operation: Operation,
        /// The status in the answer.
        status: SessionStatus,
    },
}

impl Error {
    /// Whether the peer had probably closed the connection before it read the request.
    pub(super) fn is_peer_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        match self {
            Self::Closed => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected)
            }
            _ => false,
        }
    }
}

/// The phase of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationPhase {
    /// Resolving the address and connecting.
    Connecting,
    /// Writing the request to the socket.
    Sending,
    /// Waiting for the complete answer.
    Receiving,
}

impl std::fmt::Display for OperationPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Sending => "sending the request",
            Self::Receiving => "waiting for the answer",
        })
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// ADD: a session with this id is already stored and stays as it is.
    #[error("a session with this id is already stored")]
    AlreadyStored,
    /// ADD: the timeout exceeds seven days.
    #[error("the timeout exceeds seven days")]
    TimeoutRange,
    /// The id is empty or longer than 64 bytes.
    #[error("an id must have 1 to 64 bytes")]
    IdRange,
    /// ADD: the session is empty, or does not fit into a message together with its id.
    #[error("a session must have 1 to {} bytes, less those of its id", crate::limits::SESSION_ADD_BYTES_MAX)]
    DataRange,
    /// ADD: the server found inconsistent lengths in the request.
    #[error("the server rejected the request as corrupt")]
    Corrupt,
    /// ADD: the server did not store the session, without a reason.
    #[error("the server did not store the session")]
    NotStored,
}
