//! How a client connects, and how long it waits.

use std::time::Duration;

/// How a client connects, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// One connection, or a new one each time.
    pub connections: ConnectionMode,
    /// The longest that one operation may take: connecting, asking and being answered, a retry included.
    /// The default is six seconds: one more than the agent, by default, waits for the server before it answers
    /// itself.
    pub timeout: Duration,
}

impl Default for SessionOptions {
    /// A persistent connection with all precautions, and six seconds.
    fn default() -> Self {
        Self {
            connections: ConnectionMode::Persistent { notice_fork: true, retry: true },
            timeout: Duration::from_secs(6),
        }
    }
}

/// One connection, or a new one each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionMode {
    /// A new connection for each operation.
    Temporary,
    /// One connection, kept open between operations.
    Persistent {
        /// Whether to compare the process id before each operation. In a forked child the connection, which
        /// is the parent's too, is closed without the parent noticing, and one of the child's own opened.
        /// Without this a forked child must not use the client.
        notice_fork: bool,
        /// Whether to ask once more, over a new connection, if the old one turns out to have been closed
        /// since the last operation, as an agent with `-idle` does. An ADD whose connection was lost in the
        /// one moment after it took effect is then answered "already stored", and a REMOVE "not there".
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
