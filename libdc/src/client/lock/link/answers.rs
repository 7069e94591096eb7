//! Requests and their answers: what was granted, refused, given up or lost.

use crate::client::lock::error::{LinkFault, LockError, Loss};
use crate::client::lock::holds::{Hold, HoldId};
use crate::client::lock::link::{Event, Link, Reply, State};
use crate::client::lock::requests::{Ask, RequestId, Stage, Until};
use crate::time::Time;
use crate::wire::lock::{LockAnswer, LockStatus};

/// Pause before a request is sent again that the agent could not pass on, in milliseconds.
const RETRY_MS: u64 = 250;

impl Link {
    pub(super) fn replied(&mut self, now: Time, id: RequestId, asked_at: Time, answer: LockAnswer<'_>) {
        let Some(request) = self.requests.get(id) else { return };
        match (answer, &request.ask) {
            (
                LockAnswer::Grant { grant, .. },
                Ask::Acquire { key, .. } | Ask::Enqueue { key, .. } | Ask::Wait { key, .. },
            ) => {
                let (key, is_heard) = (key.clone(), request.is_heard);
                let hold = self.holds.insert(key, grant, asked_at, self.grace_ms);
                let validity_ms = self.holds.get(hold).map_or(0, Hold::validity_ms);
                if is_heard && now.ms_since(asked_at) > validity_ms / 4 {
                    self.confirm(now, id, hold);
                } else {
                    self.settle(now, id, Ok(Reply::Granted(hold)));
                }
            }
            (LockAnswer::Renewed { lease_ms }, Ask::Renew { hold }) => {
                self.holds.renewed(*hold, asked_at, lease_ms, self.grace_ms);
                self.settle(now, id, Ok(Reply::Done));
            }
            (LockAnswer::Stats(json), _) => self.settle(now, id, Ok(Reply::Stats(json.to_vec()))),
            (LockAnswer::Status(status), _) => self.status(now, id, status),
            // The wire reads no such answer to such a request.
            (answer, _) => self.status(now, id, word_of(answer)),
        }
    }

    /// A request was answered with a word.
    fn status(&mut self, now: Time, id: RequestId, status: LockStatus) {
        let Some(request) = self.requests.get(id) else { return };
        let (is_heard, is_patient) = (request.is_heard, request.is_patient());
        let later = Stage::Waiting(Some(now.after_ms(RETRY_MS)));
        let result = match (request.ask.clone(), status) {
            (Ask::Release { .. }, LockStatus::Ok) => Ok(Reply::Done),
            (Ask::Release { .. }, LockStatus::Error) => Err(LockError::NotHeld),
            (Ask::Release { key, token }, LockStatus::ErrorDisconnected) => {
                let again = self.requests.insert(now, Ask::Release { key, token }, false);
                self.requests.set_stage(again, later);
                Err(LockError::AgentDisconnected)
            }
            (Ask::Renew { hold }, LockStatus::Error) => {
                self.lose(hold, Loss::Refused);
                Err(LockError::NotHeld)
            }
            (Ask::Renew { hold }, status) => {
                self.holds.not_renewed(hold, now);
                Err(LockError::from_status(status))
            }
            (Ask::Acquire { until: Until::Forever, .. }, LockStatus::Timeout) if is_heard => {
                return self.requests.set_stage(id, Stage::Waiting(None));
            }
            (Ask::Acquire { .. } | Ask::Wait { .. }, LockStatus::Timeout) => Ok(Reply::TimedOut),
            (Ask::Acquire { .. }, LockStatus::ErrorDisconnected) if is_heard && is_patient => {
                return self.requests.set_stage(id, later);
            }
            (Ask::Enqueue { key, .. }, LockStatus::Queued) => {
                if !is_heard {
                    self.leave(now, key, self.connection);
                }
                Ok(Reply::Queued { connection: self.connection })
            }
            (_, status) => Err(LockError::from_status(status)),
        };
        self.settle(now, id, result);
    }

    /// A grant that may be old is renewed before anybody relies on it.
    fn confirm(&mut self, now: Time, id: RequestId, hold: HoldId) {
        self.holds.stale(hold);
        if let Some(uid) = self.send_renewal(now, id, hold) {
            self.requests.set_stage(id, Stage::Confirming { hold, uid, at: now });
        }
    }

