//! Why a run ended before it was through.

use crate::counters::OperationFailure;
use crate::wrong_answer::WrongAnswer;
use libdc::wire::frame::DecodeError;

/// Why a run ended before it was through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopReason {
    #[error(transparent)]
    Wrong(#[from] Box<WrongAnswer>),
    /// The server does not keep to the protocol.
    #[error("malformed answer: {0}")]
    Malformed(#[from] DecodeError),
    /// An answer without a request in flight.
    #[error("an answer to {operation} with uid {uid}, which is not pending")]
    NotAsked {
        /// The operation named in the answer.
        operation: &'static str,
        uid: u32,
    },
    /// A failure, and no outage is tolerated, or none as long as this one.
    #[error(transparent)]
    Failed(OperationFailure),
    /// The user wants it to end.
    #[error("interrupted")]
    Interrupted,
}
