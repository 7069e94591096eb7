//! Requests of a local connection in frames: taken from its input, answered here or sent on.
//!
//! Some requests are answered here. Malformed requests are refused, since the server would close the link
//! that all connections share. Requests with out-of-range values get their status. Operations of class 2 are
//! answered too: an application may open a link to the agent as it would to the server. That link lasts until
//! the connection closes, and its state is discarded.

use crate::id::SessionId;
use crate::proto::agent::local::{LocalConnection, LocalContext};
use crate::proto::agent::origin::{AgentOrigin, RequestForm};
use crate::proto::pending::PendingRequest;
use crate::wire::frame::{DecodeError, LinkOperation, LockOperation, Operation, SessionOperation};
use crate::wire::link::{Claim, Hello, Welcome};
use crate::wire::lock::{LockAnswer, LockRequest, LockStatus};
use crate::wire::message::MessageRef;
use crate::wire::session::{AddRequest, SessionStatus};

/// Takes every whole request from `input` for which there is capacity. Returns whether there was one.
pub(crate) fn take_frames(
    local: &mut LocalConnection,
    cx: &mut LocalContext<'_>,
    input: &mut &[u8],
) -> Result<bool, DecodeError> {
    let mut reader = std::mem::take(&mut local.reader);
    let mut took = false;
    let result = loop {
        let has_capacity = local.has_capacity() && cx.link.has_capacity();
        local.stalled = !(input.is_empty() || has_capacity);
        if local.stalled {
            break Ok(took);
        }
        match reader.next(input) {
            Ok(Some(request)) => {
                took = true;
                if let Err(error) = take_request(local, cx, request) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(took),
            Err(error) => break Err(error),
        }
    };
    reader.reclaim();
    local.reader = reader;
    result
}

fn take_request(
    local: &mut LocalConnection,
    cx: &mut LocalContext<'_>,
    request: MessageRef<'_>,
) -> Result<(), DecodeError> {
    let refused = match request.head.operation {
        Operation::Session(SessionOperation::Add) => AddRequest::parse(request.data)?.err(),
        Operation::Session(_) => SessionId::new(request.data).is_none().then_some(SessionStatus::NotOk),
        Operation::Lock(operation) => return take_lock(local, cx, operation, request),
        Operation::Link(operation) => return take_link(local, cx, operation, request),
    };
    let now = cx.now;
    if !cx.link.is_up() {
        local.answer_disconnected(now, request.head);
    } else if let Some(status) = refused {
        local.answer(now, request.head, &[status as u8]);
    } else {
        let origin = AgentOrigin::Session { id: cx.id, uid: request.head.uid };
        let timeout_ms = cx.settings.timeout_ms;
        let deadline = (timeout_ms > 0).then(|| now.after_ms(timeout_ms));
        let pending = PendingRequest::prompt(Some(origin), request.head.operation);
        cx.link.send(now, pending, request.data, deadline);
        local.in_flight += 1;
    }
    Ok(())
}

fn take_lock(
    local: &mut LocalConnection,
    cx: &mut LocalContext<'_>,
    operation: LockOperation,
    request: MessageRef<'_>,
) -> Result<(), DecodeError> {
    let form = RequestForm::Frame { uid: request.head.uid };
    let status = match LockRequest::parse(operation, request.data)? {
        Ok(LockRequest { owner: 0, action }) => {
            local.ask_lock(cx, form, action);
            return Ok(());
        }
        // A local connection speaks for no other owner.
        Ok(_) => LockStatus::Error,
        Err(status) => status,
    };
    local.answer_lock(cx.now, form, operation, &LockAnswer::Status(status));
    Ok(())
}

fn take_link(
    local: &mut LocalConnection,
    cx: &mut LocalContext<'_>,
    operation: LinkOperation,
    request: MessageRef<'_>,
) -> Result<(), DecodeError> {
    const OK: &[u8] = &[LockStatus::Ok as u8];
    let now = cx.now;
    match operation {
        LinkOperation::Hello => {
            Hello::parse(request.data)?;
            let (status, grace_ms) = match cx.link.lock_service() {
                Ok(grace_ms) => (LockStatus::Ok, grace_ms),
                Err(status) => (status, 0),
            };
            local.note_answer(now);
            Welcome { status, grace_ms, remembered: 0 }.write(request.head, local.outbox.buffer());
        }
        LinkOperation::Claim => {
            let mut statuses = Vec::new();
            for claim in Claim::parse_all(request.data) {
                claim?;
                statuses.push(LockStatus::Error as u8);
            }
            local.answer(now, request.head, &statuses);
        }
        LinkOperation::Open => local.answer(now, request.head, OK),
        LinkOperation::Ping => local.answer(now, request.head, &[]),
        LinkOperation::Bye => {
            cx.link.detach(now, local.locks.owner);
            local.locks.owner = cx.link.new_owner();
            local.answer(now, request.head, OK);
        }
        LinkOperation::Detach | LinkOperation::GoAway => {
            let operation = request.head.operation.name();
            return Err(DecodeError::Data { operation, problem: "not served here" });
        }
    }
    Ok(())
}
