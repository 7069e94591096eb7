//! How what is said reaches the supervisor: at once if it takes it, else as soon as it does, and nobody waits for that.
//!
//! A [`Word`] is kept until it is taken, in the order in which they were said; a later one of the same name takes the
//! place of an earlier one. So as many are kept as there are names, and a later `STATUS` is never taken before
//! an earlier `READY`. While something is kept a thread, the courier, offers it again: often at first, then once a second. It ends when
//! everything was taken, or with the [`Delivery`], which joins it.
//!
//! No lock is held while the system is waited for: nothing is sent but what can be sent now. Nothing here panics.

use super::channel::{Haste, NotifyChannel};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{debug, info, warn};

/// Shortest and longest pause before what was not taken is offered again.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Something that the supervisor is to know.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) name: &'static str,
    pub(super) message: String,
}

/// The way to the supervisor, and what has not been taken there yet.
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
    /// Whether the last message was not taken.
    failing: bool,
    is_over: bool,
}

impl Delivery {
    pub(super) fn new(channel: NotifyChannel) -> Self {
        Self { shared: Arc::new(Shared { channel, state: Mutex::default(), ended: Condvar::new() }) }
    }

    /// For what has an answer of its own.
    pub(super) fn channel(&self) -> &NotifyChannel {
        &self.shared.channel
    }

    /// Sends what is kept and this, or keeps it.
    pub(super) fn send(&self, word: Word) {
        let mut state = self.shared.lock();
        state.kept.retain(|kept| kept.name != word.name);
        state.kept.push_back(word.clone());
        if let Err(error) = self.shared.send_kept(&mut state) {
            let first = !std::mem::replace(&mut state.failing, true);
            let Word { name, message } = word;
            // The state is said again soon enough; the others are the supervisor's reasons to act.
            if first || name != "STATUS" {
                warn!(notification = message, %error, "the supervisor can't be notified; it is tried again");
            } else {
                debug!(notification = message, %error, "the supervisor still can't be notified; it is tried again");
            }
            self.shared.send_courier(&mut state);
        }
    }

    /// Sends what is kept and this, which is of no use later.
    pub(super) fn log(&self, message: &str) {
        let mut state = self.shared.lock();
        let sent = self.shared.send_kept(&mut state);
        match sent.and_then(|()| self.shared.channel.send(message, &[], Haste::Lose)) {
            Ok(()) => state.recovered(),
            Err(error) if std::mem::replace(&mut state.failing, true) => {
                debug!(notification = message, %error, "the supervisor still can't be notified");
            }
            Err(error) => warn!(notification = message, %error, "the supervisor can't be notified"),
        }
    }
}

impl Drop for Delivery {
    /// Offers what is kept once more, and says what the supervisor has never been told.
    fn drop(&mut self) {
        let courier = {
            let mut state = self.shared.lock();
            state.is_over = true;
            self.shared.ended.notify_all();
            state.courier.take()
        };
        if courier.is_some_and(|courier| courier.join().is_err()) {
            debug!("what notifies the supervisor has panicked");
        }
        let mut state = self.shared.lock();
        if let Err(error) = self.shared.send_kept(&mut state) {
            let messages: Vec<_> = state.kept.iter().map(|word| word.message.as_str()).collect();
            warn!(notifications = messages.join(" "), %error, "the supervisor was never notified");
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
            Err(error) => debug!(%error, "the supervisor is tried again with the next notification"),
        }
    }

    /// The life of the courier.
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
        // What a panic left of it is a queue whose first was taken or not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recovered(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            info!("the supervisor takes notifications again");
        }
    }
}
