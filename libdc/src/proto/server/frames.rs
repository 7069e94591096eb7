//! A connection that speaks frames: sessions, locks, and the link of an agent.
//!
//! Requests that wait for a lock hold nobody back: their answers come when they come. A connection that said
//! HELLO is a link: when it breaks, what its owners hold waits for it to be resumed.

use super::blocked::{BlockedRequest, BlockedRequests};
use super::connection::{PeerState, ServerCloseReason, ServerContext};
use crate::id::{ConnectionId, Owner};
use crate::limits::OUTBOX_BYTES_MAX;
use crate::service::{Completion, LinkEntry, LockReply, ReplyTo, Requester, Service, late_answer};
use crate::time::Time;
use crate::wire::frame::{
    DecodeError, Direction, LinkOperation, LockOperation, MessageHead, Operation, SessionOperation,
};
use crate::wire::link::{Claim, Detach, Hello, Ping, Welcome};
use crate::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use crate::wire::message::{MessageReader, MessageRef, MessageWriter, write_message};
use crate::wire::session::ids_ahead;
use std::sync::Arc;

/// Most requests for which the store is told at once what will be asked.
const ANNOUNCED_MAX: usize = 16;

const PING: Operation = Operation::Link(LinkOperation::Ping);

/// What the server knows of it.
#[derive(Debug)]
pub(super) struct FrameProtocol {
    reader: MessageReader,
    /// There once it has asked for a lock, or said HELLO.
    locking: Option<Box<ConnectionLocks>>,
}

/// What is known of a connection that has to do with locks.
#[derive(Debug)]
struct ConnectionLocks {
    link: Option<Arc<LinkEntry>>,
    last_heard: Time,
    /// It has been asked, since it was last heard of, whether it is there.
    is_pinged: bool,
    blocked: BlockedRequests,
}

impl Default for FrameProtocol {
    fn default() -> Self {
        Self { reader: MessageReader::server(), locking: None }
    }
}

impl FrameProtocol {
    pub(super) fn is_inside_message(&self) -> bool {
        self.reader.is_inside_message()
    }

    pub(super) const fn expects_mail(&self) -> bool {
        self.locking.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.reader.is_inside_message()
            && self.locking.as_ref().is_none_or(|locking| locking.blocked.is_empty())
    }

    /// When a link has to be asked whether it is there or, if it was, given up.
    pub(super) fn deadline(&self, read_timeout_ms: u64) -> Option<Time> {
        let locking = self.locking.as_ref().filter(|locking| locking.link.is_some())?;
        let silence_ms = if locking.is_pinged { read_timeout_ms } else { read_timeout_ms / 2 };
        Some(locking.last_heard.after_ms(silence_ms))
    }

    /// Asks a link that has been silent for half of the read timeout; gives it up after all of it.
    pub(super) fn handle_timeout(&mut self, turn: &mut ServerContext<'_>) -> Result<(), ServerCloseReason> {
        match &mut self.locking {
            Some(locking) if !locking.is_pinged => {
                locking.is_pinged = true;
                Ping { uid: 0 }.write_request(turn.out);
                Ok(())
            }
            _ => Err(ServerCloseReason::Silent),
        }
    }

