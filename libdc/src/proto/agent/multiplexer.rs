//! The agent's multiplexer: many local connections, one link to the server.
//!
//! ```text
//!   handle_local ─▶ Local ─▶ request ─┬─ link up: Flight, a new uid ─▶ link outbox ─▶ (the server)
//!                                     └─ link down: DISCONNECTED ──┐
//!   (the application) ◀─ Local's outbox ◀─ the asker's uid ◀─ Flight ◀─ answer ◀─ handle_link
//! ```
//!
//! Only while the link is up are requests sent on; otherwise they are answered at once. How it comes up is told at
//! [`LinkState`].
//!
//! An application may speak in frames or in the lines of the text protocol. For the server it is an owner of locks
//! with a number of its own, never used again; when it closes its connection, the server is told. What it holds is
//! known here, to be claimed when a link that broke is resumed.
//!
//! Everything is bounded: requests under way for each connection and in all, answers not yet read, bytes
//! not yet written to the server. Whoever is at a bound is not read until there is room again.

use crate::id::LinkId;
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalId};
use crate::proto::agent::local_table::LocalTable;
use crate::proto::agent::origin::{AgentLink, AgentOrigin, PendingLockRequest};
use crate::proto::agent::protocol::handle_requests;
use crate::proto::handshake::LinkIdentity;
use crate::proto::link::state::LinkSettings;
use crate::proto::link::{Link, LinkError, LinkState};
use crate::time::Time;
use crate::wire::frame::{MessageHead, Operation};
use crate::wire::lock::{LockAnswer, LockStatus};
use crate::wire::message::MessageRef;
use std::collections::VecDeque;

/// What an operator chooses of the multiplexer's behaviour. Times are in milliseconds; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiplexerSettings {
    /// A request that the server has not answered for this long is answered DISCONNECTED.
    pub timeout_ms: u64,
    /// A local connection that asked nothing for this long is closed.
    pub idle_ms: u64,
}

/// The agent's state: its local connections, the link, and what is under way between them.
#[derive(Debug)]
pub struct Multiplexer {
    settings: MultiplexerSettings,
    locals: LocalTable,
    link: AgentLink,
    link_id: LinkId,
    /// Connections that stalled because the link had no room.
    waiting_for_link: VecDeque<LocalId>,
}

impl Multiplexer {
    /// A multiplexer without connections.
    #[must_use]
    pub fn new(settings: MultiplexerSettings, introduction: LinkIdentity) -> Self {
        let LinkIdentity { link_id, auth_token } = introduction;
        let link = LinkSettings { timeout_ms: settings.timeout_ms, auth_token, needs_locks: false };
        Self {
            settings,
            locals: LocalTable::default(),
            link: Link::new(link, HeldLocks::default()),
            link_id,
            waiting_for_link: VecDeque::new(),
        }
    }

    // ---- local connections

    /// An application connected.
    pub fn open_local(&mut self, now: Time) -> LocalId {
        self.locals.open(LocalConnection::new(now, self.link.new_owner()))
    }

    /// The peer of a local connection will ask nothing more. It may have left: what is blocked for it is given up.
    pub fn finish_local(&mut self, now: Time, id: LocalId) {
        if let Some(local) = self.locals.at_mut(id)
            && local.finish()
        {
            local.cancel_blocked(now, &mut self.link);
        }
    }

    /// A local connection is gone. Answers that are under way for it will be dropped, and the server releases
    /// what it held.
    pub fn close_local(&mut self, now: Time, id: LocalId) {
        if let Some(local) = self.locals.close(id) {
            self.link.detach(now, local.locks.owner);
        }
    }

    /// Takes bytes from a local connection.
    ///
    /// # Errors
    /// [`LocalCloseReason`]: the connection must be closed once what is in its outbox is written.
    pub fn handle_local(&mut self, now: Time, id: LocalId, bytes: &[u8]) -> Result<(), LocalCloseReason> {
        let Some(local) = self.locals.at_mut(id) else {
            return Ok(());
        };
        let mut took = false;
        let result = if local.unread.is_empty() {
            let mut input = bytes;
            let result =
                handle_requests(now, id, local, &mut input, &mut self.link, &self.settings, &mut took);
            local.unread.extend_from_slice(input);
            result
        } else {
            let mut unread = std::mem::take(&mut local.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            let result =
                handle_requests(now, id, local, &mut input, &mut self.link, &self.settings, &mut took);
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                local.unread = unread;
            }
            result
        };
        local.note_input(now, took);
        if local.stalled && !self.link.has_capacity() && !std::mem::replace(&mut local.waits_for_link, true) {
            self.waiting_for_link.push_back(id);
        }
        result
    }

    /// Whether more bytes of this connection can be taken now. While they can't, leave them in the socket.
    #[must_use]
    pub fn wants_input(&self, id: LocalId) -> bool {
        self.locals.at(id).is_some_and(LocalConnection::wants_input)
    }

    /// Whether requests of this connection have been read that can't be taken yet.
    #[must_use]
    pub fn is_local_stalled(&self, id: LocalId) -> bool {
        self.locals.at(id).is_some_and(|local| local.stalled)
    }

