//! One client: a connection, and as many lockers as the pipeline depth, each with one request in flight at a
//! time.
//!
//! When the connection is lost, or closed by a locker, all its held and queued locks are gone. An answer that
//! the agent cannot reach the server ends a round. If a lock was held, the connection is closed, since the
//! server may not have received the release.

use super::model::{ContenderId, LockModel};
use super::question::{CONNECT, LockAct, LockOpOutcome, PendingLockOp, Uncertainty};
use super::round::{AllowedActs, Round, RoundStep};
use crate::connection::PipelinedConnection;
use crate::counters::OperationFailure;
use crate::run::TestRun;
use crate::stop_reason::StopReason;
use crate::worker::{PAUSE, not_asked};
use fastrand::Rng;
use libdc::id::Token;
use libdc::wire::frame::Operation;
use libdc::wire::lock::{LockAnswer, LockStatus};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout_at};

/// How much later than its effect a failure may be noticed: another connection was read first.
const NOTICE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LockWorker {
    run: Rc<TestRun>,
    model: Rc<RefCell<LockModel>>,
    rng: Rng,
    connection: Option<PipelinedConnection>,
    /// Of the connection, among all.
    number: u64,
    uid: u32,
    under_way: HashMap<u32, usize>,
    lockers: Vec<RoundRunner>,
}

/// A locker, which runs one round after the other.
#[derive(Debug, Default)]
struct RoundRunner {
    round: Option<Round>,
    queued: bool,
    seat: Option<u64>,
    token: Option<Token>,
    /// Since when it holds its lock.
    had: Option<Instant>,
    asked: Option<SentRequest>,
    /// Idle until then.
    wakes: Option<Instant>,
    leaves: Option<Instant>,
}

/// A request in flight.
#[derive(Debug)]
struct SentRequest {
    question: PendingLockOp,
    begun: Instant,
    due: Instant,
}

/// The next step of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    On,
    /// A locker closes it: this one.
    Leave(usize),
    Pause,
}

impl LockWorker {
    pub(crate) fn new(run: Rc<TestRun>, model: Rc<RefCell<LockModel>>, rng: Rng) -> Self {
        let lockers = (0..run.pipeline).map(|_| RoundRunner::default()).collect();
        let under_way = HashMap::new();
        Self { run, model, rng, connection: None, number: 0, uid: 0, under_way, lockers }
    }

    /// Works until nothing is left to do.
    pub(crate) async fn work(mut self) -> Result<(), StopReason> {
        loop {
            self.begin_rounds();
            if self.lockers.iter().all(|locker| locker.round.is_none()) {
                return Ok(());
            }
            let next = match self.connection.take() {
                Some(connection) => self.turn(connection).await?,
                None => self.connect().await?,
            };
            match next {
                Next::On => {}
                Next::Leave(locker) => self.disconnect(locker),
                Next::Pause => sleep(PAUSE).await,
            }
        }
    }

    /// Starts a round for every idle locker, as long as rounds remain.
    fn begin_rounds(&mut self) {
        let now = Instant::now();
        for at in 0..self.lockers.len() {
            if self.lockers[at].round.is_some() || !self.run.take_operation(now) {
                continue;
            }
            let mut model = self.model.borrow_mut();
            let shape = *model.shape();
            let key = self.rng.usize(..shape.keys);
            let queues =
                |it: &RoundRunner| it.queued && it.round.as_ref().is_some_and(|round| round.key == key);
            let freedom = AllowedActs {
                may_queue: !self.lockers.iter().any(queues),
                lapse: model.take_lapse(self.run.time(now)),
                persistent: self.run.persistent,
                pipeline: self.run.pipeline,
            };
            let round = Round::draw(&mut self.rng, &shape, key, freedom);
            let leaves = round.leaves_after.map(|after| now + after);
            self.lockers[at] =
                RoundRunner { queued: round.queues(), round: Some(round), leaves, ..RoundRunner::default() };
        }
    }

    async fn connect(&mut self) -> Result<Next, StopReason> {
        let begun = Instant::now();
        match PipelinedConnection::open(&self.run.address, self.run.answer_timeout).await {
            Ok(connection) => {
                self.number = self.model.borrow_mut().next_connection();
                self.connection = Some(connection);
                self.run.tally.borrow_mut().note_answer(CONNECT, 0, begun.elapsed());
                Ok(Next::On)
            }
            Err(source) => {
                let address = self.run.address.clone();
                let failure = OperationFailure::NotConnected { address, source };
                self.run.tally.borrow_mut().note_failure(CONNECT, &failure);
                self.lose(failure)
            }
        }
    }

