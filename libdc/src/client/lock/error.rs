//! What may go wrong with a lock.
//!
//! That a lock is held by somebody else, or that the time to wait was over, is an answer and no error.

use crate::net::address::Address;
use crate::proto::link::state::LinkError;
use crate::wire::lock::LockStatus;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// Why a request about a lock has no result.
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
    /// There is nobody at the address.
    #[error("could not connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: Address,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The connection was lost before the answer came. A lock that may have been granted is released by the server.
    #[error("the connection was lost: {0}")]
    Disconnected(LockLinkError),
    /// The agent can't reach the server at the moment.
    #[error("the agent can't reach the server")]
    AgentDisconnected,
    /// No answer came within [`LockOptions::timeout`](super::LockOptions::timeout).
    #[error("no answer in time")]
    NoAnswer,
    /// The server knows as many keys as its `-max-locks` allows.
    #[error("the server has as many locks as it may have")]
    MaxLocks,
    /// As many wait for this lock as the server's `-max-waiters` allows.
    #[error("as many wait for the lock as may")]
    MaxWaiters,
    /// The lock is in use with another limit.
    #[error("the lock is in use with another limit")]
    LimitMismatch,
    /// This client has a place in the queue of the lock already.
    #[error("this client is in the queue of the lock already")]
    AlreadyEnqueued,
    /// The place in the queue is no more.
    #[error("the place in the queue of the lock is lost")]
    NotEnqueued,
    /// The place had become the lock, and its lease passed before anybody waited for it.
    #[error("the lock was granted, and its lease has passed since")]
    LeaseExpired,
    /// The lock to be renewed or released is held no more.
    #[error("the lock is not held any more")]
    NotHeld,
    /// The token of authentication is wrong or lacking.
    #[error("the server takes another token of authentication")]
    Auth,
    /// The server knows no locks: it is one of distcache 1.x.
    #[error("the server knows no locks")]
    Unsupported,
    /// The server can make no sense of the request, or answers it with something that is no answer to it.
    #[error("the server refused the request: {}", .0.name())]
    Refused(LockStatus),
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// The client belongs to the process from which this one was forked.
    #[error("the client belongs to the parent of this process")]
    Forked,
    /// The thread of a blocking client could not be started.
    #[error("could not start the thread of the client: {0}")]
    Thread(Arc<io::Error>),
}

/// Why a lock that was held is held no more, or may not be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It could not be renewed in time. The lease has not passed yet: [`Guard::remaining`](super::Guard::remaining)
    /// tells how much of it is left.
    #[error("it could not be renewed in time")]
    Unrenewed,
    /// The server says that it is held no more.
    #[error("the server says that it is held no more")]
    Refused,
    /// The agent closed the connection, and by that released what was held over it.
    #[error("the connection to the agent was lost")]
    Disconnected,
    /// The client was closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
    /// It is held by the process from which this one was forked.
    #[error("it is held by the parent of this process")]
    Forked,
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockLinkError {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// The peer closed it and had answered nothing. So does a server that asks for a token to who has none.
    #[error("closed by the peer without an answer; does the server ask for a token?")]
    Unanswered,
    /// It broke, or could not be opened.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The peer broke the protocol, was silent, sent GOAWAY, or refused the link.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl LockError {
    /// The error that a status is, which is no answer to its request.
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

    /// The error of requests that were under way over a connection that ended so.
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

    /// Whether a later attempt may fare better.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Disconnected(_) | Self::AgentDisconnected)
    }
}
