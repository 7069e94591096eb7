//! Held locks and positions in the queue of a lock.

use crate::client::lock::calls::{LockCall, WaitLimit};
use crate::client::lock::client::{ClientCore, granted, whole_ms};
use crate::client::lock::error::{LockError, Loss};
use crate::client::lock::lease::{Lease, LeaseId};
use crate::client::lock::shared::CallFuture;
use crate::id::{OwnedLockKey, Token};
use crate::time::Time;
use crate::wire::lock::LockStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A held lock. Its lease is renewed in the background until the lock is released, dropped or lost.
///
/// [`is_valid_for`](Self::is_valid_for) tells for how long the server will grant the lock to no other client,
/// and [`lost`](Self::lost) resolves before the server may grant it to another. Both use a clock that, on
/// Linux, also counts while the system is suspended. Neither protects a process that is suspended between the
/// check and the access. For that, send the [`fence`](Self::fence) along to the protected resource.
///
/// Dropping the guard releases the lock without waiting: the background task sends the release. If the
/// runtime has ended, so has this task, and the connection is closed. An agent then releases the lock at
/// once, a server after its grace period. [`release`](Self::release) reports whether the lock was still held.
#[derive(Debug)]
#[must_use = "a guard that is dropped releases its lock"]
pub struct Guard {
    core: Arc<ClientCore>,
    hold: LeaseId,
    key: OwnedLockKey,
    token: Token,
    news: watch::Receiver<Option<Loss>>,
    is_released: bool,
}

impl Guard {
    pub(super) fn new(core: &Arc<ClientCore>, hold: LeaseId) -> Result<Self, LockError> {
        let named = core.shared.look(|link, _| link.hold(hold).map(|hold| (hold.key.clone(), hold.token)))?;
        let (key, token) = named.ok_or(LockError::Closed)?;
        let news = core.shared.watch(hold)?;
        Ok(Self { core: Arc::clone(core), hold, key, token, news, is_released: false })
    }

    /// The key of the lock.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_key().as_str()
    }

    /// The token, which proves that the lock is held. Any client that has it can release the lock.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// The fencing token: a number greater than that of every earlier grant, of any lock. A resource that
    /// refuses a fence smaller than the greatest one it has seen is protected from holders that have lost the
    /// lock.
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.token.fence()
    }

    /// The lease as last granted or renewed by the server; zero in a forked child.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.look(|hold, _| Duration::from_millis(hold.lease_ms)).unwrap_or_default()
    }

    /// Whether the connection is open and the lock will certainly be held for `duration` from now, even if
    /// the connection fails. Always `false` once the lock is lost.
    #[must_use]
    pub fn is_valid_for(&self, duration: Duration) -> bool {
        self.look(|hold, now| hold.is_valid_for(now, whole_ms(duration))).unwrap_or(false)
    }

    /// How long the lock will certainly be held from now, even if the connection fails. After
    /// [`Loss::Unrenewed`] this is the time left to stop using it; after any other loss it is zero.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.look(|hold, now| Duration::from_millis(hold.remaining_ms(now))).unwrap_or_default()
    }

    /// Why the lock is lost; `None` while it is held.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        if self.core.shared.is_own() { *self.news.borrow() } else { Some(Loss::Forked) }
    }

    /// Waits until the lock is lost.
    ///
    /// Resolves at once when the server reports the loss, or the connection to an agent is lost. If the lease
    /// could not be renewed, it resolves before another client can acquire the lock. The notice is a quarter
    /// of the lesser of lease and grace period, at most 2.5 seconds. After a suspension of the system it
    /// resolves within a second. Cancel-safe.
    pub async fn lost(&self) -> Loss {
        if let Some(loss) = self.loss() {
            return loss;
        }
        let mut news = self.news.clone();
        news.wait_for(Option::is_some).await.ok().and_then(|loss| *loss).unwrap_or(Loss::Closed)
    }

    /// Renews the lease now. The background task also renews it in time without this call.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if the lock is lost; otherwise a connection failure or timeout, see
    /// [`LockError`].
    pub async fn renew(&self) -> Result<(), LockError> {
        let hold = self.hold;
        CallFuture::begin(&self.core.shared, |_| LockCall::Renew { hold })?.await.map(drop)
    }

    /// Releases the lock and waits for the server's confirmation. Dropping the future also releases the lock.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if the lock was already lost: the last operations may have run without it.
    /// [`LockError::Disconnected`] or [`LockError::AgentDisconnected`] without a connection: the lock is
    /// released on reconnecting, or after the server's grace period.
    pub async fn release(mut self) -> Result<(), LockError> {
        self.is_released = true;
        let hold = self.hold;
        let asking = CallFuture::begin_with(&self.core.shared, |link, now| link.release(now, hold))?;
        self.forget();
        asking.await.map(drop)
    }

    fn look<T>(&self, look: impl FnOnce(&Lease, Time) -> T) -> Option<T> {
        let looked = self.core.shared.look(|link, now| link.hold(self.hold).map(|hold| look(hold, now)));
        looked.ok().flatten()
    }

    fn forget(&self) {
        let forgotten = self.core.shared.change(|state, _| state.forget(self.hold));
        drop(forgotten);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        // A forked child has nothing to release: the lock is the parent's.
        let released = self.core.shared.change(|state, now| {
            state.forget(self.hold);
            state.machine.drop_hold(now, self.hold);
        });
        drop(released);
    }
}

