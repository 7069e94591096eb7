//! The machine against a peer scripted by the test, message by message, on the clock of the test.

mod silence;

use crate::client::lock::calls::{BLOCKED_MAX, CallId, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::LeaseId;
use crate::client::lock::machine::{CallReply, LockEvent, LockLinkSettings, LockMachine};
use crate::id::{Grant, LinkId, LockKey, OwnedLockKey, Token};
use crate::limits::PING_INTERVAL_MS;
use crate::proto::link::LinkError;
use crate::proto::machine::MachineState;
use crate::secret::AuthToken;
use crate::time::Time;
use crate::wire::frame::{Direction, LinkOperation, LockOperation, MessageHead, Operation};
use crate::wire::link::{Claim, Hello, Ping, Welcome};
use crate::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use crate::wire::message::{Message, MessageReader, write_message};
use proptest::prelude::*;

const GRACE_MS: u32 = 10_000;
const LEASE_MS: u64 = 33_000;

fn key(name: &str) -> OwnedLockKey {
    LockKey::new(name).unwrap().into()
}

fn acquire(name: &str, until: WaitLimit) -> LockCall {
    LockCall::Acquire { key: key(name), limit: 1, lease_ms: 0, until, patient: until != WaitLimit::Now }
}

fn token(fence: u64) -> Token {
    Token::new(fence, 0xabcd)
}

/// The link, the bytes it has sent, and the clock.
struct Bench {
    machine: LockMachine,
    now: Time,
    reader: MessageReader,
    /// What the link asked and was not looked at.
    asked: Vec<Message>,
    fence: u64,
}

impl Bench {
    fn new(resumes: bool) -> Self {
        Self::with(LockLinkSettings { auth_token: None, timeout_ms: 6_000, resumes })
    }

    fn with(settings: LockLinkSettings) -> Self {
        let reader = MessageReader::link(Direction::Request);
        Self {
            machine: LockMachine::new(settings),
            now: Time::from_ms(1_000),
            reader,
            asked: Vec::new(),
            fence: 0,
        }
    }

    /// One that is up.
    fn up(resumes: bool) -> Self {
        let mut bench = Self::new(resumes);
        bench.connect();
        bench.answer_opening();
        bench
    }

    fn connect(&mut self) {
        self.reader = MessageReader::link(Direction::Request);
        self.asked.clear();
        self.machine.connected(self.now, LinkId::new([7; 16]), &[9; 32]);
    }

    fn answer_opening(&mut self) {
        if self.asked() == ["HAVE"] {
            let probe = self.expect("HAVE");
            self.answer(probe.head, &[1]);
        }
        let hello = self.expect("HELLO");
        self.welcome(hello.head, LockStatus::Ok);
        let open = self.expect("OPEN");
        self.answer(open.head, &[0]);
        assert!(self.machine.is_up());
    }

    fn welcome(&mut self, hello: MessageHead, status: LockStatus) {
        let mut out = Vec::new();
        Welcome { status, grace_ms: GRACE_MS, remembered: 0 }.write(hello, &mut out);
        self.receive(&out).unwrap();
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.machine.handle_timeout(self.now);
        self.end().unwrap();
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), LockLinkError> {
        self.machine.handle_input(self.now, bytes);
        self.end()
    }

    /// Whether the machine keeps the connection.
    fn end(&self) -> Result<(), LockLinkError> {
        match self.machine.state() {
            MachineState::Closed(reason) => Err(reason),
            MachineState::Open { .. } | MachineState::Closing => Ok(()),
        }
    }

    fn answer(&mut self, request: MessageHead, data: &[u8]) {
        let mut out = Vec::new();
        write_message(&mut out, request.response(), data);
        self.receive(&out).unwrap();
    }

    fn status(&mut self, operation: &str, status: LockStatus) {
        let head = self.expect(operation).head;
        self.answer(head, &[status as u8]);
    }

    /// Answers the first request of this operation with a grant.
    fn grant(&mut self, operation: &str) -> Token {
        self.fence += 1;
        let status = if operation == "ENQUEUE" { LockStatus::Acquired } else { LockStatus::Ok };
        let grant = Grant { token: token(self.fence), lease_ms: LEASE_MS };
        let head = self.expect(operation).head;
        let mut out = Vec::new();
        LockAnswer::Grant { status, grant }.write(head, &mut out);
        self.receive(&out).unwrap();
        grant.token
    }

    fn renew(&mut self) {
        let head = self.expect("RENEW").head;
        let mut out = Vec::new();
        LockAnswer::Renewed { lease_ms: LEASE_MS }.write(head, &mut out);
        self.receive(&out).unwrap();
    }

    fn look(&mut self) {
        let mut bytes = Vec::new();
        while !self.machine.poll_output().is_empty() {
            let output = self.machine.poll_output().to_vec();
            self.machine.wrote(self.now, output.len());
            bytes.extend(output);
        }
        let mut input = bytes.as_slice();
        while let Some(message) = self.reader.next(&mut input).unwrap() {
            self.asked.push(message.into());
        }
        assert!(input.is_empty());
    }

    /// What the link has asked and was not answered, by name.
    fn asked(&mut self) -> Vec<&'static str> {
        self.look();
        self.asked.iter().map(|message| message.head.operation.name()).collect()
    }

    /// The first request of this operation.
    fn expect(&mut self, operation: &str) -> Message {
        let asked = self.asked();
        let at = asked.iter().position(|name| *name == operation);
        self.asked.remove(at.unwrap_or_else(|| panic!("no {operation} in {asked:?}")))
    }

    fn ask(&mut self, ask: LockCall) -> CallId {
        self.machine.ask(self.now, ask)
    }

    fn disconnect(&mut self) {
        self.machine.close(self.now, &LockError::Disconnected(LockLinkError::Closed));
    }

    fn event(&mut self) -> Option<LockEvent> {
        self.machine.poll_event()
    }

    fn granted(&mut self) -> LeaseId {
        match self.event() {
            Some(LockEvent::Answered(_, Ok(CallReply::Granted(hold)))) => hold,
            event => panic!("not granted: {event:?}"),
        }
    }

    fn error(&mut self) -> LockError {
        match self.event() {
            Some(LockEvent::Answered(_, Err(error))) => error,
            event => panic!("no error: {event:?}"),
        }
    }

    fn loss(&mut self, hold: LeaseId) -> Loss {
        match self.event() {
            Some(LockEvent::Lost(lost, loss)) if lost == hold => loss,
            event => panic!("not lost: {event:?}"),
        }
    }

    /// Takes a lock.
    fn hold(&mut self, name: &str) -> LeaseId {
        self.ask(acquire(name, WaitLimit::Forever));
        self.grant("ACQUIRE");
        self.granted()
    }

    fn is_valid(&self, hold: LeaseId) -> bool {
        self.machine.hold(hold).is_some_and(|hold| hold.is_valid_for(self.now, 1))
    }
}

