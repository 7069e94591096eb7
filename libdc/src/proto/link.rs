//! The agent's end of the link: whether there is one, what is under way on it, whether the server lives.
//!
//! ```text
//!          connect               the probe is answered             OPEN is answered
//!   Down ───────────▶ Probing ──────────────────────────▶ Resuming ────────────────▶ Up { patch_level }
//!    ▲ │                 │  └──── patch level 0 ─────────────│──────────────────────▶ │
//!    │ └─────────────────│─────── with a token ────────────▶ │                        │ say_bye
//!    │                   │                                   │                        ▼
//!    └───────────────────┴──────── fault, end ───────────────┴────── Left ◀──────── Leaving
//!                                                                      BYE is answered
//! ```
//!
//! The probe is a HAVE of a random id, an ordinary miss to any server; its answer carries the server's patch
//! level. A server at patch level 0 gets nothing but requests about sessions; any other is told which link this is
//! and what is still held over it ([`handshake`](crate::proto::handshake)) before it gets anything else. An agent that
//! has a token of authentication does not probe, since nothing but HELLO may come first then.

use crate::limits::{
    LINK_BLOCKED_MAX, LINK_OUTBOX_BYTES_MAX, PING_INTERVAL_MS, PING_TIMEOUT_MS_MAX, PING_TIMEOUT_MS_MIN,
};
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::pending_locks::PendingLocks;
use crate::proto::handshake::{Handshake, LinkIdentity};
use crate::proto::outbox::Outbox;
use crate::proto::pending::{AgentOrigin, PendingRequest, PendingTable};
use crate::time::Time;
use crate::wire::frame::{DecodeError, Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use crate::wire::link::{Detach, Hello};
use crate::wire::lock::LockStatus;
use crate::wire::message::{MessageReader, MessageRef, write_message};
use std::collections::HashSet;
use thiserror::Error;

/// Why the link is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// What the server sent can't be read.
    #[error("the server sent {0}, at byte {offset} of the frame", offset = .0.offset())]
    Corruption(#[from] DecodeError),
    /// The server wants the link to be made anew.
    #[error("the server asks to reconnect")]
    GoAway,
    /// An answer came that nobody had asked for.
    #[error("the server answered a request that was not made")]
    Unasked,
    /// An answer names another operation than its request.
    #[error("the server answered another operation than was asked")]
    OtherOperation,
    /// Something was asked, and nothing at all came back.
    #[error("the server has been silent for {silent_ms} ms")]
    Silent {
        /// For how long.
        silent_ms: u64,
    },
    /// The server does not want this agent.
    #[error("the server refuses the link: {}", match .status {
        LockStatus::ErrorAuth => "the token of authentication is wrong or lacking",
        status => status.name(),
    })]
    Refused {
        /// Its answer to HELLO.
        status: LockStatus,
    },
    /// The server answered what opens the link wrongly.
    #[error("the server does not open the link: {problem}")]
    Handshake {
        /// What is wrong.
        problem: &'static str,
    },
}

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Down,
    /// There is one; the server has not answered yet.
    Probing,
    /// The server is told who this is and what is held. Requests can't be sent on yet.
    Resuming,
    /// The server answers, at this patch level.
    Up {
        /// 0 is a distcache 1.x server.
        patch_level: u16,
    },
    /// The server was told that the agent ends. Nothing more is asked of it.
    Leaving,
    /// The server has released everything: the connection can be closed.
    Left,
}

/// The agent's end of the link.
#[derive(Debug)]
pub(crate) struct Link {
    introduction: LinkIdentity,
    /// How long the server may be silent although something was asked, in milliseconds.
    silence_ms_max: u64,
    pub(crate) state: LinkState,
    pub(crate) reader: MessageReader,
    pub(crate) unread: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) flight: PendingTable,
    pub(crate) lock_flight: PendingLocks,
    pub(crate) holdings: HeldLocks,
    /// What the server said of itself, if it serves locks.
    grace_ms: Option<u32>,
    resume: Handshake,
    last_owner: u64,
    /// Owners that the server has heard of since the link was connected.
    known_owners: HashSet<u64, foldhash::fast::FixedState>,
    /// Those of them that are gone, which the server may be told once the link is open.
    gone_owners: Vec<u64>,
    last_heard: Time,
    last_said: Time,
    /// Since when something has been asked that is answered at once, and nothing came.
    silent_since: Option<Time>,
    ping_under_way: bool,
}

impl Link {
    pub(crate) fn new(timeout_ms: u64, introduction: LinkIdentity) -> Self {
        let silence_ms_max = match timeout_ms {
            0 => PING_TIMEOUT_MS_MAX,
            timeout_ms => timeout_ms.clamp(PING_TIMEOUT_MS_MIN, PING_TIMEOUT_MS_MAX),
        };
        Self {
            introduction,
            silence_ms_max,
            state: LinkState::Down,
            reader: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            outbox: Outbox::framed(),
            flight: PendingTable::default(),
            lock_flight: PendingLocks::default(),
            holdings: HeldLocks::default(),
            grace_ms: None,
            resume: Handshake::default(),
            last_owner: 0,
            known_owners: HashSet::default(),
            gone_owners: Vec::new(),
            last_heard: Time::default(),
            last_said: Time::default(),
            silent_since: None,
            ping_under_way: false,
        }
    }

