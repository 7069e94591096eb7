//! The client's end of the link protocol, for agents and lock clients.
//!
//! ```text
//!          connect               probe answered                    OPEN answered
//!   Down ───────────▶ Probing ──────────────────────────▶ Resuming ────────────────▶ Up { patch_level }
//!    ▲ │                 │  └──── patch level 0 ─────────────│──────────────────────▶ │
//!    │ └─────────────────│─────── with an auth token ──────▶ │                        │ send_bye
//!    │                   │                                   │                        ▼
//!    └───────────────────┴───────── close ───────────────────┴────── Left ◀──────── Leaving
//!                                                                      BYE answered
//! ```
//!
//! - The probe is a HAVE of a random id, an ordinary miss to any server; its answer carries the patch level
//!   of the server. A server at patch level 0 gets session requests only, or nothing if the link needs locks.
//!   Any other gets the [handshake](crate::proto::handshake) before anything else. With an auth token there
//!   is no probe, since HELLO must come first.
//! - The owner of the link sends its requests with `Link::send` or `Link::enter`. Their payload lies in
//!   the [table](crate::proto::pending) and comes back from `Link::receive` with the answer, or from
//!   `Link::close` and `Link::expire` without.
//! - The link survives its connections: an agent or lock client has one link all its life. `H` holds its
//!   locks, which are claimed when the link is resumed.
//! - A quiet link is pinged, and a silent one is an error (keepalive).
//! - BYE asks the server to release everything.
//!
//! Requests in flight, bytes to be written and bytes of claims are bounded. Nothing here panics.

pub(crate) mod state;

pub use state::{LinkError, LinkState};

