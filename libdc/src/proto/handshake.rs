//! Opening a link, or resuming it after a break: who the agent is, and what its applications still hold.
//!
//! ```text
//!   agent                                        server
//!     │ HELLO(link id, token of authentication)     │
//!     ├────────────────────────────────────────────▶│
//!     │                        ok, grace, remembered│   or why there is no link
//!     │◀────────────────────────────────────────────┤
//!     │ CLAIM(what is held) …                       │   all of them without waiting
//!     │ OPEN                                        │
//!     ├────────────────────────────────────────────▶│
//!     │                        yours, lost, yours … │   for each that was claimed
//!     │                                          ok │   now the link carries requests
//!     │◀────────────────────────────────────────────┤
//! ```
//!
//! Nothing is said behind HELLO before it is answered. It may be long under way on a connection that was given up, and
//! take the link over from the one that was made since: then that is made anew and claims again what is held, and
//! nothing is lost. An OPEN behind it would release what was granted meanwhile.
//!
//! The claims are made piece by piece while there is room to write them, for they may be many. Nothing here
//! panics.

use crate::id::{LinkId, Token};
use crate::limits::CLAIM_BYTES_MAX;
use crate::proto::agent::held::HeldLocks;
use crate::proto::link::LinkError;
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::link::{Claim, Welcome};
use crate::wire::lock::LockStatus;

/// How an agent introduces itself to its server.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    /// The link's name: 128 random bits, drawn once for each agent process.
    pub link_id: LinkId,
    /// What proves that the agent may use the server, if that asks for it.
    pub auth_token: Option<AuthToken>,
}

/// How far the opening of a link has come.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    /// The claims of which messages have been sent and not answered: their uids and tokens.
    claimed: Vec<(u32, Vec<Token>)>,
    last_claimed: Option<Token>,
    /// OPEN has been sent.
    pub(crate) is_complete: bool,
    /// The server's welcome, and its patch level.
    welcome: Option<(Welcome, u16)>,
    opened: bool,
}

impl Handshake {
    /// The data of the next CLAIM, and the owners of what it claims; `None` if all has been claimed.
    pub(crate) fn next_claims(&mut self, now: Time, holdings: &HeldLocks) -> Option<ClaimBatch> {
        let mut claims = ClaimBatch::default();
        for claim in holdings.claims(now, self.last_claimed) {
            if claims.data.len() + Claim::BYTES_MAX > CLAIM_BYTES_MAX {
                break;
            }
            claim.write(&mut claims.data);
            claims.tokens.push(claim.token);
            claims.owners.push(claim.owner);
        }
        self.last_claimed = Some(*claims.tokens.last()?);
        Some(claims)
    }

    /// A CLAIM was sent with this uid.
    pub(crate) fn claimed(&mut self, uid: u32, tokens: Vec<Token>) {
        self.claimed.push((uid, tokens));
    }

    /// HELLO was answered by a server at this patch level.
    pub(crate) fn welcomed(&mut self, data: &[u8], patch_level: u16) -> Result<(), LinkError> {
        let welcome = Welcome::parse(data)?;
        match welcome.status {
            // What knows the link but no locks is a proxy of sessions; it is no less a link.
            LockStatus::Ok | LockStatus::ErrorUnsupported => {
                self.welcome = Some((welcome, patch_level));
                Ok(())
            }
            status => Err(LinkError::Refused { status }),
        }
    }

    /// Whether the server has answered HELLO.
    pub(crate) const fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// A CLAIM was answered: what is lost is held no longer.
    pub(crate) fn claim_answered(
        &mut self,
        uid: u32,
        data: &[u8],
        holdings: &mut HeldLocks,
    ) -> Result<(), LinkError> {
        let place = self.claimed.iter().position(|(sent, _)| *sent == uid).ok_or(LinkError::Unasked)?;
        let (_, tokens) = self.claimed.swap_remove(place);
        if tokens.len() != data.len() {
            return Err(LinkError::Handshake { problem: "an answer to other claims than were made" });
        }
        for (token, status) in tokens.into_iter().zip(data) {
            if *status != LockStatus::Ok as u8 {
                holdings.remove(token);
            }
        }
        Ok(())
    }

    /// OPEN was answered.
    pub(crate) fn opened(&mut self, data: &[u8]) -> Result<(), LinkError> {
        self.opened = data == [LockStatus::Ok as u8];
        if self.opened { Ok(()) } else { Err(LinkError::Handshake { problem: "the link was not opened" }) }
    }

    /// The server's welcome, once everything has been answered.
    pub(crate) fn outcome(&self) -> Option<(Welcome, u16)> {
        self.welcome.filter(|_| self.opened && self.claimed.is_empty())
    }
}

/// What one CLAIM says.
#[derive(Debug, Default)]
pub(crate) struct ClaimBatch {
    /// For the message.
    pub(crate) data: Vec<u8>,
    /// What is claimed, in the order of the answers.
    pub(crate) tokens: Vec<Token>,
    /// By whom.
    pub(crate) owners: Vec<u64>,
}
