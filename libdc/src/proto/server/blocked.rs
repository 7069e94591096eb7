//! The blocked requests of a connection of frames, waiting for a lock.

use crate::service::WaiterId;
use crate::wire::frame::{LockOperation, MessageHead, Operation};
use std::collections::{BTreeMap, BTreeSet};

/// A blocked request.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockedRequest {
    pub(super) waiter: WaiterId,
    pub(super) operation: LockOperation,
    /// The owner.
    pub(super) local: u64,
}

impl BlockedRequest {
    /// The head of the request, as far as the answer needs it.
    pub(super) const fn request(&self, uid: u32) -> MessageHead {
        MessageHead::request(uid, Operation::Lock(self.operation))
    }
}

/// The blocked requests, by uid and by owner.
#[derive(Debug, Default)]
pub(super) struct BlockedRequests {
    by_uid: BTreeMap<u32, BlockedRequest>,
    /// Owner and uid.
    by_owner: BTreeSet<(u64, u32)>,
}

impl BlockedRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    pub(super) fn get(&self, uid: u32) -> Option<BlockedRequest> {
        self.by_uid.get(&uid).copied()
    }

    pub(super) fn insert(&mut self, uid: u32, blocked: BlockedRequest) {
        self.by_owner.insert((blocked.local, uid));
        self.by_uid.insert(uid, blocked);
    }

    pub(super) fn remove(&mut self, uid: u32) -> Option<BlockedRequest> {
        let blocked = self.by_uid.remove(&uid)?;
        self.by_owner.remove(&(blocked.local, uid));
        Some(blocked)
    }

    /// The uids of all requests, ordered by owner.
    pub(super) fn uids(&self) -> Vec<u32> {
        self.by_owner.iter().map(|&(_, uid)| uid).collect()
    }

    /// Removes a request of this owner, if it has one.
    pub(super) fn remove_one_of(&mut self, local: u64) -> Option<(u32, BlockedRequest)> {
        let &(_, uid) = self.by_owner.range((local, 0)..=(local, u32::MAX)).next()?;
        Some((uid, self.remove(uid)?))
    }
}
