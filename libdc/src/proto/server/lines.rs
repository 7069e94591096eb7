//! A connection that speaks the text protocol of locks.
//!
//! Requests are answered in their order. One that waits for a lock holds back all behind it.

use super::connection::{PeerState, ServerCloseReason, ServerContext};
use crate::id::{ConnectionId, Owner};
use crate::limits::OUTBOX_BYTES_MAX;
use crate::service::{Completion, LockReply, ReplyTo, Requester, WaiterId, late_answer};
use crate::time::Time;
use crate::wire::line::{LineRequest, RequestLines};
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};

/// What the server knows of it.
#[derive(Debug)]
pub(super) struct LineProtocol {
    blocked: Option<WaiterId>,
    /// Since when the peer could have asked something.
    waits_since: Time,
}

impl LineProtocol {
    pub(super) const fn new(now: Time) -> Self {
        Self { blocked: None, waits_since: now }
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Since when nothing has been asked, if something could be.
    pub(super) const fn waits_since(&self) -> Option<Time> {
        if self.blocked.is_some() { None } else { Some(self.waits_since) }
    }

    /// Answers requests until one is blocked, the output is full, or the input has no whole one.
    pub(super) fn handle_requests(
        &mut self,
        turn: &mut ServerContext<'_>,
        peer: &mut PeerState,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        while self.blocked.is_none() && turn.out.len() < OUTBOX_BYTES_MAX {
            let lines = match RequestLines::next(input) {
                Ok(Some(lines)) => lines,
                Ok(None) => break,
                Err(fault) => {
                    LockStatus::Error.write_line(turn.out);
                    return Err(fault.into());
                }
            };
            self.waits_since = turn.now;
            peer.has_asked = true;
            let request = LineRequest::parse(&lines);
            if let Some(LineRequest::Auth { token }) = request {
                peer.admitted = authenticate(turn, token)?;
                continue;
            }
            if !peer.admitted {
                LockStatus::ErrorAuth.write_line(turn.out);
                return Err(ServerCloseReason::NotAuthenticated("the first request was not auth"));
            }
            match request {
                Some(LineRequest::Lock(action)) => self.answer(turn, peer.id, &action),
                Some(LineRequest::Ping) => LockStatus::Ok.write_line(turn.out),
                Some(LineRequest::Auth { .. }) | None => LockStatus::Error.write_line(turn.out),
            }
        }
        Ok(())
    }

    /// Takes the answer to what was blocked. Returns whether requests behind it can go on.
    pub(super) fn handle_completion(&mut self, turn: &mut ServerContext<'_>, answer: &Completion) -> bool {
        if self.blocked != Some(answer.ticket) {
            return false;
        }
        self.blocked = None;
        self.waits_since = turn.now;
        late_answer(answer.outcome).write_line(turn.out);
        true
    }

    /// Answers what waits for a lock, and will not get it. Returns whether requests behind it can go on.
    pub(super) fn cancel_waiters(&mut self, turn: &mut ServerContext<'_>) -> bool {
        let answers = &mut turn.effects.answers;
        // Else the answer is on its way.
        let waited =
            self.blocked.filter(|&ticket| turn.service.locks().cancel(turn.now, ticket, answers)).is_some();
        if waited {
            self.blocked = None;
            self.waits_since = turn.now;
            LockStatus::ErrorDisconnected.write_line(turn.out);
        }
        waited
    }

    /// The read timeout is over. Whoever holds something is not told off for being idle.
    pub(super) fn handle_timeout(
        &mut self,
        turn: &mut ServerContext<'_>,
        id: ConnectionId,
        started: bool,
        read_timeout_ms: u64,
    ) -> Result<(), ServerCloseReason> {
        let owner = Owner { connection: id, local: 0 };
        if !started && let Some(until) = turn.service.locks().latest_lease(turn.now, owner) {
            // Looked at again when the lease ends, or after another timeout.
            let back_ms = read_timeout_ms.saturating_sub(until.ms_since(turn.now).min(read_timeout_ms));
            self.waits_since = Time::from_ms(turn.now.as_ms().saturating_sub(back_ms));
            return Ok(());
        }
        LockStatus::Error.write_line(turn.out);
        Err(if started { ServerCloseReason::ReadTimeout } else { ServerCloseReason::Idle })
    }

    fn answer(&mut self, turn: &mut ServerContext<'_>, id: ConnectionId, action: &LockAction<'_>) {
        let owner = Owner { connection: id, local: 0 };
        let asker = Requester { owner, reply: ReplyTo { connection: id, uid: 0 } };
        match turn.service.lock(turn.now, action, asker, &mut turn.effects.answers, turn.tally) {
            LockReply::Answer(answer) => answer.write_line(turn.out),
            LockReply::Blocked(ticket) => self.blocked = Some(ticket),
            LockReply::Stats(json) => LockAnswer::Stats(&json).write_line(turn.out),
        }
    }
}

/// Who knows the token is admitted; where there is none everybody is, and asking makes no sense.
fn authenticate(turn: &mut ServerContext<'_>, token: &[u8]) -> Result<bool, ServerCloseReason> {
    match turn.service.auth() {
        None => LockStatus::Error.write_line(turn.out),
        Some(auth) if auth.matches(token) => LockStatus::Ok.write_line(turn.out),
        Some(_) => {
            turn.tally.count_wrong_token();
            LockStatus::ErrorAuth.write_line(turn.out);
            return Err(ServerCloseReason::WrongToken);
        }
    }
    Ok(true)
}
