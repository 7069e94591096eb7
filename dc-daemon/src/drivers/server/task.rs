//! The task of a server's connection, from the TLS handshake to the end. Each poll is one turn of
//! `server_turn`.

use crate::drivers::buffers::ThreadBuffers;
use crate::drivers::registry::{ConnectionHandle, RegisteredConnection, Registry};
use crate::drivers::server::turn::poll_turn;
use crate::drivers::server::{PendingHandshake, ServerDriver};
use crate::listen::limiter::ConnectionPermit;
use libdc::id::ConnectionId;
use libdc::net::socket::Socket;
use libdc::net::timer::Timer;
use libdc::proto::server::{ServerCloseReason, ServerConnection, ServerContext};
use libdc::service::RequestCounters;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tracing::{debug, warn};

/// The task of a connection. However it ends, the effects on other connections are carried out.
pub(crate) struct ServerTask {
    server: Arc<ServerDriver>,
    id: ConnectionId,
    phase: TaskPhase,
    timer: Timer,
    _permit: ConnectionPermit,
}

enum TaskPhase {
    Accepted(Socket),
    Handshake(PendingHandshake),
    Serving(ConnectionHandle),
    Ended,
}

impl ServerTask {
    pub(crate) fn new(
        server: Arc<ServerDriver>,
        id: ConnectionId,
        socket: Socket,
        permit: ConnectionPermit,
    ) -> Self {
        Self { server, id, phase: TaskPhase::Accepted(socket), timer: Timer::default(), _permit: permit }
    }

    fn register(&self, socket: Socket) -> TaskPhase {
        let (server, id) = (&self.server, self.id);
        // Registered before the machine is created, which then sees a concurrent drain or finds it in the
        // mailbox.
        let mailbox = server.mailboxes.open(id);
        server.service.connection_opened();
        let machine = ServerConnection::new(server.clock.now(), id, &server.service, server.timeouts);
        let connection = RegisteredConnection { id, machine, socket, mailbox, waker: None };
        Registry::with(|registry| registry.insert(connection)).map_or(TaskPhase::Ended, TaskPhase::Serving)
    }

    /// Removes the connection, releases what it has, and logs its end.
    fn end(&mut self, end: Option<io::Result<ServerCloseReason>>) {
        let TaskPhase::Serving(handle) = std::mem::replace(&mut self.phase, TaskPhase::Ended) else { return };
        let Some(Some(mut connection)) = Registry::with(|registry| registry.remove(handle)) else { return };
        let server = &self.server;
        server.mailboxes.close(self.id);
        server.service.connection_closed();
        ThreadBuffers::with(|buffers| {
            let (output, effects) = (&mut buffers.output, &mut buffers.effects);
            let (service, mut counters) = (&*server.service, RequestCounters::default());
            let now = server.clock.now();
            let mut cx = ServerContext { now, service, output, effects, counters: &mut counters };
            connection.machine.close(&mut cx);
            server.apply_effects(effects, &mut counters);
        });
        if let Some(end) = end {
            log_end(self.id, &connection.socket, end);
        }
    }
}

impl Future for ServerTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.phase {
                TaskPhase::Accepted(_) => {
                    let TaskPhase::Accepted(socket) = std::mem::replace(&mut this.phase, TaskPhase::Ended)
                    else {
                        continue;
                    };
                    this.phase = match this.server.handshake(this.id, socket) {
                        Ok(socket) => this.register(socket),
                        Err(handshake) => TaskPhase::Handshake(handshake),
                    };
                }
                TaskPhase::Handshake(handshake) => {
                    let socket = ready!(handshake.as_mut().poll(task));
                    this.phase = socket.map_or(TaskPhase::Ended, |socket| this.register(socket));
                }
                TaskPhase::Serving(handle) => {
                    let (handle, server, timer) = (*handle, &*this.server, &mut this.timer);
                    let turn = Registry::with(|registry| {
                        let is_frozen = registry.is_frozen();
                        let connection = registry.find(handle)?;
                        connection.register_waker(task);
                        Some(if is_frozen {
                            Poll::Pending
                        } else {
                            poll_turn(connection, server, timer, task)
                        })
                    });
                    let Some(Some(polled)) = turn else { return Poll::Ready(()) };
                    let end = ready!(polled);
                    this.end(Some(end));
                }
                TaskPhase::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for ServerTask {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Logs how a connection ended. The peer is named for violations only, since looking it up costs a system
/// call.
fn log_end(id: ConnectionId, socket: &Socket, end: io::Result<ServerCloseReason>) {
    match end {
        Err(error) => debug!(connection = %id, %error, "lost"),
        Ok(ServerCloseReason::PeerClosed | ServerCloseReason::Drained) => debug!(connection = %id, "closed"),
        Ok(reason) if reason.is_graceful() => debug!(connection = %id, "closed: {reason}"),
        Ok(reason) => warn!(connection = %id, peer = socket.peer(), "closed: {reason}"),
    }
}
