//! Models the stored sessions as far as they can be known, and judges whether an answer agrees.
//!
//! A slot is one session id and the contents that may be stored under it. The result of an operation is known
//! once it is answered; its time is only known to lie between request and answer. It follows:
//!
//! - a session has certainly not expired while an answer arrives [`MARGIN_MS`] before its earliest expiry,
//!   and certainly has when a request is sent as much after the latest. In between, both answers are right;
//! - an ADD or REMOVE without an answer may have taken effect, or may do so later, when a hung server
//!   resumes. The slot is then uncertain: hit and miss are both right, but only contents that a request tried
//!   to store are. After the next answer the id is retired;
//! - a session whose ADD was sent before the end of an outage may be lost; with `-tolerate-eviction`, any may
//!   be.
//!
//! A slot has at most one operation in flight, so the order of answers does not matter. Some slots are left
//! alone until their session must have expired; the others are stored again long before.

use crate::content;
use crate::counters::CounterTable;
use crate::wrong_answer::WrongAnswer;
use fastrand::Rng;
use libdc::time::Time;
use libdc::wire::frame::Operation;
use libdc::wire::frame::SessionOperation;
use libdc::wire::session::{SessionAnswer, SessionStatus};
use std::ops::RangeInclusive;

/// Maximum difference between the clocks of server and tester, and delay of the server's clock.
pub(crate) const MARGIN_MS: u64 = 100;
/// Contents of a slot in doubt after which its id is given up without another look.
const DOUBTS_MAX: usize = 8;

/// How a run on sessions is counted: by [`SessionOperation`] and [`SessionOpOutcome`].
pub(crate) const SHEET: CounterTable = CounterTable {
    unit: "operations",
    rows: &["ADD", "GET", "REMOVE", "HAVE"],
    columns: &[
        ("ok", "ok"),
        ("not_there", "not there"),
        ("already_stored", "matching"),
        ("lost", "lost"),
        ("evicted", "evicted"),
    ],
    always: 3,
    total: true,
};

/// The sessions of one client.
#[derive(Debug)]
pub(crate) struct SessionModel {
    slots: Vec<SessionSlot>,
    /// The first this many slots are read only after their session must have expired.
    aging: usize,
    rng: Rng,
    bytes: RangeInclusive<usize>,
    timeout_ms: RangeInclusive<u32>,
    eviction: bool,
}

/// The session workload.
#[derive(Clone, Debug)]
pub(crate) struct SessionWorkload {
    pub(crate) sessions: usize,
    /// How many of them are left alone while they may be stored.
    pub(crate) aging: usize,
    pub(crate) bytes: RangeInclusive<usize>,
    /// How long they are kept, in milliseconds.
    pub(crate) timeout_ms: RangeInclusive<u32>,
    /// Whether a missing one may have been evicted.
    pub(crate) eviction: bool,
}

/// One id and the contents that may be stored under it.
#[derive(Debug)]
struct SessionSlot {
    id: u64,
    asked: bool,
    /// Possible contents: nothing, one session, or several if uncertain.
    contents: Vec<StoredContent>,
    in_doubt: bool,
}

/// A session that was asked to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredContent {
    pub(crate) seed: u64,
    pub(crate) len: usize,
    pub(crate) timeout_ms: u32,
    /// When it was asked to be stored.
    pub(crate) asked: Time,
    /// When that was answered, if it was.
    answered: Option<Time>,
}

impl StoredContent {
    /// Whether it may still be stored, for a request sent at `asked`.
    fn may_live(&self, asked: Time) -> bool {
        self.answered
            .is_none_or(|stored| asked <= stored.after_ms(u64::from(self.timeout_ms)).after_ms(MARGIN_MS))
    }

