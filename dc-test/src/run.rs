//! A run: its clients, their shared state, and its end.

use crate::counters::{OperationFailure, RunCounters};
use crate::locks;
use crate::model::{self, SessionWorkload};
use crate::options::TestOptions;
use crate::outage::Outages;
use crate::stop_reason::StopReason;
use libdc::net::address::Address;
use libdc::time::Time;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One in so many sessions is left alone until it must have expired.
const AGING: usize = 10;

/// State shared by the clients of a run. All run on one thread.
#[derive(Debug)]
pub(crate) struct TestRun {
    pub(crate) address: Address,
    pub(crate) persistent: bool,
    pub(crate) pipeline: usize,
    pub(crate) answer_timeout: Duration,
    pub(crate) tally: RefCell<RunCounters>,
    pub(crate) outages: RefCell<Outages>,
    /// Every how many that are done a line is printed; 0 is never.
    progress: u64,
    /// Operations, or lock rounds, that are neither done nor in flight.
    left: Cell<u64>,
    done: Cell<u64>,
    begun: Instant,
    end: Option<Instant>,
    pub(crate) stopping: Cell<bool>,
}

impl TestRun {
    pub(crate) fn new(options: &TestOptions) -> Rc<Self> {
        let begun = Instant::now();
        let tolerated_ms = u64::try_from(options.tolerate_outage.as_millis()).unwrap_or(u64::MAX);
        Rc::new(Self {
            address: options.connect.clone(),
            persistent: options.persistent,
            pipeline: options.pipeline as usize,
            answer_timeout: options.answer_timeout,
            tally: RefCell::new(RunCounters::new(if options.locks { &locks::SHEET } else { &model::SHEET })),
            outages: RefCell::new(Outages::new(tolerated_ms)),
            progress: options.progress,
            left: Cell::new(options.operations()),
            done: Cell::new(0),
            begun,
            end: options.duration.and_then(|duration| begun.checked_add(duration)),
            stopping: Cell::new(false),
        })
    }

    /// Has the clients ask nothing more.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Claims one of the remaining operations; `false` if there is none.
    pub(crate) fn take_operation(&self, now: Instant) -> bool {
        let is_over = self.stopping.get() || self.end.is_some_and(|end| end <= now);
        let left = if is_over { 0 } else { self.left.get() };
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Gives one back that failed.
    pub(crate) fn return_operation(&self) {
        self.left.set(self.left.get().saturating_add(1));
    }

    pub(crate) fn note_done(&self) {
        self.done.set(self.done.get() + 1);
    }

    /// How many are done.
    pub(crate) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Records a failure. `Ok(true)` if the run continues.
    ///
    /// # Errors
    ///
    /// [`StopReason::Failed`] if it does not.
    pub(crate) fn suffer(&self, failure: OperationFailure) -> Result<bool, StopReason> {
        let now = self.time(Instant::now());
        if self.outages.borrow_mut().note_failure(now) { Ok(true) } else { Err(StopReason::Failed(failure)) }
    }

    /// Prints a line if one is due after one more that is done.
    pub(crate) fn show_progress(&self) {
        if self.progress == 0 {
            return;
        }
        let (done, tally) = (self.done(), self.tally.borrow());
        if done.is_multiple_of(self.progress) {
            let seconds = self.elapsed().as_secs_f64();
            eprintln!("{done} {} in {seconds:.3} s, {} failed", tally.sheet().unit, tally.failed());
        }
    }

    /// How long it has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The time of the model.
    pub(crate) fn time(&self, now: Instant) -> Time {
        let ms = now.saturating_duration_since(self.begun).as_millis();
        Time::from_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl From<&TestOptions> for SessionWorkload {
    fn from(options: &TestOptions) -> Self {
        // Cannot overflow: no duration exceeds seven days.
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (timeout, timevar) = (options.timeout, options.timevar());
        let (sessions, pipeline) = (options.sessions as usize, options.pipeline as usize);
        Self {
            sessions,
            // Leaves enough slots for the wanted number of requests in flight.
            aging: (sessions / AGING).min(sessions.saturating_sub(pipeline)),
            bytes: options.bytes(),
            timeout_ms: ms(timeout.saturating_sub(timevar))..=ms(timeout.saturating_add(timevar)),
            eviction: options.tolerate_eviction,
        }
    }
}

impl From<&TestOptions> for locks::LockWorkload {
    fn from(options: &TestOptions) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            keys: options.keys as usize,
            limit: options.limit,
            lease_ms: ms(options.lease),
            wait_ms: ms(options.wait),
            hold_ms: ms(options.hold),
        }
    }
}
