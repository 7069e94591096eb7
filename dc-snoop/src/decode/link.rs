//! Messages about the link itself.

use super::lock::{secret_of_token, short_digest, show_key, show_owner, show_token};
use super::values::{Redaction, bytes, digest, show_hex, show_ms};
use libdc::id::{LinkId, Token};
use libdc::wire::decode_error::DecodeError;
use libdc::wire::frame::Direction;
use libdc::wire::link::{Claim, Detach, Hello, Welcome};
use libdc::wire::lock::{FieldReader, LockStatus};
use libdc::wire::operation::{LinkOperation, Operation};
use std::fmt;
use std::ops::Range;

/// Maximum number of claims written out; the others are only counted.
const CLAIMS_SHOWN: usize = 3;

/// A decoded message of class 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedLink<'a> {
    /// A decoded HELLO.
    Hello(Hello<'a>),
    /// The answer to a HELLO.
    Welcome(Welcome),
    /// The data of a CLAIM, in which each claim is whole.
    Claims(&'a [u8]),
    /// The answer to a CLAIM: a status for each claim.
    Claimed(&'a [u8]),
    /// A decoded DETACH.
    Detach(Detach),
    /// The answer is a status.
    Status(LockStatus),
    /// A message without data, as required.
    Nothing,
}

impl<'a> DecodedLink<'a> {
    /// Takes the data of a message apart.
    pub(super) fn decode(
        operation: LinkOperation,
        direction: Direction,
        data: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let rest = FieldReader::new(Operation::Link(operation), data);
        Ok(match (operation, direction) {
            (LinkOperation::Hello, Direction::Request) => Self::Hello(Hello::parse(data)?),
            (LinkOperation::Hello, Direction::Response) => Self::Welcome(Welcome::parse(data)?),
            (LinkOperation::Claim, Direction::Request) => {
                Claim::parse_all(data).try_for_each(|claim| claim.map(|_| ()))?;
                Self::Claims(data)
            }
            (LinkOperation::Claim, Direction::Response) => Self::Claimed(data),
            (LinkOperation::Detach, Direction::Request) => Self::Detach(Detach::parse(data)?),
            (LinkOperation::Open | LinkOperation::Detach | LinkOperation::Bye, Direction::Response) => {
                let [number] = data else { return Err(rest.problem("the response is no status")) };
                Self::Status(LockStatus::from_wire(*number).ok_or(rest.problem("an unknown status"))?)
            }
            (
                LinkOperation::Open | LinkOperation::Ping | LinkOperation::Bye | LinkOperation::GoAway,
                Direction::Request,
            )
            | (LinkOperation::Ping | LinkOperation::GoAway, Direction::Response) => {
                if !data.is_empty() {
                    return Err(rest.problem("there is data"));
                }
                Self::Nothing
            }
        })
    }

    /// The status that an answer has, if it has one.
    #[must_use]
    pub const fn status(&self) -> Option<LockStatus> {
        match self {
            Self::Welcome(Welcome { status, .. }) | Self::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Whether it is a refusal, or reports a lost lock.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Claimed(statuses) => kept_and_lost(statuses).1 > 0,
            _ => self.status().is_some_and(LockStatus::is_failure),
        }
    }

    /// The claims of a CLAIM; `None` for a claim with an invalid key.
    pub fn claims(&self) -> impl Iterator<Item = Option<Claim<'a>>> + use<'a> {
        let data = match self {
            Self::Claims(data) => data,
            _ => &[][..],
        };
        Claim::parse_all(data).filter_map(Result::ok)
    }

    /// Which bytes of `data_len` are secret, in order.
    pub(super) fn secret_ranges(&self, data_len: usize) -> Vec<Range<usize>> {
        match self {
            Self::Hello(_) => vec![0..LinkId::BYTES, LinkId::BYTES + 2..data_len],
            Self::Claims(data) => {
                let mut rest = FieldReader::new(Operation::Link(LinkOperation::Claim), data);
                let mut ranges = Vec::new();
                let mut start = 0;
                while let (Ok(_), Ok(_), Ok(key)) = (rest.u64(), rest.token(), rest.str()) {
                    ranges.push(secret_of_token(start + 8));
                    start += 8 + Token::BYTES + 2 + key.len();
                }
                ranges
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>, secrets: Redaction) -> fmt::Result {
        match self {
            Self::Hello(hello) => show_hello(f, hello, secrets),
            Self::Welcome(Welcome { status, grace_ms, remembered }) => {
                let grace = show_ms(u64::from(*grace_ms));
                write!(f, "{} grace={grace} remembered={remembered}", status.name())
            }
            Self::Claims(_) => self.show_claims(f, secrets),
            Self::Claimed(statuses) => {
                let (kept, lost) = kept_and_lost(statuses);
                write!(f, "{kept} ok")?;
                if lost > 0 { write!(f, ", {lost} lost") } else { Ok(()) }
            }
            Self::Detach(Detach { owner }) => write!(f, "owner={owner}"),
            Self::Status(status) => f.write_str(status.name()),
            Self::Nothing => Ok(()),
        }
    }

    fn show_claims(&self, f: &mut fmt::Formatter<'_>, secrets: Redaction) -> fmt::Result {
        let count = self.claims().count();
        write!(f, "{count} claim{}", if count == 1 { "" } else { "s" })?;
        for (number, claim) in self.claims().take(CLAIMS_SHOWN).enumerate() {
            f.write_str(if number == 0 { ": " } else { ", " })?;
            match claim {
                Some(Claim { owner, token, key }) => {
                    show_owner(f, owner)?;
                    let (key, token_shown) = (show_key(key), show_token(token, secrets));
                    write!(f, "key={key} fence={} {token_shown}", token.fence())?;
                }
                None => f.write_str("an invalid key")?,
            }
        }
        match count.saturating_sub(CLAIMS_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn show_hello(f: &mut fmt::Formatter<'_>, hello: &Hello<'_>, secrets: Redaction) -> fmt::Result {
    let link_id = hello.link_id.to_bytes();
    match secrets {
        Redaction::Hidden => write!(f, "link {:08x}", digest(&link_id))?,
        Redaction::Shown => write!(f, "link {}", show_hex(&link_id))?,
    }
    if hello.auth_token.is_empty() {
        return Ok(());
    }
    f.write_str(" ")?;
    show_auth_token(f, hello.auth_token, secrets)
}

/// An auth token: `token 6 bytes d0c0`, or the text itself.
pub(super) fn show_auth_token(f: &mut fmt::Formatter<'_>, token: &[u8], secrets: Redaction) -> fmt::Result {
    match secrets {
        Redaction::Hidden => write!(f, "token {} {:04x}", bytes(token.len()), short_digest(token)),
        Redaction::Shown => write!(f, "token \"{}\"", token.escape_ascii()),
    }
}

fn kept_and_lost(statuses: &[u8]) -> (usize, usize) {
    let kept = statuses.iter().filter(|status| **status == LockStatus::Ok as u8).count();
    (kept, statuses.len() - kept)
}