    /// Advances every locker, sends and reads once, and handles all received answers.
    async fn turn(&mut self, mut connection: PipelinedConnection) -> Result<Next, StopReason> {
        let now = Instant::now();
        for at in 0..self.lockers.len() {
            if self.advance(at, now, &mut connection) {
                self.connection = Some(connection);
                return Ok(Next::Leave(at));
            }
        }
        let Some(due) = self.lockers.iter().filter_map(RoundRunner::due).min() else {
            // All rounds are through.
            self.connection = Some(connection);
            return Ok(Next::On);
        };
        match timeout_at(due.into(), connection.transfer()).await {
            Ok(Ok(true)) => {
                let next = self.handle_answers(&mut connection).await?;
                self.connection = Some(connection);
                Ok(next)
            }
            Ok(Ok(false)) => self.lose(OperationFailure::Closed),
            Ok(Err(error)) => self.lose(OperationFailure::Broke(error)),
            Err(_) if self.lockers.iter().any(RoundRunner::is_overdue) => {
                self.lose(OperationFailure::Unanswered { timeout: self.run.answer_timeout })
            }
            Err(_) => {
                self.connection = Some(connection);
                Ok(Next::On)
            }
        }
    }

    /// Advances a locker. `true` if it leaves the connection.
    fn advance(&mut self, at: usize, now: Instant, connection: &mut PipelinedConnection) -> bool {
        let time = self.run.time(now);
        let locker = &mut self.lockers[at];
        if locker.leaves.is_some_and(|leaves| leaves <= now) {
            return true;
        }
        if locker.asked.is_some() || locker.wakes.is_some_and(|wakes| now < wakes) {
            return false;
        }
        locker.wakes = None;
        while let Some(round) = &mut locker.round {
            let mut model = self.model.borrow_mut();
            let wait_ms = match round.steps.pop_front() {
                Some(RoundStep::Ask(act)) => {
                    drop(model);
                    self.ask(at, act, now, connection);
                    return false;
                }
                Some(RoundStep::Hold) => model.shape().hold_ms,
                Some(RoundStep::HoldUntil(after_ms)) => {
                    let until = locker.had.map(|had| had + Duration::from_millis(after_ms));
                    locker.wakes = until.filter(|until| now < *until);
                    if locker.wakes.is_some() {
                        return false;
                    }
                    0
                }
                Some(RoundStep::Outlive) => {
                    round.steps.push_front(RoundStep::Expire);
                    let ends = locker.seat.and_then(|seat| model.lease_end(round.key, seat));
                    ends.map_or(0, |ends| ends.ms_since(time)) + 1
                }
                Some(RoundStep::Expire) => {
                    locker.seat.iter().for_each(|seat| model.expire(round.key, *seat, time));
                    0
                }
                Some(RoundStep::Rest) => {
                    // Until it leaves.
                    round.steps.push_front(RoundStep::Rest);
                    return false;
                }
                Some(RoundStep::Leave) => return true,
                None => {
                    locker.round = None;
                    drop(model);
                    self.run.note_done();
                    self.run.show_progress();
                    return false;
                }
            };
            if wait_ms > 0 {
                locker.wakes = Some(now + Duration::from_millis(wait_ms));
                return false;
            }
        }
        false
    }

    fn ask(&mut self, at: usize, act: LockAct, now: Instant, connection: &mut PipelinedConnection) {
        let locker = &mut self.lockers[at];
        let Some(round) = &locker.round else { return };
        let asker = ContenderId {
            connection: self.number,
            key: round.key,
            seat: locker.seat,
            token: locker.token,
            lease_ms: round.lease_ms,
        };
        let question = self.model.borrow_mut().ask(&asker, act, self.run.time(now));
        self.uid = self.uid.wrapping_add(1);
        connection.queue_bytes(|out| question.write(self.uid, out));
        self.under_way.insert(self.uid, at);
        locker.seat = Some(question.seat);
        let due = now + Duration::from_millis(question.may_block_ms()) + self.run.answer_timeout;
        locker.asked = Some(SentRequest { question, begun: now, due });
    }

    async fn handle_answers(&mut self, connection: &mut PipelinedConnection) -> Result<Next, StopReason> {
        let now = Instant::now();
        let mut next = Next::On;
        while let Some(message) = connection.next_message()? {
            let Operation::Lock(operation) = message.head.operation else {
                return Err(not_asked(message.head));
            };
            let at = self.under_way.remove(&message.head.uid);
            let asked = at.and_then(|at| self.lockers[at].asked.take().map(|asked| (at, asked)));
            let Some((at, asked)) = asked.filter(|(_, asked)| asked.question.operation() == operation) else {
                return Err(not_asked(message.head));
            };
            let answer = LockAnswer::parse(operation, message.data)?;
            if answer.status() == LockStatus::ErrorDisconnected {
                let held = self.give_up(at, &asked, now);
                self.run.suffer(OperationFailure::Disconnected)?;
                next = if held { Next::Leave(at) } else { Next::Pause };
            } else if self.judge(at, &asked, answer, now).await? {
                next = Next::Leave(at);
            }
        }
        Ok(next)
    }

