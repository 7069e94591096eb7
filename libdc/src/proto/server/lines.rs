//! A connection that speaks the line protocol of locks.
//!
//! Requests are answered in order: those behind a blocked request wait.

use super::close_reason::ServerCloseReason;
use super::connection::{PeerState, ServerContext};
use crate::id::{ConnectionId, Owner};
use crate::limits::OUTBOX_BYTES_MAX;
use crate::service::{Completion, LockReply, ReplyTo, Requester, WaiterId, late_answer};
use crate::time::Time;
use crate::wire::line::{LineRequest, RequestLines};
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};

#[derive(Debug)]
pub(super) struct LineProtocol {
    blocked: Option<WaiterId>,
    /// Since when the peer could have sent a request.
    waits_since: Time,
}

impl LineProtocol {
    pub(super) const fn new(now: Time) -> Self {
        Self { blocked: None, waits_since: now }
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Since when no request has been received. `None` while a request is blocked.
    pub(super) const fn waits_since(&self) -> Option<Time> {
        if self.blocked.is_some() { None } else { Some(self.waits_since) }
    }

    /// Answers requests until one is blocked, the output is full, or the input contains no whole one.
    pub(super) fn handle_requests(
        &mut self,
        cx: &mut ServerContext<'_>,
        peer: &mut PeerState,
        input: &mut &[u8],
    ) -> Result<(), ServerCloseReason> {
        while self.blocked.is_none() && cx.output.len() < OUTBOX_BYTES_MAX {
            let lines = match RequestLines::next(input) {
                Ok(Some(lines)) => lines,
                Ok(None) => break,
                Err(fault) => {
                    LockStatus::Error.write_line(cx.output);
                    return Err(fault.into());
                }
            };
            self.waits_since = cx.now;
            peer.has_asked = true;
            let request = LineRequest::parse(&lines);
            if let Some(LineRequest::Auth { token }) = request {
                peer.admitted = authenticate(cx, token)?;
                continue;
            }
            if !peer.admitted {
                LockStatus::ErrorAuth.write_line(cx.output);
                return Err(ServerCloseReason::NotAuthenticated("the first request was not auth"));
            }
            match request {
                Some(LineRequest::Lock(action)) => self.answer(cx, peer.id, &action),
                Some(LineRequest::Ping) => LockStatus::Ok.write_line(cx.output),
                Some(LineRequest::Auth { .. }) | None => LockStatus::Error.write_line(cx.output),
            }
        }
        Ok(())
    }

    /// Takes the answer to the blocked request. Returns whether the requests behind it can be handled.
    pub(super) fn handle_completion(&mut self, cx: &mut ServerContext<'_>, completion: &Completion) -> bool {
        if self.blocked != Some(completion.ticket) {
            return false;
        }
        self.blocked = None;
        self.waits_since = cx.now;
        late_answer(completion.outcome).write_line(cx.output);
        true
    }

    /// Takes the blocked request out of its queue and answers it `error_disconnected`. Returns whether the
    /// requests behind it can be handled.
    pub(super) fn cancel_waiters(&mut self, cx: &mut ServerContext<'_>) -> bool {
        let answers = &mut cx.effects.completions;
        // Otherwise it was granted, and its completion is pending.
        let waited =
            self.blocked.filter(|&waiter| cx.service.locks().cancel(cx.now, waiter, answers)).is_some();
        if waited {
            self.blocked = None;
            self.waits_since = cx.now;
            LockStatus::ErrorDisconnected.write_line(cx.output);
        }
        waited
    }

    /// The read timeout has passed. A peer that holds a lock may be idle.
    pub(super) fn handle_timeout(
        &mut self,
        cx: &mut ServerContext<'_>,
        id: ConnectionId,
        started: bool,
        read_timeout_ms: u64,
    ) -> Result<(), ServerCloseReason> {
        let owner = Owner { connection: id, local: 0 };
        if !started && let Some(until) = cx.service.locks().latest_lease(cx.now, owner) {
            // Checked again when the lease ends, or after another timeout.
            let back_ms = read_timeout_ms.saturating_sub(until.ms_since(cx.now).min(read_timeout_ms));
            self.waits_since = Time::from_ms(cx.now.as_ms().saturating_sub(back_ms));
            return Ok(());
        }
        LockStatus::Error.write_line(cx.output);
        Err(if started { ServerCloseReason::ReadTimeout } else { ServerCloseReason::Idle })
    }

    fn answer(&mut self, cx: &mut ServerContext<'_>, id: ConnectionId, action: &LockAction<'_>) {
        let owner = Owner { connection: id, local: 0 };
        let requester = Requester { owner, reply: ReplyTo { connection: id, uid: 0 } };
        match cx.service.lock(cx.now, action, requester, &mut cx.effects.completions, cx.counters) {
            LockReply::Answer(answer) => answer.write_line(cx.output),
            LockReply::Blocked(waiter) => self.blocked = Some(waiter),
            LockReply::Stats(json) => LockAnswer::Stats(&json).write_line(cx.output),
        }
    }
}

/// Whether the auth token is right. Without a configured token the request is an error, and the peer is
/// admitted.
fn authenticate(cx: &mut ServerContext<'_>, token: &[u8]) -> Result<bool, ServerCloseReason> {
    match cx.service.auth() {
        None => LockStatus::Error.write_line(cx.output),
        Some(auth) if auth.matches(token) => LockStatus::Ok.write_line(cx.output),
        Some(_) => {
            cx.counters.count_wrong_token();
            LockStatus::ErrorAuth.write_line(cx.output);
            return Err(ServerCloseReason::WrongToken);
        }
    }
    Ok(true)
}
