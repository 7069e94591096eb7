//! What a local connection asks in frames: taken from its input, answered here or sent on.
//!
//! Requests that a server need not see are answered here: those that break the format are refused before
//! they could cost everybody the link, those outside the protocol's ranges get their status. So is what is said
//! of the link: an application that opens one to the agent as it would to the server has it until it closes the
//! connection, and nothing is remembered of it.

use crate::id::SessionId;
use crate::proto::agent::local::{LocalConnection, LocalId};
use crate::proto::agent::multiplexer::MultiplexerSettings;
use crate::proto::agent::origin::{AgentLink, AgentOrigin, RequestForm};
use crate::proto::pending::PendingRequest;
use crate::time::Time;
use crate::wire::frame::{DecodeError, LinkOperation, LockOperation, Operation, SessionOperation};
use crate::wire::link::{Claim, Hello, Welcome};
use crate::wire::lock::{LockAnswer, LockRequest, LockStatus};
use crate::wire::message::MessageRef;
use crate::wire::session::{AddRequest, SessionStatus};

/// Takes every whole request from `input` for which there is room.
pub(crate) fn take_frames(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    input: &mut &[u8],
    link: &mut AgentLink,
    settings: &MultiplexerSettings,
    took: &mut bool,
) -> Result<(), DecodeError> {
    let mut reader = std::mem::take(&mut local.reader);
    let result = loop {
        let has_room = local.has_capacity() && link.has_capacity();
        local.stalled = !(input.is_empty() || has_room);
        if local.stalled {
            break Ok(());
        }
        match reader.next(input) {
            Ok(Some(request)) => {
                *took = true;
                if let Err(corruption) = take_request(now, id, local, request, link, settings) {
                    break Err(corruption);
                }
            }
            Ok(None) => break Ok(()),
            Err(corruption) => break Err(corruption),
        }
    };
    reader.reclaim();
    local.reader = reader;
    result
}

fn take_request(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    request: MessageRef<'_>,
    link: &mut AgentLink,
    settings: &MultiplexerSettings,
) -> Result<(), DecodeError> {
    let refused = match request.head.operation {
        Operation::Session(SessionOperation::Add) => AddRequest::parse(request.data)?.err(),
        Operation::Session(_) => SessionId::new(request.data).is_none().then_some(SessionStatus::NotOk),
        Operation::Lock(operation) => return take_lock(now, id, local, operation, request, link),
        Operation::Link(operation) => return take_link(now, local, operation, request, link),
    };
    if !link.is_up() {
        local.answer_disconnected(now, request.head);
    } else if let Some(status) = refused {
        local.answer(now, request.head, &[status as u8]);
    } else {
        let origin = AgentOrigin::Session { id, uid: request.head.uid };
        let deadline = (settings.timeout_ms > 0).then(|| now.after_ms(settings.timeout_ms));
        let pending = PendingRequest::prompt(Some(origin), request.head.operation);
        link.send(now, pending, request.data, deadline);
        local.in_flight += 1;
    }
    Ok(())
}

fn take_lock(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    operation: LockOperation,
    request: MessageRef<'_>,
    link: &mut AgentLink,
) -> Result<(), DecodeError> {
    let form = RequestForm::Frame { uid: request.head.uid };
    match LockRequest::parse(operation, request.data)? {
        Ok(LockRequest { owner: 0, action }) => local.ask_lock(now, id, link, form, action),
        // Who comes here speaks for itself only.
        Ok(_) => local.answer_lock(now, form, operation, &LockAnswer::Status(LockStatus::Error)),
        Err(status) => local.answer_lock(now, form, operation, &LockAnswer::Status(status)),
    }
    Ok(())
}

fn take_link(
    now: Time,
    local: &mut LocalConnection,
    operation: LinkOperation,
    request: MessageRef<'_>,
    link: &mut AgentLink,
) -> Result<(), DecodeError> {
    const OK: &[u8] = &[LockStatus::Ok as u8];
    match operation {
        LinkOperation::Hello => {
            Hello::parse(request.data)?;
            let (status, grace_ms) = match link.lock_service() {
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
            link.detach(now, local.locks.owner);
            local.locks.owner = link.new_owner();
            local.answer(now, request.head, OK);
        }
        LinkOperation::Detach | LinkOperation::GoAway => {
            let operation = request.head.operation.name();
            return Err(DecodeError::Data { operation, problem: "not served here" });
        }
    }
    Ok(())
}
