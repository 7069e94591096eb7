//! The handshake that opens a link, or resumes it after a break: its id, and the locks still held over it.
//!
//! ```text
//!   client                                       server
//!     │ HELLO(link id, auth token)                  │
//!     ├────────────────────────────────────────────▶│
//!     │                   ok, grace, remembered     │   or why there is no link
//!     │◀────────────────────────────────────────────┤
//!     │ CLAIM(held locks) …                         │   all of them without waiting for answers
//!     │ OPEN                                        │
//!     ├────────────────────────────────────────────▶│
//!     │                   yours, lost, yours …      │   one status for each claim
//!     │                                     ok      │   now the link carries requests
//!     │◀────────────────────────────────────────────┤
//! ```
//!
//! Nothing follows HELLO before its answer. A HELLO delayed on an abandoned connection may take the link over
//! from the present connection: the client then reconnects and claims again, and loses nothing. An OPEN
//! behind it would release the locks granted meanwhile.
//!
//! There may be many claims. They are made piece by piece while there is capacity to write them, each CLAIM
//! with at most [`CLAIM_BYTES_MAX`] bytes. Nothing here panics.

pub use crate::proto::link::state::LinkIdentity;

use crate::limits::CLAIM_BYTES_MAX;
use crate::proto::link::state::LinkError;
use crate::time::Time;
use crate::wire::link::{Claim, Welcome};
use crate::wire::lock::LockStatus;
use std::fmt::Debug;

/// The locks held over a link, which its handshake claims.
pub(crate) trait ClaimSource {
    /// Names a held lock. The order is that of the claims.
    type Id: Copy + Debug + Ord;

    /// The locks held at `now` behind `last`; all of them if it is `None`.
    fn claims_after(&self, now: Time, last: Option<Self::Id>) -> impl Iterator<Item = (Self::Id, Claim<'_>)>;

    /// The server answered the claim of a lock: it is held still, or is lost.
    fn claim_answered(&mut self, now: Time, id: Self::Id, is_held: bool);
}

/// How far a handshake has come, from the sending of HELLO.
#[derive(Debug)]
pub(crate) struct Handshake<I> {
    last_claimed: Option<I>,
    /// CLAIM messages without an answer so far.
    claims_in_flight: usize,
    /// Whether OPEN was sent.
    pub(crate) is_complete: bool,
    /// The answer to HELLO, and the patch level of the server.
    welcome: Option<(Welcome, u16)>,
    is_opened: bool,
}

/// The content of one CLAIM.
#[derive(Debug)]
pub(crate) struct ClaimBatch<I> {
    pub(crate) data: Vec<u8>,
    /// The claimed locks, in the order of the answers.
    pub(crate) ids: Vec<I>,
    pub(crate) owners: Vec<u64>,
}

impl<I> Default for Handshake<I> {
    fn default() -> Self {
        Self { last_claimed: None, claims_in_flight: 0, is_complete: false, welcome: None, is_opened: false }
    }
}

impl<I: Copy + Ord> Handshake<I> {
    /// HELLO was answered by a server at this patch level.
    pub(crate) fn welcomed(
        &mut self,
        data: &[u8],
        patch_level: u16,
        needs_locks: bool,
    ) -> Result<(), LinkError> {
        let welcome = Welcome::parse(data)?;
        match welcome.status {
            LockStatus::Ok => {}
            // A server of the link without locks is a proxy for sessions.
            LockStatus::ErrorUnsupported if !needs_locks => {}
            status => return Err(LinkError::Refused { status }),
        }
        self.welcome = Some((welcome, patch_level));
        Ok(())
    }

    /// Whether HELLO was answered.
    pub(crate) const fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// The next CLAIM; `None` if everything has been claimed.
    pub(crate) fn next_claims<H: ClaimSource<Id = I>>(
        &mut self,
        now: Time,
        held: &H,
    ) -> Option<ClaimBatch<I>> {
        let mut batch = ClaimBatch { data: Vec::new(), ids: Vec::new(), owners: Vec::new() };
        for (id, claim) in held.claims_after(now, self.last_claimed) {
            if batch.data.len() + Claim::BYTES_MAX > CLAIM_BYTES_MAX {
                break;
            }
            claim.write(&mut batch.data);
            batch.ids.push(id);
            batch.owners.push(claim.owner);
        }
        self.last_claimed = Some(*batch.ids.last()?);
        self.claims_in_flight += 1;
        Some(batch)
    }

    /// Whether a claim of this lock was sent, if it was held then.
    pub(crate) fn has_claimed(&self, id: I) -> bool {
        self.is_complete || self.last_claimed.is_some_and(|last| id <= last)
    }

    /// A CLAIM of these locks was answered.
    pub(crate) fn claims_answered<H: ClaimSource<Id = I>>(
        &mut self,
        now: Time,
        ids: &[I],
        statuses: &[u8],
        held: &mut H,
    ) -> Result<(), LinkError> {
        if ids.len() != statuses.len() {
            return Err(LinkError::Handshake { problem: "an answer to other claims than were made" });
        }
        self.claims_in_flight -= 1;
        for (id, status) in ids.iter().zip(statuses) {
            held.claim_answered(now, *id, *status == LockStatus::Ok as u8);
        }
        Ok(())
    }

    /// OPEN was answered.
    pub(crate) fn opened(&mut self, data: &[u8]) -> Result<(), LinkError> {
        self.is_opened = data == [LockStatus::Ok as u8];
        if self.is_opened { Ok(()) } else { Err(LinkError::Handshake { problem: "the link was not opened" }) }
    }

    /// The answer to HELLO and the patch level of the server, once everything has been answered.
    pub(crate) fn outcome(&self) -> Option<(Welcome, u16)> {
        self.welcome.filter(|_| self.is_opened && self.claims_in_flight == 0)
    }
}
