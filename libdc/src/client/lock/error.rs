//! Errors of the lock client.
//!
//! A lock held by another client, or a wait timeout, is an answer, not an error.

use crate::net::address::Address;
use crate::proto::link::state::LinkError;
use crate::wire::lock::LockStatus;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// Why a call of the lock client has failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// The key is empty, longer than 256 bytes, or contains white space.
    #[error("the key of a lock must be 1 to 256 bytes of UTF-8 without white space")]
    InvalidKey,
    /// The limit is 0.
    #[error("the limit of a semaphore must be at least 1")]
    InvalidLimit,
    /// The lease is shorter than 1 ms or longer than 100 years.
    #[error("a lease must be 1 ms to 100 years")]
    InvalidLease,
    /// The attempt to connect failed.
    #[error("could not connect to {address}: {source}")]
    Connect {
        /// The address of the agent or server.
        address: Address,
        /// The error of the attempt.
        source: Arc<io::Error>,
    },
    /// The connection was lost before the answer. If the server has granted the lock, it releases it.
    #[error("the connection was lost: {0}")]
    Disconnected(LockLinkError),
    /// The agent currently cannot reach the server.
    #[error("the agent can't reach the server")]
    AgentDisconnected,
    /// There was no answer within [`LockOptions::timeout`](super::LockOptions::timeout).
    #[error("no answer in time")]
    NoAnswer,
    /// The server has reached its limit of keys (`-max-locks`).
    #[error("the server has reached its limit of locks (-max-locks)")]
    MaxLocks,
    /// The lock has reached the limit of waiters (`-max-waiters`).
    #[error("too many clients are waiting for this lock (-max-waiters)")]
    MaxWaiters,
    /// Other clients use the key with a different [`AcquireOptions::limit`](super::AcquireOptions::limit).
    #[error("the lock is in use with a different limit")]
    LimitMismatch,
    /// This client already has a position in the queue of the lock.
    #[error("this client is already in the queue of the lock")]
    AlreadyEnqueued,
    /// The position in the queue was lost, for example with its connection.
    #[error("the position in the queue of the lock is lost")]
    NotEnqueued,
    /// The lock was granted to the position, and its lease ended before the application waited for it.
    #[error("the lock was granted, but its lease has ended since")]
    LeaseExpired,
    /// The lock to be renewed or released is no longer held.
    #[error("the lock is no longer held")]
    NotHeld,
    /// The auth token is wrong or missing.
    #[error("the server requires another auth token")]
    Auth,
    /// The server has no locks: it is a distcache 1.x server.
    #[error("the server knows no locks")]
    Unsupported,
    /// The server answered with another status.
    #[error("the server refused the request: {}", .0.name())]
    Refused(LockStatus),
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// The client was created by the parent of this process, before a fork.
    #[error("the client belongs to the parent of this process")]
    Forked,
    /// The background thread of a blocking client could not be started.
    #[error("cannot start the thread of the client: {0}")]
    Thread(Arc<io::Error>),
}

/// Why a lock is lost.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The lease was not renewed in time. It may not have ended yet: see
    /// [`Guard::remaining`](super::Guard::remaining).
    #[error("it could not be renewed in time")]
    Unrenewed,
    /// The server answered that the lock is not held.
    #[error("the server says that it is held no more")]
    Refused,
    /// The connection to the agent was lost; the agent releases the locks held over it.
    #[error("the connection to the agent was lost")]
    Disconnected,
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// The guard was created by the parent of this process, which may still hold the lock.
    #[error("it is held by the parent of this process")]
    Forked,
}

/// Why the connection of a lock client was closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockLinkError {
    /// The peer closed the connection.
    #[error("closed by the peer")]
    Closed,
    /// The peer closed the connection without an answer, as a server that requires an auth token does to a
    /// client without one.
    #[error("closed by the peer without an answer; does the server ask for a token?")]
    Unanswered,
    /// An error of the socket.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The peer broke the protocol, was silent, sent GOAWAY, or refused the link.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl LockError {
    /// The error for a status that is not an answer to its request.
    pub(super) const fn from_status(status: LockStatus) -> Self {
        match status {
            LockStatus::ErrorMaxLocks => Self::MaxLocks,
            LockStatus::ErrorMaxWaiters => Self::MaxWaiters,
            LockStatus::ErrorLimitMismatch => Self::LimitMismatch,
            LockStatus::ErrorAlreadyEnqueued => Self::AlreadyEnqueued,
            LockStatus::ErrorNotEnqueued => Self::NotEnqueued,
            LockStatus::ErrorLeaseExpired => Self::LeaseExpired,
            LockStatus::ErrorAuth => Self::Auth,
            LockStatus::ErrorDisconnected => Self::AgentDisconnected,
            LockStatus::ErrorUnsupported => Self::Unsupported,
            LockStatus::Ok
            | LockStatus::Acquired
            | LockStatus::Queued
            | LockStatus::Timeout
            | LockStatus::Error => Self::Refused(status),
        }
    }

    /// The error of calls in flight on a connection that was closed for this reason.
    pub(super) const fn from_fault(fault: LockLinkError) -> Self {
        match fault {
            LockLinkError::Link(LinkError::Refused {
                status: status @ (LockStatus::ErrorAuth | LockStatus::ErrorDisconnected),
            }) => Self::from_status(status),
            LockLinkError::Link(
                LinkError::Refused { status: LockStatus::ErrorUnsupported } | LinkError::Unsupported,
            ) => Self::Unsupported,
            fault => Self::Disconnected(fault),
        }
    }

    /// Whether a later attempt may succeed.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Disconnected(_) | Self::AgentDisconnected)
    }
}
