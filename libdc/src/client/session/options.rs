//! The options of session clients: connection mode and timeout.

use std::time::Duration;

/// How a client connects, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Whether connections are kept between operations.
    pub connections: ConnectionMode,
    /// The timeout of one operation, including connecting and a retry. The default is six seconds: one second
    /// more than the agent, by default, waits for the server.
    pub timeout: Duration,
}

impl Default for SessionOptions {
    /// A persistent connection with all precautions, and a timeout of six seconds.
    fn default() -> Self {
        Self {
            connections: ConnectionMode::Persistent { notice_fork: true, retry: true },
            timeout: Duration::from_secs(6),
        }
    }
}

/// Whether connections are kept between operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionMode {
    /// A new connection for each operation.
    Temporary,
    /// One connection that stays open between operations.
    Persistent {
        /// Whether to compare the process id before each operation. A forked child then closes the connection
        /// inherited from its parent, without affecting the parent, and opens a new one. Without this check a
        /// forked child must not use the client.
        notice_fork: bool,
        /// Whether to retry once on a new connection if the old one was closed since the last operation, as
        /// an agent with `-idle` does. If the connection was lost just after an ADD or REMOVE took effect,
        /// the retried ADD is refused as already stored, and the retried REMOVE finds no session.
        retry: bool,
    },
}

impl ConnectionMode {
    pub(super) const fn retry(self) -> bool {
        matches!(self, Self::Persistent { retry: true, .. })
    }

    pub(super) const fn keep(self) -> bool {
        matches!(self, Self::Persistent { .. })
    }

    /// Whether a connection that process `owner` opened may be used by process `user`.
    pub(super) const fn may_use(self, owner: u32, user: u32) -> bool {
        match self {
            Self::Temporary => false,
            Self::Persistent { notice_fork, .. } => !notice_fork || owner == user,
        }
    }
}