    /// There is a connection: asks who the server is, or says who this is.
    pub(crate) fn connect(&mut self, now: Time, probe_id: &[u8; 32]) {
        self.last_heard = now;
        if self.introduction.auth_token.is_some() {
            self.begin_resume(now);
            return;
        }
        self.state = LinkState::Probing;
        let probe = PendingRequest::prompt(AgentOrigin::Agent, Operation::Session(SessionOperation::Have));
        self.send(now, probe, probe_id, None);
    }

    /// There is no connection any more. Gives back the requests that were under way, with their uids.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = (u32, PendingRequest)> + use<> {
        self.state = LinkState::Down;
        self.reader = MessageReader::link(Direction::Response);
        self.unread = Vec::new();
        self.outbox.clear();
        self.grace_ms = None;
        self.resume = Handshake::default();
        self.known_owners.clear();
        self.gone_owners.clear();
        self.silent_since = None;
        self.ping_under_way = false;
        self.flight.drain()
    }

    /// Whether requests are sent on.
    #[inline]
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up { .. })
    }

    /// The grace of the server, if it can be asked for locks now.
    ///
    /// # Errors
    /// With what a request about a lock is answered.
    pub(crate) fn lock_service(&self) -> Result<u32, LockStatus> {
        match self.grace_ms {
            _ if !self.is_up() => Err(LockStatus::ErrorDisconnected),
            Some(grace_ms) => Ok(grace_ms),
            None => Err(LockStatus::ErrorUnsupported),
        }
    }

    /// Whether one more request may be taken: there is room for it, or it is answered at once.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        !self.is_up() || (self.outbox.len() < LINK_OUTBOX_BYTES_MAX && !self.flight.is_full())
    }

    /// Whether one more request may be blocked at the server.
    pub(crate) const fn may_block(&self) -> bool {
        self.flight.blocked() < LINK_BLOCKED_MAX
    }

    /// Sends a request. Returns its uid.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now: Time,
        request: PendingRequest,
        data: &[u8],
        deadline: Option<Time>,
    ) -> u32 {
        let uid = self.enter(now, request, deadline);
        write_message(self.outbox.buffer(), MessageHead::request(uid, request.operation), data);
        uid
    }

    /// Enters a request that is going to be sent. Returns its uid.
    #[inline]
    pub(crate) fn enter(&mut self, now: Time, request: PendingRequest, deadline: Option<Time>) -> u32 {
        if !request.may_block {
            self.silent_since.get_or_insert(now);
        }
        self.last_said = now;
        self.flight.insert(request, deadline)
    }

    /// Something came from the server.
    pub(crate) fn handle_message(&mut self, now: Time) {
        self.last_heard = now;
        self.silent_since = (self.flight.prompt() > 0).then_some(now);
    }

    /// The bytes that were to be written have been, some of them.
    pub(crate) fn written(&mut self, now: Time, count: usize) {
        self.outbox.advance(count);
        if self.state == LinkState::Resuming && self.resume.is_welcome() && !self.resume.is_complete {
            self.claim_more(now);
        }
    }

    /// An owner is gone: the server releases what it held, if it has heard of it.
    pub(crate) fn detach(&mut self, now: Time, owner: u64) {
        self.holdings.remove_owner(owner);
        if !self.known_owners.remove(&owner) {
            return;
        }
        if self.state == LinkState::Resuming && !self.resume.is_complete {
            self.gone_owners.push(owner);
        } else {
            let operation = Operation::Link(LinkOperation::Detach);
            let uid = self.enter(now, PendingRequest::prompt(AgentOrigin::Nobody, operation), None);
            Detach { owner }.write(uid, self.outbox.buffer());
        }
    }

    /// The number of one more owner, never given before.
    pub(crate) const fn new_owner(&mut self) -> u64 {
        self.last_owner += 1;
        self.last_owner
    }

    /// From now on the server knows that there is such an owner.
    pub(crate) fn owner_sent(&mut self, owner: u64) {
        self.known_owners.insert(owner);
    }

    /// Says that the agent ends. Returns whether there is a server that has to know.
    pub(crate) fn send_bye(&mut self, now: Time) -> bool {
        let is_told = self.state == LinkState::Resuming && self.resume.is_complete;
        if self.lock_service().is_ok() || is_told {
            self.state = LinkState::Leaving;
            let bye = PendingRequest::prompt(AgentOrigin::Agent, Operation::Link(LinkOperation::Bye));
            self.send(now, bye, &[], None);
        }
        self.state == LinkState::Leaving
    }

    /// The server answered a question of the agent's own.
    pub(crate) fn handle_own_answer(&mut self, now: Time, answer: &MessageRef<'_>) -> Result<(), LinkError> {
        match answer.head.operation {
            Operation::Link(LinkOperation::Ping) => self.ping_under_way = false,
            Operation::Link(LinkOperation::Bye) => self.state = LinkState::Left,
            Operation::Link(LinkOperation::Hello) => {
                let patch_level = answer.head.patch_level;
                self.resume.welcomed(answer.data, patch_level)?;
                self.claim_more(now);
                self.finish_resume();
            }
            Operation::Link(LinkOperation::Claim) => {
                self.resume.claim_answered(answer.head.uid, answer.data, &mut self.holdings)?;
                self.finish_resume();
            }
            Operation::Link(LinkOperation::Open) => {
                self.resume.opened(answer.data)?;
                self.finish_resume();
            }
            Operation::Session(_) if answer.head.patch_level > 0 => self.begin_resume(now),
            Operation::Session(_) => self.state = LinkState::Up { patch_level: answer.head.patch_level },
            // That a blocked request was given up for an application that left.
            Operation::Lock(_) | Operation::Link(_) => {}
        }
        Ok(())
    }

    /// The server asks something itself.
    pub(crate) fn handle_request(&mut self, now: Time, request: MessageHead) -> Result<(), LinkError> {
        match request.operation {
            Operation::Link(LinkOperation::Ping) => {
                self.last_said = now;
                // Before the link is open nothing may overtake what opens it.
                let out = if self.is_up() { self.outbox.urgent() } else { self.outbox.buffer() };
                write_message(out, request.response(), &[]);
                Ok(())
            }
            // The reader lets nothing else come this way.
            _ => Err(LinkError::GoAway),
        }
    }

    /// When [`check`](Self::check) has to be called.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let silence = self.silent_since.map(|since| since.after_ms(self.silence_ms_max));
        let ping = self.may_ping().then(|| self.quiet_since().after_ms(PING_INTERVAL_MS));
        [silence, ping, self.flight.next_deadline()].into_iter().flatten().min()
    }

    /// Whether the link can be used on; asks whether the server is there when it has long said nothing, or been
    /// told nothing: it too has to know that there is somebody.
    pub(crate) fn check(&mut self, now: Time) -> Result<(), LinkError> {
        let silent_ms = self.silent_since.map_or(0, |since| now.ms_since(since));
        if silent_ms >= self.silence_ms_max {
            return Err(LinkError::Silent { silent_ms });
        }
        if self.may_ping() && now.ms_since(self.quiet_since()) >= PING_INTERVAL_MS {
            self.holdings.purge(now);
            self.ping_under_way = true;
            let operation = Operation::Link(LinkOperation::Ping);
            let uid = self.enter(now, PendingRequest::prompt(AgentOrigin::Agent, operation), None);
            write_message(self.outbox.urgent(), MessageHead::request(uid, operation), &[]);
        }
        Ok(())
    }

    fn begin_resume(&mut self, now: Time) {
        self.state = LinkState::Resuming;
        let hello = PendingRequest::prompt(AgentOrigin::Agent, Operation::Link(LinkOperation::Hello));
        let uid = self.enter(now, hello, None);
        let auth_token = self.introduction.auth_token.as_ref().map_or(&[][..], |token| token.as_bytes());
        Hello { link_id: self.introduction.link_id, auth_token }.write(uid, self.outbox.buffer());
    }

    /// Claims what is held, as much as there is room for; after the last of it opens the link.
    fn claim_more(&mut self, now: Time) {
        while self.outbox.len() < LINK_OUTBOX_BYTES_MAX {
            let Some(claims) = self.resume.next_claims(now, &self.holdings) else {
                self.resume.is_complete = true;
                let open = PendingRequest::prompt(AgentOrigin::Agent, Operation::Link(LinkOperation::Open));
                self.send(now, open, &[], None);
                for owner in std::mem::take(&mut self.gone_owners) {
                    self.known_owners.insert(owner);
                    self.detach(now, owner);
                }
                return;
            };
            let claim = PendingRequest::prompt(AgentOrigin::Agent, Operation::Link(LinkOperation::Claim));
            let uid = self.send(now, claim, &claims.data, None);
            self.known_owners.extend(claims.owners);
            self.resume.claimed(uid, claims.tokens);
        }
    }

    fn finish_resume(&mut self) {
        if let Some((welcome, patch_level)) = self.resume.outcome()
            && self.state == LinkState::Resuming
        {
            self.state = LinkState::Up { patch_level };
            self.grace_ms = (welcome.status == LockStatus::Ok).then_some(welcome.grace_ms);
            self.resume = Handshake::default();
        }
    }

    fn quiet_since(&self) -> Time {
        self.last_heard.min(self.last_said)
    }

    /// A server at patch level 0 does not know pings.
    fn may_ping(&self) -> bool {
        !self.ping_under_way && matches!(self.state, LinkState::Up { patch_level } if patch_level > 0)
    }
}
