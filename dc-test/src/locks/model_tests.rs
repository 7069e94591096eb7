//! The model against answers that are right and answers that are not.

use super::key::SETTLE_MS;
use super::model::{ContenderId, LockModel};
use super::question::{LockAct, LockOpOutcome, PendingLockOp, Verdict};
use super::workload::LockWorkload;
use crate::wrong_answer::WrongAnswer;
use libdc::id::{Grant, Token};
use libdc::time::Time;
use libdc::wire::lock::{LockAnswer, LockStatus};

const LEASE_MS: u64 = 30_000;
const WAIT_MS: u64 = 10_000;
const TRY: LockAct = LockAct::Acquire { timeout_ms: 0 };
const ACQUIRE: LockAct = LockAct::Acquire { timeout_ms: WAIT_MS };
const WAIT: LockAct = LockAct::Wait { timeout_ms: WAIT_MS };
const OK: LockAnswer<'_> = LockAnswer::Status(LockStatus::Ok);
const TIMEOUT: LockAnswer<'_> = LockAnswer::Status(LockStatus::Timeout);
const QUEUED: LockAnswer<'_> = LockAnswer::Status(LockStatus::Queued);
const ERROR: LockAnswer<'_> = LockAnswer::Status(LockStatus::Error);

const fn at(ms: u64) -> Time {
    Time::from_ms(ms)
}

/// A model of one key.
fn model(limit: u32) -> LockModel {
    let shape = LockWorkload { keys: 1, limit, lease_ms: LEASE_MS, wait_ms: WAIT_MS, hold_ms: 0 };
    LockModel::new(&shape, 1)
}

fn ask(model: &mut LockModel, connection: u64, act: LockAct, now: u64) -> PendingLockOp {
    let asker = ContenderId { connection, key: 0, seat: None, token: None, lease_ms: LEASE_MS };
    model.ask(&asker, act, at(now))
}

/// Sends a follow-up request for a queued or held lock.
fn ask_again(
    model: &mut LockModel,
    before: &PendingLockOp,
    connection: u64,
    act: LockAct,
    now: u64,
) -> PendingLockOp {
    let token = Some(Token::new(0, 0));
    let asker = ContenderId { connection, key: 0, seat: Some(before.seat), token, lease_ms: LEASE_MS };
    model.ask(&asker, act, at(now))
}

fn fence(fence: u64) -> LockAnswer<'static> {
    let grant = Grant { token: Token::new(fence, 1), lease_ms: LEASE_MS };
    LockAnswer::Grant { status: LockStatus::Ok, grant }
}

/// Whether the answer is right in any case, and the error if it is wrong in any case.
fn judge(
    model: &mut LockModel,
    question: &PendingLockOp,
    answer: LockAnswer<'_>,
    now: u64,
) -> Result<bool, Box<WrongAnswer>> {
    model.judge(question, answer, at(now)).map(|Verdict { doubt, .. }| doubt.is_none())
}

/// Asks for the lock and has it.
fn hold(model: &mut LockModel, connection: u64, number: u64, now: u64) -> PendingLockOp {
    let question = ask(model, connection, ACQUIRE, now);
    assert_eq!(judge(model, &question, fence(number), now + 1), Ok(true));
    question
}

/// Sends a request about a held lock, and judges its answer.
fn record(
    model: &mut LockModel,
    held: &PendingLockOp,
    act: LockAct,
    answer: LockAnswer<'_>,
    now: u64,
) -> Result<bool, Box<WrongAnswer>> {
    let question = ask_again(model, held, 1, act, now);
    judge(model, &question, answer, now + 1)
}

#[test]
fn a_lock_is_taken_renewed_released_and_then_free() {
    let mut model = model(1);
    let held = hold(&mut model, 1, 5, 0);
    let refused = LockAnswer::Status(LockStatus::ErrorLimitMismatch);
    assert_eq!(record(&mut model, &held, LockAct::OtherLimit, refused, 5), Ok(true));
    let renewed = LockAnswer::Renewed { lease_ms: LEASE_MS };
    assert_eq!(record(&mut model, &held, LockAct::Renew, renewed, 10), Ok(true));
    assert_eq!(record(&mut model, &held, LockAct::Release, OK, 20), Ok(true));
    assert_eq!(record(&mut model, &held, LockAct::ReleaseEnded, ERROR, 30), Ok(true));
    assert_eq!(record(&mut model, &held, LockAct::RenewEnded, ERROR, 40), Ok(true));
    hold(&mut model, 2, 6, 50);
}

