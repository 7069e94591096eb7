//! A server that cooperates with `dc_master`, systemd, einhorn or socketmaster: it can be replaced without
//! refusing or resetting a connection, and without losing an answer.
//!
//! ```text
//! cargo build -p dc-daemon --example good_child
//! dc_master -listen tcp://127.0.0.1:8080 -command target/debug/examples/good_child
//! curl http://127.0.0.1:8080/
//! ```
//!
//! - It takes its sockets from the service manager, and notifies it once it is ready.
//! - On `SIGHUP` or `SIGTERM` it stops accepting. New connections wait in the queue of the socket, which the
//!   next child process shares; the socket is closed here, and never shut down.
//! - It answers the accepted connections, and then exits with status 0.

use dc_daemon::activation::SocketActivation;
use dc_daemon::listen::Listener;
use dc_daemon::listen::accept::ThrottledListener;
use dc_daemon::listen::limiter::{ConnectionLimiter, ConnectionPermit};
use dc_daemon::notify::Notifier;
use libdc::net::runtime::runtime;
use libdc::net::socket::Socket;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The maximum time for a peer to read its answer and close.
const LINGER_MAX: Duration = Duration::from_secs(5);

// docs: begin
fn main() -> Result<(), Box<dyn Error>> {
    let supervisor = Notifier::from_environment()?;
    let listeners = SocketActivation::from_environment()?.listeners()?;
    if listeners.is_empty() {
        return Err("no sockets were passed: start this with dc_master or systemd-socket-activate".into());
    }
    Ok(runtime()?.block_on(serve(listeners, &supervisor))?)
}

async fn serve(listeners: Vec<Listener>, supervisor: &Notifier) -> io::Result<()> {
    let (mut hangup, mut terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let places = Arc::new(ConnectionLimiter::default());
    let connections = TaskTracker::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let listener = ThrottledListener::new(listener, Arc::clone(&places))?;
        accepting.spawn(accept(listener, connections.clone()));
    }
    supervisor.ready();

    tokio::select! {
        _ = hangup.recv() => {}
        _ = terminate.recv() => {}
    }
    supervisor.stopping();
    accepting.shutdown().await;
    connections.close();
    connections.wait().await;
    Ok(())
}
// docs: end

/// Can be cancelled at any time: a connection is in the queue of the socket, or has a task.
async fn accept(listener: ThrottledListener, connections: TaskTracker) {
    loop {
        let (socket, place) = listener.accept().await;
        connections.spawn(async move {
            if let Err(error) = answer(socket, place).await {
                eprintln!("a connection was lost: {error}");
            }
        });
    }
}

/// Answers every request with the id of this process.
async fn answer(mut socket: Socket, _place: ConnectionPermit) -> io::Result<()> {
    let line = format!("HTTP/1.0 200 OK\r\n\r\nanswered by process {}\n", std::process::id());
    socket.write_all(line.as_bytes()).await?;
    socket.shutdown().await?;
    // Closing with unread input would reset the connection and discard the answer.
    match timeout(LINGER_MAX, copy(&mut socket, &mut sink())).await {
        Ok(read) => read.map(drop),
        Err(_) => Ok(()),
    }
}
