//! The model against answers that are right and answers that are not.

use crate::content;
use crate::model::{MARGIN_MS, PendingSessionOp, SessionModel, SessionOpOutcome, SessionWorkload};
use fastrand::Rng;
use libdc::time::Time;
use libdc::wire::frame::SessionOperation;
use libdc::wire::frame::SessionOperation::{Add, Get, Have, Remove};
use libdc::wire::session::{SessionAnswer, SessionStatus};
use proptest::prelude::*;
use std::collections::HashMap;

const TIMEOUT_MS: u32 = 10_000;
const OK: SessionAnswer<'_> = SessionAnswer::Status(SessionStatus::Ok);
const NOT_THERE: SessionAnswer<'_> = SessionAnswer::Status(SessionStatus::NotOk);
const MATCHING: SessionAnswer<'_> = SessionAnswer::Status(SessionStatus::MatchingSession);

const fn at(ms: u64) -> Time {
    Time::from_ms(ms)
}

fn shape(sessions: usize) -> SessionWorkload {
    SessionWorkload {
        sessions,
        aging: 0,
        bytes: 5..=40,
        timeout_ms: TIMEOUT_MS..=TIMEOUT_MS,
        eviction: false,
    }
}

/// A model of one session.
fn one() -> SessionModel {
    SessionModel::new(&shape(1), Rng::with_seed(1))
}

/// Requests `operation` at `now`; other operations that the model chooses first fail without effect.
fn ask(model: &mut SessionModel, operation: SessionOperation, now: Time) -> PendingSessionOp {
    loop {
        let question = model.ask(now).unwrap();
        if question.operation == operation {
            return question;
        }
        model.forget(&question);
    }
}

/// Asks and answers at once, without outage; whether the answer may be right.
fn answer(
    model: &mut SessionModel,
    operation: SessionOperation,
    answer: SessionAnswer<'_>,
    now: Time,
) -> Option<SessionOpOutcome> {
    let question = ask(model, operation, now);
    model.judge(&question, answer, now, None).ok()
}

/// Has a session stored at `now`; its bytes.
fn store(model: &mut SessionModel, now: Time) -> Vec<u8> {
    let question = ask(model, Add, now);
    assert_eq!(model.judge(&question, OK, now, None), Ok(SessionOpOutcome::Ok));
    bytes_of(&question)
}

fn bytes_of(question: &PendingSessionOp) -> Vec<u8> {
    let content = question.content.unwrap();
    let mut bytes = Vec::new();
    content::write(&mut bytes, content.seed, content.len);
    bytes
}

#[test]
fn nothing_is_there_before_it_is_stored() {
    for (operation, wrong) in
        [(Have, OK), (Remove, OK), (Add, MATCHING), (Get, SessionAnswer::Session(b"some bytes"))]
    {
        assert_eq!(answer(&mut one(), operation, wrong, at(0)), None);
    }
    let mut model = one();
    for operation in [Have, Remove, Get] {
        assert_eq!(answer(&mut model, operation, NOT_THERE, at(0)), Some(SessionOpOutcome::NotThere));
    }
    assert_eq!(answer(&mut model, Add, OK, at(0)), Some(SessionOpOutcome::Ok));
}

#[test]
fn stored_session_is_returned_unchanged() {
    for (operation, wrong) in [(Have, NOT_THERE), (Remove, NOT_THERE), (Get, NOT_THERE), (Add, OK)] {
        let mut model = one();
        store(&mut model, at(0));
        assert_eq!(answer(&mut model, operation, wrong, at(1)), None, "{operation:?}");
    }
    let mut model = one();
    let bytes = store(&mut model, at(0));
    assert_eq!(answer(&mut model, Have, OK, at(1)), Some(SessionOpOutcome::Ok));
    assert_eq!(answer(&mut model, Add, MATCHING, at(1)), Some(SessionOpOutcome::AlreadyStored));
    assert_eq!(answer(&mut model, Get, SessionAnswer::Session(&bytes), at(1)), Some(SessionOpOutcome::Ok));
    assert_eq!(answer(&mut model, Remove, OK, at(1)), Some(SessionOpOutcome::Ok));
    assert_eq!(answer(&mut model, Get, NOT_THERE, at(1)), Some(SessionOpOutcome::NotThere));
    assert_eq!(answer(&mut model, Get, SessionAnswer::Session(&bytes), at(1)), None);
}

#[test]
fn other_bytes_are_wrong() {
    let mut model = one();
    let bytes = store(&mut model, at(0));
    let (_, shorter) = bytes.split_first().unwrap();
    let mut changed = bytes.clone();
    changed[3] ^= 1;
    for other in [shorter, &changed, &[&bytes[..], &[0]].concat()] {
        assert_eq!(answer(&mut model, Get, SessionAnswer::Session(other), at(1)), None);
    }
    assert_eq!(answer(&mut model, Get, SessionAnswer::Session(&bytes), at(1)), Some(SessionOpOutcome::Ok));
}

