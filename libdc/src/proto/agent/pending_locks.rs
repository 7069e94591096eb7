//! The requests about locks that are on their way to the server: beside the table of all requests, what has to be
//! known of these when they are answered.

use crate::id::Token;
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::local::LocalId;
use crate::time::Time;
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};
use std::collections::HashMap;

/// A request about a lock on its way.
#[derive(Debug)]
pub(crate) struct PendingLockRequest {
    /// Who asked.
    pub(crate) id: LocalId,
    /// As which owner.
    pub(crate) owner: u64,
    /// How the answer goes back.
    pub(crate) form: RequestForm,
    subject: PendingLock,
}

/// In which protocol a request came, and how it is named there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestForm {
    /// In frames.
    Frame {
        /// The uid it was given.
        uid: u32,
    },
    /// In lines: the answers come in the order of the requests.
    Line,
}

/// What the answer tells of what is held.
#[derive(Debug)]
enum PendingLock {
    /// The key of what may be granted.
    Granted(Box<str>),
    /// What may be released.
    Released(Token),
    /// What may be renewed.
    Renewed(Token),
    Nothing,
}

/// By the uids of the link.
#[derive(Debug, Default)]
pub(crate) struct PendingLocks {
    requests: HashMap<u32, PendingLockRequest, foldhash::fast::FixedState>,
}

impl PendingLocks {
    pub(crate) fn insert(&mut self, uid: u32, request: PendingLockRequest) {
        self.requests.insert(uid, request);
    }

    pub(crate) fn remove(&mut self, uid: u32) -> Option<PendingLockRequest> {
        self.requests.remove(&uid)
    }
}

impl PendingLockRequest {
    pub(crate) fn new(
        id: LocalId,
        owner: u64,
        form: RequestForm,
        action: &LockAction<'_>,
        held: &HeldLocks,
    ) -> Self {
        let subject = match action {
            LockAction::Acquire { key, .. }
            | LockAction::Enqueue { key, .. }
            | LockAction::Wait { key, .. } => PendingLock::Granted(key.as_str().into()),
            LockAction::Release { key, token } if held.is_held(*key, *token) => PendingLock::Released(*token),
            LockAction::Renew { key, token, .. } if held.is_held(*key, *token) => {
                PendingLock::Renewed(*token)
            }
            _ => PendingLock::Nothing,
        };
        Self { id, owner, form, subject }
    }

    /// The answer came. `is_there`: the owner is still there to hold what was granted.
    pub(crate) fn apply_answer(
        self,
        now: Time,
        answer: &LockAnswer<'_>,
        is_there: bool,
        held: &mut HeldLocks,
    ) {
        match (self.subject, answer) {
            (PendingLock::Granted(key), LockAnswer::Grant { grant, .. }) if is_there => {
                held.granted(now, self.owner, key, grant.token, grant.lease_ms);
            }
            (PendingLock::Renewed(token), LockAnswer::Renewed { lease_ms }) => {
                held.renewed(now, token, *lease_ms);
            }
            (PendingLock::Released(token), LockAnswer::Status(LockStatus::Ok))
            | (PendingLock::Renewed(token), LockAnswer::Status(LockStatus::Error)) => held.remove(token),
            _ => {}
        }
    }

    /// No answer will come: what was to be released is not claimed any more.
    pub(crate) fn give_up(&self, held: &mut HeldLocks) {
        if let PendingLock::Released(token) = self.subject {
            held.remove(token);
        }
    }
}
