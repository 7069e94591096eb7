//! The payloads of class 2: the link between an agent and its server.
//!
//! | operation | requested by | data of the request | data of the response |
//! |---|---|---|---|
//! | 0 HELLO | agent | link id 16 bytes, auth token str | status u8, grace in ms u32, holders remembered u32 |
//! | 1 CLAIM | agent | any number of: owner u64, token 16 bytes, key str | a status u8 for each: `ok` or `error` |
//! | 2 OPEN | agent | none | status u8 |
//! | 3 PING | either | none | none |
//! | 4 DETACH | agent | owner u64 | status u8 |
//! | 5 BYE | agent | none | status u8 |
//! | 6 GOAWAY | server | none | no response |
//!
//! `str` is a u16 length and that many bytes; numbers are big-endian; a status is a [`LockStatus`]. A PING
//! checks that the peer is alive, and overtakes other queued messages. No message of this class is sent to a
//! peer at patch level 0. Nothing here panics.

use crate::id::{LinkId, LockKey, Token};
use crate::limits::AUTH_TOKEN_BYTES_MAX;
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::MessageHead;
use crate::wire::lock::{FieldReader, LockStatus, write_str};
use crate::wire::message::{MessageRef, MessageWriter, write_message};
use crate::wire::operation::{LinkOperation, Operation};

/// The request that opens a link, or resumes the one with the same id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Identifies the link across its connections.
    pub link_id: LinkId,
    /// The auth token; empty without authentication.
    pub auth_token: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Parses the data of the request.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data does not have the length that it states, or the token exceeds its
    /// maximum.
    pub fn parse(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = FieldReader::new(Operation::Link(LinkOperation::Hello), data);
        let hello = Self { link_id: LinkId::new(rest.array()?), auth_token: rest.str()? };
        rest.end()?;
        if hello.auth_token.len() > AUTH_TOKEN_BYTES_MAX {
            return Err(rest.problem("the auth token is too long"));
        }
        Ok(hello)
    }

    /// Appends the request as a message with this uid.
    pub fn write(&self, uid: u32, out: &mut Vec<u8>) {
        let writer = begin(LinkOperation::Hello, uid, out);
        out.extend_from_slice(&self.link_id.to_bytes());
        write_str(out, self.auth_token);
        writer.finish(out);
    }
}

impl std::fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").finish_non_exhaustive()
    }
}

/// The answer to a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// `ok` if the link is open; `error_auth` or another error if it was refused.
    pub status: LockStatus,
    /// How long the locks of a broken link are kept for it to resume, in milliseconds.
    pub grace_ms: u32,
    /// The number of locks remembered for this link, which the agent may claim.
    pub remembered: u32,
}

impl Welcome {
    /// Parses the data of the answer.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data is not a valid answer.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = FieldReader::new(Operation::Link(LinkOperation::Hello), data);
        let status = LockStatus::from_wire(rest.u8()?).ok_or(rest.problem("an unknown status"))?;
        let welcome = Self { status, grace_ms: rest.u32()?, remembered: rest.u32()? };
        rest.end()?;
        Ok(welcome)
    }

    /// Appends the answer to the request with this head.
    pub fn write(&self, request: MessageHead, out: &mut Vec<u8>) {
        let writer = MessageWriter::begin(out, request.response());
        out.push(self.status as u8);
        out.extend_from_slice(&self.grace_ms.to_be_bytes());
        out.extend_from_slice(&self.remembered.to_be_bytes());
        writer.finish(out);
    }
}

/// A lock that the agent claims is still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The agent's local connection that holds the lock.
    pub owner: u64,
    /// The token from the grant, which proves the claim.
    pub token: Token,
    /// The key of the lock.
    pub key: LockKey<'a>,
}

impl<'a> Claim<'a> {
    /// The length of the longest claim, in bytes.
    pub const BYTES_MAX: usize = 8 + Token::BYTES + 2 + crate::limits::LOCK_KEY_BYTES_MAX;

    /// Parses the claims of a request, one by one.
    ///
    /// An item with an invalid key yields `None`, which is answered as a lost lock.
    pub fn parse_all(data: &'a [u8]) -> impl Iterator<Item = Result<Option<Self>, DecodeError>> {
        let mut rest = FieldReader::new(Operation::Link(LinkOperation::Claim), data);
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || rest.is_empty() {
                return None;
            }
            let claim = Self::parse(&mut rest);
            failed = claim.is_err();
            Some(claim)
        })
    }

    fn parse(rest: &mut FieldReader<'a>) -> Result<Option<Self>, DecodeError> {
        let (owner, token, key) = (rest.u64()?, rest.token()?, rest.str()?);
        Ok(LockKey::from_bytes(key).map(|key| Self { owner, token, key }))
    }

    /// Appends the claim to the data of a request.
    pub fn write(&self, data: &mut Vec<u8>) {
        data.extend_from_slice(&self.owner.to_be_bytes());
        data.extend_from_slice(&self.token.to_bytes());
        write_str(data, self.key.as_bytes());
    }
}

/// Reports that a local connection of the agent has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach {
    /// The agent's number of that connection.
    pub owner: u64,
}

impl Detach {
    /// Parses the data of the request.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data is not a u64.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = FieldReader::new(Operation::Link(LinkOperation::Detach), data);
        let detach = Self { owner: rest.u64()? };
        rest.end()?;
        Ok(detach)
    }

    /// Appends the request as a message with this uid.
    pub fn write(self, uid: u32, out: &mut Vec<u8>) {
        let writer = begin(LinkOperation::Detach, uid, out);
        out.extend_from_slice(&self.owner.to_be_bytes());
        writer.finish(out);
    }
}

