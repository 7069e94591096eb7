//! Periodic tasks of the server: frees the memory of expired sessions, and logs the totals.

use crate::persistent_fences::PersistentFences;
use dc_daemon::drivers::server::ServerDriver;
use libdc::service::RequestCounters;
use libdc::table::{LockTotals, SessionTotals};
use libdc::time::Time;
use libdc::wire::frame::{LockOperation, SessionOperation};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::info;

const SECOND: Duration = Duration::from_secs(1);

/// The periodic tasks of a server.
pub(crate) struct Housekeeper {
    server: Arc<ServerDriver>,
    fences: PersistentFences,
    logged: (RequestCounters, u64),
    logged_locks: (RequestCounters, LockTotals),
}

impl Housekeeper {
    pub(crate) fn new(server: Arc<ServerDriver>, fences: PersistentFences) -> Self {
        Self { server, fences, logged: Default::default(), logged_locks: Default::default() }
    }

    /// Runs without end: once a second, and whenever as many requests were answered as `-progress` says.
    pub(crate) async fn keep(mut self) {
        let mut seconds = interval_at(Instant::now() + SECOND, SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = seconds.tick() => {
                    self.fences.extend();
                    self.sweep().await;
                }
                () = self.server.progress() => {}
            }
            self.log_changes();
        }
    }

    fn log_changes(&mut self) {
        let totals = self.server.service().sessions().totals(self.server.now());
        let service = self.server.service();
        let tally = service.totals();
        let sessions = (tally.of_sessions(), totals.sessions);
        if sessions != self.logged {
            log(&sessions.0, &totals);
            self.logged = sessions;
        }
        let locks = (tally.of_locks(), service.locks().totals());
        if locks != self.logged_locks {
            log_locks(&locks.0, &locks.1);
            self.logged_locks = locks;
        }
    }

    /// Removes expired sessions, with a pause for the connections between two steps.
    async fn sweep(&self) {
        loop {
            let now = self.server.now();
            let step = self.server.service().sessions().expire(now);
            if step.next.is_none_or(|next: Time| next > now) {
                return;
            }
            sleep(Duration::ZERO).await;
        }
    }
}

/// Logs one line of lock counters.
fn log_locks(tally: &RequestCounters, totals: &LockTotals) {
    info!(
        keys = totals.keys,
        held = totals.holders,
        waiting = totals.waiters,
        operations = tally.locking(),
        granted = totals.grants,
        timeouts = totals.timeouts,
        expired = totals.expired,
        renew = tally.lock_requests(LockOperation::Renew),
        release = tally.lock_requests(LockOperation::Release),
        wrong_tokens = tally.wrong_tokens(),
        "totals of locks"
    );
}

/// Logs one line of totals.
fn log(tally: &RequestCounters, totals: &SessionTotals) {
    info!(
        sessions = totals.sessions,
        bytes = totals.bytes,
        operations = tally.total(),
        add = tally.requests(SessionOperation::Add),
        added = tally.successes(SessionOperation::Add),
        get = tally.requests(SessionOperation::Get),
        hit = tally.successes(SessionOperation::Get),
        remove = tally.requests(SessionOperation::Remove),
        removed = tally.successes(SessionOperation::Remove),
        have = tally.requests(SessionOperation::Have),
        had = tally.successes(SessionOperation::Have),
        evicted = totals.evicted,
        expired = totals.expired,
        "totals"
    );
}