    /// What is to be written to a local connection. Call [`local_written`](Self::local_written) after.
    #[must_use]
    pub fn local_output(&self, id: LocalId) -> &[u8] {
        self.locals.at(id).map_or(&[], |local| local.outbox.pending())
    }

    /// A local connection took `count` bytes of its output; `blocked` says that it takes no more for now.
    ///
    /// # Errors
    /// As [`handle_local`](Self::handle_local): requests that had waited for room are taken now.
    pub fn local_written(
        &mut self,
        now: Time,
        id: LocalId,
        count: usize,
        blocked: bool,
    ) -> Result<(), LocalCloseReason> {
        let Some(local) = self.locals.at_mut(id) else {
            return Ok(());
        };
        if count > 0 {
            local.outbox.advance(count);
        }
        if blocked && !local.outbox.is_empty() {
            local.outbox.block(now);
        }
        if local.stalled && local.has_capacity() { self.handle_local(now, id, &[]) } else { Ok(()) }
    }

    /// The next local connection that has output, or can be read again after a stall.
    pub fn poll_ready(&mut self) -> Option<LocalId> {
        self.locals.poll_ready()
    }

    /// When [`check_local`](Self::check_local) has to be called for a connection.
    #[must_use]
    pub fn local_deadline(&self, id: LocalId) -> Option<Time> {
        let local = self.locals.at(id)?;
        local.deadline(self.settings.idle_ms, self.held_until(local))
    }

    /// Whether a local connection may go on. It may have output then that it had not before.
    ///
    /// # Errors
    /// The [`LocalCloseReason`] for which it must be closed.
    pub fn check_local(&mut self, now: Time, id: LocalId) -> Result<(), LocalCloseReason> {
        let held_until = self.locals.at(id).and_then(|local| self.held_until(local));
        let local = self.locals.at_mut(id);
        local.map_or(Ok(()), |local| local.check(now, self.settings.idle_ms, held_until))
    }

    /// Whether [`check_local`](Self::check_local) will end a connection when its output is written.
    #[must_use]
    pub fn is_local_ending(&self, id: LocalId) -> bool {
        self.locals.at(id).is_some_and(LocalConnection::is_ending)
    }

    /// Whether a local connection can be closed without an answer being lost that is under way. Requests that are
    /// blocked don't count, unless its peer has [finished](Self::finish_local): then they are about to be answered.
    #[must_use]
    pub fn can_close_local(&self, id: LocalId) -> bool {
        self.locals.at(id).is_none_or(LocalConnection::can_close)
    }

    // ---- the link

    /// The link is connected. `probe_id` may be asked for to learn who the server is: 32 random bytes.
    pub fn link_connected(&mut self, now: Time, probe_id: &[u8; 32]) {
        self.link.connect(now, self.link_id, probe_id);
    }

    /// The link is gone, or given up. Every request under way is answered DISCONNECTED.
    pub fn link_lost(&mut self, now: Time) {
        for (uid, operation, origin) in self.link.close() {
            self.answer_disconnected(now, uid, operation, origin);
        }
        self.wake_stalled();
    }

    /// Where the link stands.
    #[must_use]
    pub const fn link_state(&self) -> LinkState {
        self.link.state
    }

    /// Requests that have not been answered.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// The [`LinkError`] for which the link must be closed ([`link_lost`](Self::link_lost)).
    pub fn handle_link(&mut self, now: Time, bytes: &[u8]) -> Result<(), LinkError> {
        let mut input = std::mem::take(&mut self.link.input);
        let result = input.read(bytes, |message| self.handle_message(now, &message));
        self.link.input = input;
        self.link.received(now);
        self.wake_stalled();
        result
    }

    /// What is to be written to the server. Call [`link_written`](Self::link_written) after.
    #[must_use]
    pub fn link_output(&self) -> &[u8] {
        self.link.outbox.pending()
    }

    /// The server took `count` bytes.
    pub fn link_written(&mut self, now: Time, count: usize) {
        self.link.written(now, count);
        self.wake_stalled();
    }

    /// The agent ends in good order, and the server is told to release everything. Returns whether there is a server
    /// that has to be told: what it has heard is known when the link is [`LinkState::Left`].
    pub fn send_bye(&mut self, now: Time) -> bool {
        self.link.send_bye(now)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    #[must_use]
    pub fn link_deadline(&self) -> Option<Time> {
        self.link.deadline()
    }

    /// The time of [`link_deadline`](Self::link_deadline) came: answers what took too long, asks whether
    /// the server is there.
    ///
    /// # Errors
    /// [`LinkError::Silent`]: the link must be closed ([`link_lost`](Self::link_lost)).
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkError> {
        while let Some((uid, operation, origin)) = self.link.expire(now) {
            self.answer_disconnected(now, uid, operation, origin);
        }
        self.link.held.purge(now);
        self.link.check(now)
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

    /// Until when a connection holds locks; looked up only if it matters.
    fn held_until(&self, local: &LocalConnection) -> Option<Time> {
        if self.settings.idle_ms == 0 { None } else { self.link.held.held_until(local.locks.owner) }
    }

    /// A request of this connection has its answer.
    fn complete(&mut self, id: LocalId) {
        if let Some(local) = self.locals.at_mut(id) {
            local.in_flight -= 1;
            self.locals.mark_ready(id);
        }
    }

    /// The link has room again: those who waited for it may go on.
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
