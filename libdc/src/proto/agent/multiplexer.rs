//! The agent's multiplexer: many local connections, one link to the server.
//!
//! ```text
//!   local_handle_input ─▶ LocalConnection ─▶ request ─┬─ link up: PendingTable, new uid ─▶ link_poll_output
//!                                                     └─ link down: DISCONNECTED ─┐
//!   local_poll_output ◀─ outbox, uid of the request ◀─ PendingTable ◀─ answer ◀─ link_handle_input
//! ```
//!
//! Requests are sent on only while the link is up; otherwise they are answered at once. [`LinkState`] shows
//! how the link comes up.
//!
//! An application may use frames or the line protocol. To the server it is an owner of locks with a number
//! that is never reused; the server is notified when its connection closes. Its locks are recorded here, and
//! claimed when a broken link is resumed.
//!
//! Local connections and the link have the methods of [`machine`](crate::proto::machine), here with the
//! prefixes `local_` and `link_`. Answers take a shortcut: after
//! [`link_handle_input`](Multiplexer::link_handle_input) the driver writes the output of each connection that
//! [`poll_ready`](Multiplexer::poll_ready) names, and wakes the connection's task only if
//! [`local_needs_turn`](Multiplexer::local_needs_turn).
//!
//! Everything is bounded: requests in flight, per connection and in total, unread answers, bytes not yet
//! written to the server. A connection at a bound is not read until there is capacity again.

use crate::id::LinkId;
use crate::limits::READ_BUDGET_BYTES;
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalContext, LocalId};
use crate::proto::agent::local_table::LocalTable;
use crate::proto::agent::origin::{AgentLink, AgentOrigin, PendingLockRequest};
use crate::proto::handshake::LinkIdentity;
use crate::proto::link::state::LinkSettings;
use crate::proto::link::{Link, LinkError, LinkState};
use crate::proto::machine::MachineState;
use crate::time::Time;
use crate::wire::frame::{MessageHead, Operation};
use crate::wire::lock::{LockAnswer, LockStatus};
use crate::wire::message::MessageRef;
use std::collections::VecDeque;
use thiserror::Error;

/// Options of the multiplexer. Times are in milliseconds; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiplexerSettings {
    /// A request without an answer for this long is answered DISCONNECTED.
    pub timeout_ms: u64,
    /// A local connection without a request for this long is closed.
    pub idle_ms: u64,
}

/// Why the connection of the link is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LinkCloseReason {
    /// The server closed it.
    #[error("the server closed the connection")]
    PeerClosed,
    /// The link cannot be used, or has to be made again.
    #[error(transparent)]
    Error(#[from] LinkError),
    /// The agent ends, and the server has answered BYE.
    #[error("the agent ends")]
    Left,
}

/// The agent's state: its local connections, the link, and the requests in flight between them.
#[derive(Debug)]
pub struct Multiplexer {
    settings: MultiplexerSettings,
    locals: LocalTable,
    link: AgentLink,
    link_id: LinkId,
    /// Bytes read from the link in this turn.
    link_turn_bytes: usize,
    link_closed: Option<LinkCloseReason>,
    /// That of the last link with locks.
    last_grace_ms: Option<u32>,
    /// Connections that wait for capacity of the link.
    waiting_for_link: VecDeque<LocalId>,
    draining_since: Option<Time>,
}

impl Multiplexer {
    /// A multiplexer without connections.
    #[must_use]
    pub fn new(settings: MultiplexerSettings, identity: LinkIdentity) -> Self {
        let LinkIdentity { link_id, auth_token } = identity;
        let link = LinkSettings { timeout_ms: settings.timeout_ms, auth_token, needs_locks: false };
        Self {
            settings,
            locals: LocalTable::default(),
            link: Link::new(link, HeldLocks::default()),
            link_id,
            link_turn_bytes: 0,
            link_closed: None,
            last_grace_ms: None,
            waiting_for_link: VecDeque::new(),
            draining_since: None,
        }
    }

    /// Starts draining: a local connection closes as soon as it has no request in flight. A connection
    /// without a request so far has [`DRAIN_GRACE_MS`](crate::limits::DRAIN_GRACE_MS) since it was accepted.
    /// All connections are [ready](Self::poll_ready), and need a turn.
    pub fn drain(&mut self, now: Time) {
        self.draining_since.get_or_insert(now);
        self.locals.mark_all_ready();
    }

    // ---- local connections

    /// An application has connected.
    pub fn local_open(&mut self, now: Time) -> LocalId {
        self.locals.open(LocalConnection::new(now, self.link.new_owner()))
    }

    /// A turn of a local connection begins.
    pub fn local_begin_turn(&mut self, now: Time, id: LocalId) {
        if let Some(local) = self.locals.at_mut(id) {
            local.begin_turn(now);
        }
    }

