//! The public side of a link: its state, its settings, and the errors that end its connection.

use crate::id::LinkId;
use crate::secret::AuthToken;
use crate::wire::frame::DecodeError;
use crate::wire::lock::LockStatus;
use thiserror::Error;

/// Why the connection of a link cannot be used any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// A malformed message from the server.
    #[error("the server sent {0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// The server sent GOAWAY.
    #[error("the server asks to reconnect")]
    GoAway,
    /// An answer without a request.
    #[error("the server answered a request that was not made")]
    Unasked,
    /// An answer names another operation than its request.
    #[error("the server answered another operation than was asked")]
    OtherOperation,
    /// An answer was due, and no message came.
    #[error("the server has been silent for {silent_ms} ms")]
    Silent {
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// The server refused HELLO or OPEN.
    #[error("the server refuses the link: {}", match .status {
        LockStatus::ErrorAuth => "the auth token is wrong or missing",
        status => status.name(),
    })]
    Refused {
        /// Its answer.
        status: LockStatus,
    },
    /// The server is a distcache 1.x server: it has no locks, but the link requires them.
    #[error("the server knows no locks")]
    Unsupported,
    /// The server answered CLAIM or OPEN wrongly.
    #[error("the server does not open the link: {problem}")]
    Handshake {
        /// The violation.
        problem: &'static str,
    },
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Down,
    /// The probe has not been answered.
    Probing,
    /// HELLO, CLAIM or OPEN has not been answered. No requests are sent on.
    Resuming,
    /// Requests are sent on to a server at this patch level.
    Up {
        /// 0 is a distcache 1.x server.
        patch_level: u16,
    },
    /// BYE has not been answered. No requests are sent on.
    Leaving,
    /// BYE was answered: the connection can be closed.
    Left,
}

/// How an agent introduces itself to its server.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    /// The name of the link: 128 random bits, drawn once for each agent process.
    pub link_id: LinkId,
    /// The auth token, if the server asks for one.
    pub auth_token: Option<AuthToken>,
}

/// The settings in which the links of an agent and of a lock client differ.
#[derive(Debug)]
pub(crate) struct LinkSettings {
    /// A server is given up after a silence of this many milliseconds, within the bounds of
    /// [`limits`](crate::limits). 0 is the upper bound.
    pub(crate) timeout_ms: u64,
    /// The auth token, if the server asks for one. With it there is no probe.
    pub(crate) auth_token: Option<AuthToken>,
    /// Whether the link requires locks: patch level 0, and HELLO answered `error_unsupported`, are errors.
    /// Otherwise such a server gets session requests only.
    pub(crate) needs_locks: bool,
}
