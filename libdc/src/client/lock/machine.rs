//! The lock client without its socket: bytes and the time go in, bytes, deadlines and events come out.
//!
//! ```text
//!   application ─▶ call ─▶ CallTable ─┬─ link up ──▶ Link ─▶ poll_output ─▶ (server or agent)
//!                                     └─ link down: waits, or fails
//!   application ◀─ event ◀─ CallTable, Leases ◀───── Link ◀─ handle_input ◀─ (server or agent)
//! ```
//!
//! The [link](crate::proto::link) is that of the agents: it opens, claims, pings and ends the connection.
//! Here are the calls of the application, and the leases of its locks:
//!
//! - When the connection is lost, calls fail, except retrying ones, which are sent again over the next
//!   connection. Held locks are claimed then. With an agent, which has already released them, they are lost
//!   at once.
//! - A grant that arrives long after its request may be old: it is renewed before it is reported.
//! - A grant for an abandoned call is released at once.
//!
//! The machine survives its connections: there is one in the life of a client. Nothing here panics.

mod answers;
mod sending;

use crate::client::lock::calls::{CallId, CallStage, CallTable, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::{Lease, LeaseAction, LeaseId, Leases};
use crate::id::{LinkId, OwnedLockKey};
use crate::limits::READ_BUDGET_BYTES;
use crate::proto::link::Link;
use crate::proto::link::state::{LinkError, LinkSettings, LinkState};
use crate::proto::machine::MachineState;
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::message::MessageRef;
use std::collections::VecDeque;

/// Options of the machine.
#[derive(Debug)]
pub(super) struct LockLinkSettings {
    /// The auth token, if the server asks for one.
    pub(super) auth_token: Option<AuthToken>,
    /// Wait timeout of a call that does not block, in milliseconds.
    pub(super) timeout_ms: u64,
    /// Whether the peer keeps locks when the connection is lost: a server does, an agent does not.
    pub(super) resumes: bool,
}

/// An event for the application.
#[derive(Debug)]
pub(super) enum LockEvent {
    /// A call has been answered, or has failed.
    Answered(CallId, Result<CallReply, LockError>),
    /// A lock is lost.
    Lost(LeaseId, Loss),
}

/// The answer to a call.
#[derive(Debug)]
pub(super) enum CallReply {
    /// The lock is held.
    Granted(LeaseId),
    /// A position was taken in the queue. It exists as long as the connection with this number.
    Queued { connection: u64 },
    /// The wait timeout has passed.
    TimedOut,
    /// A release or renewal succeeded, or the link is up.
    Done,
    /// The state of the server, as JSON.
    Stats(Vec<u8>),
}

/// The machine of a lock client.
#[derive(Debug)]
pub(super) struct LockMachine {
    link: Link<Leases, CallId>,
    resumes: bool,
    /// The number of the connection; a position in a queue is lost with it.
    connection: u64,
    /// The grace period of the server, in milliseconds.
    grace_ms: u64,
    /// Bytes read in this turn.
    turn_bytes: usize,
    closed: Option<LockLinkError>,
    calls: CallTable,
    /// Whether the server may remember a lock that will not be claimed.
    unreleased: bool,
    is_shutting_down: bool,
    events: VecDeque<LockEvent>,
}

impl LockMachine {
    /// A machine without a connection.
    pub(super) fn new(settings: LockLinkSettings) -> Self {
        let LockLinkSettings { auth_token, timeout_ms, resumes } = settings;
        let link = LinkSettings { timeout_ms: timeout_ms.max(1), auth_token, needs_locks: true };
        Self {
            link: Link::new(link, Leases::default()),
            resumes,
            connection: 0,
            grace_ms: 0,
            turn_bytes: 0,
            closed: None,
            calls: CallTable::new(timeout_ms),
            unreleased: false,
            is_shutting_down: false,
            events: VecDeque::new(),
        }
    }

    // ---- the application

    /// Makes a call; its answer is reported as an event.
    pub(super) fn ask(&mut self, now: Time, call: LockCall) -> CallId {
        let position = if let LockCall::Wait { connection, .. } = call { Some(connection) } else { None };
        let id = self.calls.insert(now, call, true);
        if self.is_shutting_down {
            self.complete(now, id, Err(LockError::Closed));
        } else if position.is_some_and(|connection| connection != self.connection || !self.is_up()) {
            self.complete(now, id, Err(LockError::NotEnqueued));
        }
        self.send_waiting(now);
        id
    }

    /// The application has dropped a call. A lock granted to it is released.
    pub(super) fn abandon(&mut self, now: Time, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let stage = call.stage;
        let may_block = call.may_block();
        match (stage, &call.ask) {
            (CallStage::Waiting(_), LockCall::Wait { key, connection, .. }) => {
                let (key, connection) = (key.clone(), *connection);
                self.calls.remove(id);
                self.leave_queue(now, key, connection);
            }
            (CallStage::Waiting(_), LockCall::Release { .. }) => self.calls.abandon(id),
            (CallStage::Waiting(_), _) => drop(self.calls.remove(id)),
            (CallStage::Sent { uid, .. }, _) => {
                self.calls.abandon(id);
                if may_block {
                    self.send_cancel(now, uid);
                }
            }
            (CallStage::Confirming { hold, .. }, _) => {
                self.calls.abandon(id);
                self.drop_hold(now, hold);
            }
        }
        self.send_waiting(now);
    }

    /// Gives up a position in a queue.
    pub(super) fn leave_queue(&mut self, now: Time, key: OwnedLockKey, connection: u64) {
        if connection == self.connection && self.is_up() {
            self.calls.insert(now, LockCall::Wait { key, until: WaitLimit::Now, connection }, false);
            self.send_waiting(now);
        }
    }

    /// Releases a lock. `None` if it is unknown.
    pub(super) fn release(&mut self, now: Time, hold: LeaseId) -> Option<CallId> {
        self.release_as(now, hold, true)
    }

    /// Releases a lock; the answer is ignored.
    pub(super) fn drop_hold(&mut self, now: Time, hold: LeaseId) {
        self.release_as(now, hold, false);
    }

    /// A lock that was granted and not released.
    pub(super) fn hold(&self, id: LeaseId) -> Option<&Lease> {
        self.link.held.get(id)
    }

    /// Ends everything gracefully. All locks are lost.
    pub(super) fn shut_down(&mut self, now: Time) {
        if self.is_shutting_down {
            return;
        }
        self.is_shutting_down = true;
        for id in self.calls.ids() {
            self.complete(now, id, Err(LockError::Closed));
        }
        self.lose_all(Loss::Closed);
        // A link that is not open yet is opened first; the server releases the locks that it does not claim.
        self.link.send_bye(now);
    }

    /// Whether the client was shut down and its link has ended.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_shutting_down && matches!(self.link.state, LinkState::Left | LinkState::Down)
    }

    /// Whether a connection is needed.
    pub(super) fn wants_connection(&self) -> bool {
        !self.is_shutting_down && (self.unreleased || self.calls.wanted().0 || self.link.held.any_live())
    }

    /// Whether a call must fail rather than wait for a connection.
    pub(super) fn fails_fast(&self) -> bool {
        !self.is_shutting_down && self.calls.wanted().1
    }

    /// Whether a lock is held that is not lost.
    pub(super) fn is_holding(&self) -> bool {
        self.link.held.any_live()
    }

    /// The grace period of the server in milliseconds, while a lock is held.
    pub(super) fn held_grace_ms(&self) -> Option<u64> {
        self.is_holding().then_some(self.grace_ms)
    }

    /// Whether the link is up.
    pub(super) const fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Takes the next event for the application.
    pub(super) fn poll_event(&mut self) -> Option<LockEvent> {
        self.events.pop_front()
    }

    // ---- the connection

    /// There is a connection for the link with this id. `probe_id` is random.
    pub(super) fn connected(&mut self, now: Time, link_id: LinkId, probe_id: &[u8; 32]) {
        self.connection += 1;
        self.closed = None;
        self.link.connect(now, link_id, probe_id);
    }

    /// A turn of the connection begins.
    pub(super) const fn begin_turn(&mut self) {
        self.turn_bytes = 0;
    }

    /// The bytes to write next.
    pub(super) fn poll_output(&self) -> &[u8] {
        self.link.outbox.pending()
    }

    /// The socket took `count` bytes.
    pub(super) fn wrote(&mut self, now: Time, count: usize) {
        self.link.written(now, count);
    }

    /// Bytes were read; an empty slice is the end of input.
    pub(super) fn handle_input(&mut self, now: Time, bytes: &[u8]) {
        self.turn_bytes += bytes.len();
        if bytes.is_empty() {
            let is_unanswered = self.link.state == LinkState::Probing;
            let reason = if is_unanswered { LockLinkError::Unanswered } else { LockLinkError::Closed };
            self.closed.get_or_insert(reason);
            return;
        }
        let mut input = std::mem::take(&mut self.link.input);
        let result = input.read(bytes, |message| self.handle_message(now, &message));
        self.link.input = input;
        self.link.received(now);
        self.send_waiting(now);
        if let Err(error) = result {
            self.closed.get_or_insert(error.into());
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        let link = if self.link.state == LinkState::Down { None } else { self.link.deadline() };
        [self.link.held.deadline(), self.calls.deadline(), link].into_iter().flatten().min()
    }

    /// Does what is due, with a connection or without.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        while let Some(due) = self.link.held.next_due(now) {
            match due {
                LeaseAction::Lost(hold) => self.lose(hold, Loss::Unrenewed),
                LeaseAction::Renew(hold) => {
                    self.link.held.renewing(hold);
                    self.calls.insert(now, LockCall::Renew { hold }, false);
                }
            }
        }
        while let Some(id) = self.calls.next_due(now) {
            self.call_is_due(now, id);
        }
        self.send_waiting(now);
        if self.link.state != LinkState::Down
            && let Err(error) = self.link.check(now)
        {
            self.closed.get_or_insert(error.into());
        }
    }

    /// Whether to read the connection, to call it again soon, or to end it.
    pub(super) fn state(&self) -> MachineState<LockLinkError> {
        match self.closed {
            Some(reason) => MachineState::Closed(reason),
            None => MachineState::Open { wants_input: true, more: self.turn_bytes >= READ_BUDGET_BYTES },
        }
    }

    /// The connection is gone, or an attempt failed.
    pub(super) fn close(&mut self, now: Time, error: &LockError) {
        let was_connected = self.link.state != LinkState::Down;
        self.closed = None;
        drop(self.link.close());
        if was_connected {
            self.unreleased |= self.resumes && !self.link.held.is_empty();
            self.link.held.disconnected();
            if !self.resumes {
                self.lose_all(Loss::Disconnected);
            }
        }
        for id in self.calls.ids() {
            self.interrupt(now, id, error);
        }
    }

    fn handle_message(&mut self, now: Time, message: &MessageRef<'_>) -> Result<(), LinkError> {
        let was_up = self.is_up();
        if let Some(id) = self.link.receive(now, message)? {
            return self.answered(now, id, message);
        }
        for hold in self.link.held.take_refused() {
            self.events.push_back(LockEvent::Lost(hold, Loss::Refused));
        }
        if !was_up && self.is_up() {
            self.opened(now);
        }
        Ok(())
    }

    fn opened(&mut self, now: Time) {
        self.unreleased = false;
        self.grace_ms = self.link.lock_service().map_or(0, u64::from);
        if self.is_shutting_down {
            self.link.send_bye(now);
        }
    }
}