/// A check that the peer is alive, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Matches the answer to the request.
    pub uid: u32,
}

impl Ping {
    /// Parses a ping or the answer to one; the head of the message says which.
    ///
    /// # Errors
    /// [`DecodeError`] if it carries data.
    pub fn parse(message: &MessageRef<'_>) -> Result<Self, DecodeError> {
        if message.data.is_empty() {
            Ok(Self { uid: message.head.uid })
        } else {
            Err(DecodeError::Data { operation: "PING", problem: "there is data" })
        }
    }

    /// Appends the request that checks the peer.
    pub fn write_request(self, out: &mut Vec<u8>) {
        write_message(out, self.request_head(), &[]);
    }

    /// Appends the answer to the request.
    pub fn write_response(self, out: &mut Vec<u8>) {
        write_message(out, self.request_head().response(), &[]);
    }

    const fn request_head(self) -> MessageHead {
        MessageHead::request(self.uid, Operation::Link(LinkOperation::Ping))
    }
}

fn begin(operation: LinkOperation, uid: u32, out: &mut Vec<u8>) -> MessageWriter {
    MessageWriter::begin(out, MessageHead::request(uid, Operation::Link(operation)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Direction;
    use crate::wire::message::MessageReader;

    const REQUEST: [u8; 14] = [0, 0x11, 0, 1, 0, 0xfe, 0xdc, 0xba, 0x98, 2, 3, 1, 0, 0];
    const RESPONSE: [u8; 14] = [0, 0x11, 0, 1, 1, 0xfe, 0xdc, 0xba, 0x98, 2, 3, 1, 0, 0];
    const PING: Ping = Ping { uid: 0xfedc_ba98 };

    #[test]
    fn ping_and_answer_bytes_are_fourteen() {
        let mut out = Vec::new();
        PING.write_request(&mut out);
        assert_eq!(out, REQUEST);
        out.clear();
        PING.write_response(&mut out);
        assert_eq!(out, RESPONSE);
    }

    #[test]
    fn ping_parses_in_both_directions_of_a_link() {
        for side in [Direction::Request, Direction::Response] {
            let mut reader = MessageReader::link(side);
            for bytes in [REQUEST, RESPONSE] {
                let message = reader.next(&mut bytes.as_slice()).unwrap().unwrap();
                assert_eq!(Ping::parse(&message), Ok(PING));
            }
        }
    }

    #[test]
    fn ping_with_data_is_a_decode_error() {
        let head = PING.request_head();
        let error = Ping::parse(&MessageRef { head, data: &[0] }).unwrap_err();
        assert_eq!(error.to_string(), "PING: there is data");
    }

    #[test]
    fn hello_and_welcome_bytes_round_trip() {
        let hello = Hello { link_id: LinkId::new([7; 16]), auth_token: b"abc" };
        let data = [&[7; 16][..], &[0, 3], b"abc"].concat();
        let mut out = Vec::new();
        hello.write(3, &mut out);
        assert_eq!(out[..14], [0, 0x11, 0, 1, 0, 0, 0, 0, 3, 2, 0, 1, 0, 21]);
        assert_eq!(out[14..], data);
        assert_eq!(Hello::parse(&data), Ok(hello));
        for cut in 0..data.len() {
            assert!(Hello::parse(&data[..cut]).is_err());
        }
        assert!(Hello::parse(&[&[7; 16][..], &[1, 1], &[b'a'; 257]].concat()).is_err());
        assert_eq!(format!("{hello:?}"), "Hello { .. }");

        let welcome = Welcome { status: LockStatus::Ok, grace_ms: 10_000, remembered: 2 };
        let head = MessageHead::request(3, Operation::Link(LinkOperation::Hello));
        out.clear();
        welcome.write(head, &mut out);
        assert_eq!(out[14..], [0, 0, 0, 0x27, 0x10, 0, 0, 0, 2]);
        assert_eq!(Welcome::parse(&out[14..]), Ok(welcome));
        assert!(Welcome::parse(&out[14..22]).is_err());
    }

    #[test]
    fn claims_parse_in_sequence() {
        let claim = |owner, key| Claim { owner, token: Token::new(1, 2), key: LockKey::new(key).unwrap() };
        let mut data = Vec::new();
        claim(5, "a").write(&mut data);
        let one = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, b'a'];
        assert_eq!(data, one);
        claim(6, "bc").write(&mut data);
        let read: Vec<_> = Claim::parse_all(&data).collect();
        assert_eq!(read, [Ok(Some(claim(5, "a"))), Ok(Some(claim(6, "bc")))]);
        let cut: Vec<_> = Claim::parse_all(&data[..data.len() - 1]).collect();
        assert!(cut.len() == 2 && cut[1].is_err());
        let mut bad = one;
        bad[26] = b' ';
        assert_eq!(Claim::parse_all(&bad).collect::<Vec<_>>(), [Ok(None)]);
        assert_eq!(Claim::parse_all(&[]).count(), 0);
    }

    #[test]
    fn detach_bytes_round_trip() {
        let mut out = Vec::new();
        Detach { owner: 0x0102 }.write(4, &mut out);
        assert_eq!(out, [0, 0x11, 0, 1, 0, 0, 0, 0, 4, 2, 4, 1, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Detach::parse(&out[14..]), Ok(Detach { owner: 0x0102 }));
        assert!(Detach::parse(&out[14..21]).is_err() && Detach::parse(&[0; 9]).is_err());
    }
}
