//! The clients of a run: the configured number of workers, each with its model.

use crate::locks::{self, LockWorker};
use crate::model::{SessionModel, SessionWorkload};
use crate::options::TestOptions;
use crate::run::TestRun;
use crate::stop_reason::StopReason;
use crate::worker::SessionWorker;
use fastrand::Rng;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::{JoinSet, LocalSet};

/// Runs all clients to the end.
///
/// # Errors
/// [`StopReason`] if one of them stopped, or the user did.
pub(crate) async fn run_clients(run: &Rc<TestRun>, options: &TestOptions) -> Result<(), StopReason> {
    let mut rng = Rng::new();
    let local = LocalSet::new();
    let mut workers = JoinSet::new();
    let keys = locks::LockModel::new(&locks::LockWorkload::from(options), rng.u64(..));
    let keys = Rc::new(RefCell::new(keys));
    for _ in 0..options.clients() {
        if options.locks {
            let locker = LockWorker::new(Rc::clone(run), Rc::clone(&keys), rng.fork());
            workers.spawn_local_on(locker.work(), &local);
        } else {
            let model = SessionModel::new(&SessionWorkload::from(options), rng.fork());
            workers.spawn_local_on(SessionWorker::new(Rc::clone(run), model).work(), &local);
        }
    }
    let all = async {
        while let Some(ended) = workers.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    };
    let ended = local.run_until(all).await;
    run.outages.borrow_mut().close(run.time(Instant::now()));
    if ended.is_ok() && run.stopping.get() { Err(StopReason::Interrupted) } else { ended }
}
