//! Whether what the applications saw can be true.
//!
//! Ids are independent, so each is looked at for itself. For each answer there must be a moment of its
//! operation's life at which it was right. The checks err on the side of the accused: they prove that an
//! answer is impossible from operations that had certainly ended before, and never guess.
//!
//! - A session *may* be there if its ADD may have run by then, its longest life has not passed, the server
//!   has not been killed since, and no operation between the two proves that the id had nothing or
//!   something else.
//! - A session *must* be there if its ADD had run, its shortest life has not passed, the server was not
//!   killed, nothing is ever evicted, and no REMOVE may have run since.
//! - A session goes by one REMOVE at most: to every one that removed something belongs an ADD of its own.

use super::event_queue::EventTime;
use super::history::{History, ObservedOutcome, RecordedSessionOp, SessionOpKind};
use super::violation::{Absence, Violation};

impl History {
    /// Looks for answers that can't be true.
    ///
    /// # Errors
    /// The first one found.
    pub(crate) fn verify(&self) -> Result<(), Violation> {
        for operations in &self.of_id {
            let stored = self.stored(operations);
            let mut removals = Vec::new();
            for number in operations {
                let it = &self.operations[*number];
                match it.outcome {
                    ObservedOutcome::Found(origin) => {
                        self.check_found(operations, &stored, *number, origin)?;
                    }
                    ObservedOutcome::Present | ObservedOutcome::Removed => {
                        let possible = self.possible(operations, &stored, *number);
                        if possible.is_empty() {
                            return Err(Violation::Phantom { operation: *number });
                        }
                        if it.outcome == ObservedOutcome::Removed {
                            removals.push((*number, possible));
                        }
                    }
                    ObservedOutcome::Stored | ObservedOutcome::Missing => {
                        self.check_absent(operations, &stored, *number)?;
                    }
                    ObservedOutcome::Open | ObservedOutcome::Unknown | ObservedOutcome::Refused => {}
                }
            }
            pair_off(&removals, stored.len())?;
        }
        Ok(())
    }

    /// The sessions that were stored under an id, or may have been.
    fn stored(&self, operations: &[usize]) -> Vec<StoredValue> {
        let mut stored = Vec::new();
        for number in operations {
            let it = &self.operations[*number];
            let SessionOpKind::Add { timeout_ms } = it.kind else { continue };
            let certain = match it.outcome {
                ObservedOutcome::Stored => true,
                ObservedOutcome::Unknown | ObservedOutcome::Open => false,
                _ => continue,
            };
            stored.push(StoredValue { by: *number, timeout_ms, certain, begun: it.begun, done: it.ended });
        }
        for number in operations {
            // Who was seen had run by then.
            if let ObservedOutcome::Found(origin) = self.operations[*number].outcome {
                let mut same = stored.iter_mut().filter(|it| self.is_same(it.by, origin));
                if let (Some(only), None) = (same.next(), same.next()) {
                    only.certain = true;
                    only.done = only.done.min(self.operations[*number].ended);
                }
            }
        }
        stored
    }

    fn is_same(&self, one: usize, other: usize) -> bool {
        one == other || self.operations[one].session == self.operations[other].session
    }

    fn check_found(
        &self,
        operations: &[usize],
        stored: &[StoredValue],
        number: usize,
        origin: usize,
    ) -> Result<(), Violation> {
        let mut reason = Absence::NotStored;
        for candidate in stored.iter().filter(|it| self.is_same(it.by, origin)) {
            match self.why_absent(operations, candidate, number) {
                None => return Ok(()),
                Some(absence) => reason = absence,
            }
        }
        Err(Violation::Gone { operation: number, stored_by: origin, reason })
    }

    /// The places of the sessions that may have been there in the life of an operation.
    fn possible(&self, operations: &[usize], stored: &[StoredValue], number: usize) -> Vec<usize> {
        let may_be_there = |place: &usize| self.why_absent(operations, &stored[*place], number).is_none();
        (0..stored.len()).filter(may_be_there).collect()
    }

