//! A connection on which locks are asked for, in the lines of the text protocol or in frames.
//!
//! Lines are answered in their order, frames by their uids; each request once, with an answer that belongs to it.

use super::history::{Locking, Reply};
use super::violation::LockViolation;
use crate::simulation::network::{End, Network};
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
pub(crate) struct Conversation {
    pub(crate) end: End,
    pub(crate) since: Time,
    text: bool,
    reader: MessageReader,
    unread: Vec<u8>,
    outgoing: Outbox,
    uid: u32,
    /// What has no answer yet, in the order of the requests.
    pub(crate) open: VecDeque<OpenRequest>,
    /// Answers of the opening of a link that are still to come.
    opening: usize,
    claims: Vec<OpenRequest>,
    /// An `error` came in text that nobody had asked for; only the end may follow.
    told_off: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRequest {
    pub(crate) operation: usize,
    pub(crate) locking: Locking,
    pub(crate) key: usize,
    uid: u32,
}

impl OpenRequest {
    /// What is going to be asked.
    pub(crate) const fn new(operation: usize, key: usize, locking: Locking) -> Self {
        Self { operation, locking, key, uid: 0 }
    }
}

/// The names of keys; the last are semaphores.
pub(crate) const KEYS: [&str; 6] = ["a", "b", "nightly", "disk/1", "two", "three"];

/// How many may hold a key.
pub(crate) const fn limit_of(key: usize) -> u32 {
    match key {
        4 => 2,
        5 => 3,
        _ => 1,
    }
}

impl Conversation {
    /// A connection on which nothing was said.
    pub(crate) fn new(end: End, since: Time, text: bool) -> Self {
        Self {
            end,
            since,
            text,
            reader: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            outgoing: Outbox::new(),
            uid: 0,
            open: VecDeque::new(),
            opening: 0,
            claims: Vec::new(),
            told_off: false,
        }
    }

    /// Opens a link, which claims what these operations ask for.
    pub(crate) fn open_link(&mut self, link_id: LinkId, claims: &[OpenRequest]) {
        self.uid += 1;
        Hello { link_id, auth_token: &[] }.write(self.uid, self.outgoing.buffer());
        self.opening = 2;
        self.claims = claims.to_vec();
        // They are open from now on: whoever leaves before the answer has claimed in vain.
        self.open.extend(claims);
    }

