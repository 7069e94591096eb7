//! A lock client without its socket: bytes and the time go in, bytes, deadlines and events come out.
//!
//! ```text
//!          connected          patch level ≥ 1            HELLO is answered           claims and OPEN are answered
//!   Down ───────────▶ Probing ───────────────▶ Greeting ───────────────────▶ Opening ───────────────────────────▶ Up
//!     ▲                  │   (at once with        │                            │                                 │
//!     │                  │    a token)            │                            │                                 │
//!     └──────────────────┴────────────────────────┴────────────────────────────┴────────── disconnected ─────────┘
//! ```
//!
//! - A HAVE of a random id asks for the patch level of the peer: one at level 0 must not see HELLO.
//! - Nothing follows HELLO before it is answered. A HELLO that was long under way on a connection that was given up
//!   takes the link over from the one made since. That costs a reconnection; an OPEN behind it would release what was
//!   granted over that.
//! - Then the claims of all that is held and OPEN go out in one write. Nothing else does before all are answered.
//! - A link that says nothing is asked by PING; one that stays silent although it was asked is broken.
//! - When the link breaks, requests fail, but for the patient ones, which are sent again over the next. What is held
//!   is claimed then; over an agent, which has released it already, it is lost at once.
//! - A grant that comes long after it was asked for may be old, so it is renewed before anybody is told.
//! - A grant that nobody waits for any more is released at once.
//!
//! The machine survives its connections: there is one for a client's life. Nothing here panics.

mod answers;
mod opening;
mod sending;

