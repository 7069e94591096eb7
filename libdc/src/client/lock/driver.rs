//! The task of a lock client: it moves bytes between its socket and its link, and connects when one is wanted.
//!
//! ```text
//!            wanted                       connected
//!   Idle ───────────────▶ Connecting ──────────────▶ Connected
//!     ▲                     ▲     │ failed               │ broken
//!     │ not wanted     over │     ▼                      │
//!     └────────────────── Pausing ◀──────────────────────┘
//! ```
//!
//! A connection that had lasted is made anew at once; other attempts are further and further apart, at random, so that
//! a fleet does not come back in step. Somebody who wants to be told rather than to wait ends a pause.
//!
//! Timers of the runtime stand still while the machine is suspended, so while something is held they are set for a
//! second at most.

use crate::client::lock::error::{LockError, LockLinkError};
use crate::client::lock::machine::LockMachine;
use crate::client::lock::options::LockOptions;
use crate::client::lock::shared::SharedState;
use crate::client::session::stream::ClientStream;
use crate::id::LinkId;
use crate::net::address::Address;
use crate::time::Time;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The first pause between two attempts to connect, in milliseconds; the next ones are twice as long.
const PAUSE_MS_MIN: u64 = 50;
/// A link that was up for as long is made anew without a pause, in milliseconds.
const LASTED_MS: u64 = 1_000;
/// The longest time until the clock is looked at while something is held, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// The longest time a timer is set for, in milliseconds.
const TIMER_MS_MAX: u64 = 24 * 3_600_000;
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

type Connecting = Pin<Box<dyn Future<Output = io::Result<ClientStream>> + Send>>;

/// The driver of a client.
pub(super) struct LockDriver {
    shared: Arc<SharedState>,
    address: Address,
    options: LockOptions,
    phase: DriverPhase,
    link_id: Option<LinkId>,
    pause_ms: u64,
    buffer: Box<[u8]>,
}

enum DriverPhase {
    Idle,
    Pausing { until: Time },
    Connecting(Connecting),
    Connected { stream: ClientStream, up_since: Option<Time> },
}

enum DriverStep {
    /// There may be more to do.
    Again,
    /// There is nothing to do before the task is woken.
    Wait,
    /// All is over.
    End,
}

