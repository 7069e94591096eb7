//! What must be stored, as far as it can be known, and whether an answer agrees with it.
//!
//! A slot is one session id with what may be stored under it. What an operation did is known when it is
//! answered; when is known only to lie between asking and being answered. From that follows:
//!
//! - a session has certainly not expired while an answer comes [`MARGIN_MS`] before the earliest end of its
//!   time, and certainly has when a question is asked as much after the latest; between, both answers are right;
//! - an ADD or REMOVE without an answer may have taken effect, or may still do so later, when a hung server
//!   goes on. The slot is in doubt then: hit and miss are both right, but only contents that were once asked
//!   to be stored are. After the next answer the id is not used again;
//! - a session whose ADD was asked before an outage was over may be lost; under `-tolerate-eviction`, any may.
//!
//! A slot has at most one operation under way, so nothing depends on the order of answers. Some are left alone until what they
//! store must have expired: the others are stored anew long before.

use crate::content;
use crate::counters::CounterTable;
use crate::wrong_answer::WrongAnswer;
use fastrand::Rng;
use libdc::time::Time;
use libdc::wire::frame::Operation;
use libdc::wire::frame::SessionOperation;
use libdc::wire::session::{SessionAnswer, SessionStatus};
use std::ops::RangeInclusive;

/// How far the clocks of server and tester may seem apart, and how late a server may read its own.
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
    /// So many of them, the first, are asked about what they store only once that must have expired.
    aging: usize,
    rng: Rng,
    bytes: RangeInclusive<usize>,
    timeout_ms: RangeInclusive<u32>,
    eviction: bool,
}

/// What the sessions are like.
#[derive(Clone, Debug)]
pub(crate) struct SessionWorkload {
    /// How many.
    pub(crate) sessions: usize,
    /// How many of them are left alone while they may be stored.
    pub(crate) aging: usize,
    /// Their bytes.
    pub(crate) bytes: RangeInclusive<usize>,
    /// How long they are kept, in milliseconds.
    pub(crate) timeout_ms: RangeInclusive<u32>,
    /// Whether a missing one may have been evicted.
    pub(crate) eviction: bool,
}

/// One id and what may be stored under it.
#[derive(Debug)]
struct SessionSlot {
    id: u64,
    asked: bool,
    /// What may be stored: nothing or one session, or several in doubt.
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
    /// Whether it may be there still, when asked at `asked`.
    fn may_live(&self, asked: Time) -> bool {
        self.answered
            .is_none_or(|stored| asked <= stored.after_ms(u64::from(self.timeout_ms)).after_ms(MARGIN_MS))
    }

    /// Whether it must be there still, when answered at `answered`.
    fn must_live(&self, answered: Time) -> bool {
        answered.after_ms(MARGIN_MS) < self.asked.after_ms(u64::from(self.timeout_ms))
    }
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingSessionOp {
    slot: usize,
    pub(crate) id: u64,
    pub(crate) operation: SessionOperation,
    /// What an ADD is to store.
    pub(crate) content: Option<StoredContent>,
    pub(crate) asked: Time,
}

/// What an answer that may be right says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOpOutcome {
    /// Done, or: there.
    Ok,
    /// Not there.
    NotThere,
    /// ADD: there already.
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

    /// The next operation, on a session that has none under way and is not left alone; `None` if there is none.
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

    /// Whether it is right that nothing is there, and why; `None` if it is not.
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

    /// What should be there, in words.
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

/// The message about an answer that no server may give to `question`.
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