    /// Why a session can't have been there at any moment in the life of an operation; `None` if it can.
    fn why_absent(&self, operations: &[usize], session: &StoredValue, number: usize) -> Option<Absence> {
        let it = &self.operations[number];
        if session.by == number || session.begun > it.ended {
            return Some(Absence::Later);
        }
        if session.timeout_ms == 0 {
            return Some(Absence::Expired);
        }
        if session.done >= it.begun {
            return None;
        }
        if it.begun.at >= session.done.at.after_ms(u64::from(session.timeout_ms)) {
            return Some(Absence::Expired);
        }
        if self.killed_between(session.done, it.begun) {
            return Some(Absence::Restarted);
        }
        let proves = |other: &&usize| {
            let proof = &self.operations[**other];
            **other != session.by
                && proof.begun > session.done
                && proof.ended < it.begun
                && self.proves_absence(proof, session)
        };
        operations.iter().find(proves).map(|proof| Absence::Proven(*proof))
    }

    /// Whether an operation says that at some moment of its life a session was not there.
    fn proves_absence(&self, proof: &RecordedSessionOp, session: &StoredValue) -> bool {
        match proof.outcome {
            ObservedOutcome::Stored | ObservedOutcome::Missing | ObservedOutcome::Removed => true,
            ObservedOutcome::Found(other) => !self.is_same(other, session.by),
            ObservedOutcome::Open
            | ObservedOutcome::Unknown
            | ObservedOutcome::Present
            | ObservedOutcome::Refused => false,
        }
    }

    /// An operation found nothing: is there a session that was there all its life?
    fn check_absent(
        &self,
        operations: &[usize],
        stored: &[StoredValue],
        number: usize,
    ) -> Result<(), Violation> {
        let it = &self.operations[number];
        let is_there = |session: &&StoredValue| {
            let expires = session.begun.at.after_ms(u64::from(session.timeout_ms));
            session.certain
                && session.by != number
                && session.done < it.begun
                && expires > it.ended.at
                && !self.killed_between(session.begun, it.ended)
                && !operations.iter().any(|other| self.may_remove(&self.operations[*other], session, it))
        };
        match stored.iter().find(is_there) {
            Some(session) if !self.evicts => {
                Err(Violation::Lost { operation: number, stored_by: session.by })
            }
            _ => Ok(()),
        }
    }

    /// Whether `other` may have removed a session after it was stored and before the end of `until`.
    fn may_remove(
        &self,
        other: &RecordedSessionOp,
        session: &StoredValue,
        until: &RecordedSessionOp,
    ) -> bool {
        other.kind == SessionOpKind::Remove
            && matches!(
                other.outcome,
                ObservedOutcome::Removed | ObservedOutcome::Unknown | ObservedOutcome::Open
            )
            && other.ended > session.begun
            && other.begun < until.ended
            && !std::ptr::eq(other, until)
    }

    fn killed_between(&self, from: EventTime, until: EventTime) -> bool {
        let first = self.kills.partition_point(|kill| *kill <= from);
        self.kills.get(first).is_some_and(|kill| *kill < until)
    }
}

/// A session that was stored, or may have been.
#[derive(Clone, Copy, Debug)]
struct StoredValue {
    by: usize,
    timeout_ms: u32,
    /// It was, there is no doubt.
    certain: bool,
    begun: EventTime,
    /// It had been by then, if it ever was.
    done: EventTime,
}

/// Finds for every removal a session of its own among those it may have removed.
fn pair_off(removals: &[(usize, Vec<usize>)], sessions: usize) -> Result<(), Violation> {
    let mut removed_by = vec![None; sessions];
    for place in 0..removals.len() {
        let mut tried = vec![false; sessions];
        if !pair(place, removals, &mut removed_by, &mut tried) {
            return Err(Violation::RemovedTwice { operation: removals[place].0 });
        }
    }
    Ok(())
}

/// One step of the search for a matching: a session that is free, or whose removal can take another one.
fn pair(
    place: usize,
    removals: &[(usize, Vec<usize>)],
    removed_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for session in &removals[place].1 {
        if std::mem::replace(&mut tried[*session], true) {
            continue;
        }
        let free = match removed_by[*session] {
            None => true,
            Some(other) => pair(other, removals, removed_by, tried),
        };
        if free {
            removed_by[*session] = Some(place);
            return true;
        }
    }
    false
}
