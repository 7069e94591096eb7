//! The task of a lock client: it moves bytes between its socket and its machine, and connects when the
//! machine needs a connection.
//!
//! ```text
//!            needed                       connected
//!   Idle ───────────────▶ Connecting ──────────────▶ Connected
//!     ▲                                │ failed          │ lost
//!     │ time of the next attempt       ▼                 │
//!     └───────────────────────────── Pausing ◀───────────┘
//! ```
//!
//! The [`ReconnectPolicy`] decides the time of the next attempt. A call that must fail rather than wait ends
//! a pause.
//!
//! Timers of the runtime stop while the system is suspended. While a lock is held they are therefore set for
//! at most a second.

use crate::client::lock::error::{LockError, LockLinkError};
use crate::client::lock::machine::LockMachine;
use crate::client::lock::options::LockOptions;
use crate::client::lock::shared::SharedState;
use crate::client::session::stream::ClientStream;
use crate::id::LinkId;
use crate::net::address::Address;
use crate::proto::link::LinkError;
use crate::proto::machine::MachineState;
use crate::proto::reconnect::{LinkLoss, ReconnectPolicy, ReconnectSettings};
use crate::time::Time;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The first pause after a failed attempt or a brief link, in milliseconds. Pauses double up to the limit in
/// [`LockOptions::retry`].
const PAUSE_MS_MIN: u64 = 50;
/// A link that was up for this long is lasting, in milliseconds.
const LASTING_MS: u64 = 1_000;
/// Longest wait of the timer while a lock is held, in milliseconds.
const HELD_TIMER_MS_MAX: u64 = 1_000;
/// Longest wait of the timer, in milliseconds.
const TIMER_MS_MAX: u64 = 24 * 3_600_000;
/// Maximum size of one read, in bytes.
const READ_BYTES: usize = 16 << 10;

type Connecting = Pin<Box<dyn Future<Output = io::Result<ClientStream>> + Send>>;

/// The driver of a client.
pub(super) struct LockDriver {
    shared: Arc<SharedState>,
    address: Address,
    options: LockOptions,
    phase: DriverPhase,
    link_id: Option<LinkId>,
    reconnect: ReconnectPolicy,
    buffer: Box<[u8]>,
}

enum DriverPhase {
    Idle,
    Pausing { until: Time },
    Connecting(Connecting),
    Connected { stream: ClientStream, is_up: bool },
}

enum DriverStep {
    /// There may be more to do.
    Again,
    /// There is nothing to do until the task wakes.
    Wait,
    /// The client has ended.
    End,
}