    /// Whether the locker has to leave.
    async fn judge(
        &mut self,
        at: usize,
        asked: &SentRequest,
        answer: LockAnswer<'_>,
        now: Instant,
    ) -> Result<bool, StopReason> {
        let SentRequest { question, begun, .. } = asked;
        let time = self.run.time(now);
        let verdict = self.model.borrow_mut().judge(question, answer, time)?;
        if let Some(doubt) = verdict.doubt {
            self.excuse(doubt).await?;
        }
        self.note_read(question.tick);
        self.run.outages.borrow_mut().note_answer(question.asked, time);
        let took = now.saturating_duration_since(*begun);
        self.run.tally.borrow_mut().note_answer(question.row(), verdict.outcome.column(), took);
        let locker = &mut self.lockers[at];
        let Some(round) = &mut locker.round else { return Ok(false) };
        match verdict.outcome {
            LockOpOutcome::Held(token) => {
                locker.token = Some(token);
                locker.had = Some(now);
                round.skip_wait();
            }
            LockOpOutcome::TimedOut | LockOpOutcome::Lost => {
                round.finish();
                locker.leaves = None;
            }
            LockOpOutcome::Queued | LockOpOutcome::Done | LockOpOutcome::Refused => {}
        }
        Ok(question.act == LockAct::OtherLimit && verdict.outcome == LockOpOutcome::Lost)
    }

    /// The server has read all earlier requests of this connection: requests keep their order.
    fn note_read(&self, tick: u64) {
        if self.lockers.len() > 1 {
            let mut model = self.model.borrow_mut();
            let asked = self.lockers.iter().filter_map(|locker| locker.asked.as_ref());
            for SentRequest { question, .. } in asked.filter(|asked| asked.question.tick < tick) {
                model.note_read(question.key, question.seat);
            }
        }
    }

    /// Whether something failed that is a reason for a loss. It may be noticed a moment later.
    async fn excuse(&self, doubt: Uncertainty) -> Result<(), StopReason> {
        let failed = || self.run.outages.borrow().last_failure().is_some_and(|at| doubt.since <= at);
        let may_fail = self.run.outages.borrow().are_tolerated();
        if may_fail && !failed() {
            sleep(NOTICE).await;
        }
        if may_fail && failed() { Ok(()) } else { Err(StopReason::Wrong(doubt.wrong)) }
    }

    /// The agent cannot reach the server. Returns whether the locker held a lock.
    fn give_up(&mut self, at: usize, asked: &SentRequest, now: Instant) -> bool {
        let SentRequest { question, .. } = asked;
        self.run.tally.borrow_mut().note_failure(question.row(), &OperationFailure::Disconnected);
        self.model.borrow_mut().fail(question, self.run.time(now));
        let held = self.lockers[at].token.is_some();
        self.lockers[at].give_up(&self.run);
        held
    }

    /// One locker closes the connection, which ends its round, and those of the others before their time.
    fn disconnect(&mut self, leaver: usize) {
        if self.lockers[leaver].round.take().is_some() {
            self.run.note_done();
            self.run.show_progress();
        }
        self.drop_connection();
    }

    fn lose(&mut self, failure: OperationFailure) -> Result<Next, StopReason> {
        for SentRequest { question, .. } in self.lockers.iter().filter_map(|locker| locker.asked.as_ref()) {
            self.run.tally.borrow_mut().note_failure(question.row(), &failure);
        }
        self.drop_connection();
        self.run.suffer(failure)?;
        Ok(Next::Pause)
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.under_way.clear();
        self.model.borrow_mut().disconnected(self.number, self.run.time(Instant::now()));
        for locker in &mut self.lockers {
            locker.give_up(&self.run);
        }
    }
}

impl RoundRunner {
    /// When it must be advanced next, if no answer arrives before.
    fn due(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.due);
        [asked, self.wakes, self.leaves].into_iter().flatten().min()
    }

    fn is_overdue(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.due <= Instant::now())
    }

    /// Ends its round without counting it.
    fn give_up(&mut self, run: &TestRun) {
        if self.round.is_some() {
            run.return_operation();
        }
        *self = Self::default();
    }
}
