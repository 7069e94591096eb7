//! Violations of the guarantees for locks.

use thiserror::Error;

/// A violation of the guarantees for locks. Operations are numbered among the lock operations of the run.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LockViolation {
    /// More holders than the limit certainly held a key.
    #[error("operations {one} and {other} held the key at the same time, beyond its limit")]
    NotExclusive {
        /// The operation of the earlier grant.
        one: usize,
        /// The operation of the later grant.
        other: usize,
    },
    /// Fences are not in the order of the grants.
    #[error("operation {later} has a greater fence than {earlier}, but ended before {earlier} began")]
    FencesNotInOrder {
        /// The operation with the smaller fence.
        earlier: usize,
        /// The operation with the greater fence.
        later: usize,
    },
    /// Two grants have the same fence.
    #[error("operations {one} and {other} were granted with the same fence")]
    FenceTwice {
        /// The operation of the first grant.
        one: usize,
        /// The operation of the second grant.
        other: usize,
    },
    /// A later request was granted before an earlier waiter.
    #[error("operation {second} began after operation {first} was queued, but was granted first")]
    Overtaken {
        /// The operation of the waiter.
        first: usize,
        /// The operation of the later request.
        second: usize,
    },
    /// A request timed out although the key cannot have reached its limit of holders.
    #[error("operation {operation} was answered timeout although the key was below its limit")]
    NeedlessTimeout {
        /// The request that timed out.
        operation: usize,
    },
    /// A lock was reported lost while its holder could rely on it.
    #[error("operation {operation} reports a lock as lost while its holder could rely on it")]
    LostHold {
        /// The operation that reports the loss.
        operation: usize,
    },
    /// A position in the queue was lost over a connection that did not break.
    #[error("operation {operation} does not find the queue position of operation {enqueued}")]
    LostPlace {
        /// The number of the WAIT.
        operation: usize,
        /// The number of the ENQUEUE.
        enqueued: usize,
    },
    /// An operation succeeded on a lock that had already ended, for one of the reasons of [`Ended`].
    #[error("operation {operation} succeeded on a lock that was {reason}")]
    Revived {
        /// The operation that succeeded.
        operation: usize,
        /// How the lock had ended.
        reason: Ended,
    },
    /// An answer came long after the wait timeout of its request.
    #[error("operation {operation} was answered after {after_ms} ms, with a wait timeout of {timeout_ms} ms")]
    Overdue {
        /// The operation answered too late.
        operation: usize,
        /// Time from request to answer, in milliseconds.
        after_ms: u64,
        /// The wait timeout, in milliseconds.
        timeout_ms: u64,
    },
    /// A lock was granted by a server that was shutting down.
    #[error("operation {operation} was requested and granted while the server was shutting down")]
    GrantedWhileDraining {
        /// The operation with the grant.
        operation: usize,
    },
    /// A waiter was not answered soon after the server began to shut down.
    #[error("operation {operation} was answered only {after_ms} ms after the shutdown began")]
    KeptWaiting {
        /// The operation of the waiter.
        operation: usize,
        /// Time from the start of the shutdown to the answer, in milliseconds.
        after_ms: u64,
    },
    /// An answer does not fit its request.
    #[error("operation {operation} has an answer that does not fit the request")]
    Malformed {
        /// The operation with this answer.
        operation: usize,
    },
    /// A locker received a malformed message, or an answer without a request.
    #[error("locker {locker} received a malformed or unsolicited message")]
    NotAsked {
        /// The locker that received it.
        locker: usize,
    },
    /// A request has no answer, and its connection did not end.
    #[error("lock operation {operation} was never answered")]
    Unanswered {
        /// The operation without an answer.
        operation: usize,
    },
    /// A connection was closed without need while a request was in flight.
    #[error("lock operation {operation} was abandoned: the connection was closed without need")]
    Abandoned {
        /// The operation in flight, the oldest one.
        operation: usize,
    },
}

/// How a lock had ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Ended {
    /// Its holder had released it.
    #[error("released")]
    Released,
    /// Its holder had received an answer that reports it lost.
    #[error("lost")]
    Lost,
    /// Its lease had certainly expired.
    #[error("expired")]
    Expired,
    /// The server process had ended since the grant.
    #[error("granted by an earlier server process")]
    Restarted,
    /// Its connection, and the grace after it, had ended.
    #[error("held over a connection that had ended")]
    Dead,
}