#[test]
fn a_link_is_probed_greeted_and_opened_before_anything_else() {
    let mut bench = Bench::new(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    assert!(bench.machine.wants_connection() && !bench.machine.fails_fast());
    bench.connect();
    assert_eq!(bench.asked(), ["HAVE"]);
    let probe = bench.expect("HAVE");
    assert_eq!(probe.data, [9; 32]);
    bench.answer(probe.head, &[1]);
    assert_eq!(bench.asked(), ["HELLO"]);
    let hello = bench.expect("HELLO");
    assert_eq!(Hello::parse(&hello.data), Ok(Hello { link_id: LinkId::new([7; 16]), auth_token: b"" }));
    bench.welcome(hello.head, LockStatus::Ok);
    assert_eq!(bench.asked(), ["OPEN"]);
    bench.status("OPEN", LockStatus::Ok);
    let request = bench.expect("ACQUIRE");
    let key = LockKey::new("k").unwrap();
    let timeout_ms = crate::limits::LOCK_MS_MAX;
    let action = LockAction::Acquire { key, limit: 1, timeout_ms, lease_ms: 0 };
    assert_eq!(
        LockRequest::parse(LockOperation::Acquire, &request.data),
        Ok(Ok(LockRequest { owner: 0, action }))
    );
}

#[test]
fn with_a_token_there_is_no_probe() {
    let auth_token = Some(AuthToken::new(b"secret").unwrap());
    let mut bench = Bench::with(LockLinkSettings { auth_token, timeout_ms: 6_000, resumes: true });
    bench.ask(acquire("k", WaitLimit::Forever));
    bench.connect();
    let hello = bench.expect("HELLO");
    assert_eq!(Hello::parse(&hello.data).unwrap().auth_token, b"secret");
    let mut out = Vec::new();
    Welcome { status: LockStatus::ErrorAuth, grace_ms: 0, remembered: 0 }.write(hello.head, &mut out);
    let fault = bench.receive(&out).unwrap_err();
    assert_eq!(fault, LinkError::Refused { status: LockStatus::ErrorAuth }.into());
    bench.machine.close(bench.now, &LockError::from_fault(fault));
    assert!(matches!(bench.error(), LockError::Auth), "nobody waits for another token");
}

#[test]
fn a_server_of_patch_level_0_sees_no_hello() {
    let mut bench = Bench::new(true);
    bench.connect();
    let mut head = bench.expect("HAVE").head.response();
    head.patch_level = 0;
    let mut out = Vec::new();
    write_message(&mut out, head, &[1]);
    let fault = bench.receive(&out).unwrap_err();
    assert_eq!(fault, LinkError::Unsupported.into());
    assert!(bench.asked().is_empty());
    assert!(matches!(LockError::from_fault(fault), LockError::Unsupported));
}

#[test]
fn a_lock_is_granted_renewed_and_released() {
    let mut bench = Bench::up(true);
    let hold = bench.hold("k");
    assert!(bench.is_valid(hold));
    assert_eq!(bench.machine.deadline(), Some(Time::from_ms(1_000 + 3_333)), "a third of the grace");
    bench.pass_ms(3_333);
    let renewal = bench.expect("RENEW");
    let key = LockKey::new("k").unwrap();
    let action = LockAction::Renew { key, token: token(1), lease_ms: LEASE_MS };
    assert_eq!(
        LockRequest::parse(LockOperation::Renew, &renewal.data),
        Ok(Ok(LockRequest { owner: 0, action }))
    );
    bench.asked.push(renewal);
    bench.renew();
    assert!(bench.machine.hold(hold).unwrap().is_valid_for(bench.now, 10_000));
    bench.machine.release(bench.now, hold).unwrap();
    bench.status("RELEASE", LockStatus::Ok);
    assert!(matches!(bench.event(), Some(LockEvent::Answered(_, Ok(CallReply::Done)))));
    assert!(bench.event().is_none());
}

#[test]
fn what_is_not_renewed_in_time_is_lost_before_its_end() {
    let mut bench = Bench::up(true);
    let hold = bench.hold("k");
    bench.pass_ms(5_000);
    let ping = bench.expect("PING").head;
    bench.answer(ping, &[]);
    bench.pass_ms(2_499);
    assert!(bench.is_valid(hold) && bench.event().is_none());
    bench.pass_ms(1);
    assert_eq!(bench.loss(hold), Loss::Unrenewed);
    assert!(!bench.is_valid(hold));
    assert_eq!(bench.machine.hold(hold).unwrap().remaining_ms(bench.now), 2_500);
    bench.renew();
    assert!(!bench.is_valid(hold), "late");
    bench.machine.drop_hold(bench.now, hold);
    assert_eq!(bench.asked(), ["RELEASE"], "the server may still think that it is held");
}

#[test]
fn the_server_s_word_is_heard_at_once() {
    let mut bench = Bench::up(true);
    let hold = bench.hold("k");
    bench.pass_ms(3_333);
    bench.status("RENEW", LockStatus::Error);
    assert_eq!(bench.loss(hold), Loss::Refused);
    bench.machine.release(bench.now, hold);
    assert!(matches!(bench.error(), LockError::NotHeld));
    assert!(bench.asked().is_empty());
}

#[test]
fn an_old_grant_is_renewed_before_anybody_is_told() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    bench.pass_ms(4_000);
    let granted = bench.grant("ACQUIRE");
    assert!(bench.event().is_none());
    bench.pass_ms(100);
    bench.renew();
    let hold = bench.granted();
    let held = bench.machine.hold(hold).unwrap();
    assert_eq!(held.token, granted);
    assert_eq!(held.remaining_ms(bench.now), 9_900, "from before the renewal was sent");
}