    /// Whether it must still be stored, for an answer received at `answered`.
    fn must_live(&self, answered: Time) -> bool {
        answered.after_ms(MARGIN_MS) < self.asked.after_ms(u64::from(self.timeout_ms))
    }
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingSessionOp {
    slot: usize,
    pub(crate) id: u64,
    pub(crate) operation: SessionOperation,
    /// The content that an ADD stores.
    pub(crate) content: Option<StoredContent>,
    pub(crate) asked: Time,
}

/// The meaning of a plausible answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOpOutcome {
    /// Success; for a HAVE, the session exists.
    Ok,
    NotThere,
    /// The ADD found a stored session.
    AlreadyStored,
    /// Not there, though it had been stored: an outage lies between.
    Lost,
    /// Not there, though it had been stored, and evictions are tolerated.
    Evicted,
}

/// Why a session is missing that was stored.
enum MissReason {
    /// It need not be there.
    Right,
    Lost,
    Evicted,
}

impl SessionModel {
    pub(crate) fn new(shape: &SessionWorkload, mut rng: Rng) -> Self {
        let slots = (0..shape.sessions).map(|_| SessionSlot::fresh(rng.u64(..))).collect();
        let SessionWorkload { aging, bytes, timeout_ms, eviction, .. } = shape.clone();
        Self { slots, aging, rng, bytes, timeout_ms, eviction }
    }

    /// The next operation, on a session with none in flight that is not left alone; `None` if there is none.
    pub(crate) fn ask(&mut self, now: Time) -> Option<PendingSessionOp> {
        use SessionOperation::{Add, Get, Have, Remove};
        let start = self.rng.usize(..self.slots.len());
        let slot = (start..self.slots.len()).chain(0..start).find(|slot| self.is_free(*slot, now))?;
        let operation = [Add, Get, Remove, Have][self.rng.usize(..4)];
        let content = (operation == Add).then(|| StoredContent {
            seed: self.rng.u64(..),
            len: self.rng.usize(self.bytes.clone()),
            timeout_ms: self.rng.u32(self.timeout_ms.clone()),
            asked: now,
            answered: None,
        });
        self.slots[slot].asked = true;
        Some(PendingSessionOp { slot, id: self.slots[slot].id, operation, content, asked: now })
    }

    fn is_free(&self, slot: usize, now: Time) -> bool {
        let SessionSlot { asked, contents, in_doubt, .. } = &self.slots[slot];
        let is_left_alone = slot < self.aging && !in_doubt && contents.iter().any(|it| it.may_live(now));
        !asked && !is_left_alone
    }

    /// Judges the answer to `question`. `outage` is the time of the last failure seen.
    ///
    /// # Errors
    /// [`WrongAnswer`] if no server that keeps its promises can have given it.
    pub(crate) fn judge(
        &mut self,
        question: &PendingSessionOp,
        answer: SessionAnswer<'_>,
        now: Time,
        outage: Option<Time>,
    ) -> Result<SessionOpOutcome, Box<WrongAnswer>> {
        use SessionOperation::{Add, Get, Have, Remove};
        let slot = &mut self.slots[question.slot];
        slot.asked = false;
        let wrong =
            |slot: &SessionSlot| wrong_answer(question, slot.expectation(question.asked, now), answer);
        let outcome = match (question.operation, answer) {
            (Get, SessionAnswer::Session(bytes)) => {
                let stored = slot.contents.iter().find(|content| {
                    let is_equal = content::first_difference(bytes, content.seed, content.len).is_none();
                    is_equal && content.may_live(question.asked)
                });
                slot.contents = vec![*stored.ok_or_else(|| wrong(slot))?];
                SessionOpOutcome::Ok
            }
            (Have | Remove, SessionAnswer::Status(SessionStatus::Ok))
            | (Add, SessionAnswer::Status(SessionStatus::MatchingSession)) => {
                slot.contents.retain(|content| content.may_live(question.asked));
                if slot.contents.is_empty() {
                    return Err(wrong(slot));
                }
                if question.operation == Remove {
                    slot.contents.clear();
                }
                if question.operation == Add { SessionOpOutcome::AlreadyStored } else { SessionOpOutcome::Ok }
            }
            (Get | Have | Remove, SessionAnswer::Status(SessionStatus::NotOk))
            | (Add, SessionAnswer::Status(SessionStatus::Ok)) => {
                let miss = slot.miss(now, outage, self.eviction).ok_or_else(|| wrong(slot))?;
                let stored = question.content.map(|content| StoredContent { answered: Some(now), ..content });
                slot.contents = stored.into_iter().collect();
                match miss {
                    MissReason::Lost => SessionOpOutcome::Lost,
                    MissReason::Evicted => SessionOpOutcome::Evicted,
                    MissReason::Right if question.operation == Add => SessionOpOutcome::Ok,
                    MissReason::Right => SessionOpOutcome::NotThere,
                }
            }
            _ => return Err(wrong(slot)),
        };
        if slot.in_doubt {
            *slot = SessionSlot::fresh(self.rng.u64(..));
        }
        Ok(outcome)
    }

