//! The machine against a peer scripted by the test, message by message, on the clock of the test.

mod opening;
mod silence;

use crate::client::lock::calls::{BLOCKED_MAX, CallId, LockCall, WaitLimit};
use crate::client::lock::error::{LockError, LockLinkError, Loss};
use crate::client::lock::lease::LeaseId;
use crate::client::lock::machine::{CallReply, LockEvent, LockLinkSettings, LockMachine};
use crate::id::{Grant, LinkId, LockKey, OwnedLockKey, Token};
use crate::limits::{CLAIM_BYTES_MAX, PING_INTERVAL_MS};
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

/// The machine, the bytes it has sent, and the clock.
struct Bench {
    machine: LockMachine,
    now: Time,
    reader: MessageReader,
    /// Requests of the machine that the test has not taken.
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

    /// A bench whose link is up.
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
        assert!(self.machine.is_up() || self.asked() == ["BYE"]);
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

    /// The operations of the requests that the test has not taken.
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

    /// Acquires a lock and takes its event.
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
fn lock_is_granted_renewed_and_released() {
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
fn unrenewed_lease_is_lost_before_its_end() {
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
    assert_eq!(bench.asked(), ["RELEASE"], "the lock may still be held at the server");
}

#[test]
fn refused_renewal_is_a_loss_at_once() {
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
fn old_grant_is_renewed_before_it_is_reported() {
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
fn expired_old_grant_is_acquired_again() {
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
fn lost_connection_to_agent_loses_its_locks() {
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
fn calls_to_agent_without_server_are_repeated() {
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
fn link_loss_resends_retrying_calls_and_fails_others() {
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
fn wait_timeout_runs_without_connection() {
    let mut bench = Bench::new(true);
    bench.ask(acquire("k", WaitLimit::Time(bench.now.after_ms(500))));
    bench.disconnect();
    assert!(bench.event().is_none());
    bench.pass_ms(500);
    assert!(matches!(bench.event(), Some(LockEvent::Answered(_, Ok(CallReply::TimedOut)))));
    assert!(!bench.machine.wants_connection());
}

#[test]
fn abandoned_call_is_cancelled_and_its_late_grant_released() {
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
fn call_abandoned_before_sending_is_never_sent() {
    let mut bench = Bench::new(true);
    let id = bench.ask(acquire("k", WaitLimit::Forever));
    bench.machine.abandon(bench.now, id);
    assert!(!bench.machine.wants_connection());
    bench.connect();
    bench.answer_opening();
    assert!(bench.asked().is_empty());
}

#[test]
fn queue_position_becomes_a_lock_or_is_given_up() {
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
    assert_eq!(bench.asked(), ["RELEASE"], "the application does not wait for it");
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
fn blocked_calls_leave_capacity_for_renewals() {
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
    /// The events do not depend on how the input is cut.
    #[test]
    fn input_cut_anywhere_gives_the_same_events(cuts in proptest::collection::vec(1_usize..40, 1..40)) {
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

    /// No input from a peer makes the machine panic.
    #[test]
    fn arbitrary_input_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((0_usize..60, any::<u8>()), 0..4),
    ) {
        let mut bench = Bench::up(true);
        // Both results are fine here.
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