use crate::client::lock::calls::{CallId, CallStage, CallTable, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::{Lease, LeaseAction, LeaseId, Leases};
use crate::id::{LinkId, OwnedLockKey};
use crate::limits::{PING_INTERVAL_MS, PING_TIMEOUT_MS_MAX, PING_TIMEOUT_MS_MIN};
use crate::proto::outbox::Outbox;
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::frame::{Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use crate::wire::lock::LockAction;
use crate::wire::message::{MessageReader, write_message};
use std::collections::{HashMap, VecDeque};

/// How a link behaves.
#[derive(Debug)]
pub(super) struct LockLinkSettings {
    /// The token of authentication, where there is one.
    pub(super) auth_token: Option<AuthToken>,
    /// How long to wait for an answer that should come at once, in milliseconds.
    pub(super) timeout_ms: u64,
    /// Whether the peer keeps what is held when the connection breaks: a server does, an agent does not.
    pub(super) resumes: bool,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum LockEvent {
    /// A request has been answered, or has failed.
    Answered(CallId, Result<CallReply, LockError>),
    /// A lock is held no more.
    Lost(LeaseId, Loss),
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum CallReply {
    /// The lock is held.
    Granted(LeaseId),
    /// There is a place in the queue, as long as the connection with this number stands.
    Queued { connection: u64 },
    /// The time to wait was over.
    TimedOut,
    /// It is done.
    Done,
    /// The state of the server, as JSON.
    Stats(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockLinkState {
    Down,
    Probing,
    /// HELLO has not been answered.
    Greeting,
    /// So many of the claims and OPEN have not been answered.
    Opening(usize),
    Up,
}

/// Something under way.
#[derive(Debug)]
struct Flying {
    operation: Operation,
    purpose: ClientOrigin,
    /// Whether it is answered at once.
    is_prompt: bool,
}

#[derive(Debug)]
enum ClientOrigin {
    Probe,
    Hello,
    Claims(Vec<LeaseId>),
    Open,
    Ping,
    Bye,
    Cancel,
    Request(CallId),
}

/// The link of a lock client, and all that is asked and held over it.
#[derive(Debug)]
pub(super) struct LockMachine {
    settings: LockLinkSettings,
    state: LockLinkState,
    link_id: Option<LinkId>,
    /// The number of the connection; a place in a queue does not outlive it.
    connection: u64,
    grace_ms: u64,
    reader: MessageReader,
    unread: Vec<u8>,
    outbox: Outbox,
    uid: u32,
    flying: HashMap<u32, Flying>,
    /// How many of them are answered at once.
    prompt: usize,
    last_heard: Time,
    last_sent: Time,
    silent_since: Option<Time>,
    is_pinging: bool,
    requests: CallTable,
    holds: Leases,
    /// Whether the server may remember something that will not be claimed.
    unreleased: bool,
    closing: bool,
    bye_answered: bool,
    events: VecDeque<LockEvent>,
}

impl LockMachine {
    /// A link without a connection.
    pub(super) fn new(settings: LockLinkSettings) -> Self {
        let requests = CallTable::new(settings.timeout_ms);
        Self {
            settings,
            state: LockLinkState::Down,
            link_id: None,
            connection: 0,
            grace_ms: 0,
            reader: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            outbox: Outbox::new(),
            uid: 0,
            flying: HashMap::new(),
            prompt: 0,
            last_heard: Time::default(),
            last_sent: Time::default(),
            silent_since: None,
            is_pinging: false,
            requests,
            holds: Leases::default(),
            unreleased: false,
            closing: false,
            bye_answered: false,
            events: VecDeque::new(),
        }
    }

    // ---- what the client wants

    /// Asks something.
    pub(super) fn ask(&mut self, now: Time, ask: LockCall) -> CallId {
        let place = if let LockCall::Wait { connection, .. } = ask { Some(connection) } else { None };
        let id = self.requests.insert(now, ask, true);
        if self.closing {
            self.complete(now, id, Err(LockError::Closed));
        } else if place.is_some_and(|connection| connection != self.connection || !self.is_up()) {
            self.complete(now, id, Err(LockError::NotEnqueued));
        }
        self.send_waiting(now);
        id
    }

    /// Nobody waits for the answer any more. What it may bring is given back.
    pub(super) fn abandon(&mut self, now: Time, id: CallId) {
        let Some(request) = self.requests.get(id) else { return };
        let stage = request.stage;
        let may_block = request.may_block();
        match (stage, &request.ask) {
            (CallStage::Waiting(_), LockCall::Wait { key, connection, .. }) => {
                let (key, connection) = (key.clone(), *connection);
                self.requests.remove(id);
                self.leave_queue(now, key, connection);
            }
            (CallStage::Waiting(_), LockCall::Release { .. }) => self.requests.abandon(id),
            (CallStage::Waiting(_), _) => drop(self.requests.remove(id)),
            (CallStage::Sent { uid, .. }, _) => {
                self.requests.abandon(id);
                if may_block {
                    self.send_lock(now, ClientOrigin::Cancel, &LockAction::Cancel { uid });
                }
            }
            (CallStage::Confirming { hold, .. }, _) => {
                self.requests.abandon(id);
                self.drop_hold(now, hold);
            }
        }
        self.send_waiting(now);
    }

    /// Gives up a place in a queue.
    pub(super) fn leave_queue(&mut self, now: Time, key: OwnedLockKey, connection: u64) {
        if connection == self.connection && self.state == LockLinkState::Up {
            self.requests.insert(now, LockCall::Wait { key, until: WaitLimit::Now, connection }, false);
            self.send_waiting(now);
        }
    }

    /// Gives a lock back.
    pub(super) fn release(&mut self, now: Time, hold: LeaseId) -> Option<CallId> {
        self.release_as(now, hold, true)
    }

    /// Gives a lock back; nobody waits for the answer.
    pub(super) fn drop_hold(&mut self, now: Time, hold: LeaseId) {
        self.release_as(now, hold, false);
    }

    /// What is known of a lock that was granted and not given back.
    pub(super) fn hold(&self, id: LeaseId) -> Option<&Lease> {
        self.holds.get(id)
    }

    /// Ends everything in good order. What is held is lost.
    pub(super) fn close(&mut self, now: Time) {
        if self.closing {
            return;
        }
        self.closing = true;
        for id in self.requests.ids() {
            self.complete(now, id, Err(LockError::Closed));
        }
        self.lose_all(Loss::Closed);
        if self.state == LockLinkState::Up {
            self.send_empty(now, LinkOperation::Bye, ClientOrigin::Bye);
        }
    }

    /// Whether everything has ended.
    pub(super) const fn is_closed(&self) -> bool {
        self.closing && (self.bye_answered || matches!(self.state, LockLinkState::Down))
    }

    /// Whether a connection is wanted.
    pub(super) fn wants_connection(&self) -> bool {
        !self.closing && (self.unreleased || self.requests.wanted().0 || self.holds.any_live())
    }

    /// Whether somebody would rather be told that there is no connection than wait for one.
    pub(super) fn fails_fast(&self) -> bool {
        !self.closing && self.requests.wanted().1
    }

    /// Whether something is held that is not lost.
    pub(super) fn is_holding(&self) -> bool {
        self.holds.any_live()
    }

    /// Whether the link is up.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, LockLinkState::Up)
    }

    /// What has happened.
    pub(super) fn poll_event(&mut self) -> Option<LockEvent> {
        self.events.pop_front()
    }

    // ---- the connection

    /// There is a connection.
    pub(super) fn connected(&mut self, now: Time, link_id: LinkId, probe_id: &[u8; 32]) {
        self.connection += 1;
        self.link_id = Some(link_id);
        self.last_heard = now;
        self.last_sent = now;
        if self.settings.auth_token.is_none() {
            self.state = LockLinkState::Probing;
            let operation = Operation::Session(SessionOperation::Have);
            let uid = self.take_off(now, operation, ClientOrigin::Probe, true);
            write_message(self.outbox.buffer(), MessageHead::request(uid, operation), probe_id);
        } else {
            self.send_hello(now);
        }
    }

    /// There is no connection any more, or none could be made.
    pub(super) fn disconnected(&mut self, now: Time, error: &LockError) {
        let was_up = self.state != LockLinkState::Down;
        self.state = LockLinkState::Down;
        self.reader = MessageReader::link(Direction::Response);
        self.unread = Vec::new();
        self.outbox.clear();
        self.flying.clear();
        self.prompt = 0;
        self.silent_since = None;
        self.is_pinging = false;
        if was_up {
            self.unreleased |= self.settings.resumes && !self.holds.is_empty();
            self.holds.disconnected();
            if !self.settings.resumes {
                self.lose_all(Loss::Disconnected);
            }
        }
        for id in self.requests.ids() {
            self.interrupt(now, id, error);
        }
    }

    /// Bytes came.
    ///
    /// # Errors
    /// [`LockLinkError`] if the connection is of no more use.
    pub(super) fn receive(&mut self, now: Time, bytes: &[u8]) -> Result<(), LockLinkError> {
        self.last_heard = now;
        let mut reader = std::mem::take(&mut self.reader);
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let mut input = unread.as_slice();
        let end = loop {
            match reader.next(&mut input) {
                Ok(Some(message)) => {
                    if let Err(fault) = self.handle(now, &message) {
                        break Err(fault);
                    }
                }
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption.into()),
            }
        };
        let used = unread.len() - input.len();
        unread.drain(..used);
        (self.reader, self.unread) = (reader, unread);
        self.silent_since = (self.prompt > 0).then_some(now);
        self.send_waiting(now);
        end
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`LockLinkError::Silent`] if the connection is of no more use.
    pub(super) fn tick(&mut self, now: Time) -> Result<(), LockLinkError> {
        while let Some(due) = self.holds.next_due(now) {
            match due {
                LeaseAction::Lost(hold) => self.lose(hold, Loss::Unrenewed),
                LeaseAction::Renew(hold) => {
                    self.holds.renewing(hold);
                    self.requests.insert(now, LockCall::Renew { hold }, false);
                }
            }
        }
        while let Some(id) = self.requests.next_due(now) {
            self.request_is_due(now, id);
        }
        self.send_waiting(now);
        if self.state == LockLinkState::Down {
            return Ok(());
        }
        let silent_ms = self.silent_since.map_or(0, |since| now.ms_since(since));
        if silent_ms >= self.silence_ms_max() {
            return Err(LockLinkError::Silent { silent_ms });
        }
        if self.ping_at().is_some_and(|at| at <= now) {
            self.is_pinging = true;
            self.send_empty(now, LinkOperation::Ping, ClientOrigin::Ping);
        }
        Ok(())
    }

    /// When [`tick`](Self::tick) has to be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        let silence = self.silent_since.map(|since| since.after_ms(self.silence_ms_max()));
        [self.holds.deadline(), self.requests.deadline(), silence, self.ping_at()].into_iter().flatten().min()
    }

    /// What is to be written.
    pub(super) const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn silence_ms_max(&self) -> u64 {
        self.settings.timeout_ms.clamp(PING_TIMEOUT_MS_MIN, PING_TIMEOUT_MS_MAX)
    }

    fn ping_at(&self) -> Option<Time> {
        let may_ping = self.state == LockLinkState::Up && !self.is_pinging;
        may_ping.then(|| self.last_heard.min(self.last_sent).after_ms(PING_INTERVAL_MS))
    }
}