impl LockDriver {
    pub(super) fn new(shared: Arc<SharedState>, address: Address, options: LockOptions) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        let pause_ms = PAUSE_MS_MIN;
        Self { shared, address, options, phase: DriverPhase::Idle, link_id: None, pause_ms, buffer }
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
            let step = self.step(cx, now, &mut state.link);
            let wake = state.deliver(now);
            let wait_ms = self.wait_ms(now, &state.link);
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
        wait_ms.min(if link.is_holding() { LOOK_MS } else { TIMER_MS_MAX })
    }

    fn step(&mut self, cx: &mut Context<'_>, now: Time, link: &mut LockMachine) -> DriverStep {
        if let Err(fault) = link.tick(now) {
            self.broken(now, link, fault);
            return DriverStep::Again;
        }
        if link.is_closed() {
            return DriverStep::End;
        }
        match &mut self.phase {
            DriverPhase::Idle if link.wants_connection() => self.connect(),
            DriverPhase::Pausing { until } if *until <= now || link.fails_fast() => {
                self.phase = DriverPhase::Idle;
                DriverStep::Again
            }
            DriverPhase::Idle | DriverPhase::Pausing { .. } => DriverStep::Wait,
            DriverPhase::Connecting(connecting) => match connecting.as_mut().poll(cx) {
                Poll::Pending => DriverStep::Wait,
                Poll::Ready(connected) => {
                    let connected = connected.and_then(|stream| self.send_hello(now, link, stream));
                    if let Err(source) = connected {
                        let address = self.address.clone();
                        link.disconnected(now, &LockError::Connect { address, source: Arc::new(source) });
                        self.pause(now);
                    }
                    DriverStep::Again
                }
            },
            DriverPhase::Connected { .. } => match self.serve(cx, now, link) {
                Ok(step) => step,
                Err(fault) => {
                    self.broken(now, link, fault);
                    DriverStep::Again
                }
            },
        }
    }

    fn connect(&mut self) -> DriverStep {
        let (address, within) = (self.address.clone(), self.options.timeout);
        self.phase =
            DriverPhase::Connecting(Box::pin(async move { ClientStream::connect(&address, within).await }));
        DriverStep::Again
    }

    fn send_hello(&mut self, now: Time, link: &mut LockMachine, stream: ClientStream) -> io::Result<()> {
        let mut random = [0; 32];
        let link_id = match self.link_id {
            Some(link_id) => link_id,
            None => {
                let mut bytes = [0; LinkId::BYTES];
                getrandom::fill(&mut bytes).map_err(io::Error::other)?;
                *self.link_id.insert(LinkId::new(bytes))
            }
        };
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        link.connected(now, link_id, &random);
        self.phase = DriverPhase::Connected { stream, up_since: None };
        Ok(())
    }

    fn serve(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        link: &mut LockMachine,
    ) -> Result<DriverStep, LockLinkError> {
        let DriverPhase::Connected { stream, up_since } = &mut self.phase else {
            return Ok(DriverStep::Again);
        };
        let io = |error: io::Error| LockLinkError::Io(error.kind());
        while !link.outbox().is_empty() {
            match stream.poll_send(cx, link.outbox().pending()).map_err(io)? {
                Poll::Ready(0) => return Err(LockLinkError::Closed),
                Poll::Ready(written) => link.outbox().advance(written),
                Poll::Pending => break,
            }
        }
        // That it is not done yet is nothing to wait for: the next turn goes on.
        let _flushed = stream.poll_flush(cx).map_err(io)?;
        let Poll::Ready(read) = stream.poll_receive(cx, &mut self.buffer).map_err(io)? else {
            return Ok(DriverStep::Wait);
        };
        if read == 0 {
            return Err(link.closed());
        }
        link.receive(now, &self.buffer[..read])?;
        if link.is_up() {
            up_since.get_or_insert(now);
        }
        Ok(DriverStep::Again)
    }

    fn broken(&mut self, now: Time, link: &mut LockMachine, fault: LockLinkError) {
        let up_since = match &self.phase {
            DriverPhase::Connected { up_since, .. } => *up_since,
            _ => None,
        };
        link.disconnected(now, &LockError::from_fault(fault));
        if up_since.is_some_and(|since| now.ms_since(since) >= LASTED_MS) || fault == LockLinkError::GoAway {
            self.pause_ms = PAUSE_MS_MIN;
            self.phase = DriverPhase::Idle;
        } else {
            self.pause(now);
        }
    }

    fn pause(&mut self, now: Time) {
        let mut random = [0; 1];
        // Without randomness the pauses are merely in step.
        let quarter = getrandom::fill(&mut random).map_or(0, |()| u64::from(random[0]));
        let pause_ms = self.pause_ms - self.pause_ms / 4 * quarter / 255;
        self.phase = DriverPhase::Pausing { until: now.after_ms(pause_ms) };
        let most_ms = u64::try_from(self.options.retry.as_millis()).unwrap_or(u64::MAX);
        self.pause_ms = (self.pause_ms * 2).min(most_ms.max(PAUSE_MS_MIN));
    }
}

impl fmt::Debug for LockDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Whoever still waits is told that nobody serves the client any more: it was closed, or its runtime has ended.
impl Drop for LockDriver {
    fn drop(&mut self) {
        let ended = self.shared.change(|state, now| {
            state.link.close(now);
            state.link.disconnected(now, &LockError::Closed);
        });
        // A forked child has nothing to end.
        if ended.is_ok() {
            self.shared.shut_down();
        }
    }
}