impl LockDriver {
    pub(super) fn new(shared: Arc<SharedState>, address: Address, options: LockOptions) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        let reconnect = ReconnectPolicy::new(ReconnectSettings {
            retry_ms: u64::try_from(options.retry.as_millis()).unwrap_or(u64::MAX).max(PAUSE_MS_MIN),
            failed_ms_min: PAUSE_MS_MIN,
            brief_ms_min: PAUSE_MS_MIN,
            lasting_ms: LASTING_MS,
            at_once: matches!(address, Address::Unix(_)),
        });
        Self { shared, address, options, phase: DriverPhase::Idle, link_id: None, reconnect, buffer }
    }

    /// Serves the client until it is closed.
    pub(super) async fn run(mut self) {
        let mut timer = Box::pin(sleep(Duration::ZERO));
        poll_fn(|cx| self.poll(cx, timer.as_mut())).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        loop {
            let now = shared.clock.now();
            let mut state = shared.lock();
            state.driver = Some(cx.waker().clone());
            let step = self.step(cx, now, &mut state.machine);
            let wake = state.deliver(now);
            let wait_ms = self.wait_ms(now, &state.machine);
            drop(state);
            wake.into_iter().for_each(std::task::Waker::wake);
            match step {
                DriverStep::Again => {}
                DriverStep::End => return Poll::Ready(()),
                DriverStep::Wait => {
                    timer.as_mut().reset(Instant::now() + Duration::from_millis(wait_ms));
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }

    fn wait_ms(&self, now: Time, link: &LockMachine) -> u64 {
        let pause = if let DriverPhase::Pausing { until } = self.phase { Some(until) } else { None };
        let deadline = [link.deadline(), pause].into_iter().flatten().min();
        let wait_ms = deadline.map_or(TIMER_MS_MAX, |deadline| deadline.ms_since(now));
        wait_ms.min(if link.is_holding() { HELD_TIMER_MS_MAX } else { TIMER_MS_MAX })
    }

    fn step(&mut self, cx: &mut Context<'_>, now: Time, machine: &mut LockMachine) -> DriverStep {
        if !matches!(self.phase, DriverPhase::Connected { .. }) {
            machine.handle_timeout(now);
        }
        if machine.is_closed() {
            return DriverStep::End;
        }
        match &mut self.phase {
            DriverPhase::Idle if machine.wants_connection() => self.connect(),
            DriverPhase::Pausing { until } if *until <= now || machine.fails_fast() => {
                self.phase = DriverPhase::Idle;
                DriverStep::Again
            }
            DriverPhase::Idle | DriverPhase::Pausing { .. } => DriverStep::Wait,
            DriverPhase::Connecting(connecting) => match connecting.as_mut().poll(cx) {
                Poll::Pending => DriverStep::Wait,
                Poll::Ready(connected) => {
                    let connected = connected.and_then(|stream| self.connected(now, machine, stream));
                    if let Err(source) = connected {
                        let address = self.address.clone();
                        machine.close(now, &LockError::Connect { address, source: Arc::new(source) });
                        self.reconnect.set_held_grace_ms(machine.held_grace_ms());
                        let next = self.reconnect.attempt_failed(now, random());
                        self.pause(next);
                    }
                    DriverStep::Again
                }
            },
            DriverPhase::Connected { stream, is_up } => {
                let end = turn(cx, now, machine, stream, &mut self.buffer);
                if machine.is_up() && !std::mem::replace(is_up, true) {
                    self.reconnect.link_up(now);
                }
                match end.map(|()| machine.state()) {
                    Err(error) => self.lost(now, machine, LockLinkError::Io(error.kind())),
                    Ok(MachineState::Closed(reason)) => self.lost(now, machine, reason),
                    Ok(MachineState::Open { more: true, .. }) => {
                        cx.waker().wake_by_ref();
                        DriverStep::Wait
                    }
                    Ok(_) if machine.is_closed() => DriverStep::End,
                    Ok(_) => DriverStep::Wait,
                }
            }
        }
    }

    fn connect(&mut self) -> DriverStep {
        let (address, within) = (self.address.clone(), self.options.timeout);
        self.phase =
            DriverPhase::Connecting(Box::pin(async move { ClientStream::connect(&address, within).await }));
        DriverStep::Again
    }

    fn connected(&mut self, now: Time, machine: &mut LockMachine, stream: ClientStream) -> io::Result<()> {
        let mut probe_id = [0; 32];
        let link_id = match self.link_id {
            Some(link_id) => link_id,
            None => {
                let mut bytes = [0; LinkId::BYTES];
                getrandom::fill(&mut bytes).map_err(io::Error::other)?;
                *self.link_id.insert(LinkId::new(bytes))
            }
        };
        getrandom::fill(&mut probe_id).map_err(io::Error::other)?;
        machine.connected(now, link_id, &probe_id);
        self.phase = DriverPhase::Connected { stream, is_up: false };
        Ok(())
    }

    fn lost(&mut self, now: Time, machine: &mut LockMachine, reason: LockLinkError) -> DriverStep {
        machine.close(now, &LockError::from_fault(reason));
        self.reconnect.set_held_grace_ms(machine.held_grace_ms());
        let is_goaway = reason == LockLinkError::Link(LinkError::GoAway);
        let loss = if is_goaway { LinkLoss::GoAway } else { LinkLoss::Lost };
        let next = self.reconnect.link_lost(now, loss, random());
        self.pause(next);
        DriverStep::Again
    }

    fn pause(&mut self, next_attempt: Option<Time>) {
        self.phase = next_attempt.map_or(DriverPhase::Idle, |until| DriverPhase::Pausing { until });
    }
}

/// A turn of the connection, in the order of [`machine`](crate::proto::machine).
fn turn(
    cx: &mut Context<'_>,
    now: Time,
    machine: &mut LockMachine,
    stream: &mut ClientStream,
    buffer: &mut [u8],
) -> io::Result<()> {
    machine.begin_turn();
    write(cx, now, machine, stream)?;
    while let MachineState::Open { wants_input: true, more } = machine.state() {
        if more {
            return Ok(());
        }
        let Poll::Ready(count) = stream.poll_receive(cx, buffer)? else { break };
        machine.handle_input(now, &buffer[..count]);
        if !matches!(machine.state(), MachineState::Closed(_)) {
            write(cx, now, machine, stream)?;
        }
    }
    if let MachineState::Closed(_) = machine.state() {
        return Ok(());
    }
    machine.handle_timeout(now);
    write(cx, now, machine, stream)
}

fn write(
    cx: &mut Context<'_>,
    now: Time,
    machine: &mut LockMachine,
    stream: &mut ClientStream,
) -> io::Result<()> {
    while !machine.poll_output().is_empty() {
        match stream.poll_send(cx, machine.poll_output())? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(count) => machine.wrote(now, count),
            Poll::Pending => break,
        }
    }
    // A flush that is pending is continued by the next turn.
    let _flushed = stream.poll_flush(cx)?;
    Ok(())
}

/// A random number. Without a source of random numbers the clients of a server reconnect in step.
fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_or(u64::MAX / 2, |()| u64::from_ne_bytes(bytes))
}

impl fmt::Debug for LockDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Pending calls fail: the client was closed, or its runtime has ended.
impl Drop for LockDriver {
    fn drop(&mut self) {
        let ended = self.shared.change(|state, now| {
            state.machine.shut_down(now);
            state.machine.close(now, &LockError::Closed);
        });
        // A forked child has nothing to end.
        if ended.is_ok() {
            self.shared.shut_down();
        }
    }
}
