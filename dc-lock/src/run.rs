//! Waiting for the lock, holding it while the command runs, and giving it back.

use crate::command::status;
use crate::hold::GuardedCommand;
use crate::options::{LockCommandOptions, OnLoss};
use crate::signals::LockSignals;
use crate::status::{LOST, LockFailure, print_error};
use libdc::client::lock::{self, AcquireOptions, Guard, LockClient, LockError};
use libdc::net::runtime::runtime;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The longest time to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How long after the time to wait an answer may come: time enough to connect and to ask once.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Does what the options say. Returns the exit status.
///
/// # Errors
/// Why there is no status of the command.
pub(crate) fn run(options: &LockCommandOptions) -> Result<u8, LockFailure> {
    let runtime = runtime()?;
    let status = runtime.block_on(hold(options));
    // A look-up of a name that is still under way is nothing to wait for.
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
    // What is left is given back with the connection.
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
    // The time to connect is of the time to wait.
    let wait = options.wait().map(|wait| wait.saturating_sub(start.elapsed()));
    let mut guard = None;
    // The first attempt tells whether there is anything to wait for, and to say.
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
            // That it was lost in this moment concerns nobody.
            guard.release().await.ok();
            return Err(failure);
        }
    };
    let (ended, mut lost) = holding.end(signals).await?;
    if lost {
        // What is left of it is given back in saying goodbye: a server that hangs is not waited for.
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
                Err(error) => print_error(&format_args!("{} could not be released: {error}", options.key)),
            }
        }
    }
    Ok(if lost && options.on_loss == OnLoss::Kill { LOST } else { status(ended) })
}
