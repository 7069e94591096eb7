//! Lock requests of a local connection, in frames or in lines, and their answers.
//!
//! A request in frames that may block does not delay the requests behind it, since an answer carries the uid
//! of its request. In lines it does: nothing behind it is taken before it is answered. STATS does so in both,
//! because its answer is long. All other requests may be in flight together; the answer of a line waits for
//! those before it.

use crate::limits::{LOCAL_BLOCKED_MAX, LOCAL_HELD_BACK_BYTES_MAX, LOCAL_IN_FLIGHT_MAX};
use crate::proto::agent::local::{LocalConnection, LocalContext};
use crate::proto::agent::origin::{AgentLink, AgentOrigin, PendingLockRequest, RequestForm};
use crate::proto::outbox::Outbox;
use crate::proto::pending::PendingRequest;
use crate::time::Time;
use crate::wire::frame::{LockOperation, MessageHead, Operation};
use crate::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use std::collections::VecDeque;

/// The lock requests of a local connection.
#[derive(Debug)]
pub(crate) struct LocalLockState {
    /// Its owner number at the server.
    pub(crate) owner: u64,
    blocked: Vec<BlockedLockRequest>,
    /// The uid on the link of the request behind which no other is taken.
    barrier: Option<u32>,
    /// Answers of the line protocol, in the order of the requests.
    pub(crate) lines: OrderedAnswers,
}

/// A request in flight that may block at the server.
#[derive(Clone, Copy, Debug)]
struct BlockedLockRequest {
    form: RequestForm,
    /// Its uid on the link.
    sent: u32,
}

impl LocalLockState {
    pub(crate) const fn new(owner: u64) -> Self {
        Self { owner, blocked: Vec::new(), barrier: None, lines: OrderedAnswers { answers: VecDeque::new() } }
    }

    /// Whether one more request may be taken.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        self.barrier.is_none()
    }

    /// Whether no request is blocked.
    #[inline]
    pub(crate) const fn is_idle(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Whether input waits behind a request, and more than `unread` bytes may.
    pub(crate) const fn may_hold_back(&self, unread: usize) -> bool {
        self.barrier.is_some() && unread < LOCAL_HELD_BACK_BYTES_MAX
    }

    /// Whether nothing but a blocked request keeps the next one from being taken.
    pub(crate) fn is_held_back(&self) -> bool {
        self.barrier.is_some_and(|barrier| self.blocked.iter().any(|blocked| blocked.sent == barrier))
    }

    /// The uid on the link of a blocked request in frames.
    fn sent_as(&self, uid: u32) -> Option<u32> {
        let asked = |blocked: &&BlockedLockRequest| blocked.form == RequestForm::Frame { uid };
        self.blocked.iter().find(asked).map(|blocked| blocked.sent)
    }
}

impl LocalConnection {
    /// Sends a request on, or answers it if that cannot be done.
    pub(crate) fn ask_lock(&mut self, cx: &mut LocalContext<'_>, form: RequestForm, action: LockAction<'_>) {
        if let Err(status) = self.send_lock(cx, form, action) {
            self.answer_lock(cx.now, form, action.operation(), &LockAnswer::Status(status));
        }
    }

    fn send_lock(
        &mut self,
        cx: &mut LocalContext<'_>,
        form: RequestForm,
        action: LockAction<'_>,
    ) -> Result<(), LockStatus> {
        let link = &mut *cx.link;
        link.lock_service()?;
        let action = match action {
            LockAction::Cancel { uid } => {
                LockAction::Cancel { uid: self.locks.sent_as(uid).ok_or(LockStatus::Error)? }
            }
            // The peer may be gone already, so its requests must not wait.
            action if self.is_finished() => without_waiting(action),
            action => action,
        };
        let may_block = action.may_block();
        if may_block && (self.locks.blocked.len() >= LOCAL_BLOCKED_MAX || !link.may_block()) {
            return Err(LockStatus::ErrorMaxWaiters);
        }
        let owner = self.locks.owner;
        let operation = Operation::Lock(action.operation());
        let origin = AgentOrigin::Lock(PendingLockRequest::new(cx.id, owner, form, &action, &link.held));
        let uid = link.enter(cx.now, PendingRequest { payload: Some(origin), operation, may_block }, None);
        link.owner_sent(owner);
        LockRequest { owner, action }.write(uid, link.outbox.buffer());
        if may_block {
            self.locks.blocked.push(BlockedLockRequest { form, sent: uid });
        } else {
            self.in_flight += 1;
        }
        if matches!(action, LockAction::Stats) || (may_block && form == RequestForm::Line) {
            self.locks.barrier = Some(uid);
        }
        if form == RequestForm::Line {
            self.locks.lines.expect(uid);
        }
        Ok(())
    }