    /// The bytes to write next to a local connection. Requests that waited for capacity are taken first.
    pub fn local_poll_output(&mut self, now: Time, id: LocalId) -> &[u8] {
        self.local(now, id).map_or(&[], |(local, mut cx)| local.poll_output(&mut cx))
    }

    /// A local connection took `count` bytes of its output; fewer than offered start the write timeout.
    pub fn local_wrote(&mut self, now: Time, id: LocalId, count: usize) {
        if let Some(local) = self.locals.at_mut(id) {
            local.wrote(now, count);
        }
    }

    /// Bytes were read from a local connection; an empty slice is the end of input.
    pub fn local_handle_input(&mut self, now: Time, id: LocalId, bytes: &[u8]) {
        if let Some((local, mut cx)) = self.local(now, id) {
            local.handle_input(&mut cx, bytes);
        }
    }

    /// When [`local_handle_timeout`](Self::local_handle_timeout) must be called.
    #[must_use]
    pub fn local_deadline(&self, id: LocalId) -> Option<Time> {
        let local = self.locals.at(id)?;
        local.deadline(&self.settings, self.draining_since, &self.link.held)
    }

    /// Does what is due on a local connection.
    pub fn local_handle_timeout(&mut self, now: Time, id: LocalId) {
        if let Some((local, cx)) = self.local(now, id) {
            local.handle_timeout(&cx);
        }
    }

    /// Whether to read a local connection, to call it again soon, or to end it.
    #[must_use]
    pub fn local_state(&self, id: LocalId) -> MachineState<LocalCloseReason> {
        let gone = MachineState::Closed(LocalCloseReason::PeerFinished);
        self.locals.at(id).map_or(gone, LocalConnection::state)
    }

    /// The socket of a local connection is gone. Its answers will be dropped, and the server releases its
    /// locks.
    pub fn local_close(&mut self, now: Time, id: LocalId) {
        if let Some(local) = self.locals.close(id) {
            self.link.detach(now, local.locks.owner);
        }
    }

    /// The next local connection with output, or with capacity after a stall. Its output is to be written.
    pub fn poll_ready(&mut self) -> Option<LocalId> {
        self.locals.poll_ready()
    }

    /// Whether a connection that was [ready](Self::poll_ready) needs a turn, after its output was written as
    /// far as its socket accepted it.
    #[must_use]
    pub fn local_needs_turn(&self, id: LocalId) -> bool {
        let is_draining = self.draining_since.is_some();
        self.locals.at(id).is_some_and(|local| local.needs_turn(is_draining))
    }

    /// A local connection, with its context.
    fn local(&mut self, now: Time, id: LocalId) -> Option<(&mut LocalConnection, LocalContext<'_>)> {
        let context = LocalContext {
            now,
            id,
            link: &mut self.link,
            settings: &self.settings,
            draining_since: self.draining_since,
            waiting_for_link: &mut self.waiting_for_link,
        };
        Some((self.locals.at_mut(id)?, context))
    }

    // ---- the link

    /// The link has a connection. `probe_id`, 32 random bytes, serves to probe the server.
    pub fn link_connected(&mut self, now: Time, probe_id: &[u8; 32]) {
        self.link_closed = None;
        self.link_turn_bytes = 0;
        self.link.connect(now, self.link_id, probe_id);
    }

    /// How far the link has come.
    #[must_use]
    pub const fn link_phase(&self) -> LinkState {
        self.link.state
    }

    /// Requests that have not been answered.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// A turn of the link begins.
    pub const fn link_begin_turn(&mut self) {
        self.link_turn_bytes = 0;
    }

    /// The bytes to write next to the server.
    #[must_use]
    pub fn link_poll_output(&self) -> &[u8] {
        self.link.outbox.pending()
    }

    /// The server took `count` bytes of the output. A server that accepts nothing becomes silent, which the
    /// keepalive detects.
    pub fn link_wrote(&mut self, now: Time, count: usize) {
        if count > 0 {
            self.link.written(now, count);
            self.wake_stalled();
        }
    }

    /// Bytes were read from the server; an empty slice is the end of input.
    pub fn link_handle_input(&mut self, now: Time, bytes: &[u8]) {
        self.link_turn_bytes += bytes.len();
        if bytes.is_empty() {
            self.link_closed.get_or_insert(LinkCloseReason::PeerClosed);
            return;
        }
        let mut input = std::mem::take(&mut self.link.input);
        let result = input.read(bytes, |message| self.handle_message(now, &message));
        self.link.input = input;
        self.link.received(now);
        self.wake_stalled();
        if let Err(error) = result {
            self.link_closed.get_or_insert(error.into());
        }
    }

    /// When [`link_handle_timeout`](Self::link_handle_timeout) must be called.
    #[must_use]
    pub fn link_deadline(&self) -> Option<Time> {
        self.link.deadline()
    }