    /// Answers requests until the output is full or the input has no whole one.
    pub(super) fn handle_requests(
        &mut self,
        turn: &mut ServerContext<'_>,
        peer: &mut PeerState,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        if let Some(locking) = &mut self.locking {
            locking.last_heard = turn.now;
            locking.is_pinged = false;
        }
        let mut announced = 0_usize;
        let result = loop {
            if turn.out.len() >= OUTBOX_BYTES_MAX && !input.is_empty() {
                break Ok(());
            }
            if announced == 0 {
                announced = announce(input, turn.service);
            }
            announced -= 1;
            let request = match self.reader.next(input) {
                Ok(Some(request)) => request,
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption.into()),
            };
            peer.has_asked = true;
            if request.head.direction == Direction::Response {
                match self.locking.as_ref().and_then(|locking| locking.link.as_ref()) {
                    // That it came is all that matters.
                    Some(_) if request.head.operation == PING => continue,
                    _ => {
                        break Err(
                            DecodeError::Direction { direction: Direction::Response, offset: 4 }.into()
                        );
                    }
                }
            }
            let answered = match request.head.operation {
                Operation::Session(operation) if peer.admitted => session(turn, operation, &request),
                _ if peer.admitted => locking_of(&mut self.locking, turn.now).answer(turn, peer.id, &request),
                _ => locking_of(&mut self.locking, turn.now).admit(turn, peer, &request),
            };
            if answered.is_err() {
                break answered;
            }
        };
        self.reader.reclaim();
        result
    }

    /// Takes the answer to a request that was blocked.
    pub(super) fn handle_completion(&mut self, turn: &mut ServerContext<'_>, answer: &Completion) {
        let uid = answer.reply.uid;
        if let Some(locking) = &mut self.locking
            && locking.blocked.get(uid).is_some_and(|blocked| blocked.ticket == answer.ticket)
            && let Some(blocked) = locking.blocked.remove(uid)
        {
            late_answer(answer.outcome).write(blocked.request(uid), turn.out);
        }
    }

    /// Answers what waits for a lock, and will not get it. Returns whether there was something.
    pub(super) fn cancel_waiters(&mut self, turn: &mut ServerContext<'_>) -> bool {
        let Some(locking) = &mut self.locking else { return false };
        let mut some = false;
        for uid in locking.blocked.uids() {
            some |= locking.take_back(turn, uid, LockStatus::ErrorDisconnected);
        }
        some
    }

    /// The connection is gone. Returns whether it had to do with locks.
    pub(super) fn close(self, turn: &mut ServerContext<'_>, id: ConnectionId) -> bool {
        let Some(locking) = self.locking else { return false };
        match &locking.link {
            Some(link) => {
                let links = turn.service.links();
                links.broke(turn.now, link, id, turn.service.locks(), &mut turn.effects.answers);
                if link.number() != id {
                    // What it asked for before it said HELLO, if anything.
                    turn.service.end_connection(turn.now, id, turn.effects);
                }
            }
            None => turn.service.end_connection(turn.now, id, turn.effects),
        }
        true
    }
}

impl ConnectionLocks {
    /// The first request where authentication is configured.
    fn admit(
        &mut self,
        turn: &mut ServerContext<'_>,
        peer: &mut PeerState,
        request: &MessageRef<'_>,
    ) -> Result<(), ServerCloseReason> {
        if request.head.operation != Operation::Link(LinkOperation::Hello) {
            return Err(ServerCloseReason::NotAuthenticated(if request.head.patch_level == 0 {
                "a program of distcache 1.x knows no token"
            } else {
                "the first message was not HELLO"
            }));
        }
        self.answer_link(turn, peer.id, request, LinkOperation::Hello)?;
        peer.admitted = true;
        Ok(())
    }

    fn answer(
        &mut self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
    ) -> Result<(), ServerCloseReason> {
        match request.head.operation {
            Operation::Lock(operation) => self.answer_lock(turn, id, request, operation),
            Operation::Link(operation) => self.answer_link(turn, id, request, operation),
            Operation::Session(operation) => session(turn, operation, request),
        }
    }

