//! Opening the link, and what comes over it.

use crate::client::lock::calls::{CallId, CallStage};
use crate::client::lock::error::{LockLinkError, Loss};
use crate::client::lock::lease::LeaseId;
use crate::client::lock::machine::{ClientOrigin, LockLinkState, LockMachine};
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::{Direction, LinkOperation, MessageHead, Operation};
use crate::wire::link::{Claim, Hello, Ping, Welcome};
use crate::wire::lock::{LockAnswer, LockStatus};
use crate::wire::message::{MessageRef, write_message};

/// Most claims in a message: fewer than a megabyte of them.
const CLAIMS_MAX: usize = 3_000;

impl LockMachine {
    /// Says which link this is, and nothing else yet.
    pub(super) fn send_hello(&mut self, now: Time) {
        let Some(link_id) = self.link_id else { return };
        let hello = self.take_off(now, Operation::Link(LinkOperation::Hello), ClientOrigin::Hello, true);
        let auth_token = self.settings.auth_token.as_ref().map_or(&[][..], AuthToken::as_bytes);
        Hello { link_id, auth_token }.write(hello, self.outbox.buffer());
        self.state = LockLinkState::Greeting;
    }

    /// What it means that the peer has closed the connection.
    pub(in crate::client::lock) fn closed(&self) -> LockLinkError {
        if self.state == LockLinkState::Probing { LockLinkError::Unanswered } else { LockLinkError::Closed }
    }

    /// Claims what is held now, and opens the link.
    fn open(&mut self, now: Time) {
        let mut messages: Vec<(Vec<LeaseId>, Vec<u8>)> = Vec::new();
        for chunk in self.holds.claims(now).chunks(CLAIMS_MAX) {
            let mut data = Vec::new();
            for (_, hold) in chunk {
                Claim { owner: 0, token: hold.token, key: hold.key.as_key() }.write(&mut data);
            }
            messages.push((chunk.iter().map(|(id, _)| *id).collect(), data));
        }
        self.state = LockLinkState::Opening(messages.len() + 1);
        for (ids, data) in messages {
            let operation = Operation::Link(LinkOperation::Claim);
            let uid = self.take_off(now, operation, ClientOrigin::Claims(ids), true);
            write_message(self.outbox.buffer(), MessageHead::request(uid, operation), &data);
        }
        self.send_empty(now, LinkOperation::Open, ClientOrigin::Open);
    }

    /// A claim or OPEN has been answered.
    fn opened_further(&mut self, now: Time) {
        self.state = match self.state {
            LockLinkState::Opening(left @ 2..) => LockLinkState::Opening(left - 1),
            _ => LockLinkState::Up,
        };
        if self.state == LockLinkState::Up {
            self.unreleased = false;
            if self.closing {
                self.send_empty(now, LinkOperation::Bye, ClientOrigin::Bye);
            }
        }
    }

    pub(super) fn handle(&mut self, now: Time, message: &MessageRef<'_>) -> Result<(), LockLinkError> {
        let head = message.head;
        if head.direction == Direction::Request {
            if head.operation != Operation::Link(LinkOperation::Ping) {
                return Err(LockLinkError::GoAway);
            }
            Ping::parse(message)?.write_response(self.outbox.buffer());
            self.last_sent = now;
            return Ok(());
        }
        let flying = self.flying.remove(&head.uid).ok_or(LockLinkError::Unasked)?;
        if flying.operation != head.operation {
            return Err(LockLinkError::OtherOperation);
        }
        self.prompt -= usize::from(flying.is_prompt);
        match flying.purpose {
            ClientOrigin::Probe if head.patch_level == 0 => return Err(LockLinkError::Unsupported),
            ClientOrigin::Probe => self.send_hello(now),
            ClientOrigin::Hello => {
                let welcome = Welcome::parse(message.data)?;
                require_ok(welcome.status)?;
                self.grace_ms = u64::from(welcome.grace_ms);
                self.open(now);
            }
            ClientOrigin::Claims(holds) => self.claimed(now, &holds, message.data)?,
            ClientOrigin::Open => {
                require_ok(status_of(message.data, "OPEN")?)?;
                self.opened_further(now);
            }
            ClientOrigin::Ping => self.is_pinging = false,
            ClientOrigin::Bye => self.bye_answered = true,
            ClientOrigin::Cancel => {}
            ClientOrigin::Request(id) => self.answered(now, id, head.operation, message.data)?,
        }
        Ok(())
    }

    fn claimed(&mut self, now: Time, holds: &[LeaseId], data: &[u8]) -> Result<(), LockLinkError> {
        if data.len() != holds.len() {
            let problem = "as many claims were not made";
            return Err(DecodeError::Data { operation: "CLAIM", problem }.into());
        }
        for (hold, status) in holds.iter().zip(data) {
            if *status == LockStatus::Ok as u8 {
                self.holds.claimed(*hold, now);
            } else {
                self.lose(*hold, Loss::Refused);
            }
        }
        self.opened_further(now);
        Ok(())
    }

    fn answered(
        &mut self,
        now: Time,
        id: CallId,
        operation: Operation,
        data: &[u8],
    ) -> Result<(), LockLinkError> {
        let Operation::Lock(operation) = operation else { return Ok(()) };
        let answer = LockAnswer::parse(operation, data)?;
        match self.requests.get(id).map(|request| request.stage) {
            Some(CallStage::Sent { at, .. }) => self.handle_reply(now, id, at, answer),
            Some(CallStage::Confirming { hold, at, .. }) => self.confirmed(now, id, hold, at, answer),
            Some(CallStage::Waiting(_)) | None => {}
        }
        Ok(())
    }
}

/// The answer of the server that the link may not be opened, or may.
const fn require_ok(status: LockStatus) -> Result<(), LockLinkError> {
    match status {
        LockStatus::Ok => Ok(()),
        status => Err(LockLinkError::Refused(status)),
    }
}

fn status_of(data: &[u8], operation: &'static str) -> Result<LockStatus, DecodeError> {
    let status = if let [byte] = data { LockStatus::from_wire(*byte) } else { None };
    status.ok_or(DecodeError::Data { operation, problem: "not a status" })
}