#[test]
fn a_status_that_is_no_answer_is_wrong() {
    for (operation, status) in [
        (Get, SessionStatus::Ok),
        (Have, SessionStatus::MatchingSession),
        (Remove, SessionStatus::Corrupt),
        (Add, SessionStatus::NotOk),
        (Add, SessionStatus::TimeoutRange),
        (Have, SessionStatus::Disconnected),
    ] {
        assert_eq!(
            answer(&mut one(), operation, SessionAnswer::Status(status), at(0)),
            None,
            "{operation:?}"
        );
    }
}

#[test]
fn near_its_end_a_session_may_be_there_or_not() {
    let end = u64::from(TIMEOUT_MS);
    let stored = || {
        let mut model = one();
        let question = ask(&mut model, Add, at(1000));
        model.judge(&question, OK, at(1500), None).unwrap();
        (model, bytes_of(&question))
    };
    for (now, may_hit, may_miss) in [
        (1000 + end - MARGIN_MS - 1, true, false),
        (1000 + end - MARGIN_MS, true, true),
        (1500 + end + MARGIN_MS, true, true),
        (1500 + end + MARGIN_MS + 1, false, true),
    ] {
        let (mut model, bytes) = stored();
        assert_eq!(
            answer(&mut model, Get, SessionAnswer::Session(&bytes), at(now)).is_some(),
            may_hit,
            "{now}"
        );
        for operation in [Get, Have, Remove] {
            let mut model = stored().0;
            assert_eq!(answer(&mut model, operation, NOT_THERE, at(now)).is_some(), may_miss, "{now}");
        }
        assert_eq!(answer(&mut stored().0, Have, OK, at(now)).is_some(), may_hit, "{now}");
        assert_eq!(answer(&mut stored().0, Add, MATCHING, at(now)).is_some(), may_hit, "{now}");
        assert_eq!(answer(&mut stored().0, Add, OK, at(now)).is_some(), may_miss, "{now}");
    }
}

#[test]
fn a_failed_change_leaves_a_doubt_but_not_about_contents() {
    let in_doubt = || {
        let mut model = one();
        let before = store(&mut model, at(0));
        let remove = ask(&mut model, Remove, at(1));
        model.fail(&remove);
        let add = ask(&mut model, Add, at(2));
        model.fail(&add);
        (model, before, bytes_of(&add), add.id)
    };
    // The generator of each has the same seed, so all of them are the same.
    let (mut model, before, after, id) = in_doubt();
    assert_eq!(answer(&mut model, Get, SessionAnswer::Session(&before), at(3)), Some(SessionOpOutcome::Ok));
    assert_ne!(ask(&mut model, Have, at(4)).id, id, "an id in doubt is not used again");
    assert_eq!(
        answer(&mut in_doubt().0, Get, SessionAnswer::Session(&after), at(3)),
        Some(SessionOpOutcome::Ok)
    );
    assert_eq!(answer(&mut in_doubt().0, Get, NOT_THERE, at(3)), Some(SessionOpOutcome::NotThere));
    assert_eq!(answer(&mut in_doubt().0, Have, OK, at(3)), Some(SessionOpOutcome::Ok));
    assert_eq!(answer(&mut in_doubt().0, Add, MATCHING, at(3)), Some(SessionOpOutcome::AlreadyStored));
    assert_eq!(answer(&mut in_doubt().0, Get, SessionAnswer::Session(b"another"), at(3)), None);
}

#[test]
fn a_failed_question_changes_nothing() {
    let mut model = one();
    store(&mut model, at(0));
    for operation in [Get, Have] {
        let question = ask(&mut model, operation, at(1));
        model.fail(&question);
    }
    assert_eq!(answer(&mut model, Have, NOT_THERE, at(2)), None);
}

#[test]
fn an_outage_excuses_what_was_stored_before_it() {
    for (outage, may_miss) in [(None, false), (Some(99), false), (Some(100), true), (Some(5000), true)] {
        let mut model = one();
        store(&mut model, at(100));
        let question = ask(&mut model, Have, at(6000));
        let judged = model.judge(&question, NOT_THERE, at(6000), outage.map(at));
        assert_eq!(judged.ok(), may_miss.then_some(SessionOpOutcome::Lost), "{outage:?}");
    }
    let mut model = one();
    let mut bytes = store(&mut model, at(100));
    bytes[0] ^= 1;
    let question = ask(&mut model, Get, at(6000));
    assert!(model.judge(&question, SessionAnswer::Session(&bytes), at(6000), Some(at(5000))).is_err());
}

