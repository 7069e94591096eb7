//! Acquires the lock, holds it while the command runs, and releases it.

use crate::command::status;
use crate::hold::GuardedCommand;
use crate::options::{LockCommandOptions, OnLoss};
use crate::signals::LockSignals;
use crate::status::{LOST, LockFailure, print_error};
use libdc::client::lock::{self, AcquireOptions, Guard, LockClient, LockError};
use libdc::net::runtime::runtime;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Maximum time for an orderly close of the connection.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Time after the wait timeout in which an answer may arrive: enough to connect and to send one request.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Runs the command line. Returns the exit status.
///
/// # Errors
///
/// If the command has no exit status.
pub(crate) fn run(options: &LockCommandOptions) -> Result<u8, LockFailure> {
    let runtime = runtime()?;
    let status = runtime.block_on(hold(options));
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    if let Err(failure) = &status
        && failure.is_quiet()
    {
        if options.verbose {
            print_error(failure);
        }
        return Ok(failure.status());
    }
    status
}

async fn hold(options: &LockCommandOptions) -> Result<u8, LockFailure> {
    let mut signals = LockSignals::listen()?;
    let loaded = options.auth.load()?;
    if let Some((_, Some(exposure))) = &loaded {
        print_error(exposure);
    }
    let auth_token = loaded.map(|(token, _)| token);
    let client_options = lock::LockOptions { auth_token, ..lock::LockOptions::default() };
    let client = LockClient::new(options.connect.clone(), client_options);
    let guard = tokio::select! {
        guard = acquire(options, &client) => guard?,
        signal = signals.ending() => return Err(LockFailure::Signal { number: signal as i32 as u8 }),
    };
    let held = hold_for(options, guard, &mut signals).await;
    // Closing the connection releases the lock if it is still held.
    timeout(GOODBYE_MAX, client.close()).await.ok();
    held
}

async fn acquire(options: &LockCommandOptions, client: &LockClient) -> Result<Guard, LockFailure> {
    let taking = wait_for(options, client);
    match options.wait() {
        None => taking.await,
        Some(wait) => timeout(wait + ANSWER_MAX, taking).await.map_err(|_| LockError::NoAnswer)?,
    }
}

async fn wait_for(options: &LockCommandOptions, client: &LockClient) -> Result<Guard, LockFailure> {
    let start = Instant::now();
    client.ready().await?;
    let how = AcquireOptions { limit: options.limit, lease: options.lease, retry: true };
    let key = &options.key;
    // Connecting counts towards the wait timeout.
    let wait = options.wait().map(|wait| wait.saturating_sub(start.elapsed()));
    let mut guard = None;
    // The result of the first attempt decides whether to wait, and what to log.
    if options.verbose || wait.is_some_and(|wait| wait.is_zero()) {
        guard = client.try_acquire(key, &how).await?;
    }
    if guard.is_none() && wait.is_none_or(|wait| !wait.is_zero()) {
        if options.verbose {
            print_error(&format_args!("waiting for {key}"));
        }
        guard = match wait {
            None => Some(client.acquire(key, &how).await?),
            Some(wait) => client.acquire_within(key, wait, &how).await?,
        };
    }
    let guard = guard.ok_or(LockFailure::Conflict { status: options.conflict_exit_code })?;
    if let Some(loss) = guard.loss() {
        return Err(LockFailure::LostBefore(loss));
    }
    if options.verbose {
        print_error(&format_args!("got {key} after {:?}, fence {}", start.elapsed(), guard.fence()));
    }
    Ok(guard)
}

/// Runs the command while the lock is held, and releases it.
async fn hold_for(
    options: &LockCommandOptions,
    guard: Guard,
    signals: &mut LockSignals,
) -> Result<u8, LockFailure> {
    signals.listen_for_stops()?;
    let holding = match GuardedCommand::start(options, &guard) {
        Ok(holding) => holding,
        Err(failure) => {
            // A loss in this moment has no effect: the command has ended.
            guard.release().await.ok();
            return Err(failure);
        }
    };
    let (ended, mut lost) = holding.end(signals).await?;
    if lost {
        // Closing the connection releases the lock, so a hung server does not delay the exit.
        drop(guard);
    } else {
        let released = tokio::select! {
            released = guard.release() => released,
            _ = signals.ending() => Err(LockError::NoAnswer),
            () = sleep(ANSWER_MAX) => Err(LockError::NoAnswer),
        };
        if matches!(released, Err(LockError::NotHeld)) {
            lost = true;
            print_error(&format_args!("the lock {} was lost before the command ended", options.key));
        }
        if options.verbose {
            match released {
                Ok(()) => print_error(&format_args!("released {}", options.key)),
                Err(error) => print_error(&format_args!("{} cannot be released: {error}", options.key)),
            }
        }
    }
    Ok(if lost && options.on_loss == OnLoss::Kill { LOST } else { status(ended) })
}
