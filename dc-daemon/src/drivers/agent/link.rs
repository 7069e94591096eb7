//! The task of the link: it moves bytes between its socket and the [`Multiplexer`], and delivers the answers.
//!
//! [`Multiplexer`]: libdc::proto::agent::multiplexer::Multiplexer

use super::core::AgentCore;
use crate::drivers::buffers::ThreadBuffers;
use libdc::net::clock::DriverClock;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::net::tls::error::TlsError;
use libdc::proto::agent::multiplexer::LinkCloseReason;
use libdc::proto::machine::MachineState;
use libdc::time::Time;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why the link could not be opened, or was lost.
#[derive(Debug, Error)]
pub(super) enum LinkFailure {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The machine closed the connection.
    #[error(transparent)]
    Closed(#[from] LinkCloseReason),
}

impl AgentCore {
    /// The turn of the link's task. Ready when the connection of the link ends.
    pub(super) fn poll_link(
        &mut self,
        cx: &mut Context<'_>,
        clock: &DriverClock,
        socket: &mut Socket,
        timer: &mut Timer,
    ) -> Poll<LinkFailure> {
        self.link_task = Some(cx.waker().clone());
        let (state, deadline) = match self.turn_link(cx, clock.now(), socket) {
            Ok(turn) => turn,
            Err(error) => return Poll::Ready(error.into()),
        };
        match state {
            MachineState::Closed(reason) => return Poll::Ready(reason.into()),
            MachineState::Open { more: true, .. } => cx.waker().wake_by_ref(),
            MachineState::Open { .. } | MachineState::Closing => {
                if timer.poll(cx, clock, deadline) {
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Pending
    }

    /// The connection of the link is gone.
    pub(super) fn close_link(&mut self, now: Time) {
        self.link_task = None;
        self.multiplexer.link_close(now);
        self.deliver(now);
    }

    /// A turn, in the order of [`machine`](libdc::proto::machine). Returns the state and the deadline after
    /// it.
    fn turn_link(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        socket: &mut Socket,
    ) -> io::Result<(MachineState<LinkCloseReason>, Option<Time>)> {
        self.multiplexer.link_begin_turn();
        self.write_link(cx, now, socket)?;
        while let MachineState::Open { wants_input: true, more } = self.multiplexer.link_state() {
            if more {
                return Ok((MachineState::Open { wants_input: true, more }, None));
            }
            let Poll::Ready(read) = self.poll_read_link(cx, now, socket) else { break };
            read?;
            self.write_link(cx, now, socket)?;
        }
        let mut deadline = self.multiplexer.link_deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.multiplexer.link_handle_timeout(now);
            self.write_link(cx, now, socket)?;
            deadline = self.multiplexer.link_deadline();
        }
        Ok((self.multiplexer.link_state(), deadline))
    }

    fn poll_read_link(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        socket: &mut Socket,
    ) -> Poll<io::Result<()>> {
        ThreadBuffers::with(|buffers| {
            let mut buf = ReadBuf::new(&mut buffers.input);
            ready!(Pin::new(socket).poll_read(cx, &mut buf))?;
            self.multiplexer.link_handle_input(now, buf.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Delivers answers and writes the output, until the socket would block. Each may cause the other: a
    /// delivered answer lets a stalled connection send more requests, and written output frees capacity of
    /// the link.
    fn write_link(&mut self, cx: &mut Context<'_>, now: Time, socket: &mut Socket) -> io::Result<()> {
        loop {
            self.deliver(now);
            let output = self.multiplexer.link_poll_output();
            if output.is_empty() {
                return Ok(());
            }
            match Pin::new(&mut *socket).poll_write(cx, output) {
                Poll::Ready(count) => self.multiplexer.link_wrote(now, count?),
                Poll::Pending => {
                    self.multiplexer.link_wrote(now, 0);
                    return Ok(());
                }
            }
        }
    }
}