    /// A request is answered by the server. `uid` is that on the link.
    pub(crate) fn lock_answered(
        &mut self,
        now: Time,
        uid: u32,
        form: RequestForm,
        operation: LockOperation,
        answer: &LockAnswer<'_>,
    ) {
        match self.locks.blocked.iter().position(|blocked| blocked.sent == uid) {
            Some(place) => {
                self.locks.blocked.remove(place);
            }
            None => self.in_flight -= 1,
        }
        if self.locks.barrier == Some(uid) {
            self.locks.barrier = None;
        }
        if form == RequestForm::Line {
            self.note_answer(now);
            self.locks.lines.resolve(uid, &mut self.outbox, answer);
        } else {
            self.answer_lock(now, form, operation, answer);
        }
    }

    /// Answers a request that was not sent on.
    pub(crate) fn answer_lock(
        &mut self,
        now: Time,
        form: RequestForm,
        operation: LockOperation,
        answer: &LockAnswer<'_>,
    ) {
        self.note_answer(now);
        match form {
            RequestForm::Frame { uid } => {
                answer.write(MessageHead::request(uid, Operation::Lock(operation)), self.outbox.buffer());
            }
            RequestForm::Line => self.locks.lines.push(&mut self.outbox, answer),
        }
    }

    /// Cancels the blocked requests: the peer has finished and may be gone.
    pub(crate) fn cancel_blocked(&self, now: Time, link: &mut AgentLink) {
        let operation = Operation::Lock(LockOperation::Cancel);
        for blocked in &self.locks.blocked {
            let uid = link.enter(now, PendingRequest::prompt(None, operation), None);
            let action = LockAction::Cancel { uid: blocked.sent };
            LockRequest { owner: self.locks.owner, action }.write(uid, link.outbox.buffer());
        }
    }
}

/// Answers of the line protocol that wait for an answer before them.
#[derive(Debug)]
pub(crate) struct OrderedAnswers {
    answers: VecDeque<OrderedAnswer>,
}

#[derive(Debug)]
enum OrderedAnswer {
    /// Of the request with this uid on the link.
    Awaited(u32),
    Ready(Vec<u8>),
}

impl OrderedAnswers {
    /// Whether every answer has been given.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether one more request may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.answers.len() < LOCAL_IN_FLIGHT_MAX
    }

    /// Appends an answer behind all those before it.
    pub(crate) fn push(&mut self, outbox: &mut Outbox, answer: &LockAnswer<'_>) {
        if self.answers.is_empty() {
            answer.write_line(outbox.buffer());
        } else {
            let mut line = Vec::new();
            answer.write_line(&mut line);
            self.answers.push_back(OrderedAnswer::Ready(line));
        }
    }

    fn expect(&mut self, uid: u32) {
        self.answers.push_back(OrderedAnswer::Awaited(uid));
    }

    fn resolve(&mut self, uid: u32, outbox: &mut Outbox, answer: &LockAnswer<'_>) {
        let is_it = |line: &OrderedAnswer| matches!(line, OrderedAnswer::Awaited(awaited) if *awaited == uid);
        match self.answers.iter().position(is_it) {
            Some(0) => {
                self.answers.pop_front();
                answer.write_line(outbox.buffer());
            }
            Some(place) => {
                let mut line = Vec::new();
                answer.write_line(&mut line);
                self.answers[place] = OrderedAnswer::Ready(line);
            }
            None => {}
        }
        while let Some(OrderedAnswer::Ready(line)) = self.answers.front() {
            outbox.buffer().extend_from_slice(line);
            self.answers.pop_front();
        }
    }
}

/// The same request, which does not wait.
const fn without_waiting(action: LockAction<'_>) -> LockAction<'_> {
    match action {
        LockAction::Acquire { key, limit, lease_ms, .. } => {
            LockAction::Acquire { key, limit, timeout_ms: 0, lease_ms }
        }
        LockAction::Wait { key, .. } => LockAction::Wait { key, timeout_ms: 0 },
        action => action,
    }
}