use crate::id::LinkId;
use crate::limits::{
    LINK_BLOCKED_MAX, LINK_OUTBOX_BYTES_MAX, PING_INTERVAL_MS, PING_TIMEOUT_MS_MAX, PING_TIMEOUT_MS_MIN,
};
use crate::proto::handshake::{ClaimSource, Handshake};
use crate::proto::input::InputBuffer;
use crate::proto::keepalive::{Keepalive, KeepaliveAction};
use crate::proto::link::state::LinkSettings;
use crate::proto::outbox::Outbox;
use crate::proto::pending::{PendingRequest, PendingTable};
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::frame::{Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use crate::wire::link::{Detach, Hello, Ping};
use crate::wire::lock::LockStatus;
use crate::wire::message::{MessageRef, write_message};
use std::collections::HashSet;

/// The client's end of the link. `H` holds its locks, `P` is the payload of its owner's requests.
#[derive(Debug)]
pub(crate) struct Link<H: ClaimSource, P> {
    settings: LinkSettings,
    link_id: Option<LinkId>,
    pub(crate) state: LinkState,
    pub(crate) input: InputBuffer,
    pub(crate) outbox: Outbox,
    pending: PendingTable<LinkOrigin<H::Id, P>>,
    pub(crate) held: H,
    /// The grace period of the server, if it serves locks.
    grace_ms: Option<u32>,
    handshake: Handshake<H::Id>,
    keepalive: Keepalive,
    last_owner: u64,
    /// Owners that were named to the server over this connection. The link itself numbers them.
    known_owners: HashSet<u64, foldhash::fast::FixedState>,
    /// Those of them that are gone, to be detached once the claims are complete.
    gone_owners: Vec<u64>,
}

/// The recipient of the answer to a request.
#[derive(Debug)]
enum LinkOrigin<I, P> {
    /// The owner of the link.
    Owner(P),
    Probe,
    Hello,
    /// CLAIM of these locks.
    Claims(Vec<I>),
    Open,
    Ping,
    Bye,
}

impl<H: ClaimSource, P> Link<H, P> {
    /// A link without a connection.
    pub(crate) fn new(settings: LinkSettings, held: H) -> Self {
        let silence_ms = match settings.timeout_ms {
            0 => PING_TIMEOUT_MS_MAX,
            timeout_ms => timeout_ms.clamp(PING_TIMEOUT_MS_MIN, PING_TIMEOUT_MS_MAX),
        };
        Self {
            settings,
            link_id: None,
            state: LinkState::Down,
            input: InputBuffer::link(Direction::Response),
            outbox: Outbox::framed(),
            pending: PendingTable::default(),
            held,
            grace_ms: None,
            handshake: Handshake::default(),
            keepalive: Keepalive::new(Time::default(), PING_INTERVAL_MS, silence_ms),
            last_owner: 0,
            known_owners: HashSet::default(),
            gone_owners: Vec::new(),
        }
    }

    // ---- the connection

    /// There is a connection for the link with this id: sends the probe, or HELLO. `probe_id` is random.
    pub(crate) fn connect(&mut self, now: Time, link_id: LinkId, probe_id: &[u8; 32]) {
        self.link_id = Some(link_id);
        self.keepalive.restart(now);
        if self.settings.auth_token.is_some() {
            self.send_hello(now);
        } else {
            self.state = LinkState::Probing;
            self.send_own(now, LinkOrigin::Probe, Operation::Session(SessionOperation::Have), probe_id);
        }
    }

    /// There is no connection any more. Returns the requests without an answer, with their uids.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = (u32, Operation, P)> + use<H, P> {
        self.state = LinkState::Down;
        self.input = InputBuffer::link(Direction::Response);
        self.outbox.clear();
        self.grace_ms = None;
        self.handshake = Handshake::default();
        self.keepalive.restart(Time::default());
        self.known_owners.clear();
        self.gone_owners.clear();
        self.pending.drain().filter_map(|(uid, request)| of_owner(uid, request))
    }

    /// The connection took `count` bytes of the outbox. Claims that waited for capacity are sent.
    pub(crate) fn written(&mut self, now: Time, count: usize) {
        self.outbox.advance(count);
        if self.state == LinkState::Resuming && self.handshake.is_welcome() && !self.handshake.is_complete {
            self.send_claims(now);
        }
    }

    // ---- the owner's requests

    /// Whether requests are sent on.
    #[inline]
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    /// The grace period of the server in milliseconds, if lock requests are sent on.
    ///
    /// # Errors
    /// The status with which a lock request is answered.
    pub(crate) const fn lock_service(&self) -> Result<u32, LockStatus> {
        match self.grace_ms {
            _ if !self.is_up() => Err(LockStatus::ErrorDisconnected),
            Some(grace_ms) => Ok(grace_ms),
            None => Err(LockStatus::ErrorUnsupported),
        }
    }

    /// Whether one more request may be taken: there is capacity for it, or it is answered at once.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        !self.is_up() || (self.outbox.len() < LINK_OUTBOX_BYTES_MAX && !self.pending.is_full())
    }

    /// Whether one more request may block at the server.
    pub(crate) const fn may_block(&self) -> bool {
        self.pending.blocked() < LINK_BLOCKED_MAX
    }

    /// Requests without an answer so far.
    pub(crate) const fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends a request. Returns its uid.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now: Time,
        request: PendingRequest<P>,
        data: &[u8],
        deadline: Option<Time>,
    ) -> u32 {
        let operation = request.operation;
        let uid = self.enter(now, request, deadline);
        write_message(self.outbox.buffer(), MessageHead::request(uid, operation), data);
        uid
    }

    /// Enters a request that is written to the outbox next. Returns its uid.
    #[inline]
    pub(crate) fn enter(&mut self, now: Time, request: PendingRequest<P>, deadline: Option<Time>) -> u32 {
        self.keepalive.sent(now, !request.may_block);
        self.pending.insert(request.map(LinkOrigin::Owner), deadline)
    }

    /// The next request whose deadline has passed, with its uid. An answer that comes later is ignored.
    pub(crate) fn expire(&mut self, now: Time) -> Option<(u32, Operation, P)> {
        self.pending.expire(now).and_then(|(uid, request)| of_owner(uid, request))
    }

    /// Whether the server knows from a claim that this lock is held, or the link is up.
    pub(crate) fn has_claimed(&self, id: H::Id) -> bool {
        match self.state {
            LinkState::Up { .. } => true,
            LinkState::Resuming => self.handshake.has_claimed(id),
            _ => false,
        }
    }

    // ---- owners

    /// The number of one more owner, never given before.
    pub(crate) const fn new_owner(&mut self) -> u64 {
        self.last_owner += 1;
        self.last_owner
    }

    /// A request names this owner to the server.
    pub(crate) fn owner_sent(&mut self, owner: u64) {
        self.known_owners.insert(owner);
    }

    /// An owner is gone. Returns whether DETACH is to be sent for it now.
    pub(crate) fn owner_gone(&mut self, owner: u64) -> bool {
        if !self.known_owners.remove(&owner) {
            return false;
        }
        let is_resuming = self.state == LinkState::Resuming && !self.handshake.is_complete;
        if is_resuming {
            self.gone_owners.push(owner);
        }
        !is_resuming
    }

    // ---- input

    /// A message came from the server. Returns the payload of the request that it answers, if that was the
    /// owner's.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has to be closed.
    #[inline]
    pub(crate) fn receive(&mut self, now: Time, message: &MessageRef<'_>) -> Result<Option<P>, LinkError> {
        if message.head.direction == Direction::Request {
            self.handle_request(now, message)?;
            return Ok(None);
        }
        let request = self.pending.remove(message.head.uid).ok_or(LinkError::Unasked)?;
        if request.operation != message.head.operation {
            return Err(LinkError::OtherOperation);
        }
        match request.payload {
            Some(LinkOrigin::Owner(payload)) => Ok(Some(payload)),
            Some(own) => self.handle_own_answer(now, own, message).map(|()| None),
            None => Ok(None),
        }
    }

    /// All messages that came together have been [received](Self::receive).
    #[inline]
    pub(crate) fn received(&mut self, now: Time) {
        self.keepalive.received(now, self.pending.prompt() > 0);
    }

    fn handle_own_answer(
        &mut self,
        now: Time,
        own: LinkOrigin<H::Id, P>,
        answer: &MessageRef<'_>,
    ) -> Result<(), LinkError> {
        let patch_level = answer.head.patch_level;
        match own {
            LinkOrigin::Probe if patch_level > 0 => self.send_hello(now),
            LinkOrigin::Probe if self.settings.needs_locks => return Err(LinkError::Unsupported),
            LinkOrigin::Probe => self.state = LinkState::Up { patch_level },
            LinkOrigin::Hello => {
                self.handshake.welcomed(answer.data, patch_level, self.settings.needs_locks)?;
                self.send_claims(now);
            }
            LinkOrigin::Claims(ids) => {
                self.handshake.claims_answered(now, &ids, answer.data, &mut self.held)?;
                self.finish_handshake();
            }
            LinkOrigin::Open => {
                self.handshake.opened(answer.data)?;
                self.finish_handshake();
            }
            LinkOrigin::Ping => self.keepalive.ping_answered(),
            LinkOrigin::Bye => self.state = LinkState::Left,
            LinkOrigin::Owner(_) => {}
        }
        Ok(())
    }

    fn handle_request(&mut self, now: Time, request: &MessageRef<'_>) -> Result<(), LinkError> {
        // The reader passes no other request than PING and GOAWAY.
        if request.head.operation != Operation::Link(LinkOperation::Ping) {
            return Err(LinkError::GoAway);
        }
        let ping = Ping::parse(request)?;
        self.keepalive.sent(now, false);
        // Before the link is up nothing may overtake its handshake.
        let out = if self.is_up() { self.outbox.urgent() } else { self.outbox.buffer() };
        ping.write_response(out);
        Ok(())
    }

    // ---- time

    /// When [`check`](Self::check) has to be called.
    pub(crate) fn deadline(&self) -> Option<Time> {
        [self.keepalive.deadline(self.may_ping()), self.pending.next_deadline()].into_iter().flatten().min()
    }

    /// Sends a ping if one is due.
    ///
    /// # Errors
    /// [`LinkError::Silent`]: the connection has to be closed.
    pub(crate) fn check(&mut self, now: Time) -> Result<(), LinkError> {
        match self.keepalive.check(now, self.may_ping()) {
            KeepaliveAction::Wait => {}
            KeepaliveAction::Silent { silent_ms } => return Err(LinkError::Silent { silent_ms }),
            KeepaliveAction::Ping => {
                let operation = Operation::Link(LinkOperation::Ping);
                let uid = self.enter_own(now, LinkOrigin::Ping, operation);
                self.keepalive.ping_sent(now);
                Ping { uid }.write_request(self.outbox.urgent());
            }
        }
        Ok(())
    }

    /// A server at patch level 0 does not know pings.
    fn may_ping(&self) -> bool {
        matches!(self.state, LinkState::Up { patch_level } if patch_level > 0)
    }

    // ---- the link's own requests

    /// Asks the server to release everything. Returns whether there is a server to ask: the link is
    /// [`Left`](LinkState::Left) when it has answered.
    pub(crate) fn send_bye(&mut self, now: Time) -> bool {
        let is_opening = self.state == LinkState::Resuming && self.handshake.is_complete;
        if self.lock_service().is_ok() || is_opening {
            self.state = LinkState::Leaving;
            self.send_own(now, LinkOrigin::Bye, Operation::Link(LinkOperation::Bye), &[]);
        }
        self.state == LinkState::Leaving
    }

    fn send_hello(&mut self, now: Time) {
        let Some(link_id) = self.link_id else { return };
        self.state = LinkState::Resuming;
        let uid = self.enter_own(now, LinkOrigin::Hello, Operation::Link(LinkOperation::Hello));
        let auth_token = self.settings.auth_token.as_ref().map_or(&[][..], AuthToken::as_bytes);
        Hello { link_id, auth_token }.write(uid, self.outbox.buffer());
    }

    /// Sends claims while there is capacity, and OPEN behind the last of them.
    fn send_claims(&mut self, now: Time) {
        while self.outbox.len() < LINK_OUTBOX_BYTES_MAX {
            let Some(batch) = self.handshake.next_claims(now, &self.held) else {
                self.handshake.is_complete = true;
                self.send_own(now, LinkOrigin::Open, Operation::Link(LinkOperation::Open), &[]);
                for owner in std::mem::take(&mut self.gone_owners) {
                    self.send_detach(now, owner);
                }
                return;
            };
            self.known_owners.extend(batch.owners);
            let operation = Operation::Link(LinkOperation::Claim);
            self.send_own(now, LinkOrigin::Claims(batch.ids), operation, &batch.data);
        }
    }

    /// Asks the server to release what a gone owner held.
    pub(crate) fn send_detach(&mut self, now: Time, owner: u64) {
        let operation = Operation::Link(LinkOperation::Detach);
        let uid = self.enter(now, PendingRequest::prompt(None, operation), None);
        Detach { owner }.write(uid, self.outbox.buffer());
    }

    fn finish_handshake(&mut self) {
        if let Some((welcome, patch_level)) = self.handshake.outcome()
            && self.state == LinkState::Resuming
        {
            self.state = LinkState::Up { patch_level };
            self.grace_ms = (welcome.status == LockStatus::Ok).then_some(welcome.grace_ms);
            self.handshake = Handshake::default();
        }
    }

    fn send_own(&mut self, now: Time, own: LinkOrigin<H::Id, P>, operation: Operation, data: &[u8]) {
        let uid = self.enter_own(now, own, operation);
        write_message(self.outbox.buffer(), MessageHead::request(uid, operation), data);
    }

    fn enter_own(&mut self, now: Time, own: LinkOrigin<H::Id, P>, operation: Operation) -> u32 {
        self.keepalive.sent(now, true);
        self.pending.insert(PendingRequest::prompt(Some(own), operation), None)
    }
}

/// The request if it is of the link's owner and its answer is not ignored.
fn of_owner<I, P>(uid: u32, request: PendingRequest<LinkOrigin<I, P>>) -> Option<(u32, Operation, P)> {
    match request.payload {
        Some(LinkOrigin::Owner(payload)) => Some((uid, request.operation, payload)),
        _ => None,
    }
}
