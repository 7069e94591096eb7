//! The tasks of the local connections: they move bytes between sockets and the [`Multiplexer`].
//!
//! Answers take a short way: the link's task writes them to the local sockets and wakes the task of a connection only
//! if something is left for it. Requests are queued, and written to the server with one call when the link's task has
//! its turn, after all tasks that were ready before it.

use crate::net::buffers::ThreadBuffers;
use crate::net::clock::DriverClock;
use crate::net::socket::Socket;
use crate::net::timer::Timer;
use crate::proto::agent::local::{LocalCloseReason, LocalId};
use crate::proto::agent::multiplexer::Multiplexer;
use crate::proto::machine::MachineState;
use crate::proto::reconnect::ReconnectPolicy;
use crate::time::Time;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The multiplexer with the sockets of its local connections, and the wakers of all tasks.
#[derive(Debug)]
pub(super) struct AgentCore {
    pub(super) multiplexer: Multiplexer,
    pub(super) reconnect: ReconnectPolicy,
    /// By [`LocalId::slot`].
    sockets: Vec<Option<LocalSocket>>,
    /// Taken to wake the task, which sets it again in its turn.
    pub(super) link_task: Option<Waker>,
}

#[derive(Debug)]
struct LocalSocket {
    id: LocalId,
    socket: Socket,
    task: Option<Waker>,
}

impl AgentCore {
    pub(super) const fn new(multiplexer: Multiplexer, reconnect: ReconnectPolicy) -> Self {
        Self { multiplexer, reconnect, sockets: Vec::new(), link_task: None }
    }

    pub(super) fn open_local(&mut self, now: Time, socket: Socket) -> LocalId {
        let id = self.multiplexer.local_open(now);
        if self.sockets.len() <= id.slot() {
            self.sockets.resize_with(id.slot() + 1, || None);
        }
        self.sockets[id.slot()] = Some(LocalSocket { id, socket, task: None });
        id
    }

    pub(super) fn close_local(&mut self, now: Time, id: LocalId) {
        self.multiplexer.local_close(now, id);
        self.wake_link();
        if let Some(slot) = self.sockets.get_mut(id.slot()) {
            slot.take_if(|local| local.id == id);
        }
    }

    /// The peer of a local connection, for the log.
    pub(super) fn peer(&self, id: LocalId) -> String {
        let local = self.sockets.get(id.slot()).and_then(Option::as_ref);
        local.map_or_else(String::new, |local| local.socket.peer())
    }

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

    /// Writes to each local connection what there is for it.
    pub(super) fn deliver(&mut self, now: Time) {
        while let Some(id) = self.multiplexer.poll_ready() {
            let Some(local) = self.sockets.get(id.slot()).and_then(Option::as_ref) else {
                continue;
            };
            local.write_now(now, &mut self.multiplexer);
            if self.multiplexer.local_needs_turn(id)
                && let Some(task) = &local.task
            {
                task.wake_by_ref();
            }
        }
    }

    /// Wakes the link's task if there is something to write to the server.
    pub(super) fn wake_link(&mut self) {
        if !self.multiplexer.link_poll_output().is_empty()
            && let Some(task) = self.link_task.take()
        {
            task.wake();
        }
    }
}

impl LocalSocket {
    /// A turn, in the order of [`machine`](crate::proto::machine). Returns the state and the deadline after it.
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

    /// Writes what the socket takes at once. The connection's own task finds an error again, and acts upon it.
    fn write_now(&self, now: Time, multiplexer: &mut Multiplexer) {
        loop {
            let output = multiplexer.local_poll_output(now, self.id);
            if output.is_empty() {
                return;
            }
            let offered = output.len();
            let count = self.socket.try_write(output).unwrap_or(0);
            multiplexer.local_wrote(now, self.id, count);
            if count < offered {
                return;
            }
        }
    }
}
