//! A connection for lock requests, with the line protocol or with frames.
//!
//! Lines are answered in order, frames by their uids; each request gets one answer, of a kind that fits it.

use super::history::{LockOpKind, ObservedLockReply};
use super::violation::LockViolation;
use crate::simulation::network::{Network, NetworkEnd};
use crate::simulation::pipe::Incoming;
use libdc::id::{Grant, LinkId, LockKey, Token};
use libdc::proto::outbox::Outbox;
use libdc::time::Time;
use libdc::wire::frame::{Direction, LinkOperation, LockOperation, MessageHead, Operation};
use libdc::wire::link::{Claim, Hello, Ping};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{MessageReader, write_message};
use std::collections::VecDeque;

/// A connection to an agent or to the server.
pub(crate) struct LockConversation {
    pub(crate) end: NetworkEnd,
    pub(crate) since: Time,
    text: bool,
    reader: MessageReader,
    unread: Vec<u8>,
    outgoing: Outbox,
    uid: u32,
    /// Bytes of requests made.
    pub(crate) asked: u64,
    /// Unanswered requests, in order.
    pub(crate) open: VecDeque<SentLock>,
    /// Outstanding answers to HELLO and OPEN.
    opening: usize,
    claims: Vec<SentLock>,
    /// An unsolicited `error` line has arrived; only the end of the connection may follow.
    idle_error_seen: bool,
}

/// A request that was sent or is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentLock {
    pub(crate) operation: usize,
    pub(crate) locking: LockOpKind,
    pub(crate) key: usize,
    uid: u32,
}

impl SentLock {
    /// A request to be sent, without its uid.
    pub(crate) const fn new(operation: usize, key: usize, locking: LockOpKind) -> Self {
        Self { operation, locking, key, uid: 0 }
    }
}

/// The names of keys; the last ones are semaphores.
pub(crate) const KEYS: [&str; 6] = ["a", "b", "nightly", "disk/1", "two", "three"];

/// The number of holders a key allows.
pub(crate) const fn limit_of(key: usize) -> u32 {
    match key {
        4 => 2,
        5 => 3,
        _ => 1,
    }
}

impl LockConversation {
    /// A connection without any requests yet.
    pub(crate) fn new(end: NetworkEnd, since: Time, text: bool) -> Self {
        Self {
            end,
            since,
            text,
            reader: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            outgoing: Outbox::new(),
            uid: 0,
            asked: 0,
            open: VecDeque::new(),
            opening: 0,
            claims: Vec::new(),
            idle_error_seen: false,
        }
    }

    /// Opens a link, which claims the locks of these operations.
    pub(crate) fn open_link(&mut self, link_id: LinkId, claims: &[SentLock]) {
        self.uid += 1;
        Hello { link_id, auth_token: &[] }.write(self.uid, self.outgoing.buffer());
        self.opening = 2;
        self.claims = claims.to_vec();
        // They count as open from now on: if the connection ends before the answer, the claim is lost.
        self.open.extend(claims);
    }

    /// Sends the claims, and opens the link. This follows the answer to HELLO, which may take long.
    fn claim(&mut self) {
        for claim in std::mem::take(&mut self.claims) {
            if let (LockOpKind::Claim { token }, Some(key)) = (claim.locking, LockKey::new(KEYS[claim.key])) {
                self.uid += 1;
                let mut data = Vec::new();
                Claim { owner: 0, token, key }.write(&mut data);
                self.send(LinkOperation::Claim, &data);
                let uid = self.uid;
                self.open.iter_mut().filter(|it| it.operation == claim.operation).for_each(|it| it.uid = uid);
            }
        }
        self.uid += 1;
        self.send(LinkOperation::Open, &[]);
    }

    fn send(&mut self, operation: LinkOperation, data: &[u8]) {
        let head = MessageHead::request(self.uid, Operation::Link(operation));
        write_message(self.outgoing.buffer(), head, data);
    }

    /// Whether the link is open; always true for other connections.
    pub(crate) const fn is_open(&self) -> bool {
        self.opening == 0
    }

    /// Appends a request to the output and records it as open.
    pub(crate) fn ask(&mut self, operation: usize, key: usize, locking: LockOpKind) {
        self.uid += 1;
        let before = self.outgoing.len();
        if self.text {
            let line = line_of(key, locking);
            self.outgoing.buffer().extend_from_slice(line.as_bytes());
        } else if let Some(key) = LockKey::new(KEYS[key]) {
            let limit = limit_of_key(key);
            let action = match locking {
                LockOpKind::Acquire { timeout_ms, lease_ms } => {
                    LockAction::Acquire { key, limit, timeout_ms, lease_ms }
                }
                LockOpKind::Enqueue { lease_ms } => LockAction::Enqueue { key, limit, lease_ms },
                LockOpKind::Wait { timeout_ms } => LockAction::Wait { key, timeout_ms },
                LockOpKind::Release { token } | LockOpKind::Claim { token } => {
                    LockAction::Release { key, token }
                }
                LockOpKind::Renew { token, lease_ms } => LockAction::Renew { key, token, lease_ms },
                LockOpKind::Cancel { operation } => {
                    let request = self.open.iter().find(|it| it.operation == operation);
                    LockAction::Cancel { uid: request.map_or(0, |it| it.uid) }
                }
            };
            LockRequest { owner: 0, action }.write(self.uid, self.outgoing.buffer());
        }
        self.asked += (self.outgoing.len() - before) as u64;
        self.open.push_back(SentLock { operation, locking, key, uid: self.uid });
    }

