//! The task of a local connection: it moves bytes between its socket and the [`Multiplexer`].

use super::AgentDriver;
use super::core::{AgentCore, LocalSocket};
use crate::drivers::buffers::ThreadBuffers;
use crate::listen::limiter::ConnectionPermit;
use libdc::id::ConnectionId;
use libdc::net::clock::DriverClock;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::Multiplexer;
use libdc::proto::machine::MachineState;
use libdc::time::Time;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::{debug, warn};

impl AgentDriver {
    /// Serves a local connection until it ends.
    pub async fn serve_local(self: Arc<Self>, socket: Socket, permit: ConnectionPermit) {
        let number = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        debug!(connection = %number, "connected");
        let id = self.lock().open_local(self.clock.now(), socket);
        let connection = OpenLocal { agent: &self, id };
        let mut timer = Timer::default();
        let end = poll_fn(|cx| self.lock().poll_local(cx, &self.clock, id, &mut timer)).await;
        self.log_end(number, id, &end);
        drop((connection, permit));
    }

    fn log_end(&self, connection: ConnectionId, id: LocalId, end: &io::Result<LocalCloseReason>) {
        match end {
            Ok(LocalCloseReason::Idle) => debug!(%connection, "closed: idle"),
            // The peer's name costs a system call, so it is looked up for violations only.
            Ok(reason) if reason.is_violation() => {
                warn!(%connection, peer = self.lock().peer(id), "closed: {reason}");
            }
            Ok(_) => debug!(%connection, "closed"),
            Err(error) => debug!(%connection, %error, "lost"),
        }
    }
}

/// A local connection that is open; closed when dropped, also when its task is cancelled.
struct OpenLocal<'a> {
    agent: &'a AgentDriver,
    id: LocalId,
}

impl Drop for OpenLocal<'_> {
    fn drop(&mut self) {
        self.agent.lock().close_local(self.agent.clock.now(), self.id);
    }
}

impl AgentCore {
    /// The turn of a local connection's task. Ready when the connection ends.
    pub(super) fn poll_local(
        &mut self,
        cx: &mut Context<'_>,
        clock: &DriverClock,
        id: LocalId,
        timer: &mut Timer,
    ) -> Poll<io::Result<LocalCloseReason>> {
        let Some(local) = self.sockets.get_mut(id.slot()).and_then(Option::as_mut) else {
            return Poll::Ready(Ok(LocalCloseReason::PeerFinished));
        };
        if !local.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            local.task = Some(cx.waker().clone());
        }
        let turn = local.turn(cx, clock.now(), &mut self.multiplexer);
        self.wake_link();
        let (state, deadline) = turn?;
        match state {
            MachineState::Closed(reason) => return Poll::Ready(Ok(reason)),
            MachineState::Open { more: true, .. } => cx.waker().wake_by_ref(),
            MachineState::Open { .. } | MachineState::Closing => {
                if timer.poll(cx, clock, deadline) {
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Pending
    }
}

impl LocalSocket {
    /// A turn, in the order of [`machine`](libdc::proto::machine). Returns the state and the deadline after
    /// it.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        multiplexer: &mut Multiplexer,
    ) -> io::Result<(MachineState<LocalCloseReason>, Option<Time>)> {
        multiplexer.local_begin_turn(now, self.id);
        self.write(cx, now, multiplexer)?;
        while let MachineState::Open { wants_input: true, more } = multiplexer.local_state(self.id) {
            if more {
                return Ok((MachineState::Open { wants_input: true, more }, None));
            }
            let Poll::Ready(read) = self.poll_read(cx, now, multiplexer) else { break };
            read?;
            self.write(cx, now, multiplexer)?;
        }
        let mut deadline = multiplexer.local_deadline(self.id);
        if deadline.is_some_and(|deadline| deadline <= now) {
            multiplexer.local_handle_timeout(now, self.id);
            self.write(cx, now, multiplexer)?;
            deadline = multiplexer.local_deadline(self.id);
        }
        Ok((multiplexer.local_state(self.id), deadline))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        multiplexer: &mut Multiplexer,
    ) -> Poll<io::Result<()>> {
        ThreadBuffers::with(|buffers| {
            let mut buf = ReadBuf::new(&mut buffers.input);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            multiplexer.local_handle_input(now, self.id, buf.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Writes the output until the socket would block.
    fn write(&mut self, cx: &mut Context<'_>, now: Time, multiplexer: &mut Multiplexer) -> io::Result<()> {
        loop {
            let output = multiplexer.local_poll_output(now, self.id);
            if output.is_empty() {
                return Ok(());
            }
            match Pin::new(&mut self.socket).poll_write(cx, output) {
                Poll::Ready(count) => multiplexer.local_wrote(now, self.id, count?),
                Poll::Pending => {
                    multiplexer.local_wrote(now, self.id, 0);
                    return Ok(());
                }
            }
        }
    }
}
