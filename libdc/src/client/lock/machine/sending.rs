//! Sending the calls of the application.

use crate::client::lock::calls::{CallId, CallStage, LockCall};
use crate::client::lock::error::LockError;
use crate::client::lock::lease::{Lease, LeaseId, Leases};
use crate::client::lock::machine::{CallReply, LockMachine};
use crate::proto::link::Link;
use crate::proto::pending::PendingRequest;
use crate::time::Time;
use crate::wire::frame::Operation;
use crate::wire::lock::{LockAction, LockRequest};

impl LockMachine {
    /// Sends the calls that wait, while the link is up and has capacity.
    pub(super) fn send_waiting(&mut self, now: Time) {
        while self.link.is_up()
            && self.link.has_capacity()
            && let Some(id) = self.calls.next_to_send()
        {
            self.send_call(now, id);
        }
    }

    fn send_call(&mut self, now: Time, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let sent = match &call.ask {
            LockCall::Ready => return self.complete(now, id, Ok(CallReply::Done)),
            LockCall::Renew { hold } => {
                let hold = *hold;
                self.link.held.renewing(hold);
                self.send_renewal(now, id, hold)
            }
            _ => {
                let may_block = call.may_block();
                let Some(action) = call.action(now) else { return };
                Some(send_lock(&mut self.link, now, Some(id), action, may_block))
            }
        };
        match sent {
            Some(uid) => self.calls.set_stage(id, CallStage::Sent { uid, at: now }),
            None => self.complete(now, id, Err(LockError::NotHeld)),
        }
    }

    /// Asks for a new lease; `None` if there is nothing to renew.
    pub(super) fn send_renewal(&mut self, now: Time, id: CallId, hold: LeaseId) -> Option<u32> {
        let lease = self.link.held.get(hold).filter(|hold| hold.lost().is_none())?;
        let Lease { key, token, lease_ms, .. } = lease;
        let (key, token, lease_ms) = (key.clone(), *token, *lease_ms);
        let action = LockAction::Renew { key: key.as_key(), token, lease_ms };
        Some(send_lock(&mut self.link, now, Some(id), action, false))
    }

    /// Asks the server to give up a blocked request.
    pub(super) fn send_cancel(&mut self, now: Time, uid: u32) {
        send_lock(&mut self.link, now, None, LockAction::Cancel { uid }, false);
    }
}

/// Sends a lock request for a call. Returns its uid.
fn send_lock(
    link: &mut Link<Leases, CallId>,
    now: Time,
    call: Option<CallId>,
    action: LockAction<'_>,
    may_block: bool,
) -> u32 {
    let operation = Operation::Lock(action.operation());
    let uid = link.enter(now, PendingRequest { payload: call, operation, may_block }, None);
    LockRequest { owner: 0, action }.write(uid, link.outbox.buffer());
    uid
}