    /// Writes as much output as the connection accepts.
    pub(crate) fn write(&mut self, net: &mut Network) {
        if !self.outgoing.is_empty() {
            match net.write(self.end, self.outgoing.pending()) {
                Ok(count) => self.outgoing.advance(count),
                // Answers sent before the failure may still be readable.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// Appends the answers received. Returns whether the connection stays open.
    ///
    /// # Errors
    /// The [`LockViolation`] if a message is not an expected answer.
    pub(crate) fn read(
        &mut self,
        net: &mut Network,
        locker: usize,
        answers: &mut Vec<(SentLock, ObservedLockReply)>,
    ) -> Result<bool, LockViolation> {
        let incoming = loop {
            match net.read(self.end, &mut self.unread) {
                Incoming::Bytes(_) => {}
                incoming => break incoming,
            }
        };
        if self.text {
            self.read_lines(locker, answers)?;
        } else {
            self.read_frames(locker, answers)?;
            self.write(net);
        }
        Ok(incoming == Incoming::Nothing)
    }

    fn read_lines(
        &mut self,
        locker: usize,
        answers: &mut Vec<(SentLock, ObservedLockReply)>,
    ) -> Result<(), LockViolation> {
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&rest[..end]).map_err(|_| LockViolation::NotAsked { locker })?;
            rest = &rest[end + 1..];
            let Some(request) = self.open.pop_front() else {
                // A connection that is idle for too long gets `error`, and is closed.
                if line != "error" || std::mem::replace(&mut self.idle_error_seen, true) {
                    return Err(LockViolation::NotAsked { locker });
                }
                continue;
            };
            let malformed = LockViolation::Malformed { operation: request.operation };
            answers.push((request, read_line(request.locking, line).ok_or(malformed)?));
        }
        self.unread = rest.to_vec();
        Ok(())
    }

    fn read_frames(
        &mut self,
        locker: usize,
        answers: &mut Vec<(SentLock, ObservedLockReply)>,
    ) -> Result<(), LockViolation> {
        let unread = std::mem::take(&mut self.unread);
        let mut input = unread.as_slice();
        let mut reader = std::mem::take(&mut self.reader);
        while let Some(answer) = reader.next(&mut input).map_err(|_| LockViolation::NotAsked { locker })? {
            let uid = answer.head.uid;
            if answer.head.direction == Direction::Request {
                // A ping of the server. It sends no other requests.
                Ping { uid }.write_response(self.outgoing.buffer());
                continue;
            }
            if let Operation::Link(LinkOperation::Hello | LinkOperation::Open) = answer.head.operation {
                self.opening = self.opening.checked_sub(1).ok_or(LockViolation::NotAsked { locker })?;
                if answer.data.first() != Some(&(LockStatus::Ok as u8)) {
                    return Err(LockViolation::NotAsked { locker });
                }
                if self.opening == 1 {
                    self.claim();
                }
                continue;
            }
            let index = self.open.iter().position(|it| it.uid == uid);
            let Some(request) = index.and_then(|index| self.open.remove(index)) else {
                return Err(LockViolation::NotAsked { locker });
            };
            let malformed = LockViolation::Malformed { operation: request.operation };
            if answer.head.operation != operation_of(request.locking) {
                return Err(malformed);
            }
            let reply = read_frame(request.locking, answer.data).ok_or(malformed)?;
            answers.push((request, reply));
        }
        self.unread = input.to_vec();
        self.reader = reader;
        Ok(())
    }
}

fn limit_of_key(key: LockKey<'_>) -> u32 {
    KEYS.iter().position(|name| *name == key.as_str()).map_or(1, limit_of)
}

/// The request in the line protocol.
fn line_of(key: usize, locking: LockOpKind) -> String {
    let limit = limit_of(key);
    let (name, semaphore) = (KEYS[key], limit > 1);
    let hex = |token: Token| String::from_utf8_lossy(&token.to_hex()).into_owned();
    let (command, argument) = match locking {
        LockOpKind::Acquire { timeout_ms, lease_ms } if semaphore => {
            ("sl", format!("{} {limit} {}", timeout_ms / 1_000, lease_ms / 1_000))
        }
        LockOpKind::Acquire { timeout_ms, lease_ms } => {
            ("l", format!("{} {}", timeout_ms / 1_000, lease_ms / 1_000))
        }
        LockOpKind::Enqueue { lease_ms } if semaphore => ("se", format!("{limit} {}", lease_ms / 1_000)),
        LockOpKind::Enqueue { lease_ms } => ("e", (lease_ms / 1_000).to_string()),
        LockOpKind::Wait { timeout_ms } => ("w", (timeout_ms / 1_000).to_string()),
        LockOpKind::Release { token } | LockOpKind::Claim { token } => ("r", hex(token)),
        LockOpKind::Renew { token, lease_ms } => ("n", format!("{} {}", hex(token), lease_ms / 1_000)),
        // The line protocol has no such request: a deliberate error, answered `error`.
        LockOpKind::Cancel { .. } => ("c", String::new()),
    };
    format!("{command}\n{name}\n{argument}\n")
}

/// Parses an answer line; `None` if it does not fit the request.
fn read_line(locking: LockOpKind, line: &str) -> Option<ObservedLockReply> {
    let words: Vec<&str> = line.split(' ').collect();
    let reply = match words[..] {
        ["ok" | "acquired", token, seconds] => {
            let grant = Grant {
                token: Token::from_hex(token.as_bytes())?,
                lease_ms: seconds.parse::<u64>().ok()?.checked_mul(1_000)?,
            };
            let is_acquired = words[0] == "acquired";
            return (is_acquired == matches!(locking, LockOpKind::Enqueue { .. }) && grants(locking))
                .then_some(ObservedLockReply::Granted(grant));
        }
        ["ok", seconds] if matches!(locking, LockOpKind::Renew { .. }) => {
            ObservedLockReply::Renewed(seconds.parse::<u64>().ok()?.checked_mul(1_000)?)
        }
        [word] => {
            ObservedLockReply::Status(LockStatus::ALL.into_iter().find(|status| status.name() == word)?)
        }
        _ => return None,
    };
    may_answer(locking, reply, true).then_some(reply)
}

/// Parses an answer's data; `None` if they do not fit the request.
fn read_frame(locking: LockOpKind, data: &[u8]) -> Option<ObservedLockReply> {
    let Operation::Lock(operation) = operation_of(locking) else {
        let [status] = data else { return None };
        let reply = ObservedLockReply::Status(LockStatus::from_wire(*status)?);
        return may_answer(locking, reply, false).then_some(reply);
    };
    let reply = match LockAnswer::parse(operation, data).ok()? {
        LockAnswer::Grant { grant, .. } => ObservedLockReply::Granted(grant),
        LockAnswer::Renewed { lease_ms } => ObservedLockReply::Renewed(lease_ms),
        LockAnswer::Status(status) => ObservedLockReply::Status(status),
        LockAnswer::Stats(_) => return None,
    };
    may_answer(locking, reply, false).then_some(reply)
}

const fn grants(locking: LockOpKind) -> bool {
    matches!(locking, LockOpKind::Acquire { .. } | LockOpKind::Enqueue { .. } | LockOpKind::Wait { .. })
}

/// Whether this answer is allowed. The line protocol sends `error` before it closes a connection.
const fn may_answer(locking: LockOpKind, reply: ObservedLockReply, text: bool) -> bool {
    use LockStatus as S;
    match (locking, reply) {
        (_, ObservedLockReply::Status(S::ErrorDisconnected)) => !matches!(locking, LockOpKind::Claim { .. }),
        (_, ObservedLockReply::Status(S::Error)) if text => true,
        (
            LockOpKind::Acquire { .. },
            ObservedLockReply::Granted(_) | ObservedLockReply::Status(S::Timeout),
        )
        | (
            LockOpKind::Enqueue { .. },
            ObservedLockReply::Granted(_) | ObservedLockReply::Status(S::Queued | S::ErrorAlreadyEnqueued),
        )
        | (
            LockOpKind::Wait { .. },
            ObservedLockReply::Granted(_)
            | ObservedLockReply::Status(S::Timeout | S::ErrorNotEnqueued | S::ErrorLeaseExpired),
        )
        | (
            LockOpKind::Release { .. } | LockOpKind::Cancel { .. } | LockOpKind::Claim { .. },
            ObservedLockReply::Status(S::Ok | S::Error),
        )
        | (LockOpKind::Renew { .. }, ObservedLockReply::Renewed(_) | ObservedLockReply::Status(S::Error)) => {
            true
        }
        _ => false,
    }
}

const fn operation_of(locking: LockOpKind) -> Operation {
    Operation::Lock(match locking {
        LockOpKind::Acquire { .. } => LockOperation::Acquire,
        LockOpKind::Enqueue { .. } => LockOperation::Enqueue,
        LockOpKind::Wait { .. } => LockOperation::Wait,
        LockOpKind::Release { .. } => LockOperation::Release,
        LockOpKind::Renew { .. } => LockOperation::Renew,
        LockOpKind::Cancel { .. } => LockOperation::Cancel,
        LockOpKind::Claim { .. } => return Operation::Link(LinkOperation::Claim),
    })
}
