//! What may go wrong with an operation, and what an ADD may be refused for.
//!
//! "Not there" is an answer and no error: GET gives `None`, REMOVE and HAVE give `false`.

use crate::net::address::Address;
use crate::wire::frame::{DecodeError, Operation};
use crate::wire::session::SessionStatus;
use std::io;
use thiserror::Error;

/// Why an operation has no result.
///
/// After any of these but [`Refused`](Self::Refused) and [`Disconnected`](Self::Disconnected) the connection
/// is gone, so that no late answer is taken for another's; the next operation opens a new one. Whether an
/// ADD or a REMOVE that failed took effect is unknown then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be opened.
    #[error("could not connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// The time of the operation was over.
    #[error("no answer in time: {phase}")]
    Timeout {
        /// What the operation was doing.
        phase: OperationPhase,
    },
    /// The peer closed the connection before the answer was whole.
    #[error("the connection was closed before the answer came")]
    Closed,
    /// The connection broke.
    #[error("the connection broke while {phase}: {source}")]
    Io {
        /// What the operation was doing.
        phase: OperationPhase,
        /// What the system says.
        source: io::Error,
    },
    /// The agent can't reach the server at the moment.
    #[error("the agent can't reach the server")]
    Disconnected,
    /// What was asked can't be done. Found before sending where possible, and by the server otherwise.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer does not keep to the protocol.
    #[error("malformed answer: {0}")]
    Corruption(#[from] DecodeError),
    /// The peer answered something that was not asked.
    #[error("the answer is about {} with uid {uid}, which was not asked", operation.name())]
    NotAsked {
        /// The uid of the answer.
        uid: u32,
        /// The operation of the answer.
        operation: Operation,
    },
    /// A status that is no answer to this operation.
    #[error("{} is no answer to {}", status.name(), operation.name())]
    Unexpected {
        /// What was asked.
        operation: Operation,
        /// What was answered.
        status: SessionStatus,
    },
}

impl Error {
    /// Whether the peer had closed the connection before it read the request, as far as can be told.
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

/// Where in an operation something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationPhase {
    /// Finding the address and connecting.
    Connecting,
    /// Writing the request.
    Sending,
    /// Reading the answer.
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

/// Why something was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// ADD: a session with this id is stored already, and stays as it is.
    #[error("a session with this id is stored already")]
    AlreadyStored,
    /// ADD: the timeout is above seven days.
    #[error("a session is kept for seven days at most")]
    TimeoutRange,
    /// The id has no byte, or more than 64.
    #[error("an id has 1 to 64 bytes")]
    IdRange,
    /// ADD: the session has no byte, or more than a message has room for beside its id.
    #[error("a session has 1 to {} bytes, less those of its id", crate::limits::SESSION_ADD_BYTES_MAX)]
    DataRange,
    /// ADD: the server could not make sense of the request.
    #[error("the server found the request corrupt")]
    Corrupt,
    /// ADD: the server did not store the session, and gave no reason.
    #[error("the server did not store the session")]
    NotStored,
}
