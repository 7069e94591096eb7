//! Checks whether the answers that the applications saw are possible.
//!
//! Ids are independent, so each is checked separately. For each answer there must be a moment within its
//! operation at which it was right. The checks have no false positives: they prove from operations that had
//! certainly ended before that an answer is impossible, and never guess.
//!
//! - A session *may* be present if its ADD may have run by then, its longest lifetime has not passed, the
//!   server has not been killed since, and no operation in between proves that the id was absent or had
//!   another session.
//! - A session *must* be present if its ADD had run, its shortest lifetime has not passed, the server was not
//!   killed, sessions are never evicted, and no REMOVE may have run since.
//! - At most one REMOVE removes a session: each successful REMOVE needs a different ADD.

use super::event_queue::EventTime;
use super::history::{History, ObservedOutcome, RecordedSessionOp, SessionOpKind};
use super::violation::{Absence, Violation};

impl History {
    /// Checks all answers.
    ///
    /// # Errors
    /// The first impossible answer found.
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

    /// The sessions that were stored, or may have been stored, under an id.
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
            // An ADD had run before its session was found.
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

    /// Indices of the sessions that may have been present during an operation.
    fn possible(&self, operations: &[usize], stored: &[StoredValue], number: usize) -> Vec<usize> {
        let may_be_present = |index: &usize| self.why_absent(operations, &stored[*index], number).is_none();
        (0..stored.len()).filter(may_be_present).collect()
    }

    /// The reason why a session cannot have been present at any moment of an operation; `None` if it can.
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

    /// Whether an operation proves that a session was absent at some moment of that operation.
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

    /// Checks an operation that found no session against sessions that were present during all of it.
    fn check_absent(
        &self,
        operations: &[usize],
        stored: &[StoredValue],
        number: usize,
    ) -> Result<(), Violation> {
        let it = &self.operations[number];
        let was_present = |session: &&StoredValue| {
            let expires = session.begun.at.after_ms(u64::from(session.timeout_ms));
            session.certain
                && session.by != number
                && session.done < it.begun
                && expires > it.ended.at
                && !self.killed_between(session.begun, it.ended)
                && !operations.iter().any(|other| self.may_remove(&self.operations[*other], session, it))
        };
        match stored.iter().find(was_present) {
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
    /// The session was stored without doubt.
    certain: bool,
    begun: EventTime,
    /// It had been stored by then, if at all.
    done: EventTime,
}

/// Finds a separate session for every removal, among those it may have removed.
fn pair_off(removals: &[(usize, Vec<usize>)], sessions: usize) -> Result<(), Violation> {
    let mut removed_by = vec![None; sessions];
    for index in 0..removals.len() {
        let mut tried = vec![false; sessions];
        if !pair(index, removals, &mut removed_by, &mut tried) {
            return Err(Violation::RemovedTwice { operation: removals[index].0 });
        }
    }
    Ok(())
}

/// One step of the bipartite matching: takes a free session, or moves another removal to a different session.
fn pair(
    index: usize,
    removals: &[(usize, Vec<usize>)],
    removed_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for session in &removals[index].1 {
        if std::mem::replace(&mut tried[*session], true) {
            continue;
        }
        let free = match removed_by[*session] {
            None => true,
            Some(other) => pair(other, removals, removed_by, tried),
        };
        if free {
            removed_by[*session] = Some(index);
            return true;
        }
    }
    false
}