#[test]
fn a_session_has_one_request_at_a_time() {
    let mut model = SessionModel::new(&shape(3), Rng::with_seed(1));
    let asked: Vec<_> = (0..3).map(|_| model.ask(at(0)).unwrap()).collect();
    assert!(asked[0].id != asked[1].id && asked[1].id != asked[2].id && asked[0].id != asked[2].id);
    assert!(model.ask(at(0)).is_none());
    model.fail(&asked[1]);
    assert!(model.ask(at(0)).is_some());
}

/// The fate of one request: the delay to the server, the delay of the answer, and whether the answer is lost,
/// before or after the operation took effect, or late.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered(u64, u64),
    LostBefore,
    LostAfter,
    /// Takes effect after this many more requests.
    Late(usize),
    /// The server restarts without its sessions; this request fails.
    Restart,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => (0..2000u64, 0..2000u64).prop_map(|(there, back)| Fate::Answered(there, back)),
        1 => Just(Fate::LostBefore),
        1 => Just(Fate::LostAfter),
        1 => (0..10usize).prop_map(Fate::Late),
        1 => Just(Fate::Restart),
    ]
}

/// A server that follows the protocol.
#[derive(Default)]
struct NaiveModel(HashMap<u64, (Vec<u8>, u64)>);

impl NaiveModel {
    /// The session a GET is answered with, or the status.
    fn handle(&mut self, question: &PendingSessionOp, now_ms: u64) -> Result<Vec<u8>, SessionStatus> {
        self.0.retain(|_, (_, end_ms)| *end_ms > now_ms);
        let stored = self.0.get(&question.id).map(|(bytes, _)| bytes.clone());
        match question.operation {
            Get => stored.ok_or(SessionStatus::NotOk),
            Have => Err(stored.map_or(SessionStatus::NotOk, |_| SessionStatus::Ok)),
            Remove => Err(self.0.remove(&question.id).map_or(SessionStatus::NotOk, |_| SessionStatus::Ok)),
            Add if stored.is_some() => Err(SessionStatus::MatchingSession),
            Add => {
                let end_ms = now_ms + u64::from(question.content.unwrap().timeout_ms);
                self.0.insert(question.id, (bytes_of(question), end_ms));
                Err(SessionStatus::Ok)
            }
        }
    }
}

proptest! {
    /// A correct server is never judged wrong, whatever the network does.
    #[test]
    fn an_honest_server_is_never_wrong(seed: u64, fates in prop::collection::vec(fate(), 1..200)) {
        let mut model = SessionModel::new(&shape(3), Rng::with_seed(seed));
        let (mut server, mut now_ms, mut outage) = (NaiveModel::default(), 0, None);
        let mut late: Vec<(usize, PendingSessionOp)> = Vec::new();
        for (number, fate) in fates.into_iter().enumerate() {
            let question = model.ask(at(now_ms)).unwrap();
            for (_, question) in late.extract_if(.., |(due, _)| *due <= number) {
                server.handle(&question, now_ms).ok();
            }
            if let Fate::Answered(there_ms, back_ms) = fate {
                let answer = server.handle(&question, now_ms + there_ms);
                now_ms += there_ms + back_ms;
                let answer = match &answer {
                    Ok(session) => SessionAnswer::Session(session),
                    Err(status) => SessionAnswer::Status(*status),
                };
                let judged = model.judge(&question, answer, at(now_ms), outage);
                prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
                continue;
            }
            match fate {
                Fate::LostAfter => drop(server.handle(&question, now_ms)),
                Fate::Late(after) => late.push((number + 1 + after, question)),
                Fate::Restart => server.0.clear(),
                Fate::Answered(..) | Fate::LostBefore => {}
            }
            model.fail(&question);
            outage = Some(at(now_ms));
            now_ms += 1;
        }
    }
}

#[test]
fn ageing_session_is_read_only_after_its_expiry() {
    let mut model = SessionModel::new(&SessionWorkload { aging: 1, ..shape(2) }, Rng::with_seed(1));
    let aged = loop {
        let question = ask(&mut model, Add, at(0));
        if model.is_aging(&question) {
            break question;
        }
        model.forget(&question);
    };
    assert_eq!(model.judge(&aged, OK, at(0), None), Ok(SessionOpOutcome::Ok));
    let expired = u64::from(TIMEOUT_MS) + MARGIN_MS;
    for now in [0, 1, expired] {
        let other = model.ask(at(now)).unwrap();
        assert_ne!(other.id, aged.id);
        assert!(model.ask(at(now)).is_none());
        model.forget(&other);
    }
    let question = loop {
        let question = model.ask(at(expired + 1)).unwrap();
        if question.id == aged.id && question.operation == Have {
            break question;
        }
        model.forget(&question);
    };
    model.judge(&question, OK, at(expired + 1), None).unwrap_err();
}
