//! What a local connection asks in frames: taken from its input, answered here or sent on.
//!
//! Requests that a server need not see are answered here: those that break the format are refused before
//! they could cost everybody the link, those outside the protocol's ranges get their status.

use crate::id::SessionId;
use crate::proto::flight::{Asker, InFlight};
use crate::proto::link::{Link, LinkState};
use crate::proto::local::{Local, LocalId};
use crate::proto::multiplexer::MultiplexerSettings;
use crate::time::Time;
use crate::wire::frame::{Corruption, LinkOperation, Operation, SessionOperation};
use crate::wire::message::MessageRef;
use crate::wire::session::{Add, Status};

/// Takes every whole request from `input` for which there is room.
pub(crate) fn take_requests(
    now: Time,
    id: LocalId,
    local: &mut Local,
    input: &mut &[u8],
    link: &mut Link,
    settings: &MultiplexerSettings,
    took: &mut bool,
) -> Result<(), Corruption> {
    let mut reader = std::mem::take(&mut local.reader);
    let result = loop {
        let has_room = local.has_room() && link.has_room();
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
    local: &mut Local,
    request: MessageRef<'_>,
    link: &mut Link,
    settings: &MultiplexerSettings,
) -> Result<(), Corruption> {
    let refused = match request.head.operation {
        Operation::Session(SessionOperation::Add) => Add::parse(request.data)?.err(),
        Operation::Session(_) => SessionId::new(request.data).is_none().then_some(Status::NotOk),
        Operation::Link(LinkOperation::Ping) => {
            local.answer(now, request.head, &[]);
            return Ok(());
        }
        operation @ (Operation::Lock(_) | Operation::Link(_)) => {
            return Err(Corruption::Data { operation: operation.name(), problem: "not served here" });
        }
    };
    if !matches!(link.state, LinkState::Up { .. }) {
        local.answer_disconnected(now, request.head);
    } else if let Some(status) = refused {
        local.answer(now, request.head, &[status as u8]);
    } else {
        let asker = Asker::Local { id, uid: request.head.uid };
        let deadline = (settings.timeout_ms > 0).then(|| now.after_ms(settings.timeout_ms));
        link.send(now, InFlight { asker, operation: request.head.operation }, request.data, deadline);
        local.in_flight += 1;
    }
    Ok(())
}