    pub(super) fn confirmed(
        &mut self,
        now: Time,
        id: RequestId,
        hold: HoldId,
        asked_at: Time,
        answer: LockAnswer<'_>,
    ) {
        if let LockAnswer::Renewed { lease_ms } = answer {
            self.holds.renewed(hold, asked_at, lease_ms, self.grace_ms);
            return self.settle(now, id, Ok(Reply::Granted(hold)));
        }
        let error = match word_of(answer) {
            LockStatus::Error => LockError::LeaseExpired,
            status => LockError::from_status(status),
        };
        self.drop_hold(now, hold);
        let is_patient =
            self.requests.get(id).is_some_and(|request| request.is_heard && request.is_patient());
        if is_patient && (error.may_pass() || matches!(error, LockError::LeaseExpired)) {
            self.requests.set_stage(id, Stage::Waiting(Some(now.after_ms(RETRY_MS))));
        } else {
            self.settle(now, id, Err(error));
        }
    }

    /// The connection of a request has ended, or there is none.
    pub(super) fn interrupt(&mut self, now: Time, id: RequestId, error: &LockError) {
        let Some(request) = self.requests.get(id) else { return };
        let (stage, is_heard, is_patient) = (request.stage, request.is_heard, request.is_patient());
        if !matches!(stage, Stage::Waiting(_)) {
            self.unreleased |= self.settings.resumes;
        }
        if let Stage::Confirming { hold, .. } = stage {
            self.holds.remove(hold);
        }
        if is_heard && is_patient && error.may_pass() {
            self.requests.set_stage(id, Stage::Waiting(None));
        } else {
            self.settle(now, id, Err(error.clone()));
        }
    }

    pub(super) fn request_is_due(&mut self, now: Time, id: RequestId) {
        let Some(request) = self.requests.get(id) else { return };
        match (request.stage, &request.ask) {
            (Stage::Waiting(_), Ask::Acquire { until: Until::Time(end), .. }) if *end <= now => {
                self.settle(now, id, Ok(Reply::TimedOut));
            }
            (Stage::Waiting(_), Ask::Wait { until: Until::Time(end), .. }) if *end <= now => {
                self.abandon(now, id);
                self.events.push_back(Event::Answered(id, Ok(Reply::TimedOut)));
            }
            (Stage::Waiting(Some(later)), _) if later <= now => {
                self.requests.set_stage(id, Stage::Waiting(None));
            }
            _ => {
                self.abandon(now, id);
                self.events.push_back(Event::Answered(id, Err(LockError::NoAnswer)));
            }
        }
    }

    /// A request is answered. What it brought and nobody takes is given back.
    pub(super) fn settle(&mut self, now: Time, id: RequestId, result: Result<Reply, LockError>) {
        let Some(request) = self.requests.remove(id) else { return };
        if request.is_heard {
            self.events.push_back(Event::Answered(id, result));
        } else if let Ok(Reply::Granted(hold)) = result {
            self.drop_hold(now, hold);
        }
    }

    pub(super) fn release_as(&mut self, now: Time, hold: HoldId, is_heard: bool) -> Option<RequestId> {
        let Hold { key, token, .. } = self.holds.get(hold)?;
        let ask = Ask::Release { key: key.clone(), token: *token };
        let lost = self.holds.remove(hold).and_then(|hold| hold.lost());
        let id = self.requests.insert(now, ask, is_heard);
        match (lost, self.state) {
            (Some(Loss::Closed), _) => self.settle(now, id, Err(LockError::Closed)),
            (Some(Loss::Refused | Loss::Disconnected | Loss::Forked), _) => {
                self.settle(now, id, Err(LockError::NotHeld));
            }
            // What is not claimed is released when the link is opened.
            (None | Some(Loss::Unrenewed), State::Down | State::Probing | State::Greeting) => {
                self.settle(now, id, Err(LockError::Disconnected(LinkFault::Closed)));
            }
            (None | Some(Loss::Unrenewed), State::Opening(_) | State::Up) => self.send_waiting(now),
        }
        Some(id)
    }

    pub(super) fn lose(&mut self, hold: HoldId, loss: Loss) {
        if self.holds.lose(hold, loss) {
            self.events.push_back(Event::Lost(hold, loss));
        }
    }

    pub(super) fn lose_all(&mut self, loss: Loss) {
        for hold in self.holds.lose_all(loss) {
            self.events.push_back(Event::Lost(hold, loss));
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
