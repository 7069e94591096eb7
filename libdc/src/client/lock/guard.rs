//! A lock that is held, and a place in the queue of one.

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

/// A lock that is held, and renewed in the background until it is released, dropped or lost.
///
/// Whether it is held is known up to a point: [`is_valid_for`](Self::is_valid_for) says whether the server will
/// have given it to nobody else in a time from now, and [`lost`](Self::lost) resolves before it may have. Both go by
/// a clock that goes on while the machine is suspended. A process that is stopped between looking and acting
/// is beyond both: against that only the [`fence`](Self::fence) helps, sent along to whatever the lock protects.
///
/// Dropped, it is released: word is left for the client's task, which sends it, so dropping never waits. When the
/// runtime has ended there is no such task, and the connection is closed with it: an agent releases the lock at
/// once then, a server after its grace. [`release`](Self::release) says whether it was still held.
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

    /// The lock.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_key().as_str()
    }

    /// What proves that it is held. Who has it can release the lock.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// A number greater than that of every grant before, of any lock. Whatever refuses a smaller one than it has
    /// seen is safe from a holder that does not know yet that it is none.
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.token.fence()
    }

    /// The lease that the server gave last; zero when the lock is lost.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.look(|hold, _| Duration::from_millis(hold.lease_ms)).unwrap_or_default()
    }

    /// Whether the lock is held, the connection stands, and the lock will be held for `duration` whatever happens.
    /// Once it is lost this is false for good.
    #[must_use]
    pub fn is_valid_for(&self, duration: Duration) -> bool {
        self.look(|hold, now| hold.is_valid_for(now, whole_ms(duration))).unwrap_or(false)
    }

    /// How long the lock is held from now on whatever happens, even if it counts as lost because it was not
    /// renewed: the time to stop. Zero if the server, or the agent, has said that it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.look(|hold, now| Duration::from_millis(hold.remaining_ms(now))).unwrap_or_default()
    }

    /// Why the lock is lost; `None` while it is not.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        if self.core.shared.is_own() { *self.news.borrow() } else { Some(Loss::Forked) }
    }

    /// Waits until the lock is lost.
    ///
    /// Resolves at once when the server says so. Otherwise, when the lock could not be renewed, before it can
    /// pass to somebody else: a quarter of the lesser of lease and grace before that, 2.5 seconds at most. After a
    /// suspension of the machine it resolves within a second. Cancel-safe.
    pub async fn lost(&self) -> Loss {
        if let Some(loss) = self.loss() {
            return loss;
        }
        let mut news = self.news.clone();
        news.wait_for(Option::is_some).await.ok().and_then(|loss| *loss).unwrap_or(Loss::Closed)
    }

    /// Renews the lease now, as the background does by itself.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if it is lost; see [`LockError`].
    pub async fn renew(&self) -> Result<(), LockError> {
        let hold = self.hold;
        CallFuture::begin(&self.core.shared, |_| LockCall::Renew { hold })?.await.map(drop)
    }

    /// Releases the lock, and waits for the server's word. A future that is dropped releases it all the same.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if it had been lost: what was done last may have been done without the lock. Without a
    /// connection [`LockError::Disconnected`] or [`LockError::AgentDisconnected`]: it is released when there is one
    /// again, or when the server's grace is over.
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
        // In a forked child there is nothing to release: the lock is the parent's.
        let released = self.core.shared.change(|state, now| {
            state.forget(self.hold);
            state.machine.drop_hold(now, self.hold);
        });
        drop(released);
    }
}

/// A place in the queue of a lock, or the lock itself where there was no queue.
///
/// The place is lost when the connection breaks. The server grants the lock to it when its turn comes, for the
/// lease, whether anybody waits or not; that lease starts anew when [`wait`](Self::wait) takes it. Dropped, the place
/// is given up.
#[derive(Debug)]
#[must_use = "a place that is dropped is given up"]
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

    /// Whether the lock was held at once: [`wait`](Self::wait) will not wait.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self.standing, Some(QueuePosition::Held(_)))
    }

    /// Waits for the lock, as long as it takes.
    ///
    /// # Errors
    /// [`LockError::NotEnqueued`] or [`LockError::Disconnected`] if the connection has broken since,
    /// [`LockError::LeaseExpired`] if the lock came and went before; see [`LockError`].
    pub async fn wait(self) -> Result<Guard, LockError> {
        let guard = self.wait_until(|_| WaitLimit::Forever).await?;
        guard.ok_or(LockError::Refused(LockStatus::Timeout))
    }

    /// Waits for the lock, no longer than `timeout`. `None` says that the time was over, and the place is lost by that.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
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
            // In a forked child there is nothing to give up.
            let left = self.core.shared.change(|state, now| state.machine.leave_queue(now, key, connection));
            drop(left);
        }
    }
}