#[test]
fn an_old_grant_that_has_passed_is_asked_for_again() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    bench.pass_ms(4_000);
    bench.grant("ACQUIRE");
    bench.status("RENEW", LockStatus::Error);
    assert!(bench.event().is_none());
    bench.pass_ms(250);
    assert_eq!(bench.asked(), ["RELEASE", "ACQUIRE"]);
}

#[test]
fn claims_bring_holds_over_a_broken_connection() {
    let mut bench = Bench::up(true);
    let (kept, lost) = (bench.hold("kept"), bench.hold("lost"));
    bench.disconnect();
    assert!(!bench.is_valid(kept) && bench.machine.wants_connection());
    bench.pass_ms(1_000);
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    let hello = bench.expect("HELLO").head;
    bench.welcome(hello, LockStatus::Ok);
    assert_eq!(bench.asked(), ["CLAIM", "OPEN"]);
    let claim = bench.expect("CLAIM");
    let claims: Vec<_> =
        Claim::parse_all(&claim.data).map(|it| it.unwrap().unwrap().key.as_str().to_owned()).collect();
    assert_eq!(claims, ["kept", "lost"]);
    bench.answer(claim.head, &[0, 4]);
    assert_eq!(bench.loss(lost), Loss::Refused);
    assert!(bench.is_valid(kept) && !bench.is_valid(lost));
    bench.pass_ms(0);
    bench.status("OPEN", LockStatus::Ok);
    bench.renew();
    assert!(bench.machine.hold(kept).unwrap().is_valid_for(bench.now, 10_000));
    assert!(bench.event().is_none());
}

