//! The fences of this run: greater than those of all runs before, as far as that can be known.
//!
//! With `-state` the directory knows; without it the clock of the host has to do. After a run that ended without
//! saying so, nobody can tell which locks the agents of its links hold on to. They do so for the grace at most: until
//! then nothing is granted.

use dc_daemon::state::{PreviousRun, StateDir, StateError};
use libdc::table::{FenceSource, ShardedLocks};
use libdc::time::Time;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, info, warn};

/// Fences for each millisecond of the clock, where nothing else is known: more than can be granted in it.
const PER_MS_BITS: u32 = 20;

/// Fences, and where it is kept how far they have come.
#[derive(Clone, Debug)]
pub(crate) struct PersistentFences {
    fences: FenceSource,
    state: Option<Arc<Mutex<Option<StateDir>>>>,
    previous: PreviousRun,
}

impl PersistentFences {
    /// Those of this directory, or of the clock.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, StateError> {
        let Some(directory) = directory else {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let start = u64::try_from(since.as_millis() << PER_MS_BITS).unwrap_or(u64::MAX / 2);
            return Ok(Self {
                fences: FenceSource::starting_at(start),
                state: None,
                previous: PreviousRun::None,
            });
        };
        let state = StateDir::open(directory)?;
        let (fences, previous) = (FenceSource::starting_at(state.fence_start()), state.previous());
        Ok(Self { fences, state: Some(Arc::new(Mutex::new(Some(state)))), previous })
    }

    /// Where the locks take their fences from.
    pub(crate) fn fences(&self) -> FenceSource {
        self.fences.clone()
    }

    /// Grants nothing before `until`, if links of runs before may still hold something. Returns whether that is so.
    pub(crate) fn hold_off(&self, locks: &ShardedLocks, until: Time) -> bool {
        let holds_off = self.previous == (PreviousRun::Unclean { links: true });
        if holds_off {
            info!("the last run ended without releasing its locks: none is granted before the grace is over");
            locks.hold_off(until);
        }
        holds_off
    }

    /// What to do before the first link is opened.
    pub(crate) fn note_links(&self) -> impl FnOnce() + Send + 'static {
        let this = self.clone();
        move || {
            if let Some(Err(error)) = this.change(StateDir::note_links) {
                error!(
                    "can't write to the state directory: {error}; a restart will not know of this run's links"
                );
            }
        }
    }

    /// Reserves more, long before those that are reserved are used up. Blocks until that is on the disk.
    pub(crate) fn extend(&self) {
        let current = self.fences.current();
        if let Some(Err(error)) = self.change(|state| state.extend_if_needed(current)) {
            warn!("can't write to the state directory: {error}; enough fences are reserved for a long time");
        }
    }

    /// The run ends in good order: if nothing is held any more, the next one need not wait.
    pub(crate) fn close(&self, locks: &ShardedLocks) {
        if locks.totals().holders > 0 {
            return;
        }
        let state = self.lock().and_then(|mut state| state.take());
        if let Some(Err(error)) = state.map(StateDir::note_clean) {
            warn!("can't write to the state directory: {error}; the next run will hold off locks");
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut StateDir) -> R) -> Option<R> {
        self.lock()?.as_mut().map(change)
    }

    fn lock(&self) -> Option<MutexGuard<'_, Option<StateDir>>> {
        self.state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
