//! What a local connection asks in lines: taken from its input, answered here or sent on.
//!
//! What makes no sense is answered `error` and the connection goes on; after a line that is too long, or a
//! request that is not whole in time, `error` is the last answer. Every answer is given in its turn.

use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalId};
use crate::proto::agent::origin::{AgentLink, RequestForm};
use crate::time::Time;
use crate::wire::line::{LineRequest, RequestLines};
use crate::wire::lock::{LockAnswer, LockStatus};

/// Takes every whole request from `input` for which there is room. Returns whether there was one.
pub(crate) fn take_lines(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    input: &mut &[u8],
    link: &mut AgentLink,
) -> bool {
    let mut took = false;
    loop {
        let has_room = local.has_capacity() && local.locks.lines.has_room() && link.has_capacity();
        local.stalled = !(input.is_empty() || has_room);
        if local.stalled {
            return took;
        }
        match RequestLines::next(input) {
            Ok(Some(lines)) => {
                took = true;
                take_request(now, id, local, &lines, link);
            }
            Ok(None) => return took,
            Err(line) => {
                *input = &[];
                local.end_lines(now, LocalCloseReason::LineTooLong(line));
                return took;
            }
        }
    }
}

fn take_request(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    lines: &RequestLines<'_>,
    link: &mut AgentLink,
) {
    let status = match LineRequest::parse(lines) {
        Some(LineRequest::Lock(action)) => {
            local.ask_lock(now, id, link, RequestForm::Line, action);
            return;
        }
        Some(LineRequest::Ping) => LockStatus::Ok,
        // Nobody has to prove anything here.
        Some(LineRequest::Auth { .. }) | None => LockStatus::Error,
    };
    local.push_line(now, status);
}

impl LocalConnection {
    fn push_line(&mut self, now: Time, status: LockStatus) {
        self.note_answer(now);
        self.locks.lines.push(&mut self.outbox, &LockAnswer::Status(status));
    }

    /// No more requests are taken: `error` is the last answer.
    pub(crate) fn end_lines(&mut self, now: Time, fault: LocalCloseReason) {
        self.push_line(now, LockStatus::Error);
        self.close_with(fault);
    }
}