    /// Claims what is held, and opens the link; after the answer to HELLO, which may have been long under way.
    fn claim(&mut self) {
        for claim in std::mem::take(&mut self.claims) {
            if let (Locking::Claim { token }, Some(key)) = (claim.locking, LockKey::new(KEYS[claim.key])) {
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

    /// Whether the link is open; any other connection always is.
    pub(crate) const fn is_open(&self) -> bool {
        self.opening == 0
    }

    /// Asks something.
    pub(crate) fn ask(&mut self, operation: usize, key: usize, locking: Locking) {
        self.uid += 1;
        if self.text {
            let line = line_of(key, locking);
            self.outgoing.buffer().extend_from_slice(line.as_bytes());
        } else if let Some(key) = LockKey::new(KEYS[key]) {
            let limit = limit_of_key(key);
            let action = match locking {
                Locking::Acquire { timeout_ms, lease_ms } => {
                    LockAction::Acquire { key, limit, timeout_ms, lease_ms }
                }
                Locking::Enqueue { lease_ms } => LockAction::Enqueue { key, limit, lease_ms },
                Locking::Wait { timeout_ms } => LockAction::Wait { key, timeout_ms },
                Locking::Release { token } | Locking::Claim { token } => LockAction::Release { key, token },
                Locking::Renew { token, lease_ms } => LockAction::Renew { key, token, lease_ms },
                Locking::Cancel { operation } => {
                    let asked = self.open.iter().find(|it| it.operation == operation);
                    LockAction::Cancel { uid: asked.map_or(0, |it| it.uid) }
                }
            };
            LockRequest { owner: 0, action }.write(self.uid, self.outgoing.buffer());
        }
        self.open.push_back(OpenRequest { operation, locking, key, uid: self.uid });
    }

    /// Writes what the connection takes.
    pub(crate) fn write(&mut self, net: &mut Network) {
        if !self.outgoing.is_empty() {
            match net.write(self.end, self.outgoing.pending()) {
                Ok(count) => self.outgoing.advance(count),
                // What was answered before may still be there to be read.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// Appends the answers that have come. Returns whether the connection goes on.
    ///
    /// # Errors
    /// The [`LockViolation`] if they are none.
    pub(crate) fn read(
        &mut self,
        net: &mut Network,
        locker: usize,
        answers: &mut Vec<(OpenRequest, Reply)>,
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
        answers: &mut Vec<(OpenRequest, Reply)>,
    ) -> Result<(), LockViolation> {
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&rest[..end]).map_err(|_| LockViolation::NotAsked { locker })?;
            rest = &rest[end + 1..];
            let Some(request) = self.open.pop_front() else {
                // Whoever is idle for too long is told so, and left.
                if line != "error" || std::mem::replace(&mut self.told_off, true) {
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
        answers: &mut Vec<(OpenRequest, Reply)>,
    ) -> Result<(), LockViolation> {
        let unread = std::mem::take(&mut self.unread);
        let mut input = unread.as_slice();
        let mut reader = std::mem::take(&mut self.reader);
        while let Some(answer) = reader.next(&mut input).map_err(|_| LockViolation::NotAsked { locker })? {
            let uid = answer.head.uid;
            if answer.head.direction == Direction::Request {
                // The server asks whether the link is there. It lets nothing else come this way.
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
            let place = self.open.iter().position(|it| it.uid == uid);
            let Some(request) = place.and_then(|place| self.open.remove(place)) else {
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

/// The request in the text protocol.
fn line_of(key: usize, locking: Locking) -> String {
    let limit = limit_of(key);
    let (name, semaphore) = (KEYS[key], limit > 1);
    let hex = |token: Token| String::from_utf8_lossy(&token.to_hex()).into_owned();
    let (command, argument) = match locking {
        Locking::Acquire { timeout_ms, lease_ms } if semaphore => {
            ("sl", format!("{} {limit} {}", timeout_ms / 1_000, lease_ms / 1_000))
        }
        Locking::Acquire { timeout_ms, lease_ms } => {
            ("l", format!("{} {}", timeout_ms / 1_000, lease_ms / 1_000))
        }
        Locking::Enqueue { lease_ms } if semaphore => ("se", format!("{limit} {}", lease_ms / 1_000)),
        Locking::Enqueue { lease_ms } => ("e", (lease_ms / 1_000).to_string()),
        Locking::Wait { timeout_ms } => ("w", (timeout_ms / 1_000).to_string()),
        Locking::Release { token } | Locking::Claim { token } => ("r", hex(token)),
        Locking::Renew { token, lease_ms } => ("n", format!("{} {}", hex(token), lease_ms / 1_000)),
        // There is none: an honest mistake, to be answered `error`.
        Locking::Cancel { .. } => ("c", String::new()),
    };
    format!("{command}\n{name}\n{argument}\n")
}

/// What the line says; `None` if it is no answer to that.
fn read_line(locking: Locking, line: &str) -> Option<Reply> {
    let words: Vec<&str> = line.split(' ').collect();
    let reply = match words[..] {
        ["ok" | "acquired", token, seconds] => {
            let grant = Grant {
                token: Token::from_hex(token.as_bytes())?,
                lease_ms: seconds.parse::<u64>().ok()?.checked_mul(1_000)?,
            };
            let is_acquired = words[0] == "acquired";
            return (is_acquired == matches!(locking, Locking::Enqueue { .. }) && grants(locking))
                .then_some(Reply::Granted(grant));
        }
        ["ok", seconds] if matches!(locking, Locking::Renew { .. }) => {
            Reply::Renewed(seconds.parse::<u64>().ok()?.checked_mul(1_000)?)
        }
        [word] => Reply::Status(LockStatus::ALL.into_iter().find(|status| status.name() == word)?),
        _ => return None,
    };
    may_answer(locking, reply, true).then_some(reply)
}

/// What the data say; `None` if they are no answer to that.
fn read_frame(locking: Locking, data: &[u8]) -> Option<Reply> {
    let Operation::Lock(operation) = operation_of(locking) else {
        let [status] = data else { return None };
        let reply = Reply::Status(LockStatus::from_wire(*status)?);
        return may_answer(locking, reply, false).then_some(reply);
    };
    let reply = match LockAnswer::parse(operation, data).ok()? {
        LockAnswer::Grant { grant, .. } => Reply::Granted(grant),
        LockAnswer::Renewed { lease_ms } => Reply::Renewed(lease_ms),
        LockAnswer::Status(status) => Reply::Status(status),
        LockAnswer::Stats(_) => return None,
    };
    may_answer(locking, reply, false).then_some(reply)
}

const fn grants(locking: Locking) -> bool {
    matches!(locking, Locking::Acquire { .. } | Locking::Enqueue { .. } | Locking::Wait { .. })
}

/// Whether there is such an answer. Where the text protocol closes a connection it says `error` before.
const fn may_answer(locking: Locking, reply: Reply, text: bool) -> bool {
    use LockStatus as S;
    match (locking, reply) {
        (_, Reply::Status(S::ErrorDisconnected)) => !matches!(locking, Locking::Claim { .. }),
        (_, Reply::Status(S::Error)) if text => true,
        (Locking::Acquire { .. }, Reply::Granted(_) | Reply::Status(S::Timeout))
        | (Locking::Enqueue { .. }, Reply::Granted(_) | Reply::Status(S::Queued | S::ErrorAlreadyEnqueued))
        | (
            Locking::Wait { .. },
            Reply::Granted(_) | Reply::Status(S::Timeout | S::ErrorNotEnqueued | S::ErrorLeaseExpired),
        )
        | (
            Locking::Release { .. } | Locking::Cancel { .. } | Locking::Claim { .. },
            Reply::Status(S::Ok | S::Error),
        )
        | (Locking::Renew { .. }, Reply::Renewed(_) | Reply::Status(S::Error)) => true,
        _ => false,
    }
}

const fn operation_of(locking: Locking) -> Operation {
    Operation::Lock(match locking {
        Locking::Acquire { .. } => LockOperation::Acquire,
        Locking::Enqueue { .. } => LockOperation::Enqueue,
        Locking::Wait { .. } => LockOperation::Wait,
        Locking::Release { .. } => LockOperation::Release,
        Locking::Renew { .. } => LockOperation::Renew,
        Locking::Cancel { .. } => LockOperation::Cancel,
        Locking::Claim { .. } => return Operation::Link(LinkOperation::Claim),
    })
}