    /// Does what is due on the link: answers requests that took too long, sends a ping, or gives the link up.
    pub fn link_handle_timeout(&mut self, now: Time) {
        while let Some((uid, operation, origin)) = self.link.expire(now) {
            self.answer_disconnected(now, uid, operation, origin);
        }
        self.link.held.purge(now);
        if let Err(error) = self.link.check(now) {
            self.link_closed.get_or_insert(error.into());
        }
    }

    /// Whether to read the link, to call it again soon, or to end its connection.
    #[must_use]
    pub fn link_state(&self) -> MachineState<LinkCloseReason> {
        match self.link_closed {
            _ if self.link.state == LinkState::Left => MachineState::Closed(LinkCloseReason::Left),
            Some(reason) => MachineState::Closed(reason),
            None => MachineState::Open { wants_input: true, more: self.link_turn_bytes >= READ_BUDGET_BYTES },
        }
    }

    /// The connection of the link is gone. Every request in flight is answered DISCONNECTED.
    pub fn link_close(&mut self, now: Time) {
        self.last_grace_ms = self.link.lock_service().ok().or(self.last_grace_ms);
        for (uid, operation, origin) in self.link.close() {
            self.answer_disconnected(now, uid, operation, origin);
        }
        self.wake_stalled();
    }

    /// The grace period of the server, in milliseconds, while the link is down and a local connection holds a
    /// lock.
    #[must_use]
    pub fn held_grace_ms(&self, now: Time) -> Option<u64> {
        self.link.held.claims(now, None).next()?;
        self.last_grace_ms.map(u64::from)
    }

    /// Begins a graceful shutdown: asks the server to release all locks. Returns whether there is a server to
    /// ask; its answer closes the link with [`LinkCloseReason::Left`].
    pub fn send_bye(&mut self, now: Time) -> bool {
        self.link.send_bye(now)
    }

    fn handle_message(&mut self, now: Time, message: &MessageRef<'_>) -> Result<(), LinkError> {
        match self.link.receive(now, message)? {
            Some(AgentOrigin::Session { id, uid }) => {
                if let Some(local) = self.locals.at_mut(id) {
                    local.answer(now, MessageHead { uid, ..message.head }, message.data);
                    self.complete(id);
                }
                Ok(())
            }
            Some(AgentOrigin::Lock(request)) => self.answer_lock(now, message, request),
            None => Ok(()),
        }
    }

    /// A lock request is answered.
    fn answer_lock(
        &mut self,
        now: Time,
        message: &MessageRef<'_>,
        request: PendingLockRequest,
    ) -> Result<(), LinkError> {
        let Operation::Lock(operation) = message.head.operation else { return Err(LinkError::Unasked) };
        let answer = LockAnswer::parse(operation, message.data)?;
        let mut owner_exists = false;
        if let Some(local) = self.locals.at_mut(request.id) {
            owner_exists = local.locks.owner == request.owner;
            local.lock_answered(now, message.head.uid, request.form, operation, &answer);
            self.locals.mark_ready(request.id);
        }
        request.apply_answer(now, &answer, owner_exists, &mut self.link.held);
        Ok(())
    }

    /// Answers a request that the server will not answer. `uid` is that on the link.
    fn answer_disconnected(&mut self, now: Time, uid: u32, operation: Operation, origin: AgentOrigin) {
        match (origin, operation) {
            (AgentOrigin::Session { id, uid }, operation) => {
                if let Some(local) = self.locals.at_mut(id) {
                    local.answer_disconnected(now, MessageHead::request(uid, operation));
                    self.complete(id);
                }
            }
            (AgentOrigin::Lock(request), Operation::Lock(operation)) => {
                request.give_up(&mut self.link.held);
                if let Some(local) = self.locals.at_mut(request.id) {
                    let answer = LockAnswer::Status(LockStatus::ErrorDisconnected);
                    local.lock_answered(now, uid, request.form, operation, &answer);
                    self.locals.mark_ready(request.id);
                }
            }
            (AgentOrigin::Lock(_), _) => {}
        }
    }

    /// A request of this connection is answered.
    fn complete(&mut self, id: LocalId) {
        if let Some(local) = self.locals.at_mut(id) {
            local.in_flight -= 1;
            self.locals.mark_ready(id);
        }
    }

    /// Lists connections that wait for capacity of the link, while there is some.
    fn wake_stalled(&mut self) {
        for _ in 0..self.waiting_for_link.len() {
            if !self.link.has_capacity() {
                return;
            }
            if let Some(id) = self.waiting_for_link.pop_front()
                && let Some(local) = self.locals.at_mut(id)
            {
                local.waits_for_link = false;
                self.locals.mark_ready(id);
            }
        }
    }
}
