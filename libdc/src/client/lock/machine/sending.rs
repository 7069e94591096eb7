//! What goes out over the link, and under which uid.

use crate::client::lock::calls::{CallId, CallStage, LockCall};
use crate::client::lock::error::LockError;
use crate::client::lock::lease::{Lease, LeaseId};
use crate::client::lock::machine::{CallReply, ClientOrigin, Flying, LockLinkState, LockMachine};
use crate::time::Time;
use crate::wire::frame::{LinkOperation, MessageHead, Operation};
use crate::wire::lock::{LockAction, LockRequest};
use crate::wire::message::write_message;
use std::collections::HashMap;

impl LockMachine {
    pub(super) fn send_waiting(&mut self, now: Time) {
        if self.state != LockLinkState::Up || self.bye_answered {
            return;
        }
        while let Some(id) = self.requests.next_to_send() {
            self.send_request(now, id);
        }
    }

    fn send_request(&mut self, now: Time, id: CallId) {
        let Some(request) = self.requests.get(id) else { return };
        let sent = match &request.ask {
            LockCall::Ready => return self.complete(now, id, Ok(CallReply::Done)),
            LockCall::Renew { hold } => {
                let hold = *hold;
                self.holds.renewing(hold);
                self.send_renewal(now, id, hold)
            }
            _ => {
                let is_prompt = !request.may_block();
                let Some(action) = request.action(now) else { return };
                let operation = Operation::Lock(action.operation());
                let uid = free_uid(&mut self.uid, &self.flying);
                LockRequest { owner: 0, action }.write(uid, self.outbox.buffer());
                self.under_way(now, uid, operation, ClientOrigin::Request(id), is_prompt);
                Some(uid)
            }
        };
        match sent {
            Some(uid) => self.requests.set_stage(id, CallStage::Sent { uid, at: now }),
            None => self.complete(now, id, Err(LockError::NotHeld)),
        }
    }

    /// `None` if there is nothing to renew.
    pub(super) fn send_renewal(&mut self, now: Time, id: CallId, hold: LeaseId) -> Option<u32> {
        let Lease { key, token, lease_ms, .. } = self.holds.get(hold).filter(|hold| hold.lost().is_none())?;
        let action = LockAction::Renew { key: key.as_key(), token: *token, lease_ms: *lease_ms };
        let uid = free_uid(&mut self.uid, &self.flying);
        LockRequest { owner: 0, action }.write(uid, self.outbox.buffer());
        self.under_way(now, uid, Operation::Lock(action.operation()), ClientOrigin::Request(id), true);
        Some(uid)
    }

    pub(super) fn send_lock(&mut self, now: Time, purpose: ClientOrigin, action: &LockAction<'_>) {
        let uid = self.take_off(now, Operation::Lock(action.operation()), purpose, true);
        LockRequest { owner: 0, action: *action }.write(uid, self.outbox.buffer());
    }

    pub(super) fn send_empty(&mut self, now: Time, operation: LinkOperation, purpose: ClientOrigin) {
        let operation = Operation::Link(operation);
        let uid = self.take_off(now, operation, purpose, true);
        write_message(self.outbox.buffer(), MessageHead::request(uid, operation), &[]);
    }

    pub(super) fn take_off(
        &mut self,
        now: Time,
        operation: Operation,
        purpose: ClientOrigin,
        is_prompt: bool,
    ) -> u32 {
        let uid = free_uid(&mut self.uid, &self.flying);
        self.under_way(now, uid, operation, purpose, is_prompt);
        uid
    }

    fn under_way(
        &mut self,
        now: Time,
        uid: u32,
        operation: Operation,
        purpose: ClientOrigin,
        is_prompt: bool,
    ) {
        self.flying.insert(uid, Flying { operation, purpose, is_prompt });
        self.last_sent = now;
        if is_prompt {
            self.prompt += 1;
            self.silent_since.get_or_insert(now);
        }
    }
}

/// The next uid that nothing under way has.
fn free_uid(last: &mut u32, flying: &HashMap<u32, Flying>) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if !flying.contains_key(last) {
            return *last;
        }
    }
}
