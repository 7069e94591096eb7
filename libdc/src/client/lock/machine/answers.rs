//! Requests and their answers: what was granted, refused, given up or lost.

use crate::client::lock::calls::{CallId, CallStage, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::{Lease, LeaseId};
use crate::client::lock::machine::{CallReply, LockEvent, LockLinkState, LockMachine};
use crate::time::Time;
use crate::wire::lock::{LockAnswer, LockStatus};

/// Pause before a request is sent again that the agent could not pass on, in milliseconds.
const RETRY_MS: u64 = 250;

impl LockMachine {
    pub(super) fn handle_reply(&mut self, now: Time, id: CallId, asked_at: Time, answer: LockAnswer<'_>) {
        let Some(request) = self.requests.get(id) else { return };
        match (answer, &request.ask) {
            (
                LockAnswer::Grant { grant, .. },
                LockCall::Acquire { key, .. } | LockCall::Enqueue { key, .. } | LockCall::Wait { key, .. },
            ) => {
                let (key, is_heard) = (key.clone(), request.is_heard);
                let hold = self.holds.insert(key, grant, asked_at, self.grace_ms);
                let validity_ms = self.holds.get(hold).map_or(0, Lease::validity_ms);
                if is_heard && now.ms_since(asked_at) > validity_ms / 4 {
                    self.confirm(now, id, hold);
                } else {
                    self.complete(now, id, Ok(CallReply::Granted(hold)));
                }
            }
            (LockAnswer::Renewed { lease_ms }, LockCall::Renew { hold }) => {
                self.holds.renewed(*hold, asked_at, lease_ms, self.grace_ms);
                self.complete(now, id, Ok(CallReply::Done));
            }
            (LockAnswer::Stats(json), _) => self.complete(now, id, Ok(CallReply::Stats(json.to_vec()))),
            (LockAnswer::Status(status), _) => self.status(now, id, status),
            // The wire reads no such answer to such a request.
            (answer, _) => self.status(now, id, word_of(answer)),
        }
    }

    /// A request was answered with a word.
    fn status(&mut self, now: Time, id: CallId, status: LockStatus) {
        let Some(request) = self.requests.get(id) else { return };
        let (is_heard, is_patient) = (request.is_heard, request.retries());
        let later = CallStage::Waiting(Some(now.after_ms(RETRY_MS)));
        let result = match (request.ask.clone(), status) {
            (LockCall::Release { .. }, LockStatus::Ok) => Ok(CallReply::Done),
            (LockCall::Release { .. }, LockStatus::Error) => Err(LockError::NotHeld),
            (LockCall::Release { key, token }, LockStatus::ErrorDisconnected) => {
                let again = self.requests.insert(now, LockCall::Release { key, token }, false);
                self.requests.set_stage(again, later);
                Err(LockError::AgentDisconnected)
            }
            (LockCall::Renew { hold }, LockStatus::Error) => {
                self.lose(hold, Loss::Refused);
                Err(LockError::NotHeld)
            }
            (LockCall::Renew { hold }, status) => {
                self.holds.not_renewed(hold, now);
                Err(LockError::from_status(status))
            }
            (LockCall::Acquire { until: WaitLimit::Forever, .. }, LockStatus::Timeout) if is_heard => {
                return self.requests.set_stage(id, CallStage::Waiting(None));
            }
            (LockCall::Acquire { .. } | LockCall::Wait { .. }, LockStatus::Timeout) => {
                Ok(CallReply::TimedOut)
            }
            (LockCall::Acquire { .. }, LockStatus::ErrorDisconnected) if is_heard && is_patient => {
                return self.requests.set_stage(id, later);
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

    /// A grant that may be old is renewed before anybody relies on it.
    fn confirm(&mut self, now: Time, id: CallId, hold: LeaseId) {
        self.holds.stale(hold);
        if let Some(uid) = self.send_renewal(now, id, hold) {
            self.requests.set_stage(id, CallStage::Confirming { hold, uid, at: now });
        }
    }

    pub(super) fn confirmed(
        &mut self,
        now: Time,
        id: CallId,
        hold: LeaseId,
        asked_at: Time,
        answer: LockAnswer<'_>,
    ) {
        if let LockAnswer::Renewed { lease_ms } = answer {
            self.holds.renewed(hold, asked_at, lease_ms, self.grace_ms);
            return self.complete(now, id, Ok(CallReply::Granted(hold)));
        }
        let error = match word_of(answer) {
            LockStatus::Error => LockError::LeaseExpired,
            status => LockError::from_status(status),
        };
        self.drop_hold(now, hold);
        let is_patient = self.requests.get(id).is_some_and(|request| request.is_heard && request.retries());
        if is_patient && (error.is_transient() || matches!(error, LockError::LeaseExpired)) {
            self.requests.set_stage(id, CallStage::Waiting(Some(now.after_ms(RETRY_MS))));
        } else {
            self.complete(now, id, Err(error));
        }
    }

    /// The connection of a request has ended, or there is none.
    pub(super) fn interrupt(&mut self, now: Time, id: CallId, error: &LockError) {
        let Some(request) = self.requests.get(id) else { return };
        let (stage, is_heard, is_patient) = (request.stage, request.is_heard, request.retries());
        if !matches!(stage, CallStage::Waiting(_)) {
            self.unreleased |= self.settings.resumes;
        }
        if let CallStage::Confirming { hold, .. } = stage {
            self.holds.remove(hold);
        }
        if is_heard && is_patient && error.is_transient() {
            self.requests.set_stage(id, CallStage::Waiting(None));
        } else {
            self.complete(now, id, Err(error.clone()));
        }
    }

    pub(super) fn request_is_due(&mut self, now: Time, id: CallId) {
        let Some(request) = self.requests.get(id) else { return };
        match (request.stage, &request.ask) {
            (CallStage::Waiting(_), LockCall::Acquire { until: WaitLimit::Time(end), .. }) if *end <= now => {
                self.complete(now, id, Ok(CallReply::TimedOut));
            }
            (CallStage::Waiting(_), LockCall::Wait { until: WaitLimit::Time(end), .. }) if *end <= now => {
                self.abandon(now, id);
                self.events.push_back(LockEvent::Answered(id, Ok(CallReply::TimedOut)));
            }
            (CallStage::Waiting(Some(later)), _) if later <= now => {
                self.requests.set_stage(id, CallStage::Waiting(None));
            }
            _ => {
                self.abandon(now, id);
                self.events.push_back(LockEvent::Answered(id, Err(LockError::NoAnswer)));
            }
        }
    }

    /// A request is answered. What it brought and nobody takes is given back.
    pub(super) fn complete(&mut self, now: Time, id: CallId, result: Result<CallReply, LockError>) {
        let Some(request) = self.requests.remove(id) else { return };
        if request.is_heard {
            self.events.push_back(LockEvent::Answered(id, result));
        } else if let Ok(CallReply::Granted(hold)) = result {
            self.drop_hold(now, hold);
        }
    }

    pub(super) fn release_as(&mut self, now: Time, hold: LeaseId, is_heard: bool) -> Option<CallId> {
        let Lease { key, token, .. } = self.holds.get(hold)?;
        let ask = LockCall::Release { key: key.clone(), token: *token };
        let lost = self.holds.remove(hold).and_then(|hold| hold.lost());
        let id = self.requests.insert(now, ask, is_heard);
        match (lost, self.state) {
            (Some(Loss::Closed), _) => self.complete(now, id, Err(LockError::Closed)),
            (Some(Loss::Refused | Loss::Disconnected | Loss::Forked), _) => {
                self.complete(now, id, Err(LockError::NotHeld));
            }
            // What is not claimed is released when the link is opened.
            (
                None | Some(Loss::Unrenewed),
                LockLinkState::Down | LockLinkState::Probing | LockLinkState::Greeting,
            ) => {
                self.complete(now, id, Err(LockError::Disconnected(LockLinkError::Closed)));
            }
            (None | Some(Loss::Unrenewed), LockLinkState::Opening(_) | LockLinkState::Up) => {
                self.send_waiting(now);
            }
        }
        Some(id)
    }

    pub(super) fn lose(&mut self, hold: LeaseId, loss: Loss) {
        if self.holds.lose(hold, loss) {
            self.events.push_back(LockEvent::Lost(hold, loss));
        }
    }

    pub(super) fn lose_all(&mut self, loss: Loss) {
        for hold in self.holds.lose_all(loss) {
            self.events.push_back(LockEvent::Lost(hold, loss));
        }
    }
}

/// The word of an answer.
const fn word_of(answer: LockAnswer<'_>) -> LockStatus {
    match answer {
        LockAnswer::Status(status) | LockAnswer::Grant { status, .. } => status,
        LockAnswer::Renewed { .. } | LockAnswer::Stats(_) => LockStatus::Ok,
    }
}
