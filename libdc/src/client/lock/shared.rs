//! The state shared by the client, its guards and its driver: the machine, behind a mutex never held across
//! an await.
//!
//! A change wakes the driver. The driver takes its turn and wakes the tasks whose calls were answered.
//! Dropping a guard or a call only changes the state, so it never waits.
//!
//! A forked child has a copy of the state, whose mutex may stay locked by a thread that the child does not
//! have. Each access therefore first checks that it is made by the client's process.

use crate::client::lock::boot_clock::BootClock;
use crate::client::lock::calls::{CallId, LockCall};
use crate::client::lock::error::{LockError, Loss};
use crate::client::lock::lease::LeaseId;
use crate::client::lock::machine::{CallReply, LockEvent, LockLinkSettings, LockMachine};
use crate::time::Time;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct SharedState {
    pub(super) clock: BootClock,
    process: u32,
    state: Mutex<ClientState>,
    has_ended: watch::Sender<bool>,
}

/// The part behind the mutex.
#[derive(Debug)]
pub(super) struct ClientState {
    pub(super) machine: LockMachine,
    pub(super) driver: Option<Waker>,
    askers: HashMap<CallId, CallWaiter>,
    holders: HashMap<LeaseId, watch::Sender<Option<Loss>>>,
}

/// The task that waits for a call, or the answer that it has not taken yet.
#[derive(Debug)]
enum CallWaiter {
    Waiting(Option<Waker>),
    Answered(Result<CallReply, LockError>),
}

impl SharedState {
    pub(super) fn new(clock: BootClock, settings: LockLinkSettings) -> Self {
        let state = ClientState {
            machine: LockMachine::new(settings),
            driver: None,
            askers: HashMap::new(),
            holders: HashMap::new(),
        };
        let has_ended = watch::Sender::new(false);
        Self { clock, process: process::id(), state: Mutex::new(state), has_ended }
    }

    /// Whether this is the process of the client.
    pub(super) fn is_own(&self) -> bool {
        self.process == process::id()
    }

    /// Calls `look` with the machine and the current time.
    ///
    /// # Errors
    /// [`LockError::Forked`] in a forked child.
    pub(super) fn look<T>(&self, look: impl FnOnce(&LockMachine, Time) -> T) -> Result<T, LockError> {
        if !self.is_own() {
            return Err(LockError::Forked);
        }
        Ok(look(&self.lock().machine, self.clock.now()))
    }

    /// Changes the state. Wakes the driver, and the tasks of the calls that are answered by the change.
    ///
    /// # Errors
    /// [`LockError::Forked`] in a forked child.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut ClientState, Time) -> T) -> Result<T, LockError> {
        if !self.is_own() {
            return Err(LockError::Forked);
        }
        let mut state = self.lock();
        let now = self.clock.now();
        let result = change(&mut state, now);
        let mut wake = state.deliver(now);
        wake.extend(state.driver.take());
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        Ok(result)
    }

    /// Subscribes to the loss of a granted lock.
    ///
    /// # Errors
    /// [`LockError::Closed`] if the lock has been released.
    pub(super) fn watch(&self, hold: LeaseId) -> Result<watch::Receiver<Option<Loss>>, LockError> {
        let state = self.lock();
        state.holders.get(&hold).map(watch::Sender::subscribe).ok_or(LockError::Closed)
    }

    /// The driver has ended.
    pub(super) fn shut_down(&self) {
        self.has_ended.send_replace(true);
    }

    /// Waits until the driver has ended. Cancel-safe.
    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`, so there is no error.
        self.has_ended.subscribe().wait_for(|has_ended| *has_ended).await.ok();
    }

    /// For the driver only: a forked child must not call it.
    pub(super) fn lock(&self) -> MutexGuard<'_, ClientState> {
        // The machine never panics, so it is consistent even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientState {
    /// Delivers the events of the machine. Returns the tasks to wake once the mutex is unlocked.
    pub(super) fn deliver(&mut self, now: Time) -> Vec<Waker> {
        let mut wake = Vec::new();
        while let Some(event) = self.machine.poll_event() {
            match event {
                LockEvent::Lost(hold, loss) => {
                    if let Some(holder) = self.holders.get(&hold) {
                        holder.send_replace(Some(loss));
                    }
                }
                LockEvent::Answered(id, result) => match self.askers.get_mut(&id) {
                    Some(asker) => {
                        if let Ok(CallReply::Granted(hold)) = &result {
                            self.holders.insert(*hold, watch::Sender::new(None));
                        }
                        if let CallWaiter::Waiting(Some(waker)) =
                            std::mem::replace(asker, CallWaiter::Answered(result))
                        {
                            wake.push(waker);
                        }
                    }
                    None => self.give_back(now, &result),
                },
            }
        }
        wake
    }

    /// The guard of this lock has been dropped.
    pub(super) fn forget(&mut self, hold: LeaseId) {
        self.holders.remove(&hold);
    }

    fn give_back(&mut self, now: Time, answer: &Result<CallReply, LockError>) {
        if let Ok(CallReply::Granted(hold)) = answer {
            self.forget(*hold);
            self.machine.drop_hold(now, *hold);
        }
    }
}

/// A call in flight. Dropping it before the answer abandons the call; a lock granted to it is released.
#[derive(Debug)]
pub(super) struct CallFuture {
    shared: Arc<SharedState>,
    id: Option<CallId>,
}

impl CallFuture {
    /// Makes the call that `ask` returns.
    ///
    /// # Errors
    /// [`LockError::Forked`] in a forked child.
    pub(super) fn begin(
        shared: &Arc<SharedState>,
        ask: impl FnOnce(Time) -> LockCall,
    ) -> Result<Self, LockError> {
        Self::begin_with(shared, |link, now| Some(link.ask(now, ask(now))))
    }

    /// As [`begin`](Self::begin), with the call that `ask` makes itself. If it makes none, the future
    /// resolves to [`LockError::NotHeld`].
    ///
    /// # Errors
    /// [`LockError::Forked`] in a forked child.
    pub(super) fn begin_with(
        shared: &Arc<SharedState>,
        ask: impl FnOnce(&mut LockMachine, Time) -> Option<CallId>,
    ) -> Result<Self, LockError> {
        let id = shared.change(|state, now| {
            let id = ask(&mut state.machine, now)?;
            state.askers.insert(id, CallWaiter::Waiting(None));
            Some(id)
        })?;
        Ok(Self { shared: Arc::clone(shared), id })
    }
}

impl Future for CallFuture {
    type Output = Result<CallReply, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else { return Poll::Ready(Err(LockError::NotHeld)) };
        if !self.shared.is_own() {
            return Poll::Ready(Err(LockError::Forked));
        }
        let mut state = self.shared.lock();
        match state.askers.remove(&id) {
            Some(CallWaiter::Waiting(_)) => {
                state.askers.insert(id, CallWaiter::Waiting(Some(cx.waker().clone())));
                Poll::Pending
            }
            Some(CallWaiter::Answered(answer)) => {
                drop(state);
                self.id = None;
                Poll::Ready(answer)
            }
            None => Poll::Ready(Err(LockError::Closed)),
        }
    }
}

impl Drop for CallFuture {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        // A forked child has nothing to abandon.
        let given_up = self.shared.change(|state, now| match state.askers.remove(&id) {
            Some(CallWaiter::Answered(answer)) => state.give_back(now, &answer),
            Some(CallWaiter::Waiting(_)) | None => state.machine.abandon(now, id),
        });
        drop(given_up);
    }
}
