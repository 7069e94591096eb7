//! The driver of a server's connection: moves bytes between its socket and its [`ServerConnection`], in the
//! order of a turn that [`machine`](libdc::proto::machine) gives. It decides nothing.

use crate::drivers::buffers::ThreadBuffers;
use crate::drivers::registry::RegisteredConnection;
use crate::drivers::server::ServerDriver;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::proto::machine::MachineState;
use libdc::proto::server::{Notification, ServerCloseReason, ServerConnection, ServerContext};
use libdc::service::RequestCounters;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A turn of a connection. Ready with the reason once it has ended, or with the error of its socket.
pub(super) fn poll_turn(
    connection: &mut RegisteredConnection,
    server: &ServerDriver,
    timer: &mut Timer,
    task: &mut Context<'_>,
) -> Poll<io::Result<ServerCloseReason>> {
    ThreadBuffers::with(|buffers| {
        connection.mailbox.take(&mut buffers.notifications);
        let cx = ServerContext {
            now: server.clock.now(),
            service: &server.service,
            output: &mut buffers.output,
            effects: &mut buffers.effects,
            counters: &mut RequestCounters::default(),
        };
        let (machine, socket) = (&mut connection.machine, &mut connection.socket);
        let mut turn = Turn { machine, socket, server, cx, task };
        if let Err(error) = turn.run(&mut buffers.notifications, &mut buffers.input) {
            return Poll::Ready(Err(error));
        }
        match turn.machine.state() {
            MachineState::Closed(reason) => Poll::Ready(Ok(reason)),
            state => {
                let more = matches!(state, MachineState::Open { more: true, .. });
                if more || timer.poll(turn.task, &server.clock, turn.machine.deadline()) {
                    turn.task.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    })
}

struct Turn<'a, 'cx> {
    machine: &'a mut ServerConnection,
    socket: &'a mut Socket,
    server: &'a ServerDriver,
    cx: ServerContext<'a>,
    task: &'a mut Context<'cx>,
}

impl Turn<'_, '_> {
    fn run(&mut self, notifications: &mut Vec<Notification>, input: &mut [u8]) -> io::Result<()> {
        self.machine.begin_turn(&mut self.cx);
        self.write()?;
        for notification in notifications.drain(..) {
            self.machine.handle_mail(&mut self.cx, notification);
            self.write()?;
        }
        while self.wants_input() {
            match self.read(input)? {
                None => break,
                Some(count) => self.machine.handle_input(&mut self.cx, &input[..count]),
            }
            self.write()?;
        }
        let is_due = self.machine.deadline().is_some_and(|deadline| deadline <= self.cx.now);
        let has_more = matches!(self.machine.state(), MachineState::Open { more: true, .. });
        if is_due && !has_more {
            if self.wants_input() && self.socket.has_input() {
                // The kernel has input that the runtime is about to report.
                self.task.waker().wake_by_ref();
                return Ok(());
            }
            self.machine.handle_timeout(&mut self.cx);
            self.write()?;
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        matches!(self.machine.state(), MachineState::Open { wants_input: true, more: false })
    }

    /// Writes what there is, after the effects on other connections have been carried out.
    fn write(&mut self) -> io::Result<()> {
        loop {
            self.server.apply_effects(self.cx.effects, self.cx.counters);
            let output = self.machine.poll_output(&self.cx);
            if output.is_empty() {
                return Ok(());
            }
            match Pin::new(&mut *self.socket).poll_write(self.task, output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.machine.wrote(&mut self.cx, written?),
                Poll::Pending => {
                    self.machine.wrote(&mut self.cx, 0);
                    return Ok(());
                }
            }
        }
    }

    /// Reads once: how many bytes, 0 being the end of input. `None` if the socket would block.
    fn read(&mut self, input: &mut [u8]) -> io::Result<Option<usize>> {
        let mut buf = ReadBuf::new(input);
        match Pin::new(&mut *self.socket).poll_read(self.task, &mut buf) {
            Poll::Ready(result) => result.map(|()| Some(buf.filled().len())),
            Poll::Pending => Ok(None),
        }
    }
}
