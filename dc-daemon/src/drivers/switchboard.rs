//! The multiplexer with its sockets: what the tasks of the agent do when they are woken.
//!
//! Answers take the short way: the link's task writes them to the local sockets itself and wakes a local
//! task only when there is something left for it to do. What local connections ask is queued, and written
//! to the server with one call when the link's task has its turn, after all that were ready before it.

use crate::drivers::buffers::ThreadBuffers;
use libdc::limits::{DRAIN_GRACE_MS, READ_BUDGET_BYTES};
use libdc::net::socket::Socket;
use libdc::net::tls::error::TlsError;
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::Multiplexer;
use libdc::proto::link::{LinkError, LinkState};
use libdc::time::Time;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A multiplexer and the sockets of its local connections.
#[derive(Debug)]
pub(crate) struct Switchboard {
    pub(crate) multiplexer: Multiplexer,
    /// By [`LocalId::place`].
    locals: Vec<Option<LocalSocket>>,
    link: LinkTask,
    draining: bool,
    leaving: bool,
}

#[derive(Debug, Default)]
struct LinkTask {
    waker: Option<Waker>,
    /// It has been woken and had no turn since.
    called: bool,
}

#[derive(Debug)]
struct LocalSocket {
    id: LocalId,
    socket: Socket,
    task: Option<Waker>,
    /// The peer will ask nothing more.
    finished: bool,
    /// Nothing more can be read; what was answered before is still to be written.
    refused: Option<LocalCloseReason>,
    /// Found by the link's task, acted upon by the local one.
    broken: Option<io::Error>,
    /// Until when it may ask for the first time while the agent drains. `None` once it has asked.
    newcomer_until: Option<Time>,
}

/// Why a local connection ended before its peer closed it in good order.
#[derive(Debug, Error)]
pub(crate) enum LocalEnd {
    /// The system says it is broken.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// It was closed by us.
    #[error(transparent)]
    Fault(#[from] LocalCloseReason),
}

/// Why a link ended.
#[derive(Debug, Error)]
pub(crate) enum LinkEnd {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The system says it is broken.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// There can be no TLS with the server.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server can't be talked to.
    #[error(transparent)]
    Fault(#[from] LinkError),
    /// The agent ends, and the server knows it.
    #[error("the agent ends")]
    Left,
}

impl Switchboard {
    pub(crate) fn new(multiplexer: Multiplexer) -> Self {
        Self { multiplexer, locals: Vec::new(), link: LinkTask::default(), draining: false, leaving: false }
    }

    pub(crate) fn open_local(&mut self, now: Time, socket: Socket) -> LocalId {
        let id = self.multiplexer.open_local(now);
        if self.locals.len() <= id.slot() {
            self.locals.resize_with(id.slot() + 1, || None);
        }
        let local = LocalSocket {
            id,
            socket,
            task: None,
            finished: false,
            refused: None,
            broken: None,
            newcomer_until: Some(now.after_ms(DRAIN_GRACE_MS)),
        };
        self.locals[id.slot()] = Some(local);
        id
    }

    /// Who a local connection is, for the log.
    pub(crate) fn peer(&self, id: LocalId) -> String {
        let local = self.locals.get(id.slot()).and_then(Option::as_ref);
        local.map_or_else(String::new, |local| local.socket.peer())
    }

    pub(crate) fn close_local(&mut self, now: Time, id: LocalId) {
        self.multiplexer.close_local(now, id);
        self.wake_link();
        if let Some(local) = self.locals.get_mut(id.slot())
            && local.as_ref().is_some_and(|local| local.id == id)
        {
            *local = None;
        }
    }

    /// From now on a local connection ends as soon as nothing is under way on it.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        for local in self.locals.iter().flatten() {
            local.wake();
        }
    }

    /// When a connection that has asked nothing yet ends because the agent drains.
    pub(crate) fn drain_grace_deadline(&self, now: Time, id: LocalId) -> Option<Time> {
        let local = self.locals.get(id.slot()).and_then(Option::as_ref);
        local.filter(|local| self.draining && local.is_in_drain_grace(now))?.newcomer_until
    }

    /// The agent ends: no link is made any more. Returns whether there is one on which the server has to hear of it.
    pub(crate) fn send_bye(&mut self, now: Time) -> bool {
        self.leaving = true;
        let is_heard = self.multiplexer.send_bye(now);
        self.wake_link();
        is_heard
    }

    /// Whether no link is to be made any more.
    pub(crate) const fn is_shutting_down(&self) -> bool {
        self.leaving
    }

    /// The link is gone: tells everybody who waits for an answer.
    pub(crate) fn link_lost(&mut self, now: Time) {
        self.link = LinkTask::default();
        self.multiplexer.link_lost(now);
        self.deliver(now);
    }

