//! The asynchronous lock client.

use crate::client::lock::boot_clock::BootClock;
use crate::client::lock::calls::{LockCall, WaitLimit};
use crate::client::lock::driver::LockDriver;
use crate::client::lock::error::LockError;
use crate::client::lock::guard::{Guard, QueuedLock};
use crate::client::lock::machine::{CallReply, LockLinkSettings};
use crate::client::lock::options::{AcquireOptions, LockOptions};
use crate::client::lock::shared::{CallFuture, SharedState};
use crate::id::{LockKey, OwnedLockKey};
use crate::limits::LOCK_MS_MAX;
use crate::net::address::Address;
use crate::time::Time;
use crate::wire::lock::LockStatus;
use std::sync::Arc;
use std::time::Duration;

/// A client that acquires locks over one connection to an agent or a server. Clones are cheap and share the
/// connection.
///
/// A background task on the tokio runtime opens the connection when it is first needed, renews leases,
/// reconnects after a failure and then claims the held locks. The task ends, and closes the connection
/// gracefully, when the last clone, [`Guard`] and [`QueuedLock`] are dropped.
///
/// All methods are cancel-safe: dropping a future cancels its request, also at the server. A lock granted in
/// the meantime is released.
#[derive(Clone, Debug)]
pub struct LockClient {
    core: Arc<ClientCore>,
}

/// Shared by clones, guards and queue positions. The driver ends when it is dropped.
#[derive(Debug)]
pub(super) struct ClientCore {
    pub(super) shared: Arc<SharedState>,
}

