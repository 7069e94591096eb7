//! Delivery of messages to the service manager: immediately if possible, otherwise retried by a thread,
//! without blocking the caller.
//!
//! Pending messages are sent in order; a later message replaces a pending one of the same name. So there are
//! at most as many pending messages as names, and a later `STATUS` is never sent before an earlier `READY`.
//! While messages are pending, a thread retries: after a few milliseconds at first, then once a second. It
//! exits when every message is sent, or with the [`Delivery`], which joins it.
//!
//! The lock is held only during non-blocking sends. Nothing here panics.

use super::channel::{Haste, NotifyChannel};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{debug, info, warn};

/// The minimum and maximum retry delay.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A message, and the name that it replaces pending messages by.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) name: &'static str,
    pub(super) message: String,
}

/// The channel to the service manager, and the pending messages.
#[derive(Debug)]
pub(super) struct Delivery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: NotifyChannel,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Word>,
    courier: Option<JoinHandle<()>>,
    /// Whether the last send failed.
    failing: bool,
    is_over: bool,
}

impl Delivery {
    pub(super) fn new(channel: NotifyChannel) -> Self {
        Self { shared: Arc::new(Shared { channel, state: Mutex::default(), ended: Condvar::new() }) }
    }

    /// For messages that are sent directly and whose error is returned.
    pub(super) fn channel(&self) -> &NotifyChannel {
        &self.shared.channel
    }

    /// Sends the pending messages and this one, or adds it to the pending ones.
    pub(super) fn send(&self, word: Word) {
        let mut state = self.shared.lock();
        state.kept.retain(|kept| kept.name != word.name);
        state.kept.push_back(word.clone());
        if let Err(error) = self.shared.send_kept(&mut state) {
            let first = !std::mem::replace(&mut state.failing, true);
            let Word { name, message } = word;
            // The next status follows soon; the service manager acts on the other messages.
            if first || name != "STATUS" {
                warn!(notification = message, %error, "cannot notify the service manager; retrying");
            } else {
                debug!(notification = message, %error, "still cannot notify the service manager; retrying");
            }
            self.shared.send_courier(&mut state);
        }
    }

    /// Sends the pending messages and this one, which is dropped if it cannot be sent now.
    pub(super) fn log(&self, message: &str) {
        let mut state = self.shared.lock();
        let sent = self.shared.send_kept(&mut state);
        match sent.and_then(|()| self.shared.channel.send(message, &[], Haste::Lose)) {
            Ok(()) => state.recovered(),
            Err(error) if std::mem::replace(&mut state.failing, true) => {
                debug!(notification = message, %error, "still cannot notify the service manager");
            }
            Err(error) => warn!(notification = message, %error, "cannot notify the service manager"),
        }
    }
}

impl Drop for Delivery {
    /// Tries to send the pending messages once more, and logs the remaining ones.
    fn drop(&mut self) {
        let courier = {
            let mut state = self.shared.lock();
            state.is_over = true;
            self.shared.ended.notify_all();
            state.courier.take()
        };
        if courier.is_some_and(|courier| courier.join().is_err()) {
            debug!("the notification thread has panicked");
        }
        let mut state = self.shared.lock();
        if let Err(error) = self.shared.send_kept(&mut state) {
            let messages: Vec<_> = state.kept.iter().map(|word| word.message.as_str()).collect();
            warn!(notifications = messages.join(" "), %error, "notifications to the service manager were not delivered");
        }
    }
}

impl Shared {
    fn send_kept(&self, state: &mut State) -> io::Result<()> {
        while let Some(word) = state.kept.front() {
            self.channel.send(&word.message, &[], Haste::Lose)?;
            state.kept.pop_front();
            state.recovered();
        }
        Ok(())
    }

    fn send_courier(self: &Arc<Self>, state: &mut State) {
        if state.courier.is_some() {
            return;
        }
        let shared = Arc::clone(self);
        match thread::Builder::new().name("notify".to_owned()).spawn(move || shared.deliver()) {
            Ok(courier) => state.courier = Some(courier),
            Err(error) => {
                debug!(%error, "cannot start the notification thread; retrying with the next notification");
            }
        }
    }

    /// The main function of the retry thread.
    fn deliver(&self) {
        let mut pause = PAUSE_MIN;
        let mut state = self.lock();
        while !state.is_over && self.send_kept(&mut state).is_err() {
            let waited = self.ended.wait_timeout(state, pause);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        state.courier = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Valid after a panic: the first message of the queue was either sent or not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recovered(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            info!("the service manager takes notifications again");
        }
    }
}
