//! A connection that speaks frames: sessions, locks, and the link of an agent.
//!
//! A blocked request does not delay others: it is answered when its completion arrives. A connection that has
//! sent HELLO is a link: when it breaks, the locks of its owners are kept until the grace period ends or the
//! link is resumed.

use super::blocked::{BlockedRequest, BlockedRequests};
use super::close_reason::ServerCloseReason;
use super::connection::{PeerState, ServerContext};
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

/// Most session ids that the store is asked to prefetch at once.
const PREFETCHED_MAX: usize = 16;

const PING: Operation = Operation::Link(LinkOperation::Ping);

#[derive(Debug)]
pub(super) struct FrameProtocol {
    reader: MessageReader,
    /// Made by the first request about locks or the link.
    locks: Option<Box<ConnectionLocks>>,
}

/// The state of a connection that uses locks.
#[derive(Debug)]
struct ConnectionLocks {
    link: Option<Arc<LinkEntry>>,
    last_heard: Time,
    /// A ping was sent since the last input.
    is_pinged: bool,
    blocked: BlockedRequests,
}

impl Default for FrameProtocol {
    fn default() -> Self {
        Self { reader: MessageReader::server(), locks: None }
    }
}

impl FrameProtocol {
    pub(super) fn is_inside_message(&self) -> bool {
        self.reader.is_inside_message()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.reader.is_inside_message()
            && self.locks.as_ref().is_none_or(|locking| locking.blocked.is_empty())
    }

    /// When a link is to be pinged or, if it was, closed.
    pub(super) fn deadline(&self, read_timeout_ms: u64) -> Option<Time> {
        let locking = self.locks.as_ref().filter(|locking| locking.link.is_some())?;
        let silence_ms = if locking.is_pinged { read_timeout_ms } else { read_timeout_ms / 2 };
        Some(locking.last_heard.after_ms(silence_ms))
    }

    /// Pings a link that has been silent for half of the read timeout; closes it after all of it.
    pub(super) fn handle_timeout(&mut self, cx: &mut ServerContext<'_>) -> Result<(), ServerCloseReason> {
        match &mut self.locks {
            Some(locking) if !locking.is_pinged => {
                locking.is_pinged = true;
                Ping { uid: 0 }.write_request(cx.output);
                Ok(())
            }
            _ => Err(ServerCloseReason::Silent),
        }
    }

    /// Answers requests until the output is full or the input contains no whole one.
    pub(super) fn handle_requests(
        &mut self,
        cx: &mut ServerContext<'_>,
        peer: &mut PeerState,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        if let Some(locking) = &mut self.locks {
            locking.last_heard = cx.now;
            locking.is_pinged = false;
        }
        let mut prefetched = 0_usize;
        let result = loop {
            if cx.output.len() >= OUTBOX_BYTES_MAX && !input.is_empty() {
                break Ok(());
            }
            if prefetched == 0 {
                prefetched = prefetch(input, cx.service);
            }
            prefetched -= 1;
            let request = match self.reader.next(input) {
                Ok(Some(request)) => request,
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption.into()),
            };
            peer.has_asked = true;
            if request.head.direction == Direction::Response {
                match self.locks.as_ref().and_then(|locking| locking.link.as_ref()) {
                    // Its arrival is all that matters.
                    Some(_) if request.head.operation == PING => continue,
                    _ => {
                        break Err(
                            DecodeError::Direction { direction: Direction::Response, offset: 4 }.into()
                        );
                    }
                }
            }
            let answered = match request.head.operation {
                Operation::Session(operation) if peer.admitted => session(cx, operation, &request),
                _ if peer.admitted => locking_of(&mut self.locks, cx.now).answer(cx, peer.id, &request),
                _ => locking_of(&mut self.locks, cx.now).admit(cx, peer, &request),
            };
            if answered.is_err() {
                break answered;
            }
        };
        self.reader.reclaim();
        result
    }

    /// Takes the answer to a blocked request.
    pub(super) fn handle_completion(&mut self, cx: &mut ServerContext<'_>, completion: &Completion) {
        let uid = completion.reply.uid;
        if let Some(locking) = &mut self.locks
            && locking.blocked.get(uid).is_some_and(|blocked| blocked.waiter == completion.ticket)
            && let Some(blocked) = locking.blocked.remove(uid)
        {
            late_answer(completion.outcome).write(blocked.request(uid), cx.output);
        }
    }

    /// Takes the blocked requests out of their queues and answers them `error_disconnected`. A request that
    /// was granted before stays, since its completion is pending.
    pub(super) fn cancel_waiters(&mut self, cx: &mut ServerContext<'_>) {
        let Some(locks) = &mut self.locks else { return };
        for uid in locks.blocked.uids() {
            locks.take_back(cx, uid, LockStatus::ErrorDisconnected);
        }
    }

    /// The connection is gone. Returns whether it used locks.
    pub(super) fn close(self, cx: &mut ServerContext<'_>, id: ConnectionId) -> bool {
        let Some(locking) = self.locks else { return false };
        match &locking.link {
            Some(link) => {
                let links = cx.service.links();
                links.broke(cx.now, link, id, cx.service.locks(), &mut cx.effects.completions);
                if link.number() != id {
                    // Locks that it requested before HELLO.
                    cx.service.end_connection(cx.now, id, cx.effects);
                }
            }
            None => cx.service.end_connection(cx.now, id, cx.effects),
        }
        true
    }
}