#[test]
fn nothing_but_hello_is_sent_before_it_is_answered() {
    for auth_token in [None, Some(AuthToken::new(b"secret").unwrap())] {
        let is_probed = auth_token.is_none();
        let mut bench = Bench::with(LockLinkSettings { auth_token, timeout_ms: 6_000, resumes: true });
        bench.connect();
        bench.answer_opening();
        let (kept, returned) = (bench.hold("kept"), bench.hold("returned"));
        bench.disconnect();
        bench.connect();
        if is_probed {
            let probe = bench.expect("HAVE").head;
            bench.answer(probe, &[1]);
        }
        bench.ask(acquire("k", WaitLimit::Forever));
        bench.machine.release(bench.now, returned);
        assert!(matches!(bench.error(), LockError::Disconnected(_)), "it is not claimed any more");
        bench.pass_ms(PING_INTERVAL_MS);
        assert_eq!(bench.asked(), ["HELLO"]);
        let hello = bench.expect("HELLO").head;
        bench.welcome(hello, LockStatus::Ok);
        assert_eq!(bench.asked(), ["CLAIM", "OPEN"]);
        let claim = bench.expect("CLAIM");
        let mut claims = Claim::parse_all(&claim.data);
        assert_eq!(claims.next().unwrap().unwrap().unwrap().key.as_str(), "kept");
        assert!(claims.next().is_none());
        bench.answer(claim.head, &[0]);
        assert_eq!(bench.asked(), ["OPEN"]);
        bench.status("OPEN", LockStatus::Ok);
        assert!(bench.is_valid(kept));
        bench.pass_ms(0);
        assert_eq!(bench.asked(), ["ACQUIRE", "RENEW"]);
    }
}