    fn answer_lock(
        &mut self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
        operation: LockOperation,
    ) -> Result<(), ServerCloseReason> {
        let head = request.head;
        let LockRequest { owner, action } = match LockRequest::parse(operation, request.data)? {
            Ok(request) => request,
            Err(status) => {
                turn.tally.count_lock(operation, false);
                LockAnswer::Status(status).write(head, turn.out);
                return Ok(());
            }
        };
        if let LockAction::Cancel { uid } = action {
            self.cancel(turn, head, uid);
            return Ok(());
        }
        // Whom an answer is for, only its uid says.
        if action.may_block() && self.blocked.get(head.uid).is_some() {
            LockAnswer::Status(LockStatus::Error).write(head, turn.out);
            return Ok(());
        }
        let connection = self.link.as_ref().map_or(id, |link| link.number());
        let local = owner;
        let owner = Owner { connection, local };
        let asker = Requester { owner, reply: ReplyTo { connection: id, uid: head.uid } };
        let mut lock = || turn.service.lock(turn.now, &action, asker, &mut turn.effects.answers, turn.tally);
        let reply = match &self.link {
            Some(link) => link.act(id, lock).ok_or(ServerCloseReason::TakenOver)?,
            None => lock(),
        };
        match reply {
            LockReply::Answer(answer) => answer.write(head, turn.out),
            LockReply::Stats(json) => LockAnswer::Stats(&json).write(head, turn.out),
            LockReply::Blocked(ticket) => {
                self.blocked.insert(head.uid, BlockedRequest { ticket, operation, local });
            }
        }
        Ok(())
    }

    fn cancel(&mut self, turn: &mut ServerContext<'_>, head: MessageHead, uid: u32) {
        let cancelled = self.take_back(turn, uid, LockStatus::Timeout);
        turn.tally.count_lock(LockOperation::Cancel, cancelled);
        let status = if cancelled { LockStatus::Ok } else { LockStatus::Error };
        LockAnswer::Status(status).write(head, turn.out);
    }

    /// Takes a request out of its queue and answers it so. Returns whether it was there: its answer may be on its way.
    fn take_back(&mut self, turn: &mut ServerContext<'_>, uid: u32, status: LockStatus) -> bool {
        let waited = self.blocked.get(uid).filter(|blocked| {
            turn.service.locks().cancel(turn.now, blocked.ticket, &mut turn.effects.answers)
        });
        if let Some(blocked) = waited {
            self.blocked.remove(uid);
            LockAnswer::Status(status).write(blocked.request(uid), turn.out);
        }
        waited.is_some()
    }

    fn answer_link(
        &mut self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
        operation: LinkOperation,
    ) -> Result<(), ServerCloseReason> {
        let head = request.head;
        match operation {
            LinkOperation::Ping => {
                Ping::parse(request)?;
                write_message(turn.out, head.response(), &[]);
            }
            LinkOperation::Hello => self.handle_hello(turn, id, head, Hello::parse(request.data)?)?,
            LinkOperation::Claim => self.claim(turn, id, request)?,
            LinkOperation::Open => {
                let link = self.link()?;
                let end_claims = || {
                    let locks = turn.service.locks();
                    locks.end_claims(turn.now, link.number(), &mut turn.effects.answers);
                };
                if turn.service.links().settings().auto_release {
                    link.act(id, end_claims).ok_or(ServerCloseReason::TakenOver)?;
                }
                LockAnswer::Status(LockStatus::Ok).write(head, turn.out);
            }
            LinkOperation::Detach => {
                let Detach { owner } = Detach::parse(request.data)?;
                let link = self.link()?;
                let detached = Owner { connection: link.number(), local: owner };
                let detach = || turn.service.end_owner(turn.now, detached, turn.effects);
                link.act(id, detach).ok_or(ServerCloseReason::TakenOver)?;
                // Nobody waits for these any more, but the agent keeps their uids until they are answered.
                while let Some((uid, blocked)) = self.blocked.remove_one_of(owner) {
                    LockAnswer::Status(LockStatus::Error).write(blocked.request(uid), turn.out);
                }
                LockAnswer::Status(LockStatus::Ok).write(head, turn.out);
            }
            LinkOperation::Bye => {
                let link = self.link()?;
                let locks = turn.service.locks();
                turn.service.links().bye(turn.now, link, id, locks, &mut turn.effects.answers);
                LockAnswer::Status(LockStatus::Ok).write(head, turn.out);
                return Err(ServerCloseReason::Bye);
            }
            LinkOperation::GoAway => {
                return Err(
                    DecodeError::Data { operation: "GOAWAY", problem: "only a server says it" }.into()
                );
            }
        }
        Ok(())
    }