impl ConnectionLocks {
    /// Handles the first request if an auth token is configured.
    fn admit(
        &mut self,
        cx: &mut ServerContext<'_>,
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
        self.answer_link(cx, peer.id, request, LinkOperation::Hello)?;
        peer.admitted = true;
        Ok(())
    }

    fn answer(
        &mut self,
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
    ) -> Result<(), ServerCloseReason> {
        match request.head.operation {
            Operation::Lock(operation) => self.answer_lock(cx, id, request, operation),
            Operation::Link(operation) => self.answer_link(cx, id, request, operation),
            Operation::Session(operation) => session(cx, operation, request),
        }
    }

    fn answer_lock(
        &mut self,
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
        operation: LockOperation,
    ) -> Result<(), ServerCloseReason> {
        let head = request.head;
        let LockRequest { owner, action } = match LockRequest::parse(operation, request.data)? {
            Ok(request) => request,
            Err(status) => {
                cx.counters.count_lock(operation, false);
                LockAnswer::Status(status).write(head, cx.output);
                return Ok(());
            }
        };
        if let LockAction::Cancel { uid } = action {
            self.cancel(cx, head, uid);
            return Ok(());
        }
        // Only the uid tells which request an answer belongs to.
        if action.may_block() && self.blocked.get(head.uid).is_some() {
            LockAnswer::Status(LockStatus::Error).write(head, cx.output);
            return Ok(());
        }
        let connection = self.link.as_ref().map_or(id, |link| link.number());
        let local = owner;
        let owner = Owner { connection, local };
        let requester = Requester { owner, reply: ReplyTo { connection: id, uid: head.uid } };
        let mut lock =
            || cx.service.lock(cx.now, &action, requester, &mut cx.effects.completions, cx.counters);
        let reply = match &self.link {
            Some(link) => link.act(id, lock).ok_or(ServerCloseReason::TakenOver)?,
            None => lock(),
        };
        match reply {
            LockReply::Answer(answer) => answer.write(head, cx.output),
            LockReply::Stats(json) => LockAnswer::Stats(&json).write(head, cx.output),
            LockReply::Blocked(waiter) => {
                self.blocked.insert(head.uid, BlockedRequest { waiter, operation, local });
            }
        }
        Ok(())
    }

    fn cancel(&mut self, cx: &mut ServerContext<'_>, head: MessageHead, uid: u32) {
        let cancelled = self.take_back(cx, uid, LockStatus::Timeout);
        cx.counters.count_lock(LockOperation::Cancel, cancelled);
        let status = if cancelled { LockStatus::Ok } else { LockStatus::Error };
        LockAnswer::Status(status).write(head, cx.output);
    }

    /// Takes a request out of its queue and answers it with `status`. Returns `false` if it was not there,
    /// because its completion is pending.
    fn take_back(&mut self, cx: &mut ServerContext<'_>, uid: u32, status: LockStatus) -> bool {
        let waited = self
            .blocked
            .get(uid)
            .filter(|blocked| cx.service.locks().cancel(cx.now, blocked.waiter, &mut cx.effects.completions));
        if let Some(blocked) = waited {
            self.blocked.remove(uid);
            LockAnswer::Status(status).write(blocked.request(uid), cx.output);
        }
        waited.is_some()
    }

