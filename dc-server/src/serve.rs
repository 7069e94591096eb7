//! Life cycle of the server: opens, starts, waits and shuts down.

use crate::housekeeping::Housekeeper;
use crate::options::{LockTableOptions, PROGRAM, ServerOptions};
use crate::persistent_fences::PersistentFences;
use dc_daemon::drivers::server::{ServerDriver, ServerSettings};
use dc_daemon::drivers::workers::Workers;
use dc_daemon::listen::accept::ThrottledListener;
use dc_daemon::start::{BoundDaemon, DaemonParts, StartError, time_to_finish};
use libdc::net::clock::DriverClock;
use libdc::net::runtime::runtime;
use libdc::secret::AuthToken;
use libdc::service::{LinkPolicy, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Shards of the tables for each thread, to keep contention low.
const SHARDS_PER_THREAD: usize = 8;

/// Serves until a signal ends it.
pub(crate) fn run(options: &ServerOptions) -> Result<(), StartError> {
    // Before signals are blocked: the file may be a pipe, and reading it may block.
    let auth_token = options.auth.token()?;
    let started = BoundDaemon::new(&PROGRAM, &options.daemon, &options.listen, None)?;
    let runtime = runtime()?;
    runtime.block_on(serve(options, started, auth_token))
}

async fn serve(
    options: &ServerOptions,
    started: BoundDaemon,
    auth_token: Option<AuthToken>,
) -> Result<(), StartError> {
    let DaemonParts { listeners, places, mut signals, opening, supervisor } = started.into_parts()?;
    let threads = options.threads();
    let tls = options.tls.load()?;
    let clock = DriverClock::start();
    let fences = PersistentFences::open(options.locks.state.as_deref())?;
    let service = Arc::new(Service::new(
        Arc::new(sessions(options, threads)?),
        locks(&options.locks, threads, fences.fences())?,
        links(&options.locks),
        auth_token,
    ));
    let grace_end = clock.now().after_ms(milliseconds(options.locks.grace));
    let holds_off = fences.hold_off(service.locks(), grace_end);
    let settings = ServerSettings {
        read_timeout_ms: milliseconds(options.read_timeout),
        write_timeout_ms: milliseconds(options.write_timeout),
        progress: options.progress,
    };
    let server = ServerDriver::new(service, clock, settings).with_tls(tls);
    let server = Arc::new(server.before_first_link(fences.note_links()));
    let workers = Arc::new(Workers::start(&tokio::runtime::Handle::current(), threads)?);

    let closing = CancellationToken::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = ThrottledListener::new(listener, Arc::clone(&places))?;
        accepting.spawn(accept(listener, Arc::clone(&server), Arc::clone(&workers), closing.clone()));
    }
    let housekeeping = tokio::spawn(Housekeeper::new(Arc::clone(&server), fences.clone()).keep());
    let time = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.keep_time().await })
    };
    let serving = opening.serving()?;
    info!(threads, sessions = options.sessions, memory = options.memory, "serving");

    supervisor.serving("serving");
    supervisor.alive_during(signals.shutdown()).await;
    supervisor.stopping();
    server.drain();
    closing.cancel();
    while accepting.join_next().await.is_some() {}
    tokio::select! {
        () = supervisor.alive_during(workers.finished()) => {}
        () = time_to_finish(options.daemon.shutdown_timeout) => warn!("connections were still busy and are closed"),
        _ = signals.shutdown() => {}
    }
    housekeeping.abort();
    time.abort();
    if let Some(workers) = Arc::into_inner(workers) {
        workers.stop();
    }
    // If this run ends within the grace period, the next run must wait for its end too.
    if !holds_off || server.now() >= grace_end {
        fences.close(server.service().locks());
    }
    info!("ended");
    Ok(serving.finish()?)
}

fn sessions(options: &ServerOptions, threads: usize) -> io::Result<ShardedSessions> {
    let seed: [u8; 16] = random()?;
    let (low, high) = seed.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let limits = SessionLimits { sessions: options.sessions, bytes: options.memory };
    Ok(ShardedSessions::new(shards(threads), limits, [word(low), word(high)]))
}

fn locks(options: &LockTableOptions, threads: usize, fences: FenceSource) -> io::Result<ShardedLocks> {
    let settings = LockSettings {
        default_lease_ms: milliseconds(options.default_lease_ttl),
        locks_max: options.max_locks,
        waiters_max: options.max_waiters,
        idle_ms: milliseconds(options.gc_max_idle),
    };
    Ok(ShardedLocks::new(shards(threads), settings, fences, random()?))
}

fn links(options: &LockTableOptions) -> LinkPolicy {
    let grace_ms = u32::try_from(options.grace.as_millis()).unwrap_or(u32::MAX);
    LinkPolicy { grace_ms, auto_release: options.auto_release_on_disconnect }
}

/// No duration among the options exceeds a year.
const fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

const fn shards(threads: usize) -> usize {
    if threads == 1 { 1 } else { threads * SHARDS_PER_THREAD }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

async fn accept(
    listener: ThrottledListener,
    server: Arc<ServerDriver>,
    workers: Arc<Workers>,
    closing: CancellationToken,
) {
    let serve = |socket, place| {
        let server = Arc::clone(&server);
        workers.spawn(socket, move |socket| server.serve(socket, place));
    };
    listener.serve_until(&closing, serve).await;
}