#[test]
fn impossible_answer_is_wrong_despite_failures() {
    let mut model = model(1);
    let held = hold(&mut model, 1, 5, 0);
    let less = LockAnswer::Renewed { lease_ms: LEASE_MS - 1 };
    assert!(record(&mut model, &held, LockAct::Renew, less, 10).is_err());
    assert_eq!(record(&mut model, &held, LockAct::Release, OK, 20), Ok(true));
    assert!(record(&mut model, &held, LockAct::ReleaseEnded, OK, 30).is_err());
    assert!(record(&mut model, &held, LockAct::RenewEnded, less, 40).is_err());
    // A lease that was not requested; a fence that is not greater; a status that does not fit.
    for (answer, now) in [
        (
            LockAnswer::Grant {
                status: LockStatus::Ok,
                grant: Grant { token: Token::new(9, 1), lease_ms: 9 },
            },
            50,
        ),
        (fence(5), 60),
        (fence(4), 70),
        (LockAnswer::Status(LockStatus::ErrorMaxLocks), 80),
        (OK, 90),
    ] {
        let question = ask(&mut model, 1, ACQUIRE, now);
        assert!(judge(&mut model, &question, answer, now).is_err(), "{answer:?}");
        model.disconnected(1, at(now));
    }
}

#[test]
fn a_loss_needs_an_excuse() {
    for act in [LockAct::Renew, LockAct::Release, LockAct::OtherLimit] {
        let mut model = model(1);
        let held = hold(&mut model, 1, 5, 100);
        let question = ask_again(&mut model, &held, 1, act, 200);
        let verdict = model.judge(&question, ERROR, at(201)).unwrap();
        assert_eq!((verdict.outcome, verdict.doubt.unwrap().since), (LockOpOutcome::Lost, at(100)));
    }
    // The server is right about a lease that ended.
    let mut model = model(1);
    let held = hold(&mut model, 1, 5, 0);
    assert_eq!(record(&mut model, &held, LockAct::Release, ERROR, LEASE_MS), Ok(true));
}

#[test]
fn two_holders_are_wrong_once_the_first_proves_valid() {
    let renewed = LockAnswer::Renewed { lease_ms: LEASE_MS };
    for (act, answer) in [(LockAct::Release, OK), (LockAct::Renew, renewed)] {
        let mut model = model(1);
        let first = hold(&mut model, 1, 5, 0);
        let second = ask(&mut model, 2, ACQUIRE, 10);
        assert_eq!(judge(&mut model, &second, fence(6), 11), Ok(true));
        let wrong = record(&mut model, &first, act, answer, 20).unwrap_err();
        assert!(wrong.to_string().contains("fence 6 too"), "{wrong}");
    }
}

#[test]
fn two_that_seem_to_hold_may_be_an_outage() {
    // The first is lost; that takes an excuse. The second is not to blame.
    let mut model = model(1);
    let first = hold(&mut model, 1, 5, 0);
    let second = hold(&mut model, 2, 6, 10);
    assert_eq!(record(&mut model, &first, LockAct::Release, ERROR, 20), Ok(false));
    assert_eq!(record(&mut model, &second, LockAct::Release, OK, 30), Ok(true));
    // A release was in flight.
    let first = hold(&mut model, 1, 7, 3000);
    let release = ask_again(&mut model, &first, 1, LockAct::Release, 3010);
    hold(&mut model, 2, 8, 3011);
    assert_eq!(judge(&mut model, &release, OK, 3020), Ok(true));
    // Proven before the overlap, lost afterwards.
    let mut model = self::model(1);
    let first = hold(&mut model, 1, 5, 0);
    let renewal = ask_again(&mut model, &first, 1, LockAct::Renew, 10);
    hold(&mut model, 2, 6, 11);
    let renewed = LockAnswer::Renewed { lease_ms: LEASE_MS };
    assert_eq!(judge(&mut model, &renewal, renewed, 20), Ok(true));
}

#[test]
fn a_semaphore_has_as_many_holders_as_its_limit() {
    let mut model = model(2);
    let held: Vec<PendingLockOp> = (0..3).map(|at| hold(&mut model, at + 1, 5 + at, 10 * at)).collect();
    assert_eq!(record(&mut model, &held[0], LockAct::Release, OK, 100), Ok(true));
    assert!(record(&mut model, &held[1], LockAct::Release, OK, 110).is_err());
}

