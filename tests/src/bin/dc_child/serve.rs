//! The serving child: it runs until a signal or its plan stops it.
//!
//! Every accepted connection is answered: accepting stops first, and the pending answers are awaited.

use crate::descriptors::ChildListener;
use crate::plan::{ChildPlan, ReadyPlan};
use crate::{LIFE_MAX, LOOK_EVERY, notify, output};
use std::fs;
use std::future::{pending, poll_fn};
use std::io;
use std::path::Path;
use std::process;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

/// The exit status of a child whose plan lets it die.
const DEAD: u8 = 3;

/// Serves connections. Returns the exit status.
///
/// # Errors
/// The errors of the sockets and of `sd_notify`.
pub(crate) fn serve(plan: &ChildPlan, listeners: Vec<ChildListener>, started: Instant) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = ChildSignals::new()?;
        let (stop, stopped) = watch::channel(false);
        let mut serving = JoinSet::new();
        for listener in listeners {
            let socket = ChildSocket::new(listener)?;
            serving.spawn(accept(socket, (!plan.mute).then_some(plan.answer_after), stopped.clone()));
        }
        tokio::select! {
            () = signals.end_signal(plan) => {}
            () = death(plan, started) => return Ok(DEAD),
            error = readiness(plan, started) => return Err(error),
            () = sleep(LIFE_MAX) => return Ok(DEAD),
        }
        stop.send_replace(true);
        while serving.join_next().await.is_some() {}
        if let Some(path) = &plan.linger_until {
            appearance(path).await;
        }
        Ok(0)
    })
}

/// A listening socket of either kind.
enum ChildSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ChildSocket {
    fn new(listener: ChildListener) -> io::Result<Self> {
        Ok(match listener {
            ChildListener::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ChildListener::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn ChildConnection>> {
        Ok(match self {
            Self::Tcp(socket) => Box::new(socket.accept().await?.0),
            Self::Unix(socket) => Box::new(socket.accept().await?.0),
        })
    }
}

/// A connection of either kind.
trait ChildConnection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ChildConnection for T {}

/// Accepts until `stopped` changes, and returns when every answer is sent. Without `answer_after` it accepts
/// nothing.
async fn accept(socket: ChildSocket, answer_after: Option<Duration>, mut stopped: watch::Receiver<bool>) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(_) = answering.join_next() => {}
            accepted = socket.accept(), if answer_after.is_some() => {
                // An error means that the client has gone away.
                if let (Ok(connection), Some(after)) = (accepted, answer_after) {
                    answering.spawn(answer(connection, after));
                }
            }
        }
    }
    drop(socket);
    while answering.join_next().await.is_some() {}
}

/// Answers one line.
///
/// # Errors
/// The client closed the connection.
async fn answer(connection: Box<dyn ChildConnection>, after: Duration) -> io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line).await?;
    sleep(after).await;
    connection.write_all(format!("child {}\n", process::id()).as_bytes()).await?;
    connection.shutdown().await
}

/// The signals that a child handles: the first four stop it. Each one is written to standard output.
struct ChildSignals([(&'static str, Signal); 6]);

impl ChildSignals {
    const ENDING: [&'static str; 4] = ["HUP", "TERM", "INT", "QUIT"];

    fn new() -> io::Result<Self> {
        Ok(Self([
            ("HUP", signal(SignalKind::hangup())?),
            ("TERM", signal(SignalKind::terminate())?),
            ("INT", signal(SignalKind::interrupt())?),
            ("QUIT", signal(SignalKind::quit())?),
            ("USR1", signal(SignalKind::user_defined1())?),
            ("USR2", signal(SignalKind::user_defined2())?),
        ]))
    }

    /// Returns on a signal that stops the child; never if the plan says `deaf`. With `chatter` no line is
    /// written, because standard output may block.
    async fn end_signal(&mut self, plan: &ChildPlan) {
        loop {
            let name = self.next().await;
            if !plan.chatter {
                output::line(&format!("signal {name}"));
            }
            if Self::ENDING.contains(&name) && !plan.deaf {
                return;
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Returns when the plan lets the child die.
async fn death(plan: &ChildPlan, started: Instant) {
    let in_time = async {
        match plan.die_after {
            Some(after) => sleep_until((started + after).into()).await,
            None => pending().await,
        }
    };
    let by_file = async {
        match &plan.die_when {
            Some(path) => appearance(path).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = in_time => {}
        () = by_file => {}
    }
}

/// Sends READY=1 as the plan says. Returns only if sending fails.
async fn readiness(plan: &ChildPlan, started: Instant) -> io::Error {
    match &plan.ready {
        Some(ReadyPlan::After(after)) => sleep_until((started + *after).into()).await,
        Some(ReadyPlan::When(path)) => appearance(path).await,
        Some(ReadyPlan::ByHelper) | None => return pending().await,
    }
    let status = plan.status.as_ref().map(|text| format!("\nSTATUS={text}"));
    if let Err(error) = notify::send(format!("READY=1{}", status.unwrap_or_default()).as_bytes()) {
        return error;
    }
    if plan.last_word {
        process::exit(i32::from(DEAD));
    }
    if let Some(path) = &plan.said
        && let Err(error) = fs::write(path, "")
    {
        return error;
    }
    pending().await
}

/// Returns when the file exists, or its directory no longer does.
async fn appearance(path: &Path) {
    while !path.exists() && path.parent().is_none_or(Path::exists) {
        sleep(LOOK_EVERY).await;
    }
}
