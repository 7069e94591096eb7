//! One client: a connection, and as many lockers as the pipeline is long, each with one request under way at a time.
//!
//! When the connection is lost, or left by one of them, everything that was held or waited for over it is gone. Answers
//! of the agent that it can't reach the server end a round; where something was held, the connection is left, for
//! it is not certain whether the server got to know of the release.

use super::model::{Asker, Model};
use super::question::{Act, CONNECT, Doubt, Outcome, Question};
use super::round::{Freedom, Round, Step};
use crate::connection::Connection;
use crate::run::{Run, Stop};
use crate::tally::Failure;
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

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    run: Rc<Run>,
    model: Rc<RefCell<Model>>,
    rng: Rng,
    connection: Option<Connection>,
    /// Of the connection, among all.
    number: u64,
    uid: u32,
    under_way: HashMap<u32, usize>,
    lockers: Vec<Locker>,
}

/// Who does one round after the other.
#[derive(Debug, Default)]
struct Locker {
    round: Option<Round>,
    queued: bool,
    seat: Option<u64>,
    token: Option<Token>,
    /// Since when it holds its lock.
    had: Option<Instant>,
    asked: Option<Asked>,
    /// Does nothing before.
    wakes: Option<Instant>,
    leaves: Option<Instant>,
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    question: Question,
    begun: Instant,
    due: Instant,
}

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    On,
    /// A locker closes it: this one.
    Leave(usize),
    /// Something failed.
    Pause,
}

impl Client {
    pub(crate) fn new(run: Rc<Run>, model: Rc<RefCell<Model>>, rng: Rng) -> Self {
        let lockers = (0..run.pipeline).map(|_| Locker::default()).collect();
        let under_way = HashMap::new();
        Self { run, model, rng, connection: None, number: 0, uid: 0, under_way, lockers }
    }

