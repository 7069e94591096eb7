//! What must not happen to locks.

use thiserror::Error;

/// What happened to locks that must not. Operations are named by their number among those about locks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LockViolation {
    /// More than may were sure to hold a key.
    #[error(
        "those who were granted {one} and {other} both could be sure to hold the key, and one too many did"
    )]
    NotExclusive {
        /// A grant.
        one: usize,
        /// A later one.
        other: usize,
    },
    /// The fences are not in the order of the grants.
    #[error("operation {later} has a greater fence than {earlier}, and was over before that was asked for")]
    FencesNotInOrder {
        /// The one with the smaller fence.
        earlier: usize,
        /// The one with the greater.
        later: usize,
    },
    /// A fence was given out twice.
    #[error("operations {one} and {other} were granted with the same fence")]
    FenceTwice {
        /// A grant.
        one: usize,
        /// Another.
        other: usize,
    },
    /// Somebody who came later was granted earlier.
    #[error("operation {first} waited before {second} was asked for, which was granted first")]
    Overtaken {
        /// Who waited.
        first: usize,
        /// Who came later.
        second: usize,
    },
    /// Somebody waited in vain, or was turned away, and nobody can have held the key.
    #[error("operation {operation} was answered timeout, and there was room")]
    NeedlessTimeout {
        /// The operation.
        operation: usize,
    },
    /// A lock was lost that its holder could be sure of.
    #[error("operation {operation} says that the lock is lost that the holder could be sure of")]
    LostHold {
        /// The operation.
        operation: usize,
    },
    /// A place in the queue was lost over a connection that did not break.
    #[error("operation {operation} does not find the place that was taken by {enqueued}")]
    LostPlace {
        /// The WAIT.
        operation: usize,
        /// The ENQUEUE.
        enqueued: usize,
    },
    /// A lock came back that was released, lost, or over.
    #[error("operation {operation} succeeded on a lock that was {reason}")]
    Revived {
        /// The operation.
        operation: usize,
        /// What had become of it.
        reason: Ended,
    },
    /// An answer took longer than the time to wait for.
    #[error("operation {operation} was answered after {after_ms} ms, and would have waited for {timeout_ms}")]
    Overdue {
        /// The operation.
        operation: usize,
        /// How long it took.
        after_ms: u64,
        /// How long it was ready to wait.
        timeout_ms: u64,
    },
    /// A lock was granted by a server that was shutting down.
    #[error("operation {operation} was asked for and granted while the server was shutting down")]
    GrantedWhileDraining {
        /// The operation.
        operation: usize,
    },
    /// A waiter was not answered when the server began to shut down.
    #[error("operation {operation} was answered only {after_ms} ms after the shutdown began")]
    KeptWaiting {
        /// The operation.
        operation: usize,
        /// How long it took.
        after_ms: u64,
    },
    /// There is no such answer to the request.
    #[error("operation {operation} has an answer that can't be")]
    Malformed {
        /// The operation.
        operation: usize,
    },
    /// What came is no answer to anything that was asked, or can't be read.
    #[error("locker {locker} was told what it had not asked for, or what can't be read")]
    NotAsked {
        /// Who was told.
        locker: usize,
    },
    /// A request has no answer, and its connection did not end.
    #[error("operation {operation} about locks was never answered")]
    Unanswered {
        /// The operation.
        operation: usize,
    },
    /// A connection was closed that had a request under way.
    #[error("operation {operation} about locks was abandoned: the connection was closed without need")]
    Abandoned {
        /// The operation.
        operation: usize,
    },
}

/// What had become of a lock.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Ended {
    /// It was released.
    #[error("released")]
    Released,
    /// Its holder was told that it was lost.
    #[error("lost")]
    Lost,
    /// Its lease had ended.
    #[error("expired")]
    Expired,
    /// The server had been killed since.
    #[error("held of another server")]
    Restarted,
    /// The connection that it was held over was gone.
    #[error("that of the dead")]
    Dead,
}