    /// Whether it is about a session that will be left alone.
    #[cfg(test)]
    pub(crate) const fn is_aging(&self, question: &PendingSessionOp) -> bool {
        question.slot < self.aging
    }

    /// Takes a question back that was never asked.
    #[cfg(test)]
    pub(crate) fn forget(&mut self, question: &PendingSessionOp) {
        self.slots[question.slot].asked = false;
    }

    /// Notes that `question` will not be answered.
    pub(crate) fn fail(&mut self, question: &PendingSessionOp) {
        let slot = &mut self.slots[question.slot];
        slot.asked = false;
        if matches!(question.operation, SessionOperation::Get | SessionOperation::Have) {
            return;
        }
        slot.in_doubt = true;
        slot.contents.extend(question.content);
        if slot.contents.len() > DOUBTS_MAX {
            *slot = SessionSlot::fresh(self.rng.u64(..));
        }
    }
}

impl SessionSlot {
    const fn fresh(id: u64) -> Self {
        Self { id, asked: false, contents: Vec::new(), in_doubt: false }
    }

    /// Why a miss is right; `None` if it is wrong.
    fn miss(&self, answered: Time, outage: Option<Time>, eviction: bool) -> Option<MissReason> {
        if self.in_doubt || self.contents.iter().all(|content| !content.must_live(answered)) {
            Some(MissReason::Right)
        } else if self.contents.iter().all(|content| outage.is_some_and(|outage| content.asked <= outage)) {
            Some(MissReason::Lost)
        } else if eviction {
            Some(MissReason::Evicted)
        } else {
            None
        }
    }

    /// The expected contents, for the error message.
    fn expectation(&self, asked: Time, answered: Time) -> String {
        let mut words: Vec<String> = self
            .contents
            .iter()
            .map(|content| {
                let StoredContent { len, timeout_ms, .. } = content;
                let age_ms = asked.ms_since(content.asked);
                let is = if !content.may_live(asked) {
                    "no longer "
                } else if self.in_doubt || !content.must_live(answered) {
                    "perhaps "
                } else {
                    ""
                };
                format!("{is}the {len} bytes stored {age_ms} ms ago for {timeout_ms} ms")
            })
            .collect();
        if words.is_empty() {
            words.push("nothing stored".to_owned());
        }
        words.join(", or ")
    }
}

/// The error for a wrong answer to `question`.
fn wrong_answer(
    question: &PendingSessionOp,
    expected: String,
    answer: SessionAnswer<'_>,
) -> Box<WrongAnswer> {
    let id: String = content::id(question.id).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut asked = format!("{} of {id}", Operation::Session(question.operation).name());
    if let Some(content) = &question.content {
        asked += &format!(" with {} bytes for {} ms", content.len, content.timeout_ms);
    }
    let got = match answer {
        SessionAnswer::Status(status) => status.name().to_owned(),
        SessionAnswer::Session(bytes) => {
            let begin: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{} bytes that begin with {begin} and were not stored, or not last", bytes.len())
        }
    };
    WrongAnswer::new(asked, expected, got)
}