    /// The turn of a local connection's task.
    pub(crate) fn poll_local(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        id: LocalId,
    ) -> Poll<Result<(), LocalEnd>> {
        let Some(local) = self.locals.get_mut(id.slot()).and_then(Option::as_mut) else {
            return Poll::Ready(Ok(()));
        };
        if !local.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            local.task = Some(cx.waker().clone());
        }
        let progress = local.poll_serve(cx, now, &mut self.multiplexer);
        let ends = local.finished || (self.draining && !local.is_in_drain_grace(now));
        self.wake_link();
        if let Poll::Ready(end) = progress {
            return Poll::Ready(end);
        }
        if ends && self.multiplexer.can_close_local(id) {
            return Poll::Ready(Ok(()));
        }
        let had_output = !self.multiplexer.local_output(id).is_empty();
        self.multiplexer.check_local(now, id)?;
        if !had_output && !self.multiplexer.local_output(id).is_empty() {
            // A last word, before the connection ends.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Has what there is written to the server.
    fn wake_link(&mut self) {
        if !self.multiplexer.link_output().is_empty() {
            self.link.call();
        }
    }

    /// The turn of the link's task. Ready when the link is of no more use.
    pub(crate) fn poll_link(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        socket: &mut Socket,
    ) -> Poll<LinkEnd> {
        if !self.link.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.link.waker = Some(cx.waker().clone());
        }
        self.link.called = false;
        let read = self.poll_link_read(cx, now, socket);
        // What came before the end is delivered all the same.
        self.deliver(now);
        if self.multiplexer.link_state() == LinkState::Left {
            return Poll::Ready(LinkEnd::Left);
        }
        if let Poll::Ready(end) = read {
            return Poll::Ready(end);
        }
        if let Err(fault) = self.multiplexer.handle_timeout(now) {
            return Poll::Ready(fault.into());
        }
        loop {
            // Delivering may let stalled connections ask more, and writing too.
            self.deliver(now);
            if self.multiplexer.link_output().is_empty() {
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut *socket).poll_write(cx, self.multiplexer.link_output())) {
                Ok(count) => self.multiplexer.link_written(now, count),
                Err(error) => return Poll::Ready(error.into()),
            }
        }
    }

    fn poll_link_read(&mut self, cx: &mut Context<'_>, now: Time, socket: &mut Socket) -> Poll<LinkEnd> {
        ThreadBuffers::with(|scratch| {
            loop {
                let mut buf = ReadBuf::new(&mut scratch.input);
                if let Err(error) = ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf)) {
                    return Poll::Ready(error.into());
                }
                let count = buf.filled().len();
                if count == 0 {
                    return Poll::Ready(LinkEnd::Closed);
                }
                if let Err(fault) = self.multiplexer.handle_link(now, &scratch.input[..count]) {
                    return Poll::Ready(fault.into());
                }
                if count == READ_BUDGET_BYTES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        })
    }

    /// Writes to every local connection what has come for it.
    fn deliver(&mut self, now: Time) {
        while let Some(id) = self.multiplexer.poll_ready() {
            let Some(local) = self.locals.get_mut(id.slot()).and_then(Option::as_mut) else {
                continue;
            };
            let was_stalled = self.multiplexer.is_local_stalled(id);
            let was_read = self.multiplexer.wants_input(id);
            let blocked = local.write_now(now, &mut self.multiplexer);
            let readable_again = (was_stalled && !self.multiplexer.is_local_stalled(id))
                || (!was_read && self.multiplexer.wants_input(id));
            let ends = local.finished
                || self.draining
                || local.broken.is_some()
                || local.refused.is_some()
                || self.multiplexer.is_local_ending(id);
            if blocked || readable_again || ends {
                local.wake();
            }
        }
    }
}

impl LinkTask {
    /// There is something to write to the server.
    fn call(&mut self) {
        if !self.called
            && let Some(waker) = &self.waker
        {
            self.called = true;
            waker.wake_by_ref();
        }
    }
}

impl LocalSocket {
    fn is_in_drain_grace(&self, now: Time) -> bool {
        self.newcomer_until.is_some_and(|until| now < until)
    }

    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Writes what the socket takes at once. Returns whether something is left.
    fn write_now(&mut self, now: Time, multiplexer: &mut Multiplexer) -> bool {
        loop {
            let output = multiplexer.local_output(self.id);
            let (count, blocked) = if output.is_empty() {
                (0, false)
            } else {
                match self.socket.try_write(output) {
                    Ok(count) => (count, count < output.len()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => (0, true),
                    Err(error) => {
                        self.broken = Some(error);
                        return false;
                    }
                }
            };
            self.note_written(now, multiplexer, count, blocked);
            if blocked || multiplexer.local_output(self.id).is_empty() {
                return blocked;
            }
        }
    }

    /// Writes and reads until the socket takes and gives no more. Ready at the end of the connection.
    fn poll_serve(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        multiplexer: &mut Multiplexer,
    ) -> Poll<Result<(), LocalEnd>> {
        loop {
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(error.into()));
            }
            let blocked = self.poll_write(cx, now, multiplexer)?;
            if let Some(fault) = self.refused
                && !blocked
            {
                return Poll::Ready(Err(fault.into()));
            }
            if self.finished || self.refused.is_some() || !multiplexer.wants_input(self.id) {
                return Poll::Pending;
            }
            let count = ready!(self.poll_read(cx, now, multiplexer))?;
            if count == 0 {
                self.finished = true;
                multiplexer.finish_local(now, self.id);
            }
            if count == READ_BUDGET_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        multiplexer: &mut Multiplexer,
    ) -> Poll<io::Result<usize>> {
        ThreadBuffers::with(|scratch| {
            let mut buf = ReadBuf::new(&mut scratch.input);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            let input = buf.filled();
            self.newcomer_until = None;
            self.refused = multiplexer.handle_local(now, self.id, input).err();
            Poll::Ready(Ok(input.len()))
        })
    }

    /// Writes what there is. Returns whether something is left.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        now: Time,
        multiplexer: &mut Multiplexer,
    ) -> io::Result<bool> {
        while !multiplexer.local_output(self.id).is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, multiplexer.local_output(self.id)) {
                Poll::Ready(count) => self.note_written(now, multiplexer, count?, false),
                Poll::Pending => {
                    self.note_written(now, multiplexer, 0, true);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn note_written(&mut self, now: Time, multiplexer: &mut Multiplexer, count: usize, blocked: bool) {
        if let Err(fault) = multiplexer.local_written(now, self.id, count, blocked) {
            self.refused.get_or_insert(fault);
        }
    }
}
