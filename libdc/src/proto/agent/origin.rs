//! The payload of an agent's requests on the link: the local connection that gets the answer, and the effect
//! of the answer on the held locks.

use crate::id::Token;
use crate::proto::agent::held::HeldLocks;
use crate::proto::agent::local::LocalId;
use crate::proto::link::Link;
use crate::time::Time;
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};

/// The link of an agent.
pub(crate) type AgentLink = Link<HeldLocks, AgentOrigin>;

/// Where a request on the link came from.
#[derive(Debug)]
pub(crate) enum AgentOrigin {
    /// A session request of a local connection, with the uid that the connection gave it.
    Session { id: LocalId, uid: u32 },
    /// A lock request of a local connection.
    Lock(PendingLockRequest),
}

/// A lock request in flight.
#[derive(Debug)]
pub(crate) struct PendingLockRequest {
    pub(crate) id: LocalId,
    pub(crate) owner: u64,
    pub(crate) form: RequestForm,
    subject: PendingLock,
}

/// The protocol of a lock request, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestForm {
    /// A frame, with the uid that the local connection gave it.
    Frame { uid: u32 },
    /// A line: answers have the order of the requests.
    Line,
}

/// The held lock to which the answer matters.
#[derive(Debug)]
enum PendingLock {
    /// A lock with this key may be granted.
    Granted(Box<str>),
    Released(Token),
    Renewed(Token),
    Nothing,
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

    /// The server answered. `owner_exists`: the owner can still hold what was granted.
    pub(crate) fn apply_answer(
        self,
        now: Time,
        answer: &LockAnswer<'_>,
        owner_exists: bool,
        held: &mut HeldLocks,
    ) {
        match (self.subject, answer) {
            (PendingLock::Granted(key), LockAnswer::Grant { grant, .. }) if owner_exists => {
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

    /// There will be no answer: a lock that was to be released is not claimed any more.
    pub(crate) fn give_up(&self, held: &mut HeldLocks) {
        if let PendingLock::Released(token) = self.subject {
            held.remove(token);
        }
    }
}