    /// Works until nothing is left to do.
    pub(crate) async fn work(mut self) -> Result<(), Stop> {
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
                Next::Leave(locker) => self.leave(locker),
                Next::Pause => sleep(PAUSE).await,
            }
        }
    }

    /// Gives every locker something to do, as long as there is something.
    fn begin_rounds(&mut self) {
        let now = Instant::now();
        for at in 0..self.lockers.len() {
            if self.lockers[at].round.is_some() || !self.run.take_operation(now) {
                continue;
            }
            let mut model = self.model.borrow_mut();
            let shape = *model.shape();
            let key = self.rng.usize(..shape.keys);
            let queues = |it: &Locker| it.queued && it.round.as_ref().is_some_and(|round| round.key == key);
            let freedom = Freedom {
                may_queue: !self.lockers.iter().any(queues),
                lapse: model.take_lapse(self.run.time(now)),
                persistent: self.run.persistent,
                pipeline: self.run.pipeline,
            };
            let round = Round::draw(&mut self.rng, &shape, key, freedom);
            let leaves = round.leaves_after.map(|after| now + after);
            self.lockers[at] =
                Locker { queued: round.queues(), round: Some(round), leaves, ..Locker::default() };
        }
    }

    async fn connect(&mut self) -> Result<Next, Stop> {
        let begun = Instant::now();
        match Connection::open(&self.run.address, self.run.answer_timeout).await {
            Ok(connection) => {
                self.number = self.model.borrow_mut().next_connection();
                self.connection = Some(connection);
                self.run.tally.borrow_mut().note_answer(CONNECT, 0, begun.elapsed());
                Ok(Next::On)
            }
            Err(source) => {
                let address = self.run.address.clone();
                let failure = Failure::NotConnected { address, source };
                self.run.tally.borrow_mut().note_failure(CONNECT, &failure);
                self.lose(failure)
            }
        }
    }

    /// Has every locker do what it can, sends and reads once, and handles all answers that came.
    async fn turn(&mut self, mut connection: Connection) -> Result<Next, Stop> {
        let now = Instant::now();
        for at in 0..self.lockers.len() {
            if self.advance(at, now, &mut connection) {
                self.connection = Some(connection);
                return Ok(Next::Leave(at));
            }
        }
        let Some(due) = self.lockers.iter().filter_map(Locker::due).min() else {
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
            Ok(Ok(false)) => self.lose(Failure::Closed),
            Ok(Err(error)) => self.lose(Failure::Broke(error)),
            Err(_) if self.lockers.iter().any(Locker::is_overdue) => {
                self.lose(Failure::Unanswered { timeout: self.run.answer_timeout })
            }
            Err(_) => {
                self.connection = Some(connection);
                Ok(Next::On)
            }
        }
    }

    /// Has a locker do what it can. `true`: it leaves.
    fn advance(&mut self, at: usize, now: Instant, connection: &mut Connection) -> bool {
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
                Some(Step::Ask(act)) => {
                    drop(model);
                    self.ask(at, act, now, connection);
                    return false;
                }
                Some(Step::Hold) => model.shape().hold_ms,
                Some(Step::HoldUntil(after_ms)) => {
                    let until = locker.had.map(|had| had + Duration::from_millis(after_ms));
                    locker.wakes = until.filter(|until| now < *until);
                    if locker.wakes.is_some() {
                        return false;
                    }
                    0
                }
                Some(Step::Outlive) => {
                    round.steps.push_front(Step::Expire);
                    let ends = locker.seat.and_then(|seat| model.ends(round.key, seat));
                    ends.map_or(0, |ends| ends.ms_since(time)) + 1
                }
                Some(Step::Expire) => {
                    locker.seat.iter().for_each(|seat| model.expire(round.key, *seat, time));
                    0
                }
                Some(Step::Rest) => {
                    // Until it leaves.
                    round.steps.push_front(Step::Rest);
                    return false;
                }
                Some(Step::Leave) => return true,
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

    fn ask(&mut self, at: usize, act: Act, now: Instant, connection: &mut Connection) {
        let locker = &mut self.lockers[at];
        let Some(round) = &locker.round else { return };
        let asker = Asker {
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
        locker.asked = Some(Asked { question, begun: now, due });
    }

    async fn handle_answers(&mut self, connection: &mut Connection) -> Result<Next, Stop> {
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
                self.run.suffer(Failure::Disconnected)?;
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
        asked: &Asked,
        answer: LockAnswer<'_>,
        now: Instant,
    ) -> Result<bool, Stop> {
        let Asked { question, begun, .. } = asked;
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
            Outcome::Held(token) => {
                locker.token = Some(token);
                locker.had = Some(now);
                round.skip_wait();
            }
            Outcome::TimedOut | Outcome::Lost => {
                round.end();
                locker.leaves = None;
            }
            Outcome::Queued | Outcome::Done | Outcome::Refused => {}
        }
        Ok(question.act == Act::OtherLimit && verdict.outcome == Outcome::Lost)
    }

    /// What was asked before over this connection has been read by the server: requests keep their order.
    fn note_read(&self, tick: u64) {
        if self.lockers.len() > 1 {
            let mut model = self.model.borrow_mut();
            let asked = self.lockers.iter().filter_map(|locker| locker.asked.as_ref());
            for Asked { question, .. } in asked.filter(|asked| asked.question.tick < tick) {
                model.note_read(question.key, question.seat);
            }
        }
    }

    /// Whether something failed that is a reason for a loss. It may be noticed a moment later.
    async fn excuse(&self, doubt: Doubt) -> Result<(), Stop> {
        let failed = || self.run.outages.borrow().last_failure().is_some_and(|at| doubt.since <= at);
        let may_fail = self.run.outages.borrow().are_tolerated();
        if may_fail && !failed() {
            sleep(NOTICE).await;
        }
        if may_fail && failed() { Ok(()) } else { Err(Stop::Wrong(doubt.wrong)) }
    }

    /// The agent can't reach the server. Whether the locker held something.
    fn give_up(&mut self, at: usize, asked: &Asked, now: Instant) -> bool {
        let Asked { question, .. } = asked;
        self.run.tally.borrow_mut().note_failure(question.row(), &Failure::Disconnected);
        self.model.borrow_mut().fail(question, self.run.time(now));
        let held = self.lockers[at].token.is_some();
        self.lockers[at].give_up(&self.run);
        held
    }

    /// One locker closes the connection, which ends its round, and those of the others before their time.
    fn leave(&mut self, leaver: usize) {
        if self.lockers[leaver].round.take().is_some() {
            self.run.note_done();
            self.run.show_progress();
        }
        self.drop_connection();
    }

    fn lose(&mut self, failure: Failure) -> Result<Next, Stop> {
        for Asked { question, .. } in self.lockers.iter().filter_map(|locker| locker.asked.as_ref()) {
            self.run.tally.borrow_mut().note_failure(question.row(), &failure);
        }
        self.drop_connection();
        self.run.suffer(failure)?;
        Ok(Next::Pause)
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.under_way.clear();
        self.model.borrow_mut().leave(self.number, self.run.time(Instant::now()));
        for locker in &mut self.lockers {
            locker.give_up(&self.run);
        }
    }
}

impl Locker {
    /// When there is something to do for it, if nothing is answered before.
    fn due(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.due);
        [asked, self.wakes, self.leaves].into_iter().flatten().min()
    }

    fn is_overdue(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.due <= Instant::now())
    }

    /// Ends its round, which counts for nothing.
    fn give_up(&mut self, run: &Run) {
        if self.round.is_some() {
            run.return_operation();
        }
        *self = Self::default();
    }
}
