//! Answers to calls: granted, refused, abandoned or lost.

use crate::client::lock::calls::{CallId, CallStage, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::{Lease, LeaseId};
use crate::client::lock::machine::{CallReply, LockEvent, LockMachine};
use crate::proto::link::state::LinkError;
use crate::time::Time;
use crate::wire::frame::Operation;
use crate::wire::lock::{LockAnswer, LockStatus};
use crate::wire::message::MessageRef;

/// Pause before a call is repeated that the agent could not forward, in milliseconds.
const RETRY_MS: u64 = 250;

impl LockMachine {
    /// The server answered a call.
    pub(super) fn answered(
        &mut self,
        now: Time,
        id: CallId,
        message: &MessageRef<'_>,
    ) -> Result<(), LinkError> {
        let Operation::Lock(operation) = message.head.operation else { return Ok(()) };
        let answer = LockAnswer::parse(operation, message.data)?;
        match self.calls.get(id).map(|call| call.stage) {
            Some(CallStage::Sent { at, .. }) => self.handle_reply(now, id, at, answer),
            Some(CallStage::Confirming { hold, at, .. }) => self.confirmed(now, id, hold, at, answer),
            Some(CallStage::Waiting(_)) | None => {}
        }
        Ok(())
    }

    fn handle_reply(&mut self, now: Time, id: CallId, asked_at: Time, answer: LockAnswer<'_>) {
        let Some(call) = self.calls.get(id) else { return };
        match (answer, &call.ask) {
            (
                LockAnswer::Grant { grant, .. },
                LockCall::Acquire { key, .. } | LockCall::Enqueue { key, .. } | LockCall::Wait { key, .. },
            ) => {
                let (key, is_heard) = (key.clone(), call.is_heard);
                let hold = self.link.held.insert(key, grant, asked_at, self.grace_ms);
                let validity_ms = self.link.held.get(hold).map_or(0, Lease::validity_ms);
                if is_heard && now.ms_since(asked_at) > validity_ms / 4 {
                    self.confirm(now, id, hold);
                } else {
                    self.complete(now, id, Ok(CallReply::Granted(hold)));
                }
            }
            (LockAnswer::Renewed { lease_ms }, LockCall::Renew { hold }) => {
                self.link.held.renewed(*hold, asked_at, lease_ms, self.grace_ms);
                self.complete(now, id, Ok(CallReply::Done));
            }
            (LockAnswer::Stats(json), _) => self.complete(now, id, Ok(CallReply::Stats(json.to_vec()))),
            (LockAnswer::Status(status), _) => self.status(now, id, status),
            // Never parsed as the answer to such a call.
            (answer, _) => self.status(now, id, status_of(answer)),
        }
    }

    /// A call was answered with a status.
    fn status(&mut self, now: Time, id: CallId, status: LockStatus) {
        let Some(call) = self.calls.get(id) else { return };
        let (is_heard, is_patient) = (call.is_heard, call.retries());
        let later = CallStage::Waiting(Some(now.after_ms(RETRY_MS)));
        let result = match (call.ask.clone(), status) {
            (LockCall::Release { .. }, LockStatus::Ok) => Ok(CallReply::Done),
            (LockCall::Release { .. }, LockStatus::Error) => Err(LockError::NotHeld),
            (LockCall::Release { key, token }, LockStatus::ErrorDisconnected) => {
                let again = self.calls.insert(now, LockCall::Release { key, token }, false);
                self.calls.set_stage(again, later);
                Err(LockError::AgentDisconnected)
            }
            (LockCall::Renew { hold }, LockStatus::Error) => {
                self.lose(hold, Loss::Refused);
                Err(LockError::NotHeld)
            }
            (LockCall::Renew { hold }, status) => {
                self.link.held.not_renewed(hold, now);
                Err(LockError::from_status(status))
            }
            (LockCall::Acquire { until: WaitLimit::Forever, .. }, LockStatus::Timeout) if is_heard => {
                return self.calls.set_stage(id, CallStage::Waiting(None));
            }
            (LockCall::Acquire { .. } | LockCall::Wait { .. }, LockStatus::Timeout) => {
                Ok(CallReply::TimedOut)
            }
            (LockCall::Acquire { .. }, LockStatus::ErrorDisconnected) if is_heard && is_patient => {
                return self.calls.set_stage(id, later);
            }
            (LockCall::Enqueue { key, .. }, LockStatus::Queued) => {
                if !is_heard {
                    self.leave_queue(now, key, self.connection);
                }
                Ok(CallReply::Queued { connection: self.connection })
            }
            (_, status) => Err(LockError::from_status(status)),
        };
        self.complete(now, id, result);
    }

    /// A grant that may be old is renewed before it is reported.
    fn confirm(&mut self, now: Time, id: CallId, hold: LeaseId) {
        self.link.held.stale(hold);
        if let Some(uid) = self.send_renewal(now, id, hold) {
            self.calls.set_stage(id, CallStage::Confirming { hold, uid, at: now });
        }
    }

    fn confirmed(&mut self, now: Time, id: CallId, hold: LeaseId, asked_at: Time, answer: LockAnswer<'_>) {
        if let LockAnswer::Renewed { lease_ms } = answer {
            self.link.held.renewed(hold, asked_at, lease_ms, self.grace_ms);
            return self.complete(now, id, Ok(CallReply::Granted(hold)));
        }
        let error = match status_of(answer) {
            LockStatus::Error => LockError::LeaseExpired,
            status => LockError::from_status(status),
        };
        self.drop_hold(now, hold);
        let is_patient = self.calls.get(id).is_some_and(|call| call.is_heard && call.retries());
        if is_patient && (error.is_transient() || matches!(error, LockError::LeaseExpired)) {
            self.calls.set_stage(id, CallStage::Waiting(Some(now.after_ms(RETRY_MS))));
        } else {
            self.complete(now, id, Err(error));
        }
    }

    /// The connection of a call was lost, or no connection could be opened.
    pub(super) fn interrupt(&mut self, now: Time, id: CallId, error: &LockError) {
        let Some(call) = self.calls.get(id) else { return };
        let (stage, is_heard, is_patient) = (call.stage, call.is_heard, call.retries());
        if !matches!(stage, CallStage::Waiting(_)) {
            self.unreleased |= self.resumes;
        }
        if let CallStage::Confirming { hold, .. } = stage {
            self.link.held.remove(hold);
        }
        if is_heard && is_patient && error.is_transient() {
            self.calls.set_stage(id, CallStage::Waiting(None));
        } else {
            self.complete(now, id, Err(error.clone()));
        }
    }

    pub(super) fn call_is_due(&mut self, now: Time, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        match (call.stage, &call.ask) {
            (CallStage::Waiting(_), LockCall::Acquire { until: WaitLimit::Time(end), .. }) if *end <= now => {
                self.complete(now, id, Ok(CallReply::TimedOut));
            }
            (CallStage::Waiting(_), LockCall::Wait { until: WaitLimit::Time(end), .. }) if *end <= now => {
                self.abandon(now, id);
                self.events.push_back(LockEvent::Answered(id, Ok(CallReply::TimedOut)));
            }
            (CallStage::Waiting(Some(later)), _) if later <= now => {
                self.calls.set_stage(id, CallStage::Waiting(None));
            }
            _ => {
                self.abandon(now, id);
                self.events.push_back(LockEvent::Answered(id, Err(LockError::NoAnswer)));
            }
        }
    }

    /// A call is answered. A lock granted to an abandoned call is released.
    pub(super) fn complete(&mut self, now: Time, id: CallId, result: Result<CallReply, LockError>) {
        let Some(call) = self.calls.remove(id) else { return };
        if call.is_heard {
            self.events.push_back(LockEvent::Answered(id, result));
        } else if let Ok(CallReply::Granted(hold)) = result {
            self.drop_hold(now, hold);
        }
    }

    pub(super) fn release_as(&mut self, now: Time, hold: LeaseId, is_heard: bool) -> Option<CallId> {
        let Lease { key, token, .. } = self.link.held.get(hold)?;
        let ask = LockCall::Release { key: key.clone(), token: *token };
        let lost = self.link.held.remove(hold).and_then(|hold| hold.lost());
        let id = self.calls.insert(now, ask, is_heard);
        match lost {
            Some(Loss::Closed) => self.complete(now, id, Err(LockError::Closed)),
            Some(Loss::Refused | Loss::Disconnected | Loss::Forked) => {
                self.complete(now, id, Err(LockError::NotHeld));
            }
            None | Some(Loss::Unrenewed) if self.link.has_claimed(hold) => self.send_waiting(now),
            // A lock that is not claimed is released when the link is opened.
            None | Some(Loss::Unrenewed) => {
                self.complete(now, id, Err(LockError::Disconnected(LockLinkError::Closed)));
            }
        }
        Some(id)
    }

    pub(super) fn lose(&mut self, hold: LeaseId, loss: Loss) {
        if self.link.held.lose(hold, loss) {
            self.events.push_back(LockEvent::Lost(hold, loss));
        }
    }

    pub(super) fn lose_all(&mut self, loss: Loss) {
        for hold in self.link.held.lose_all(loss) {
            self.events.push_back(LockEvent::Lost(hold, loss));
        }
    }
}

/// The status of an answer.
const fn status_of(answer: LockAnswer<'_>) -> LockStatus {
    match answer {
        LockAnswer::Status(status) | LockAnswer::Grant { status, .. } => status,
        LockAnswer::Renewed { .. } | LockAnswer::Stats(_) => LockStatus::Ok,
    }
}
