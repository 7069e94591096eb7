//! Options of a lock client and of its requests.

use crate::client::lock::error::LockError;
use crate::limits::LOCK_MS_MAX;
use crate::net::address::Address;
use crate::secret::AuthToken;
use std::time::Duration;

/// Connection options of a lock client.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// The timeout of an attempt to connect, and of a request that does not wait for a lock. The default
    /// is 6 seconds.
    pub timeout: Duration,
    /// The maximum pause between two attempts to connect. The first pauses are shorter, from 50 ms on. The
    /// default is 5 seconds.
    pub retry: Duration,
    /// The auth token for a server that requires one. An agent requires none.
    pub auth_token: Option<AuthToken>,
    /// The kind of peer, which determines what happens to locks when the connection is lost.
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

/// The kind of peer, which determines what happens to locks when the connection is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// An agent if the address is a Unix socket, otherwise a server.
    #[default]
    ByAddress,
    /// An agent: it releases the locks held over the connection, so they are lost at once.
    Agent,
    /// A server: it keeps the locks for its grace period and grants them to no other client while this one
    /// reconnects. Do not use this for an agent: the client would treat locks as held that the agent has
    /// released.
    Server,
}

impl PeerKind {
    /// Whether held locks outlive a lost connection to `address`.
    pub(super) const fn resumes(self, address: &Address) -> bool {
        match self {
            Self::ByAddress => !matches!(address, Address::Unix(_)),
            Self::Agent => false,
            Self::Server => true,
        }
    }
}

/// Options of a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireOptions {
    /// The maximum number of holders at a time: 1 for a lock, more for a semaphore. At least 1, and the same
    /// for all clients of a key.
    pub limit: u32,
    /// The lease: how long the lock is held without a renewal. 1 ms to 100 years, rounded down to
    /// milliseconds; `None` for the server's default. Guards renew it in the background.
    pub lease: Option<Duration>,
    /// Whether to repeat the request, at the end of the queue, when the connection is lost while waiting, and
    /// to wait for a connection. The default is `true`. `try_acquire` and `enqueue` never retry.
    pub retry: bool,
}

impl AcquireOptions {
    /// Options of a semaphore with at most `limit` holders, otherwise the default.
    #[must_use]
    pub fn semaphore(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The lease in milliseconds; 0 for the server's default.
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
    /// A lock with the server's default lease, and retries.
    fn default() -> Self {
        Self { limit: 1, lease: None, retry: true }
    }
}