#[test]
fn over_an_agent_a_broken_connection_is_a_loss() {
    let mut bench = Bench::up(false);
    let hold = bench.hold("k");
    bench.disconnect();
    assert_eq!(bench.loss(hold), Loss::Disconnected);
    assert!(!bench.machine.wants_connection());
    bench.connect();
    bench.answer_opening();
    assert!(bench.asked().is_empty(), "nothing is claimed, nothing released");
}

#[test]
fn an_agent_without_a_server_is_asked_again() {
    let mut bench = Bench::up(false);
    let hold = bench.hold("k");
    bench.pass_ms(3_333);
    bench.status("RENEW", LockStatus::ErrorDisconnected);
    assert!(!bench.is_valid(hold) && bench.event().is_none(), "not valid, nor lost");
    bench.pass_ms(1_000);
    bench.renew();
    assert!(bench.is_valid(hold));
    bench.machine.release(bench.now, hold);
    bench.status("RELEASE", LockStatus::ErrorDisconnected);
    assert!(matches!(bench.error(), LockError::AgentDisconnected));
    assert!(bench.asked().is_empty());
    bench.pass_ms(250);
    bench.status("RELEASE", LockStatus::Ok);
    assert!(bench.event().is_none());
}

#[test]
fn the_patient_ask_again_and_the_others_are_told() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("patient", WaitLimit::Forever));
    bench.ask(acquire("hasty", WaitLimit::Now));
    assert_eq!(bench.asked(), ["ACQUIRE", "ACQUIRE"]);
    bench.disconnect();
    assert!(matches!(bench.error(), LockError::Disconnected(LockLinkError::Closed)));
    assert!(bench.event().is_none());
    bench.ask(LockCall::Stats);
    assert!(bench.machine.fails_fast());
    bench.disconnect();
    assert!(matches!(bench.error(), LockError::Disconnected(_)), "the attempt failed too");
    bench.connect();
    bench.answer_opening();
    assert_eq!(bench.asked(), ["ACQUIRE"]);
    bench.grant("ACQUIRE");
    bench.granted();
}

#[test]
fn the_time_to_wait_runs_without_a_connection() {
    let mut bench = Bench::new(true);
    bench.ask(acquire("k", WaitLimit::Time(bench.now.after_ms(500))));
    bench.disconnect();
    assert!(bench.event().is_none());
    bench.pass_ms(500);
    assert!(matches!(bench.event(), Some(LockEvent::Answered(_, Ok(CallReply::TimedOut)))));
    assert!(!bench.machine.wants_connection());
}

#[test]
fn a_request_that_is_given_up_is_cancelled_and_a_late_grant_released() {
    let mut bench = Bench::up(true);
    let id = bench.ask(acquire("k", WaitLimit::Forever));
    let head = bench.expect("ACQUIRE");
    bench.machine.abandon(bench.now, id);
    let cancel = bench.expect("CANCEL");
    let action = LockAction::Cancel { uid: head.head.uid };
    assert_eq!(
        LockRequest::parse(LockOperation::Cancel, &cancel.data),
        Ok(Ok(LockRequest { owner: 0, action }))
    );
    bench.asked.push(head);
    bench.grant("ACQUIRE");
    bench.answer(cancel.head, &[LockStatus::Error as u8]);
    assert_eq!(bench.asked(), ["RELEASE"]);
    bench.status("RELEASE", LockStatus::Ok);
    assert!(bench.event().is_none() && !bench.machine.is_holding());
}

#[test]
fn a_request_that_is_given_up_before_it_is_sent_is_none() {
    let mut bench = Bench::new(true);
    let id = bench.ask(acquire("k", WaitLimit::Forever));
    bench.machine.abandon(bench.now, id);
    assert!(!bench.machine.wants_connection());
    bench.connect();
    bench.answer_opening();
    assert!(bench.asked().is_empty());
}

