//! The lock client for threads without a runtime.
//!
//! Leases have to be renewed while the holder works. Each client therefore has one background thread, with a
//! separate runtime for its connection. The thread ends when the last clone, [`Guard`] and [`QueuedLock`] are
//! dropped. The methods do the same as those of the [asynchronous client](crate::client::lock), but block the
//! calling thread. They may also be called within a runtime, but then block its thread.
//!
//! A forked child does not have the thread. There, methods that send a request fail with
//! [`LockError::Forked`] and guards count as lost, while the parent keeps its locks.
//!
//! ```no_run
//! use libdc::client::lock::blocking::LockClient;
//! use libdc::client::lock::{AcquireOptions, LockOptions};
//!
//! let client = LockClient::connect("UNIX:/tmp/scache".parse()?, LockOptions::default())?;
//! if let Some(guard) = client.try_acquire("nightly-backup", &AcquireOptions::default())? {
//!     // … while guard.is_valid_for(…)
//!     guard.release()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::client::lock::boot_clock::BootClock;
use crate::client::lock::{self, AcquireOptions, LockError, LockOptions, Loss};
use crate::id::Token;
use crate::net::address::Address;
use crate::net::runtime::runtime;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A client that acquires locks over one connection to an agent or a server. Clones are cheap and share the
/// connection.
#[derive(Clone, Debug)]
pub struct LockClient {
    client: lock::LockClient,
}

impl LockClient {
    /// Creates a client of the agent or server at `address`. It connects on first use.
    ///
    /// # Errors
    /// [`LockError::Thread`] if the background thread cannot be started.
    pub fn new(address: Address, options: LockOptions) -> Result<Self, LockError> {
        let failed = |error| LockError::Thread(Arc::new(error));
        let runtime = runtime().map_err(failed)?;
        let (client, driver) = lock::LockClient::with_clock(address, options, BootClock::System);
        // Not joined: the thread ends when the client is dropped, and dropping must not block.
        let _thread = thread::Builder::new()
            .name("lock-client".into())
            .spawn(move || runtime.block_on(driver.run()))
            .map_err(failed)?;
        Ok(Self { client })
    }

    /// Creates a client and connects it to the agent or server at `address`.
    ///
    /// # Errors
    /// Those of [`lock::LockClient::connect`], and [`LockError::Thread`].
    pub fn connect(address: Address, options: LockOptions) -> Result<Self, LockError> {
        let client = Self::new(address, options)?;
        block_on(client.client.ready())?;
        Ok(client)
    }

    /// Acquires the lock `key`, waiting without a timeout.
    ///
    /// # Errors
    /// The same as [`lock::LockClient::acquire`].
    pub fn acquire(&self, key: &str, options: &AcquireOptions) -> Result<Guard, LockError> {
        block_on(self.client.acquire(key, options)).map(Guard::new)
    }

    /// Acquires the lock `key`, waiting for at most `timeout`, rounded up to milliseconds. Returns `None`
    /// when the timeout has passed.
    ///
    /// # Errors
    /// The same as [`lock::LockClient::acquire_within`].
    pub fn acquire_within(
        &self,
        key: &str,
        timeout: Duration,
        options: &AcquireOptions,
    ) -> Result<Option<Guard>, LockError> {
        Ok(block_on(self.client.acquire_within(key, timeout, options))?.map(Guard::new))
    }

    /// Acquires the lock `key` if it is free, without waiting for it. Returns `None` if it is not.
    ///
    /// # Errors
    /// The same as [`lock::LockClient::try_acquire`].
    pub fn try_acquire(&self, key: &str, options: &AcquireOptions) -> Result<Option<Guard>, LockError> {
        Ok(block_on(self.client.try_acquire(key, options))?.map(Guard::new))
    }

    /// Takes a position in the queue of the lock `key`, or acquires the lock at once if it is free and
    /// nothing is queued. A client can have one position in each queue.
    ///
    /// # Errors
    /// The same as [`lock::LockClient::enqueue`].
    pub fn enqueue(&self, key: &str, options: &AcquireOptions) -> Result<QueuedLock, LockError> {
        Ok(QueuedLock { place: block_on(self.client.enqueue(key, options))? })
    }

    /// Requests the state of all locks of the server, as a JSON object.
    ///
    /// # Errors
    /// The same as [`lock::LockClient::stats`].
    pub fn stats(&self) -> Result<String, LockError> {
        block_on(self.client.stats())
    }

    /// Shuts down the client and its clones gracefully: held locks are released, pending calls fail with
    /// [`LockError::Closed`]. Blocks until the server has confirmed it, or the connection is closed.
    pub fn close(self) {
        block_on(self.client.close());
    }
}

/// A held lock. Its lease is renewed in the background until the lock is released, dropped or lost. See
/// [`lock::Guard`].
#[derive(Debug)]
#[must_use = "a guard that is dropped releases its lock"]
pub struct Guard {
    guard: lock::Guard,
}

impl Guard {
    const fn new(guard: lock::Guard) -> Self {
        Self { guard }
    }

    /// The key of the lock.
    #[must_use]
    pub fn key(&self) -> &str {
        self.guard.key()
    }

