//! How a lock client connects, and how locks are asked for.

use crate::client::lock::error::LockError;
use crate::limits::LOCK_MS_MAX;
use crate::net::address::Address;
use crate::secret::AuthToken;
use std::time::Duration;

/// How a lock client connects, and how long it waits.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// The longest that connecting may take, and the answer to a request that does not wait for a lock. The
    /// default is six seconds.
    pub timeout: Duration,
    /// The longest pause between two attempts to connect; the first ones are shorter. The default is five seconds.
    pub retry: Duration,
    /// What to present to a server that asks for it. An agent asks for none.
    pub auth_token: Option<AuthToken>,
    /// What happens to locks when the connection breaks.
    pub peer: PeerKind,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(6),
            retry: Duration::from_secs(5),
            auth_token: None,
            peer: PeerKind::default(),
        }
    }
}

/// Who is at the other end, and so what happens to locks when the connection to it breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// An agent if the address is a Unix socket, else a server.
    #[default]
    ByAddress,
    /// An agent: it releases what was held over the connection, so all of it is lost at once.
    Agent,
    /// A server: it keeps what was held for its grace, and gives it to nobody else while the client reconnects. Not
    /// to be said of an agent, whose locks would be taken for held when they are not.
    Server,
}

impl PeerKind {
    /// Whether locks outlive the connection to `address`.
    pub(super) const fn resumes(self, address: &Address) -> bool {
        match self {
            Self::ByAddress => !matches!(address, Address::Unix(_)),
            Self::Agent => false,
            Self::Server => true,
        }
    }
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireOptions {
    /// How many may hold it at once: 1 is a lock, more a semaphore. All who use a key have to agree.
    pub limit: u32,
    /// How long it is held unless it is renewed. `None` is the server's default.
    pub lease: Option<Duration>,
    /// Whether to ask again, at the end of the queue, when the connection breaks while waiting. The default is yes:
    /// who waits for a lock waits for the server too. `try_acquire` never does.
    pub retry: bool,
}

impl AcquireOptions {
    /// A semaphore that `limit` may hold at once, the rest as by default.
    #[must_use]
    pub fn semaphore(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The lease in milliseconds; 0 is the server's default.
    pub(super) fn lease_ms(&self) -> Result<u64, LockError> {
        let Some(lease) = self.lease else { return Ok(0) };
        let ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        if (1..=LOCK_MS_MAX).contains(&ms) { Ok(ms) } else { Err(LockError::InvalidLease) }
    }

    pub(super) const fn checked_limit(&self) -> Result<u32, LockError> {
        if self.limit == 0 { Err(LockError::InvalidLimit) } else { Ok(self.limit) }
    }
}

impl Default for AcquireOptions {
    /// A lock, for the server's default lease.
    fn default() -> Self {
        Self { limit: 1, lease: None, retry: true }
    }
}