#[test]
fn a_lease_that_others_did_not_wait_for_was_broken() {
    let mut model = model(1);
    let held = hold(&mut model, 1, 5, 0);
    hold(&mut model, 2, 6, 10);
    let ends = model.lease_end(0, held.seat).unwrap();
    model.expire(0, held.seat, ends);
    assert_eq!(record(&mut model, &held, LockAct::ReleaseEnded, ERROR, ends.as_ms()), Ok(false));

    let mut model = self::model(1);
    let held = hold(&mut model, 1, 5, 0);
    let ends = model.lease_end(0, held.seat).unwrap();
    hold(&mut model, 2, 6, LEASE_MS);
    model.expire(0, held.seat, ends);
    assert_eq!(record(&mut model, &held, LockAct::ReleaseEnded, ERROR, ends.as_ms()), Ok(true));
}

#[test]
fn waiter_that_certainly_asked_first_is_granted_first() {
    // Over one connection.
    let mut model = model(1);
    let held = hold(&mut model, 1, 5, 0);
    let first = ask(&mut model, 2, ACQUIRE, 10);
    let second = ask(&mut model, 2, ACQUIRE, 10);
    assert_eq!(record(&mut model, &held, LockAct::Release, OK, 20), Ok(true));
    assert_eq!(judge(&mut model, &second, fence(7), 30), Ok(true), "the first may be on its way");
    assert!(judge(&mut model, &first, fence(8), 31).is_err());

    // On two connections, with unknown order, and where an answer proves the order.
    for is_known in [false, true] {
        let mut model = self::model(1);
        let held = hold(&mut model, 1, 5, 0);
        let first = ask(&mut model, 2, LockAct::Enqueue, 10);
        if is_known {
            assert_eq!(judge(&mut model, &first, QUEUED, 11), Ok(true));
        }
        let second = ask(&mut model, 3, ACQUIRE, 12);
        if !is_known {
            assert_eq!(judge(&mut model, &first, QUEUED, 13), Ok(true));
        }
        assert_eq!(record(&mut model, &held, LockAct::Release, OK, 20), Ok(true));
        assert_eq!(judge(&mut model, &second, fence(6), 30), Ok(true));
        let waits = ask_again(&mut model, &first, 2, WAIT, 31);
        assert_eq!(judge(&mut model, &waits, fence(7), 32).is_err(), is_known);
    }
}

#[test]
fn overtaken_waiter_must_not_time_out() {
    for (overtaken_at, is_wrong) in [(30, true), (10 + WAIT_MS, false)] {
        let mut model = model(1);
        let held = hold(&mut model, 1, 5, 0);
        let first = ask(&mut model, 2, ACQUIRE, 10);
        let second = ask(&mut model, 2, ACQUIRE, 10);
        assert_eq!(record(&mut model, &held, LockAct::Release, OK, 20), Ok(true));
        assert_eq!(judge(&mut model, &second, fence(6), overtaken_at), Ok(true));
        assert_eq!(judge(&mut model, &first, TIMEOUT, 10 + WAIT_MS).is_err(), is_wrong);
    }
}

#[test]
fn early_timeout_is_wrong() {
    let mut model = model(1);
    hold(&mut model, 1, 5, 0);
    let early = ask(&mut model, 2, ACQUIRE, 10);
    assert!(judge(&mut model, &early, TIMEOUT, WAIT_MS - 200).is_err());
    let late = ask(&mut model, 2, ACQUIRE, 10);
    assert_eq!(judge(&mut model, &late, TIMEOUT, WAIT_MS + 10), Ok(true));
}

#[test]
fn waiting_for_a_free_key_is_wrong() {
    // Alone, not at all.
    for (act, answer) in [(TRY, TIMEOUT), (LockAct::Enqueue, QUEUED)] {
        let mut model = model(1);
        let alone = ask(&mut model, 1, act, 0);
        assert_eq!(judge(&mut model, &alone, answer, 1), Ok(false), "{act:?}");
        let mut model = self::model(1);
        let one = ask(&mut model, 1, act, 0);
        ask(&mut model, 2, TRY, 0);
        assert_eq!(judge(&mut model, &one, answer, 1), Ok(true), "{act:?}: the other may have it");
    }
    // The locks of a closed connection are free.
    for gone_at in [20, WAIT_MS - SETTLE_MS / 2] {
        let mut model = model(1);
        hold(&mut model, 1, 5, 0);
        let waits = ask(&mut model, 2, ACQUIRE, 10);
        model.disconnected(1, at(gone_at));
        let is_right = gone_at > 20;
        assert_eq!(judge(&mut model, &waits, TIMEOUT, WAIT_MS + 10), Ok(is_right));
    }
}
