//! The requests about locks that are on their way to the server: beside the table of all requests, what has to be
//! known of these when they are answered.

use crate::id::Token;
use crate::proto::holdings::Holdings;
use crate::proto::local::LocalId;
use crate::time::Time;
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};
use std::collections::HashMap;

/// A request about a lock on its way.
#[derive(Debug)]
pub(crate) struct LockInFlight {
    /// Who asked.
    pub(crate) id: LocalId,
    /// As which owner.
    pub(crate) owner: u64,
    /// How the answer goes back.
    pub(crate) form: Form,
    subject: Subject,
}

/// In which protocol a request came, and how it is named there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
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
enum Subject {
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
pub(crate) struct LockFlight {
    requests: HashMap<u32, LockInFlight, foldhash::fast::FixedState>,
}

impl LockFlight {
    pub(crate) fn insert(&mut self, uid: u32, request: LockInFlight) {
        self.requests.insert(uid, request);
    }

    pub(crate) fn take(&mut self, uid: u32) -> Option<LockInFlight> {
        self.requests.remove(&uid)
    }
}

impl LockInFlight {
    pub(crate) fn new(id: LocalId, owner: u64, form: Form, action: &LockAction<'_>, held: &Holdings) -> Self {
        let subject = match action {
            LockAction::Acquire { key, .. }
            | LockAction::Enqueue { key, .. }
            | LockAction::Wait { key, .. } => Subject::Granted(key.as_str().into()),
            LockAction::Release { key, token } if held.is_held(*key, *token) => Subject::Released(*token),
            LockAction::Renew { key, token, .. } if held.is_held(*key, *token) => Subject::Renewed(*token),
            _ => Subject::Nothing,
        };
        Self { id, owner, form, subject }
    }

    /// The answer came. `is_there`: the owner is still there to hold what was granted.
    pub(crate) fn learn(self, now: Time, answer: &LockAnswer<'_>, is_there: bool, held: &mut Holdings) {
        match (self.subject, answer) {
            (Subject::Granted(key), LockAnswer::Grant { grant, .. }) if is_there => {
                held.granted(now, self.owner, key, grant.token, grant.lease_ms);
            }
            (Subject::Renewed(token), LockAnswer::Renewed { lease_ms }) => {
                held.renewed(now, token, *lease_ms);
            }
            (Subject::Released(token), LockAnswer::Status(LockStatus::Ok))
            | (Subject::Renewed(token), LockAnswer::Status(LockStatus::Error)) => held.remove(token),
            _ => {}
        }
    }

    /// No answer will come: what was to be released is not claimed any more.
    pub(crate) fn give_up(&self, held: &mut Holdings) {
        if let Subject::Released(token) = self.subject {
            held.remove(token);
        }
    }
}