impl LockClient {
    /// Creates a client of the agent or server at `address`. It connects on first use.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn new(address: Address, options: LockOptions) -> Self {
        let (client, driver) = Self::with_clock(address, options, BootClock::System);
        // `close` waits until the driver has ended; pending calls fail when it ends.
        drop(tokio::spawn(driver.run()));
        client
    }

    /// Creates a client and connects it to the agent or server at `address`.
    ///
    /// # Errors
    /// [`LockError::Connect`] if the connection could not be opened, [`LockError::Auth`] if the server
    /// refused the auth token, [`LockError::Unsupported`] if it has no locks. Otherwise as
    /// [`ready`](Self::ready).
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub async fn connect(address: Address, options: LockOptions) -> Result<Self, LockError> {
        let client = Self::new(address, options);
        client.ready().await?;
        Ok(client)
    }

    /// Creates a client and its driver, which the caller has to run.
    pub(super) fn with_clock(address: Address, options: LockOptions, clock: BootClock) -> (Self, LockDriver) {
        let settings = LockLinkSettings {
            auth_token: options.auth_token.clone(),
            timeout_ms: u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, LOCK_MS_MAX),
            resumes: options.peer.resumes(&address),
        };
        let shared = Arc::new(SharedState::new(clock, settings));
        let driver = LockDriver::new(Arc::clone(&shared), address, options);
        (Self { core: Arc::new(ClientCore { shared }) }, driver)
    }

    /// Waits until the connection is open, or an attempt to open it has failed.
    ///
    /// # Errors
    /// The error of the failed attempt; [`LockError::NoAnswer`] after [`LockOptions::timeout`].
    pub async fn ready(&self) -> Result<(), LockError> {
        self.begin(|_| LockCall::Ready)?.await.map(drop)
    }

    /// Acquires the lock `key`, waiting without a timeout. Waiters are served in FIFO order.
    ///
    /// While there is no connection the call waits for one, unless [`AcquireOptions::retry`] is off.
    ///
    /// # Errors
    /// An invalid argument, a refusal by the server, or, with `retry` off, a connection failure: see
    /// [`LockError`].
    pub async fn acquire(&self, key: &str, options: &AcquireOptions) -> Result<Guard, LockError> {
        let granted = self.ask_for(key, options, |_| WaitLimit::Forever, options.retry).await?;
        granted.ok_or(LockError::Refused(LockStatus::Timeout))
    }

    /// Acquires the lock `key`, waiting for at most `timeout`, rounded up to milliseconds. Returns `None`
    /// when the timeout has passed.
    ///
    /// While there is no connection the call waits for one, unless [`AcquireOptions::retry`] is off.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); [`LockError::NoAnswer`] if the server does not answer within
    /// [`LockOptions::timeout`] after `timeout`.
    pub async fn acquire_within(
        &self,
        key: &str,
        timeout: Duration,
        options: &AcquireOptions,
    ) -> Result<Option<Guard>, LockError> {
        let retry = options.retry;
        self.ask_for(key, options, |now| WaitLimit::Time(now.after_ms(whole_ms(timeout))), retry).await
    }

    /// Acquires the lock `key` if it is free, without waiting for it. Returns `None` if it is not.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire) with [`AcquireOptions::retry`] off; [`LockError::NoAnswer`] after
    /// [`LockOptions::timeout`].
    pub async fn try_acquire(&self, key: &str, options: &AcquireOptions) -> Result<Option<Guard>, LockError> {
        self.ask_for(key, options, |_| WaitLimit::Now, false).await
    }

    /// Takes a position in the queue of the lock `key`, or acquires the lock at once if it is free and
    /// nothing is queued. A client can have one position in each queue.
    ///
    /// # Errors
    /// [`LockError::AlreadyEnqueued`] if the client has a position in this queue. Otherwise as
    /// [`try_acquire`](Self::try_acquire).
    pub async fn enqueue(&self, key: &str, options: &AcquireOptions) -> Result<QueuedLock, LockError> {
        let (key, limit, lease_ms) = checked(key, options)?;
        let queue = key.clone();
        let reply = self.begin(|_| LockCall::Enqueue { key: queue, limit, lease_ms })?.await?;
        match reply {
            CallReply::Granted(hold) => {
                Guard::new(&self.core, hold).map(|guard| QueuedLock::held(&self.core, guard))
            }
            CallReply::Queued { connection } => Ok(QueuedLock::queued(&self.core, key, connection)),
            _ => Err(LockError::Refused(LockStatus::Ok)),
        }
    }

    /// Requests the state of all locks of the server, as a JSON object.
    ///
    /// # Errors
    /// A connection failure, or [`LockError::NoAnswer`] after [`LockOptions::timeout`]: see [`LockError`].
    pub async fn stats(&self) -> Result<String, LockError> {
        match self.begin(|_| LockCall::Stats)?.await? {
            CallReply::Stats(json) => Ok(String::from_utf8_lossy(&json).into_owned()),
            _ => Err(LockError::Refused(LockStatus::Ok)),
        }
    }

    /// Shuts down the client and its clones gracefully: held locks are released, pending calls fail with
    /// [`LockError::Closed`]. Returns when the server has confirmed it, or the connection is closed.
    pub async fn close(self) {
        // A forked child has nothing to close.
        if self.core.shared.change(|state, now| state.machine.shut_down(now)).is_ok() {
            self.core.shared.ended().await;
        }
    }

    async fn ask_for(
        &self,
        key: &str,
        options: &AcquireOptions,
        until: impl FnOnce(Time) -> WaitLimit,
        patient: bool,
    ) -> Result<Option<Guard>, LockError> {
        let (key, limit, lease_ms) = checked(key, options)?;
        let asking =
            self.begin(|now| LockCall::Acquire { key, limit, lease_ms, until: until(now), patient })?;
        granted(&self.core, &asking.await?)
    }

    fn begin(&self, ask: impl FnOnce(Time) -> LockCall) -> Result<CallFuture, LockError> {
        CallFuture::begin(&self.core.shared, ask)
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        // A forked child has nothing to close.
        let closed = self.shared.change(|state, now| state.machine.shut_down(now));
        drop(closed);
    }
}

/// The guard of a granted lock; `None` if the wait timeout has passed.
pub(super) fn granted(core: &Arc<ClientCore>, reply: &CallReply) -> Result<Option<Guard>, LockError> {
    match reply {
        CallReply::Granted(hold) => Guard::new(core, *hold).map(Some),
        CallReply::TimedOut => Ok(None),
        _ => Err(LockError::Refused(LockStatus::Ok)),
    }
}

/// A duration in milliseconds, rounded up and limited to [`LOCK_MS_MAX`].
pub(super) fn whole_ms(duration: Duration) -> u64 {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX).min(LOCK_MS_MAX)
}

fn checked(key: &str, options: &AcquireOptions) -> Result<(OwnedLockKey, u32, u64), LockError> {
    let key = LockKey::new(key).ok_or(LockError::InvalidKey)?;
    Ok((key.into(), options.checked_limit()?, options.lease_ms()?))
}
