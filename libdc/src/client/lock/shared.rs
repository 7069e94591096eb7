//! What the client, its guards and its driver share: the link, behind a lock that is never held across an await.
//!
//! Whoever changes something wakes the driver; the driver does what the link says and wakes whoever was answered.
//! Dropping a guard or a request only leaves word here, so it never waits.
//!
//! A forked child has a copy of all this, whose lock may be held for ever by a thread that it has not. So every way
//! in looks first whether this is still the process that made it.

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

/// The state of a client.
#[derive(Debug)]
pub(super) struct SharedState {
    pub(super) clock: BootClock,
    process: u32,
    state: Mutex<ClientState>,
    has_ended: watch::Sender<bool>,
}

/// The part of it that changes.
#[derive(Debug)]
pub(super) struct ClientState {
    pub(super) machine: LockMachine,
    pub(super) driver: Option<Waker>,
    askers: HashMap<CallId, CallWaiter>,
    holders: HashMap<LeaseId, watch::Sender<Option<Loss>>>,
}

/// Who waits for an answer.
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

    /// Whether this is the process that made it.
    pub(super) fn is_own(&self) -> bool {
        self.process == process::id()
    }

    /// Looks at the link.
    ///
    /// # Errors
    /// [`LockError::Forked`].
    pub(super) fn look<T>(&self, look: impl FnOnce(&LockMachine, Time) -> T) -> Result<T, LockError> {
        if !self.is_own() {
            return Err(LockError::Forked);
        }
        Ok(look(&self.lock().machine, self.clock.now()))
    }

    /// Changes something; the driver and whoever is answered by that are woken.
    ///
    /// # Errors
    /// [`LockError::Forked`].
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

    /// The news of a lock that was granted.
    ///
    /// # Errors
    /// [`LockError::Closed`] if it is none any more.
    pub(super) fn watch(&self, hold: LeaseId) -> Result<watch::Receiver<Option<Loss>>, LockError> {
        let state = self.lock();
        state.holders.get(&hold).map(watch::Sender::subscribe).ok_or(LockError::Closed)
    }

    /// The driver is no more.
    pub(super) fn shut_down(&self) {
        self.has_ended.send_replace(true);
    }

    /// Waits until the driver is no more. Cancel-safe.
    pub(super) async fn ended(&self) {
        // The sender is this: it does not go away meanwhile.
        self.has_ended.subscribe().wait_for(|has_ended| *has_ended).await.ok();
    }

    /// For the driver, and for nothing that a forked child may call.
    pub(super) fn lock(&self) -> MutexGuard<'_, ClientState> {
        // The link is whole between any two calls, and panics in none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientState {
    /// Hands on what has happened. Returns who is to be woken, once the lock is free.
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

    /// Nobody holds this lock any more.
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

/// A request under way. When it is dropped before it is answered, it is given up, and with it what it may bring.
#[derive(Debug)]
pub(super) struct CallFuture {
    shared: Arc<SharedState>,
    id: Option<CallId>,
}

impl CallFuture {
    /// Asks.
    ///
    /// # Errors
    /// [`LockError::Forked`].
    pub(super) fn begin(
        shared: &Arc<SharedState>,
        ask: impl FnOnce(Time) -> LockCall,
    ) -> Result<Self, LockError> {
        Self::begin_with(shared, |link, now| Some(link.ask(now, ask(now))))
    }

    /// Asks what `ask` asks the link; nothing, and is answered that nothing is held, if that is `None`.
    ///
    /// # Errors
    /// [`LockError::Forked`].
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
        // In a forked child there is nothing to give up.
        let given_up = self.shared.change(|state, now| match state.askers.remove(&id) {
            Some(CallWaiter::Answered(answer)) => state.give_back(now, &answer),
            Some(CallWaiter::Waiting(_)) | None => state.machine.abandon(now, id),
        });
        drop(given_up);
    }
}
