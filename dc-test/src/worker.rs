//! One client: sends requests, receives answers, and has the model judge them.
//!
//! A persistent client keeps its pipeline filled over one connection; otherwise it opens a connection for
//! each operation. When a connection is lost, all its requests in flight have failed; the client pauses for
//! [`PAUSE`] and reconnects.

use crate::connection::PipelinedConnection;
use crate::content;
use crate::counters::OperationFailure;
use crate::model::{PendingSessionOp, SessionModel};
use crate::run::TestRun;
use crate::stop_reason::StopReason;
use libdc::id::SessionId;
use libdc::wire::frame::{MessageHead, Operation};
use libdc::wire::session::{AddRequest, SessionAnswer, SessionStatus};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout_at};

/// How long a client waits after a failure before it asks again.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct SessionWorker {
    run: Rc<TestRun>,
    model: SessionModel,
    connection: Option<PipelinedConnection>,
    uid: u32,
    under_way: HashMap<u32, InFlightOp>,
    /// Before this time no request in flight has timed out.
    check_at: Instant,
}

#[derive(Debug)]
struct InFlightOp {
    question: PendingSessionOp,
    begun: Instant,
}

impl SessionWorker {
    pub(crate) fn new(run: Rc<TestRun>, model: SessionModel) -> Self {
        let check_at = Instant::now();
        Self { run, model, connection: None, uid: 0, under_way: HashMap::new(), check_at }
    }

    /// Works until nothing is left to do.
    pub(crate) async fn work(mut self) -> Result<(), StopReason> {
        loop {
            let mut connection = self.connection.take();
            while self.under_way.len() < self.run.pipeline && self.ask(connection.as_mut()) {}
            if self.under_way.is_empty() {
                return Ok(());
            }
            let failed = match connection {
                Some(connection) => self.exchange(connection).await?,
                None => self.connect().await?,
            };
            if failed {
                sleep(PAUSE).await;
            }
        }
    }

    /// Asks one thing more. Without a connection it is sent when there is one.
    fn ask(&mut self, connection: Option<&mut PipelinedConnection>) -> bool {
        let begun = Instant::now();
        if !self.run.take_operation(begun) {
            return false;
        }
        let Some(question) = self.model.ask(self.run.time(begun)) else {
            self.run.return_operation();
            return false;
        };
        self.uid = self.uid.wrapping_add(1);
        if let Some(connection) = connection {
            send(connection, self.uid, &question);
        }
        self.under_way.insert(self.uid, InFlightOp { question, begun });
        true
    }

    /// Connects and does the first exchange. Whether something failed.
    async fn connect(&mut self) -> Result<bool, StopReason> {
        let mut connection = match PipelinedConnection::open(&self.run.address, self.run.answer_timeout).await
        {
            Ok(connection) => connection,
            Err(source) => {
                let address = self.run.address.clone();
                return self.lose(OperationFailure::NotConnected { address, source });
            }
        };
        for (uid, under_way) in &self.under_way {
            send(&mut connection, *uid, &under_way.question);
        }
        self.exchange(connection).await
    }

    /// Sends and reads once, and handles all answers that came. Keeps the connection if it is to be kept.
    /// Whether something failed.
    async fn exchange(&mut self, mut connection: PipelinedConnection) -> Result<bool, StopReason> {
        loop {
            match timeout_at(self.check_at.into(), connection.transfer()).await {
                Ok(Ok(true)) => break,
                Ok(Ok(false)) => return self.lose(OperationFailure::Closed),
                Ok(Err(error)) => return self.lose(OperationFailure::Broke(error)),
                Err(_) => {
                    let timeout = self.run.answer_timeout;
                    let oldest = self.under_way.values().map(|it| it.begun).min();
                    self.check_at = oldest.unwrap_or_else(Instant::now) + timeout;
                    if self.check_at <= Instant::now() {
                        return self.lose(OperationFailure::Unanswered { timeout });
                    }
                }
            }
        }
        let now = Instant::now();
        let mut disconnected = false;
        let before = self.under_way.len();
        while let Some(message) = connection.next_message()? {
            let Operation::Session(operation) = message.head.operation else {
                return Err(not_asked(message.head));
            };
            let under_way = self.under_way.remove(&message.head.uid);
            let Some(under_way) = under_way.filter(|it| it.question.operation == operation) else {
                return Err(not_asked(message.head));
            };
            match SessionAnswer::parse(operation, message.data)? {
                SessionAnswer::Status(SessionStatus::Disconnected) => {
                    self.give_up(&under_way.question, &OperationFailure::Disconnected);
                    disconnected = self.run.suffer(OperationFailure::Disconnected)?;
                }
                answer => self.judge(&under_way, answer, now)?,
            }
        }
        if self.run.persistent || self.under_way.len() == before {
            self.connection = Some(connection);
        }
        Ok(disconnected)
    }

    fn judge(
        &mut self,
        under_way: &InFlightOp,
        answer: SessionAnswer<'_>,
        now: Instant,
    ) -> Result<(), StopReason> {
        let InFlightOp { question, begun } = under_way;
        let time = self.run.time(now);
        let mut outages = self.run.outages.borrow_mut();
        let outcome = self.model.judge(question, answer, time, outages.last_failure())?;
        outages.note_answer(question.asked, time);
        let took = now.saturating_duration_since(*begun);
        self.run.tally.borrow_mut().note_answer(question.operation as usize, outcome as usize, took);
        self.run.note_done();
        self.run.show_progress();
        Ok(())
    }

    /// Fails all requests in flight. `Ok(true)` if the run continues.
    fn lose(&mut self, failure: OperationFailure) -> Result<bool, StopReason> {
        for InFlightOp { question, .. } in std::mem::take(&mut self.under_way).into_values() {
            self.give_up(&question, &failure);
        }
        self.run.suffer(failure)
    }

    fn give_up(&mut self, question: &PendingSessionOp, failure: &OperationFailure) {
        self.model.fail(question);
        self.run.tally.borrow_mut().note_failure(question.operation as usize, failure);
        self.run.return_operation();
    }
}

pub(crate) fn not_asked(head: MessageHead) -> StopReason {
    StopReason::NotAsked { operation: head.operation.name(), uid: head.uid }
}

fn send(connection: &mut PipelinedConnection, uid: u32, question: &PendingSessionOp) {
    let head = MessageHead::request(uid, Operation::Session(question.operation));
    let id = content::id(question.id);
    connection.queue(head, |out| match &question.content {
        None => out.extend_from_slice(&id),
        Some(content) => {
            // The content goes behind the part of an ADD that is before it.
            AddRequest {
                timeout_ms: content.timeout_ms,
                id: SessionId::new(&id).expect("32 bytes"),
                session: &[],
            }
            .write(out);
            content::write(out, content.seed, content.len);
        }
    });
}
