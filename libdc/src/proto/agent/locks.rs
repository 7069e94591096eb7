//! What a local connection asks about locks, in frames or in lines, and how it is answered.
//!
//! A request that may block does not hold back those behind it in frames, whose answers name what they answer. In
//! lines it does: nothing behind it is taken before it is answered. So does a request for the state of the table,
//! whose answer is long. All others may be under way together; a line waits for those before it.

use crate::limits::{LOCAL_BLOCKED_MAX, LOCAL_HELD_BACK_BYTES_MAX, LOCAL_IN_FLIGHT_MAX};
use crate::proto::agent::local::{LocalConnection, LocalId};
use crate::proto::agent::origin::{AgentLink, AgentOrigin, PendingLockRequest, RequestForm};
use crate::proto::outbox::Outbox;
use crate::proto::pending::PendingRequest;
use crate::time::Time;
use crate::wire::frame::{LockOperation, MessageHead, Operation};
use crate::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use std::collections::VecDeque;

/// The locks' side of a local connection.
#[derive(Debug)]
pub(crate) struct LocalLockState {
    /// As who it asks the server.
    pub(crate) owner: u64,
    blocked: Vec<BlockedLockRequest>,
    /// The uid on the link of the request that holds back those behind it.
    barrier: Option<u32>,
    /// The answers of the text protocol, in the order they were asked for.
    pub(crate) lines: OrderedAnswers,
}

/// A request that may be blocked at the server.
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

    /// Whether no request is held back.
    #[inline]
    pub(crate) const fn has_capacity(&self) -> bool {
        self.barrier.is_none()
    }

    /// Whether no request is blocked.
    #[inline]
    pub(crate) const fn is_idle(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Whether `unread` bytes are held back by a request, and more may be.
    pub(crate) const fn may_hold_back(&self, unread: usize) -> bool {
        self.barrier.is_some() && unread < LOCAL_HELD_BACK_BYTES_MAX
    }

    /// Whether the only thing that keeps the next request from being taken is a blocked one.
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
    /// Asks the server, or answers at once if that can't be.
    pub(crate) fn ask_lock(
        &mut self,
        now: Time,
        id: LocalId,
        link: &mut AgentLink,
        form: RequestForm,
        action: LockAction<'_>,
    ) {
        if let Err(status) = self.send_lock(now, id, link, form, action) {
            self.answer_lock(now, form, action.operation(), &LockAnswer::Status(status));
        }
    }

    fn send_lock(
        &mut self,
        now: Time,
        id: LocalId,
        link: &mut AgentLink,
        form: RequestForm,
        action: LockAction<'_>,
    ) -> Result<(), LockStatus> {
        link.lock_service()?;
        let action = match action {
            LockAction::Cancel { uid } => {
                LockAction::Cancel { uid: self.locks.sent_as(uid).ok_or(LockStatus::Error)? }
            }
            // Who asks nothing more may have left: nobody is made to wait for it.
            action if self.is_finished() => without_waiting(action),
            action => action,
        };
        let may_block = action.may_block();
        if may_block && (self.locks.blocked.len() >= LOCAL_BLOCKED_MAX || !link.may_block()) {
            return Err(LockStatus::ErrorMaxWaiters);
        }
        let owner = self.locks.owner;
        let operation = Operation::Lock(action.operation());
        let origin = AgentOrigin::Lock(PendingLockRequest::new(id, owner, form, &action, &link.held));
        let uid = link.enter(now, PendingRequest { payload: Some(origin), operation, may_block }, None);
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

    /// A request has its answer.
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

    /// Answers what was asked just now, and was not sent on.
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

    /// The peer asks nothing more, and may have left: it gives its place in the queues up.
    pub(crate) fn cancel_blocked(&self, now: Time, link: &mut AgentLink) {
        let operation = Operation::Lock(LockOperation::Cancel);
        for blocked in &self.locks.blocked {
            let uid = link.enter(now, PendingRequest::prompt(None, operation), None);
            let action = LockAction::Cancel { uid: blocked.sent };
            LockRequest { owner: self.locks.owner, action }.write(uid, link.outbox.buffer());
        }
    }
}

/// Answers of the text protocol that can't be given yet, because one before them is not there.
#[derive(Debug)]
pub(crate) struct OrderedAnswers {
    answers: VecDeque<OrderedAnswer>,
}

#[derive(Debug)]
enum OrderedAnswer {
    /// To the request with this uid on the link.
    Awaited(u32),
    There(Vec<u8>),
}

impl OrderedAnswers {
    /// Whether every answer has been given.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether one more may be waited for.
    pub(crate) fn has_room(&self) -> bool {
        self.answers.len() < LOCAL_IN_FLIGHT_MAX
    }

    /// Gives an answer after all those before it.
    pub(crate) fn push(&mut self, outbox: &mut Outbox, answer: &LockAnswer<'_>) {
        if self.answers.is_empty() {
            answer.write_line(outbox.buffer());
        } else {
            let mut line = Vec::new();
            answer.write_line(&mut line);
            self.answers.push_back(OrderedAnswer::There(line));
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
                self.answers[place] = OrderedAnswer::There(line);
            }
            None => {}
        }
        while let Some(OrderedAnswer::There(line)) = self.answers.front() {
            outbox.buffer().extend_from_slice(line);
            self.answers.pop_front();
        }
    }
}

/// The same request, as it is made by who does not wait.
const fn without_waiting(action: LockAction<'_>) -> LockAction<'_> {
    match action {
        LockAction::Acquire { key, limit, lease_ms, .. } => {
            LockAction::Acquire { key, limit, timeout_ms: 0, lease_ms }
        }
        LockAction::Wait { key, .. } => LockAction::Wait { key, timeout_ms: 0 },
        action => action,
    }
}