#[test]
fn a_place_in_a_queue_becomes_a_lock_or_is_given_up() {
    let mut bench = Bench::up(true);
    let enqueue = || LockCall::Enqueue { key: key("k"), limit: 1, lease_ms: 0 };
    bench.ask(enqueue());
    bench.status("ENQUEUE", LockStatus::Queued);
    let Some(LockEvent::Answered(_, Ok(CallReply::Queued { connection }))) = bench.event() else {
        panic!("not queued")
    };
    let wait = LockCall::Wait { key: key("k"), until: WaitLimit::Forever, connection };
    bench.ask(wait.clone());
    bench.grant("WAIT");
    let hold = bench.granted();
    bench.machine.drop_hold(bench.now, hold);
    bench.status("RELEASE", LockStatus::Ok);
    bench.machine.leave_queue(bench.now, key("k"), connection);
    bench.grant("WAIT");
    assert_eq!(bench.asked(), ["RELEASE"], "nobody wants it");
    bench.disconnect();
    bench.ask(wait.clone());
    assert!(matches!(bench.error(), LockError::NotEnqueued));
    bench.connect();
    bench.answer_opening();
    bench.machine.leave_queue(bench.now, key("k"), connection);
    bench.ask(wait);
    assert!(matches!(bench.error(), LockError::NotEnqueued));
    let id = bench.ask(enqueue());
    bench.machine.abandon(bench.now, id);
    bench.status("ENQUEUE", LockStatus::Queued);
    assert_eq!(bench.asked(), ["WAIT"], "given up");
}

#[test]
fn there_is_always_room_for_renewals() {
    let mut bench = Bench::up(false);
    let hold = bench.hold("held");
    for number in 0..BLOCKED_MAX + 5 {
        bench.ask(acquire(&format!("k{number}"), WaitLimit::Forever));
    }
    assert_eq!(bench.asked().len(), BLOCKED_MAX);
    bench.machine.drop_hold(bench.now, hold);
    assert_eq!(bench.asked().len(), BLOCKED_MAX + 1);
    bench.grant("ACQUIRE");
    assert_eq!(bench.asked().len(), BLOCKED_MAX + 1, "one answered, one more asked");
}

proptest! {
    /// However the bytes of the peer are cut, the same happens.
    #[test]
    fn cuts_change_nothing(cuts in proptest::collection::vec(1_usize..40, 1..40)) {
        let mut bench = Bench::up(true);
        bench.ask(acquire("a", WaitLimit::Forever));
        bench.ask(acquire("b", WaitLimit::Now));
        bench.ask(LockCall::Stats);
        let heads: Vec<_> = ["ACQUIRE", "ACQUIRE", "STATS"].map(|name| bench.expect(name).head).into();
        let mut bytes = Vec::new();
        let grant = Grant { token: token(5), lease_ms: LEASE_MS };
        LockAnswer::Stats(&[b'{'; 5_000]).write(heads[2], &mut bytes);
        LockAnswer::Grant { status: LockStatus::Ok, grant }.write(heads[0], &mut bytes);
        LockAnswer::Status(LockStatus::Timeout).write(heads[1], &mut bytes);
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            bench.receive(piece).unwrap();
            rest = after;
        }
        let stats = bench.event();
        let is_whole = matches!(&stats, Some(LockEvent::Answered(_, Ok(CallReply::Stats(json)))) if json.len() == 5_000);
        prop_assert!(is_whole);
        bench.granted();
        prop_assert!(matches!(bench.event(), Some(LockEvent::Answered(_, Ok(CallReply::TimedOut)))));
    }

    /// Nothing that a peer sends makes the link panic.
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((0_usize..60, any::<u8>()), 0..4),
    ) {
        let mut bench = Bench::up(true);
        // An error is as good as none here.
        bench.receive(&bytes).ok();
        let mut bench = Bench::up(true);
        bench.ask(acquire("a", WaitLimit::Forever));
        let head = bench.expect("ACQUIRE").head;
        let mut answer = Vec::new();
        let grant = Grant { token: token(5), lease_ms: LEASE_MS };
        LockAnswer::Grant { status: LockStatus::Ok, grant }.write(head, &mut answer);
        for (at, byte) in flips {
            if let Some(flipped) = answer.get_mut(at) {
                *flipped = byte;
            }
        }
        bench.receive(&answer).ok();
        bench.disconnect();
        bench.machine.shut_down(bench.now);
    }
}
