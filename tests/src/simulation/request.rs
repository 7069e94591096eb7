//! The requests that applications send, and the answers allowed for each.

use super::history::{ObservedOutcome, SessionOpKind};
use super::random::SeededRng;
use super::scenario::{ApplicationPlan, Scenario};
use super::violation::Violation;
use libdc::id::SessionId;
use libdc::limits::{ADD_PREFIX_BYTES, SESSION_MESSAGE_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use libdc::wire::frame::{LinkOperation, Operation, SessionOperation};
use libdc::wire::session::{AddRequest, SessionStatus};
use std::rc::Rc;

/// A request, before it is sent.
#[derive(Debug)]
pub(crate) struct SimRequest {
    pub(crate) operation: Operation,
    pub(crate) data: Vec<u8>,
    /// Index of its id among those of the run.
    pub(crate) id: usize,
    /// The session that an ADD stores.
    pub(crate) session: Rc<[u8]>,
    pub(crate) expects: ExpectedAnswer,
}

/// The allowed answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedAnswer {
    /// Those of this kind; `too_large` means that an ADD exceeds the server's byte limit.
    Session { kind: SessionOpKind, too_large: bool },
    /// This status: the server cannot execute the request.
    Status(SessionStatus),
    /// Empty data: the agent itself answers.
    Nothing,
}

impl ExpectedAnswer {
    /// The effect of the request on its session.
    pub(crate) const fn kind(self) -> SessionOpKind {
        match self {
            Self::Session { kind, .. } => kind,
            Self::Status(_) | Self::Nothing => SessionOpKind::Nothing,
        }
    }

    /// Classifies an answer; `None` for DISCONNECTED. `origin` finds the operation that stored a session.
    ///
    /// # Errors
    /// The [`Violation`] if the answer is not allowed.
    pub(crate) fn read(
        self,
        operation: usize,
        data: &[u8],
        origin: impl FnOnce() -> Result<usize, Violation>,
    ) -> Result<Option<ObservedOutcome>, Violation> {
        let status = if let [byte] = data { SessionStatus::from_wire(*byte) } else { None };
        let outcome = match (self, status) {
            (Self::Nothing, None) if data.is_empty() => ObservedOutcome::Refused,
            (Self::Status(_) | Self::Session { .. }, Some(SessionStatus::Disconnected)) => return Ok(None),
            (Self::Status(expected), Some(status)) if expected == status => ObservedOutcome::Refused,
            (Self::Session { kind, too_large }, status) => match (kind, status) {
                (SessionOpKind::Add { .. }, Some(SessionStatus::DataRange)) if too_large => {
                    ObservedOutcome::Refused
                }
                (SessionOpKind::Add { .. }, Some(SessionStatus::Ok)) if !too_large => ObservedOutcome::Stored,
                (SessionOpKind::Add { .. }, Some(SessionStatus::MatchingSession))
                | (SessionOpKind::Have, Some(SessionStatus::Ok)) => ObservedOutcome::Present,
                (SessionOpKind::Remove, Some(SessionStatus::Ok)) => ObservedOutcome::Removed,
                (
                    SessionOpKind::Get | SessionOpKind::Have | SessionOpKind::Remove,
                    Some(SessionStatus::NotOk),
                ) => ObservedOutcome::Missing,
                (SessionOpKind::Get, None) if !data.is_empty() => ObservedOutcome::Found(origin()?),
                _ => return Err(malformed(operation, data)),
            },
            _ => return Err(malformed(operation, data)),
        };
        Ok(Some(outcome))
    }
}

fn malformed(operation: usize, data: &[u8]) -> Violation {
    Violation::Malformed { operation, len: data.len(), first: data.first().copied() }
}

