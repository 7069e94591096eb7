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

/// Takes locks over one connection to an agent or a server. Cheap to clone; all clones are one client.
///
/// The connection is opened when it is first needed, kept, and made anew when it breaks; what is held is claimed then.
/// A task on the runtime does that, and renews. It ends in good order when the last clone, [`Guard`] and [`QueuedLock`] are
/// gone.
///
/// All methods are cancel-safe: a future that is dropped gives its request up, at the server too, and a lock that was
/// granted meanwhile is released.
#[derive(Clone, Debug)]
pub struct LockClient {
    core: Arc<ClientCore>,
}

/// What keeps the driver running.
#[derive(Debug)]
pub(super) struct ClientCore {
    pub(super) shared: Arc<SharedState>,
}

impl LockClient {
    /// A client of `address` that connects when it is first used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(address: Address, options: LockOptions) -> Self {
        let (client, driver) = Self::with_clock(address, options, BootClock::System);
        // Its end is waited for by `close`, and told to all who wait for anything else.
        drop(tokio::spawn(driver.run()));
        client
    }

    /// A client of `address` that is connected already.
    ///
    /// # Errors
    /// [`LockError::Connect`], [`LockError::Auth`], [`LockError::Unsupported`], or what else is wrong with who is there.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(address: Address, options: LockOptions) -> Result<Self, LockError> {
        let client = Self::new(address, options);
        client.ready().await?;
        Ok(client)
    }

    /// A client, and its driver for somebody to run.
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

    /// Waits until the connection stands, or the next attempt to open one has failed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ready(&self) -> Result<(), LockError> {
        self.begin(|_| LockCall::Ready)?.await.map(drop)
    }

    /// Takes the lock `key`, waiting for it as long as it takes.
    ///
    /// # Errors
    /// See [`LockError`]. While there is no connection it waits too, unless [`AcquireOptions::retry`] is off.
    pub async fn acquire(&self, key: &str, options: &AcquireOptions) -> Result<Guard, LockError> {
        let granted = self.ask_for(key, options, |_| WaitLimit::Forever, options.retry).await?;
        granted.ok_or(LockError::Refused(LockStatus::Timeout))
    }

    /// Takes the lock `key`, waiting for it no longer than `timeout`. `None` says that the time was over.
    ///
    /// # Errors
    /// See [`LockError`]. While there is no connection it waits too, unless [`AcquireOptions::retry`] is off.
    pub async fn acquire_within(
        &self,
        key: &str,
        timeout: Duration,
        options: &AcquireOptions,
    ) -> Result<Option<Guard>, LockError> {
        let retry = options.retry;
        self.ask_for(key, options, |now| WaitLimit::Time(now.after_ms(whole_ms(timeout))), retry).await
    }

    /// Takes the lock `key` if it can be had at once. `None` says that it can't.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn try_acquire(&self, key: &str, options: &AcquireOptions) -> Result<Option<Guard>, LockError> {
        self.ask_for(key, options, |_| WaitLimit::Now, false).await
    }

    /// Takes a place in the queue of the lock `key`, or the lock itself where there is no queue. A client has one
    /// place in a queue at a time.
    ///
    /// # Errors
    /// See [`LockError`].
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

    /// The state of the server's locks, as JSON.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn stats(&self) -> Result<String, LockError> {
        match self.begin(|_| LockCall::Stats)?.await? {
            CallReply::Stats(json) => Ok(String::from_utf8_lossy(&json).into_owned()),
            _ => Err(LockError::Refused(LockStatus::Ok)),
        }
    }

    /// Ends the client in good order, clones included: what it holds is released, what it waits for given up.
    /// Returns when the server has said so, or the connection is closed.
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

/// The guard of what was granted; `None` if the time to wait was over.
pub(super) fn granted(core: &Arc<ClientCore>, reply: &CallReply) -> Result<Option<Guard>, LockError> {
    match reply {
        CallReply::Granted(hold) => Guard::new(core, *hold).map(Some),
        CallReply::TimedOut => Ok(None),
        _ => Err(LockError::Refused(LockStatus::Ok)),
    }
}

/// A duration in milliseconds, those that have begun included.
pub(super) fn whole_ms(duration: Duration) -> u64 {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX).min(LOCK_MS_MAX)
}

fn checked(key: &str, options: &AcquireOptions) -> Result<(OwnedLockKey, u32, u64), LockError> {
    let key = LockKey::new(key).ok_or(LockError::InvalidKey)?;
    Ok((key.into(), options.checked_limit()?, options.lease_ms()?))
}
