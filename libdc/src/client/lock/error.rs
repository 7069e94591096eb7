//! Errors of the lock client.
//!
//! A lock held by another client, or a wait timeout, is an answer and no error.

use crate::net::address::Address;
use crate::proto::link::state::LinkError;
use crate::wire::lock::LockStatus;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// Why a call has no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// The key is empty, longer than 256 bytes, or has white space in it.
    #[error("the key of a lock is 1 to 256 bytes of UTF-8 without white space")]
    InvalidKey,
    /// The limit is 0.
    #[error("the limit of a semaphore is at least 1")]
    InvalidLimit,
    /// The lease is shorter than a millisecond or longer than a hundred years.
    #[error("a lease is 1 ms to 100 years")]
    InvalidLease,
    /// The attempt to connect failed.
    #[error("could not connect to {address}: {source}")]
    Connect {
        /// The address of the agent or server.
        address: Address,
        /// The error of the attempt.
        source: Arc<io::Error>,
    },
    /// The connection was lost before the answer came. A lock that may have been granted is released by the
    /// server.
    #[error("the connection was lost: {0}")]
    Disconnected(LockLinkError),
    /// The agent has no link to the server.
    #[error("the agent can't reach the server")]
    AgentDisconnected,
    /// No answer came within [`LockOptions::timeout`](super::LockOptions::timeout).
    #[error("no answer in time")]
    NoAnswer,
    /// The server has reached its limit of keys (`-max-locks`).
    #[error("the server has as many locks as it may have")]
    MaxLocks,
    /// The lock has reached the limit of waiters (`-max-waiters`).
    #[error("as many wait for the lock as may")]
    MaxWaiters,
    /// The lock is in use with another limit.
    #[error("the lock is in use with another limit")]
    LimitMismatch,
    /// This client is in the queue of the lock already.
    #[error("this client is in the queue of the lock already")]
    AlreadyEnqueued,
    /// The position in the queue is lost.
    #[error("the place in the queue of the lock is lost")]
    NotEnqueued,
    /// The lock was granted to the position, and its lease ended before the application waited for it.
    #[error("the lock was granted, and its lease has passed since")]
    LeaseExpired,
    /// The lock to be renewed or released is not held any more.
    #[error("the lock is not held any more")]
    NotHeld,
    /// The auth token is wrong or missing.
    #[error("the server requires another auth token")]
    Auth,
    /// The server has no locks: it is a distcache 1.x server.
    #[error("the server knows no locks")]
    Unsupported,
    /// The server answered with a status that is none of the above.
    #[error("the server refused the request: {}", .0.name())]
    Refused(LockStatus),
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// The client belongs to the parent of this process.
    #[error("the client belongs to the parent of this process")]
    Forked,
    /// The thread of a blocking client could not be started.
    #[error("could not start the thread of the client: {0}")]
    Thread(Arc<io::Error>),
}

/// Why a lock is lost.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The lease was not renewed in time. It has not ended yet: [`Guard::remaining`](super::Guard::remaining)
    /// returns the rest.
    #[error("it could not be renewed in time")]
    Unrenewed,
    /// The server answered that the lock is not held.
    #[error("the server says that it is held no more")]
    Refused,
    /// The connection to the agent was lost, which releases its locks.
    #[error("the connection to the agent was lost")]
    Disconnected,
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// The parent of this process holds it.
    #[error("it is held by the parent of this process")]
    Forked,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockLinkError {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// The peer closed it without an answer: a server that requires an auth token does so to a client without
    /// one.
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
