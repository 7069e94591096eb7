//! The fences of this run: greater than those of all previous runs, as far as can be known.
//!
//! With `-state` they continue from the state directory; without it they are derived from the clock of the
//! host. If the previous run did not shut down gracefully, the locks of its links are unknown. Agents keep
//! them for at most the grace period, so nothing is granted until it ends.

use dc_daemon::state::{PreviousRun, StateDir, StateError};
use libdc::table::{FenceSource, ShardedLocks};
use libdc::time::Time;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, info, warn};

/// Bits for fences within a millisecond of the clock, without a state directory: more than can be granted in
/// it.
const PER_MS_BITS: u32 = 20;

/// The fence source, and the state directory that stores its progress.
#[derive(Clone, Debug)]
pub(crate) struct PersistentFences {
    fences: FenceSource,
    state: Option<Arc<Mutex<Option<StateDir>>>>,
    previous: PreviousRun,
}

impl PersistentFences {
    /// Opens the fences of this directory, or derives them from the clock.
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

    /// The fence source of the locks.
    pub(crate) fn fences(&self) -> FenceSource {
        self.fences.clone()
    }

    /// Grants nothing before `until` if links of previous runs may still hold locks. Returns whether that is
    /// so.
    pub(crate) fn hold_off(&self, locks: &ShardedLocks, until: Time) -> bool {
        let holds_off = self.previous == (PreviousRun::Unclean { links: true });
        if holds_off {
            info!(
                "the last run ended without releasing its locks: granting none until the grace period ends"
            );
            locks.hold_off(until);
        }
        holds_off
    }

    /// A hook that runs before the first link is opened.
    pub(crate) fn note_links(&self) -> impl FnOnce() + Send + 'static {
        let this = self.clone();
        move || {
            if let Some(Err(error)) = this.change(StateDir::note_links) {
                error!(
                    "cannot write to the state directory: {error}; a restart will not know of this run's links"
                );
            }
        }
    }

    /// Reserves more fences, long before the reserved ones are used up. Blocks until the reservation is on
    /// disk.
    pub(crate) fn extend(&self) {
        let current = self.fences.current();
        if let Some(Err(error)) = self.change(|state| state.extend_if_needed(current)) {
            warn!("cannot write to the state directory: {error}; enough fences are reserved for a long time");
        }
    }

    /// Records a graceful shutdown: if no lock is held, the next run can grant at once.
    pub(crate) fn close(&self, locks: &ShardedLocks) {
        if locks.totals().holders > 0 {
            return;
        }
        let state = self.lock().and_then(|mut state| state.take());
        if let Some(Err(error)) = state.map(StateDir::note_clean) {
            warn!("cannot write to the state directory: {error}; the next run will hold off locks");
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut StateDir) -> R) -> Option<R> {
        self.lock()?.as_mut().map(change)
    }

    fn lock(&self) -> Option<MutexGuard<'_, Option<StateDir>>> {
        self.state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