    fn handle_hello(
        &mut self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        head: MessageHead,
        hello: Hello<'_>,
    ) -> Result<(), ServerCloseReason> {
        if turn.service.auth().is_some_and(|auth| !auth.matches(hello.auth_token)) {
            turn.tally.count_wrong_token();
            Welcome { status: LockStatus::ErrorAuth, grace_ms: 0, remembered: 0 }.write(head, turn.out);
            return Err(ServerCloseReason::WrongToken);
        }
        if self.link.is_some() {
            return Err(DecodeError::Data { operation: "HELLO", problem: "the link is open already" }.into());
        }
        let links = turn.service.links();
        let locks = turn.service.locks();
        let greeted = links.hello(turn.now, hello.link_id, id, locks, &mut turn.effects.answers);
        turn.effects.taken_over.extend(greeted.taken_from);
        turn.effects.greeted = true;
        self.link = Some(greeted.link);
        let grace_ms = links.settings().grace_ms;
        Welcome { status: LockStatus::Ok, grace_ms, remembered: greeted.remembered }.write(head, turn.out);
        Ok(())
    }

    fn claim(
        &self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
    ) -> Result<(), ServerCloseReason> {
        let link = self.link()?;
        let start = turn.out.len();
        let writer = MessageWriter::begin(turn.out, request.head.response());
        let claims = || {
            for claim in Claim::parse_all(request.data) {
                let still = claim?.is_some_and(|claim| {
                    let owner = Owner { connection: link.number(), local: claim.owner };
                    turn.service.locks().claim(turn.now, owner, claim.key, claim.token)
                });
                turn.out.push(if still { LockStatus::Ok } else { LockStatus::Error } as u8);
            }
            Ok(())
        };
        let claimed: Result<(), DecodeError> = link.act(id, claims).ok_or(ServerCloseReason::TakenOver)?;
        if let Err(corruption) = claimed {
            turn.out.truncate(start);
            return Err(corruption.into());
        }
        writer.finish(turn.out);
        Ok(())
    }

    fn link(&self) -> Result<&Arc<LinkEntry>, ServerCloseReason> {
        let problem = DecodeError::Data { operation: "the link", problem: "it was not opened by HELLO" };
        self.link.as_ref().ok_or(ServerCloseReason::Corruption(problem))
    }
}

fn locking_of(locking: &mut Option<Box<ConnectionLocks>>, now: Time) -> &mut ConnectionLocks {
    locking.get_or_insert_with(|| {
        Box::new(ConnectionLocks {
            link: None,
            last_heard: now,
            is_pinged: false,
            blocked: BlockedRequests::default(),
        })
    })
}

fn session(
    turn: &mut ServerContext<'_>,
    operation: SessionOperation,
    request: &MessageRef<'_>,
) -> Result<(), ServerCloseReason> {
    let (head, data) = (request.head, request.data);
    Ok(turn.service.session(turn.now, operation, head, data, turn.out, turn.tally)?)
}

/// Tells the store what is asked next, so that it can look for all of it at once. Returns how many requests
/// can be answered before it is worth to look again.
fn announce(input: &[u8], service: &Service) -> usize {
    let mut requested = ids_ahead(input).take(ANNOUNCED_MAX);
    let Some(first) = requested.next() else {
        return 1;
    };
    let mut ids = [first; ANNOUNCED_MAX];
    let mut count = 1;
    for (place, id) in ids[1..].iter_mut().zip(requested) {
        *place = id;
        count += 1;
    }
    if count > 1 {
        service.sessions().prefetch(&ids[..count]);
    }
    count
}