/// A position in the queue of a lock, or the lock itself if it was free.
///
/// The server grants the lock to the first position in the queue, for one lease, even if [`wait`](Self::wait)
/// has not been called yet; the lease restarts when `wait` takes the lock. The position is lost with the
/// connection. Dropping it leaves the queue.
#[derive(Debug)]
#[must_use = "dropping the position leaves the queue"]
pub struct QueuedLock {
    core: Arc<ClientCore>,
    standing: Option<QueuePosition>,
}

#[derive(Debug)]
enum QueuePosition {
    Held(Guard),
    Queued { key: OwnedLockKey, connection: u64 },
}

impl QueuedLock {
    pub(super) fn held(core: &Arc<ClientCore>, guard: Guard) -> Self {
        Self { core: Arc::clone(core), standing: Some(QueuePosition::Held(guard)) }
    }

    pub(super) fn queued(core: &Arc<ClientCore>, key: OwnedLockKey, connection: u64) -> Self {
        Self { core: Arc::clone(core), standing: Some(QueuePosition::Queued { key, connection }) }
    }

    /// Whether the lock was acquired at once, so that [`wait`](Self::wait) returns immediately.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self.standing, Some(QueuePosition::Held(_)))
    }

    /// Waits for the lock without a timeout.
    ///
    /// # Errors
    /// [`LockError::NotEnqueued`] if the connection was lost before this call, usually
    /// [`LockError::Disconnected`] if during it. [`LockError::LeaseExpired`] if the lock was granted and its
    /// lease ended before this call. Otherwise see [`LockError`].
    pub async fn wait(self) -> Result<Guard, LockError> {
        let guard = self.wait_until(|_| WaitLimit::Forever).await?;
        guard.ok_or(LockError::Refused(LockStatus::Timeout))
    }

    /// Waits for the lock for at most `timeout`, rounded up to milliseconds. Returns `None` when the timeout
    /// has passed; the position is then lost.
    ///
    /// # Errors
    /// The same as [`wait`](Self::wait); [`LockError::NoAnswer`] if the server does not answer in time.
    pub async fn wait_within(self, timeout: Duration) -> Result<Option<Guard>, LockError> {
        self.wait_until(|now| WaitLimit::Time(now.after_ms(whole_ms(timeout)))).await
    }

    async fn wait_until(mut self, until: impl FnOnce(Time) -> WaitLimit) -> Result<Option<Guard>, LockError> {
        match self.standing.take() {
            Some(QueuePosition::Held(guard)) => Ok(Some(guard)),
            Some(QueuePosition::Queued { key, connection }) => {
                let asking = CallFuture::begin(&self.core.shared, |now| {
                    let until = match until(now) {
                        WaitLimit::Time(end) if end <= now => WaitLimit::Now,
                        until => until,
                    };
                    LockCall::Wait { key, until, connection }
                })?;
                granted(&self.core, &asking.await?)
            }
            None => Err(LockError::NotEnqueued),
        }
    }
}

impl Drop for QueuedLock {
    fn drop(&mut self) {
        if let Some(QueuePosition::Queued { key, connection }) = self.standing.take() {
            // A forked child has no position: it is the parent's.
            let left = self.core.shared.change(|state, now| state.machine.leave_queue(now, key, connection));
            drop(left);
        }
    }
}
