//! State shared by all tasks of the agent: the [`Multiplexer`], the local sockets and the wakers.
//!
//! Answers take a shortcut: the link's task writes them to the local sockets, and wakes a connection's task
//! only if there is work left for it. Requests are queued and written to the server with one call in the next
//! turn of the link's task, after all tasks that were ready before it.

use libdc::net::socket::Socket;
use libdc::proto::agent::local::LocalId;
use libdc::proto::agent::multiplexer::Multiplexer;
use libdc::proto::reconnect::ReconnectPolicy;
use libdc::time::Time;
use std::task::Waker;

/// The multiplexer with the sockets of its local connections, and the wakers of all tasks.
#[derive(Debug)]
pub(super) struct AgentCore {
    pub(super) multiplexer: Multiplexer,
    pub(super) reconnect: ReconnectPolicy,
    /// By [`LocalId::slot`].
    pub(super) sockets: Vec<Option<LocalSocket>>,
    /// Taken to wake the task, which sets it again in its turn.
    pub(super) link_task: Option<Waker>,
}

/// The socket of a local connection.
#[derive(Debug)]
pub(super) struct LocalSocket {
    pub(super) id: LocalId,
    pub(super) socket: Socket,
    pub(super) task: Option<Waker>,
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

    /// Writes the pending output of each local connection.
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
    /// Writes as much as the socket accepts. An error is left to the connection's own task, which meets it
    /// again.
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
