//! Life cycle of the agent: opens, starts, waits and shuts down.

use crate::options::{AgentOptions, PROGRAM};
use dc_cli::address::Address;
use dc_daemon::drivers::agent::{AgentDriver, AgentSettings};
use dc_daemon::listen::accept::ThrottledListener;
use dc_daemon::service_manager::ServiceManager;
use dc_daemon::start::{BoundDaemon, DaemonParts, StartError, time_to_finish};
use libdc::net::clock::DriverClock;
use libdc::net::runtime::runtime;
use libdc::proto::agent::multiplexer::MultiplexerSettings;
use libdc::proto::reconnect::ReconnectSettings;
use libdc::secret::AuthToken;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Longest wait for the server before local connections are accepted without it.
const FIRST_ATTEMPT_MAX: Duration = Duration::from_secs(1);
/// Longest time for an attempt to connect where `-timeout` sets none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum wait for the server's answer to BYE.
const BYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
pub(crate) fn run(options: &AgentOptions) -> Result<(), StartError> {
    // Before signals are blocked: the file may be a pipe, and reading it may block.
    let auth_token = options.auth.token()?;
    let started =
        BoundDaemon::new(&PROGRAM, &options.daemon, &options.listen, AgentOptions::listen_default())?;
    let runtime = runtime()?;
    let end = runtime.block_on(serve(options, started, auth_token));
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    end
}

async fn serve(
    options: &AgentOptions,
    started: BoundDaemon,
    auth_token: Option<AuthToken>,
) -> Result<(), StartError> {
    let DaemonParts { listeners, places, mut signals, opening, supervisor } = started.into_parts()?;
    let agent = Arc::new(
        AgentDriver::new(settings(options), auth_token, DriverClock::start())?.with_tls(options.tls.load()?),
    );
    let link = {
        let (agent, server) = (Arc::clone(&agent), options.server.clone());
        tokio::spawn(async move { agent.keep_link(&server).await })
    };
    // Until then new connections wait in the accept queue instead of failing because there is no server yet.
    if timeout(FIRST_ATTEMPT_MAX, agent.first_attempt()).await.is_err() {
        warn!(server = %options.server, "the server has not answered yet; serving without it");
    }

    let locals = TaskTracker::new();
    let closing = CancellationToken::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = ThrottledListener::new(listener, Arc::clone(&places))?;
        accepting.spawn(accept(listener, Arc::clone(&agent), locals.clone(), closing.clone()));
    }
    let serving = opening.serving()?;
    info!(server = %options.server, "serving");

    let mut link_is_up = agent.watch_link();
    supervisor.serving(&status(&options.server, *link_is_up.borrow_and_update()));
    let told = supervisor.alive_during(notify_link_changes(&supervisor, &options.server, link_is_up));
    tokio::select! {
        _ = signals.shutdown() => {}
        () = told => {}
    }
    supervisor.stopping();
    closing.cancel();
    while accepting.join_next().await.is_some() {}
    agent.drain();
    locals.close();
    tokio::select! {
        () = supervisor.alive_during(locals.wait()) => {}
        () = time_to_finish(options.daemon.shutdown_timeout) => warn!("connections were still busy and are closed"),
        _ = signals.shutdown() => {}
    }
    if timeout(BYE_TIMEOUT, agent.shut_down()).await.is_err() {
        warn!(server = %options.server, "no answer from the server to the shutdown of the agent");
    }
    link.abort();
    info!("ended");
    Ok(serving.finish()?)
}

async fn accept(
    listener: ThrottledListener,
    agent: Arc<AgentDriver>,
    locals: TaskTracker,
    closing: CancellationToken,
) {
    let serve = |socket, place| {
        locals.spawn(Arc::clone(&agent).serve_local(socket, place));
    };
    listener.serve_until(&closing, serve).await;
}

/// Notifies the service manager of each change of the link's state.
async fn notify_link_changes(
    supervisor: &ServiceManager,
    server: &Address,
    mut is_up: watch::Receiver<bool>,
) {
    while is_up.changed().await.is_ok() {
        supervisor.status(&status(server, *is_up.borrow_and_update()));
    }
    // The sender is dropped only at the end of the agent.
    pending::<()>().await;
}

fn status(server: &Address, link_is_up: bool) -> String {
    if link_is_up {
        format!("connected to {server}")
    } else {
        format!("no server at {server}; requests are answered DISCONNECTED")
    }
}

fn settings(options: &AgentOptions) -> AgentSettings {
    AgentSettings {
        multiplexer: MultiplexerSettings {
            timeout_ms: options.timeout.as_millis() as u64,
            idle_ms: options.idle.as_millis() as u64,
        },
        reconnect: ReconnectSettings::agent(
            options.retry.as_millis() as u64,
            matches!(options.server, Address::Unix(_)),
        ),
        connect_timeout: if options.timeout.is_zero() { CONNECT_TIMEOUT } else { options.timeout },
    }
}