    fn answer_link(
        &mut self,
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
        operation: LinkOperation,
    ) -> Result<(), ServerCloseReason> {
        let head = request.head;
        match operation {
            LinkOperation::Ping => {
                Ping::parse(request)?;
                write_message(cx.output, head.response(), &[]);
            }
            LinkOperation::Hello => self.handle_hello(cx, id, head, Hello::parse(request.data)?)?,
            LinkOperation::Claim => self.claim(cx, id, request)?,
            LinkOperation::Open => {
                let link = self.link()?;
                let end_claims = || {
                    let locks = cx.service.locks();
                    locks.end_claims(cx.now, link.number(), &mut cx.effects.completions);
                };
                if cx.service.links().settings().auto_release {
                    link.act(id, end_claims).ok_or(ServerCloseReason::TakenOver)?;
                }
                LockAnswer::Status(LockStatus::Ok).write(head, cx.output);
            }
            LinkOperation::Detach => {
                let Detach { owner } = Detach::parse(request.data)?;
                let link = self.link()?;
                let detached = Owner { connection: link.number(), local: owner };
                let detach = || cx.service.end_owner(cx.now, detached, cx.effects);
                link.act(id, detach).ok_or(ServerCloseReason::TakenOver)?;
                // The agent keeps their uids until they are answered.
                while let Some((uid, blocked)) = self.blocked.remove_one_of(owner) {
                    LockAnswer::Status(LockStatus::Error).write(blocked.request(uid), cx.output);
                }
                LockAnswer::Status(LockStatus::Ok).write(head, cx.output);
            }
            LinkOperation::Bye => {
                let link = self.link()?;
                let locks = cx.service.locks();
                cx.service.links().bye(cx.now, link, id, locks, &mut cx.effects.completions);
                LockAnswer::Status(LockStatus::Ok).write(head, cx.output);
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
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        head: MessageHead,
        hello: Hello<'_>,
    ) -> Result<(), ServerCloseReason> {
        if cx.service.auth().is_some_and(|auth| !auth.matches(hello.auth_token)) {
            cx.counters.count_wrong_token();
            Welcome { status: LockStatus::ErrorAuth, grace_ms: 0, remembered: 0 }.write(head, cx.output);
            return Err(ServerCloseReason::WrongToken);
        }
        if self.link.is_some() {
            return Err(DecodeError::Data { operation: "HELLO", problem: "the link is open already" }.into());
        }
        let links = cx.service.links();
        let locks = cx.service.locks();
        let greeted = links.hello(cx.now, hello.link_id, id, locks, &mut cx.effects.completions);
        cx.effects.taken_over.extend(greeted.taken_from);
        cx.effects.link_opened = true;
        self.link = Some(greeted.link);
        let grace_ms = links.settings().grace_ms;
        Welcome { status: LockStatus::Ok, grace_ms, remembered: greeted.remembered }.write(head, cx.output);
        Ok(())
    }

    fn claim(
        &self,
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        request: &MessageRef<'_>,
    ) -> Result<(), ServerCloseReason> {
        let link = self.link()?;
        let start = cx.output.len();
        let writer = MessageWriter::begin(cx.output, request.head.response());
        let claims = || {
            for claim in Claim::parse_all(request.data) {
                let still = claim?.is_some_and(|claim| {
                    let owner = Owner { connection: link.number(), local: claim.owner };
                    cx.service.locks().claim(cx.now, owner, claim.key, claim.token)
                });
                cx.output.push(if still { LockStatus::Ok } else { LockStatus::Error } as u8);
            }
            Ok(())
        };
        let claimed: Result<(), DecodeError> = link.act(id, claims).ok_or(ServerCloseReason::TakenOver)?;
        if let Err(corruption) = claimed {
            cx.output.truncate(start);
            return Err(corruption.into());
        }
        writer.finish(cx.output);
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
    cx: &mut ServerContext<'_>,
    operation: SessionOperation,
    request: &MessageRef<'_>,
) -> Result<(), ServerCloseReason> {
    let (head, data) = (request.head, request.data);
    Ok(cx.service.session(cx.now, operation, head, data, cx.output, cx.counters)?)
}

/// Lets the store prefetch the sessions of the next requests. Returns after how many requests to call it
/// again.
fn prefetch(input: &[u8], service: &Service) -> usize {
    let mut requested = ids_ahead(input).take(PREFETCHED_MAX);
    let Some(first) = requested.next() else {
        return 1;
    };
    let mut ids = [first; PREFETCHED_MAX];
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