impl SimRequest {
    /// Draws a request for this application.
    pub(crate) fn draw(plan: &ApplicationPlan, scenario: &Scenario, random: &mut SeededRng) -> Self {
        let id = random.below(scenario.ids.len() as u64) as usize;
        let total = plan.weights.iter().sum();
        let mut drawn = random.below(total);
        let chosen = plan.weights.iter().position(|weight| {
            let this = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            this
        });
        let simple = |operation, kind| {
            let session = ExpectedAnswer::Session { kind, too_large: false };
            Self::plain(Operation::Session(operation), scenario.ids[id].clone(), id, session)
        };
        match chosen {
            Some(0) => Self::add(id, plan, scenario, random),
            Some(1) => simple(SessionOperation::Get, SessionOpKind::Get),
            Some(2) => simple(SessionOperation::Remove, SessionOpKind::Remove),
            Some(3) => simple(SessionOperation::Have, SessionOpKind::Have),
            _ => Self::odd(plan, random),
        }
    }

    fn plain(operation: Operation, data: Vec<u8>, id: usize, expects: ExpectedAnswer) -> Self {
        Self { operation, data, id, session: Rc::default(), expects }
    }

    fn add(index: usize, plan: &ApplicationPlan, scenario: &Scenario, random: &mut SeededRng) -> Self {
        let id = &scenario.ids[index];
        let (least, most) = random.pick(&plan.sizes);
        let longest = SESSION_MESSAGE_BYTES_MAX - ADD_PREFIX_BYTES - id.len();
        let mut session = vec![0; (random.between(least..=most) as usize).min(longest)];
        random.fill(&mut session);
        if let [byte] = session.as_mut_slice() {
            // Not to be confused with a status.
            *byte = 200 | (*byte & 15);
        }
        let (least, most) = random.pick(&plan.timeouts_ms);
        let timeout_ms = random.between(least..=most) as u32;
        let mut data = Vec::with_capacity(ADD_PREFIX_BYTES + id.len() + session.len());
        if let Some(id) = SessionId::new(id) {
            AddRequest { timeout_ms, id, session: &session }.write(&mut data);
        }
        let bytes_max = scenario.server.limits.bytes;
        let too_large = bytes_max > 0 && (id.len() + session.len()) as u64 > bytes_max;
        let expects = ExpectedAnswer::Session { kind: SessionOpKind::Add { timeout_ms }, too_large };
        let operation = Operation::Session(SessionOperation::Add);
        Self { session: session.into(), ..Self::plain(operation, data, index, expects) }
    }

    /// Draws a request that affects no session.
    fn odd(plan: &ApplicationPlan, random: &mut SeededRng) -> Self {
        let add = |timeout_ms: u32, id_len: u32, rest: usize, status| {
            let mut data = timeout_ms.to_be_bytes().to_vec();
            data.extend_from_slice(&id_len.to_be_bytes());
            data.resize(data.len() + rest, 7);
            Self::plain(Operation::Session(SessionOperation::Add), data, 0, ExpectedAnswer::Status(status))
        };
        match random.below(7) {
            0 => add(SESSION_TIMEOUT_MS_MAX + 1, 4, 9, SessionStatus::TimeoutRange),
            1 => add(1_000, 10, 10, SessionStatus::Corrupt),
            2 => add(1_000, 0, 10, SessionStatus::IdRange),
            3 => add(1_000, 65, 70, SessionStatus::IdRange),
            4 => {
                let missing = ExpectedAnswer::Status(SessionStatus::NotOk);
                Self::plain(Operation::Session(SessionOperation::Get), Vec::new(), 0, missing)
            }
            5 => {
                let missing = ExpectedAnswer::Status(SessionStatus::NotOk);
                Self::plain(Operation::Session(SessionOperation::Remove), vec![1; 3_000], 0, missing)
            }
            _ if plan.patch_level == 0 => {
                let missing = ExpectedAnswer::Status(SessionStatus::NotOk);
                Self::plain(Operation::Session(SessionOperation::Have), vec![1; 65], 0, missing)
            }
            _ => Self::plain(Operation::Link(LinkOperation::Ping), Vec::new(), 0, ExpectedAnswer::Nothing),
        }
    }
}