    /// The token, which proves that the lock is held. Any client that has it can release the lock.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.guard.token()
    }

    /// The fencing token: a number greater than that of every earlier grant. See [`lock::Guard::fence`].
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.guard.fence()
    }

    /// The lease as last granted or renewed by the server; zero in a forked child.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.guard.lease()
    }

    /// Whether the lock will certainly be held for `duration` from now. See [`lock::Guard::is_valid_for`].
    #[must_use]
    pub fn is_valid_for(&self, duration: Duration) -> bool {
        self.guard.is_valid_for(duration)
    }

    /// How long the lock will certainly be held from now. See [`lock::Guard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guard.remaining()
    }

    /// Why the lock is lost; `None` while it is held.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.guard.loss()
    }

    /// Waits until the lock is lost, for at most `timeout`. Returns `None` when the timeout has passed. See
    /// [`lock::Guard::lost`].
    #[must_use]
    pub fn lost_within(&self, timeout: Duration) -> Option<Loss> {
        block_on_within(self.guard.lost(), timeout)
    }

    /// Renews the lease now. The background thread also renews it in time without this call.
    ///
    /// # Errors
    /// The same as [`lock::Guard::renew`].
    pub fn renew(&self) -> Result<(), LockError> {
        block_on(self.guard.renew())
    }

    /// Releases the lock and waits for the server's confirmation.
    ///
    /// # Errors
    /// The same as [`lock::Guard::release`].
    pub fn release(self) -> Result<(), LockError> {
        block_on(self.guard.release())
    }
}

/// A position in the queue of a lock, or the lock itself if it was free. See [`lock::QueuedLock`].
#[derive(Debug)]
#[must_use = "dropping the position leaves the queue"]
pub struct QueuedLock {
    place: lock::QueuedLock,
}

impl QueuedLock {
    /// Whether the lock was acquired at once, so that [`wait`](Self::wait) returns immediately.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.place.is_held()
    }

    /// Waits for the lock without a timeout.
    ///
    /// # Errors
    /// The same as [`lock::QueuedLock::wait`].
    pub fn wait(self) -> Result<Guard, LockError> {
        block_on(self.place.wait()).map(Guard::new)
    }

    /// Waits for the lock for at most `timeout`, rounded up to milliseconds. Returns `None` when the timeout
    /// has passed; the position is then lost.
    ///
    /// # Errors
    /// The same as [`lock::QueuedLock::wait_within`].
    pub fn wait_within(self, timeout: Duration) -> Result<Option<Guard>, LockError> {
        Ok(block_on(self.place.wait_within(timeout))?.map(Guard::new))
    }
}

/// Unparks the thread that polls a future when the future can make progress.
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn block_on_within<F: Future>(future: F, timeout: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
    let end = Instant::now().checked_add(timeout);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(left) if left.is_zero() => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::lock::driver_tests::{Played, ScriptedStage};
    use crate::wire::lock::LockStatus;
    use std::sync::mpsc;

    /// A client, and a thread on which its peer runs `script`.
    fn played<F: Future<Output = ()>>(
        script: impl FnOnce(Played) -> F + Send + 'static,
    ) -> (LockClient, thread::JoinHandle<()>) {
        let (send, address) = mpsc::channel();
        let peer = thread::spawn(move || {
            runtime().unwrap().block_on(async {
                let stage = ScriptedStage::new();
                send.send(stage.address()).unwrap();
                script(stage.open().await).await;
            });
        });
        let address = address.recv().unwrap();
        (LockClient::connect(address, LockOptions::default()).unwrap(), peer)
    }

    #[test]
    fn a_thread_takes_renews_and_releases_a_lock() {
        let (client, peer) = played(|mut peer| async move {
            peer.status("ACQUIRE", LockStatus::Timeout).await;
            peer.grant("ACQUIRE", 5).await;
            peer.renew().await;
            peer.status("RELEASE", LockStatus::Ok).await;
            peer.status("BYE", LockStatus::Ok).await;
            assert!(peer.next().await.is_none());
        });
        let how = AcquireOptions::default();
        assert!(client.try_acquire("k", &how).unwrap().is_none());
        let guard = client.acquire("k", &how).unwrap();
        assert_eq!((guard.key(), guard.fence(), guard.loss()), ("k", 5, None));
        assert!(guard.is_valid_for(Duration::from_secs(1)));
        assert_eq!(guard.lost_within(Duration::ZERO), None);
        guard.renew().unwrap();
        guard.release().unwrap();
        client.close();
        peer.join().unwrap();
    }

    #[test]
    fn a_loss_ends_the_wait_for_it() {
        let (client, peer) = played(|mut peer| async move {
            peer.grant("ACQUIRE", 5).await;
        });
        let guard = client.acquire("k", &AcquireOptions::default()).unwrap();
        assert_eq!(guard.lost_within(Duration::from_secs(60)), Some(Loss::Disconnected));
        peer.join().unwrap();
    }

    #[test]
    fn the_thread_ends_with_the_client() {
        let (client, peer) = played(|mut peer| async move {
            peer.status("ENQUEUE", LockStatus::Queued).await;
            peer.status("WAIT", LockStatus::Timeout).await;
            peer.grant("ACQUIRE", 5).await;
            peer.status("RELEASE", LockStatus::Ok).await;
            peer.status("BYE", LockStatus::Ok).await;
            assert!(peer.next().await.is_none());
        });
        let how = AcquireOptions::default();
        let place = client.enqueue("k", &how).unwrap();
        assert!(!place.is_held() && place.wait_within(Duration::from_millis(1)).unwrap().is_none());
        let guard = client.acquire_within("k", Duration::from_secs(60), &how).unwrap();
        drop(client);
        drop(guard);
        peer.join().unwrap();
    }
}
