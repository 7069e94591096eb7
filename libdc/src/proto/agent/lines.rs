//! Requests of a local connection in the line protocol: taken from its input, answered here or sent on.
//!
//! An invalid request is answered `error`, and the connection stays open. After a line that is too long, or a
//! request that is not complete in time, `error` is the last answer. Requests are answered in order.

use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalContext};
use crate::proto::agent::origin::RequestForm;
use crate::time::Time;
use crate::wire::line::{LineRequest, RequestLines};
use crate::wire::lock::{LockAnswer, LockStatus};

/// Takes every whole request from `input` for which there is capacity. Returns whether there was one.
pub(crate) fn take_lines(local: &mut LocalConnection, cx: &mut LocalContext<'_>, input: &mut &[u8]) -> bool {
    let mut took = false;
    loop {
        let has_capacity = local.has_capacity() && local.locks.lines.has_room() && cx.link.has_capacity();
        local.stalled = !(input.is_empty() || has_capacity);
        if local.stalled {
            return took;
        }
        match RequestLines::next(input) {
            Ok(Some(lines)) => {
                took = true;
                take_request(local, cx, &lines);
            }
            Ok(None) => return took,
            Err(line) => {
                *input = &[];
                local.end_lines(cx.now, LocalCloseReason::LineTooLong(line));
                return took;
            }
        }
    }
}

fn take_request(local: &mut LocalConnection, cx: &mut LocalContext<'_>, lines: &RequestLines<'_>) {
    let status = match LineRequest::parse(lines) {
        Some(LineRequest::Lock(action)) => {
            local.ask_lock(cx, RequestForm::Line, action);
            return;
        }
        Some(LineRequest::Ping) => LockStatus::Ok,
        // The agent asks for no authentication.
        Some(LineRequest::Auth { .. }) | None => LockStatus::Error,
    };
    local.push_line(cx.now, status);
}

impl LocalConnection {
    fn push_line(&mut self, now: Time, status: LockStatus) {
        self.note_answer(now);
        self.locks.lines.push(&mut self.outbox, &LockAnswer::Status(status));
    }

    /// No more requests are taken: `error` is the last answer.
    pub(crate) fn end_lines(&mut self, now: Time, reason: LocalCloseReason) {
        self.push_line(now, LockStatus::Error);
        self.close_after_answers(reason);
    }
}
