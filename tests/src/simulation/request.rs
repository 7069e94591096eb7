//! The requests that applications make, and what an answer to each may be.

use super::history::{Kind, Outcome};
use super::random::Random;
use super::scenario::{ApplicationPlan, Scenario};
use super::violation::Violation;
use libdc::id::SessionId;
use libdc::limits::{ADD_PREFIX_BYTES, SESSION_MESSAGE_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use libdc::wire::frame::{LinkOperation, Operation, SessionOperation};
use libdc::wire::session::{Add, Status};
use std::rc::Rc;

/// A request, before it is sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) data: Vec<u8>,
    /// The place of its id among those of the run.
    pub(crate) id: usize,
    /// What an ADD stores.
    pub(crate) session: Rc<[u8]>,
    pub(crate) expects: Expects,
}

/// What may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    /// What belongs to this kind; `too_large` says that the server has not room for an ADD at all.
    Session { kind: Kind, too_large: bool },
    /// This status: the request is none that a server could do anything with.
    Status(Status),
    /// No data at all: the agent itself answers.
    Nothing,
}

impl Expects {
    /// What the request does to the session.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Session { kind, .. } => kind,
            Self::Status(_) | Self::Nothing => Kind::Nothing,
        }
    }

    /// What this answer says; `None` if it is DISCONNECTED. `origin` finds out who stored a session.
    ///
    /// # Errors
    /// The [`Violation`] if there is no such answer.
    pub(crate) fn read(
        self,
        operation: usize,
        data: &[u8],
        origin: impl FnOnce() -> Result<usize, Violation>,
    ) -> Result<Option<Outcome>, Violation> {
        let status = if let [byte] = data { Status::from_wire(*byte) } else { None };
        let outcome = match (self, status) {
            (Self::Nothing, None) if data.is_empty() => Outcome::Refused,
            (Self::Status(_) | Self::Session { .. }, Some(Status::Disconnected)) => return Ok(None),
            (Self::Status(expected), Some(status)) if expected == status => Outcome::Refused,
            (Self::Session { kind, too_large }, status) => match (kind, status) {
                (Kind::Add { .. }, Some(Status::DataRange)) if too_large => Outcome::Refused,
                (Kind::Add { .. }, Some(Status::Ok)) if !too_large => Outcome::Stored,
                (Kind::Add { .. }, Some(Status::MatchingSession)) | (Kind::Have, Some(Status::Ok)) => {
                    Outcome::Present
                }
                (Kind::Remove, Some(Status::Ok)) => Outcome::Removed,
                (Kind::Get | Kind::Have | Kind::Remove, Some(Status::NotOk)) => Outcome::Missing,
                (Kind::Get, None) if !data.is_empty() => Outcome::Found(origin()?),
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

impl Request {
    /// A request as this application makes them.
    pub(crate) fn draw(plan: &ApplicationPlan, scenario: &Scenario, random: &mut Random) -> Self {
        let id = random.below(scenario.ids.len() as u64) as usize;
        let total = plan.weights.iter().sum();
        let mut drawn = random.below(total);
        let chosen = plan.weights.iter().position(|weight| {
            let this = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            this
        });
        let simple = |operation, kind| {
            let session = Expects::Session { kind, too_large: false };
            Self::plain(Operation::Session(operation), scenario.ids[id].clone(), id, session)
        };
        match chosen {
            Some(0) => Self::add(id, plan, scenario, random),
            Some(1) => simple(SessionOperation::Get, Kind::Get),
            Some(2) => simple(SessionOperation::Remove, Kind::Remove),
            Some(3) => simple(SessionOperation::Have, Kind::Have),
            _ => Self::odd(plan, random),
        }
    }

    fn plain(operation: Operation, data: Vec<u8>, id: usize, expects: Expects) -> Self {
        Self { operation, data, id, session: Rc::default(), expects }
    }

    fn add(place: usize, plan: &ApplicationPlan, scenario: &Scenario, random: &mut Random) -> Self {
        let id = &scenario.ids[place];
        let (least, most) = random.pick(&plan.sizes);
        let longest = SESSION_MESSAGE_BYTES_MAX - ADD_PREFIX_BYTES - id.len();
        let mut session = vec![0; (random.between(least..=most) as usize).min(longest)];
        random.fill(&mut session);
        if let [byte] = session.as_mut_slice() {
            // Not to be taken for a status.
            *byte = 200 | (*byte & 15);
        }
        let (least, most) = random.pick(&plan.timeouts_ms);
        let timeout_ms = random.between(least..=most) as u32;
        let mut data = Vec::with_capacity(ADD_PREFIX_BYTES + id.len() + session.len());
        if let Some(id) = SessionId::new(id) {
            Add { timeout_ms, id, session: &session }.write(&mut data);
        }
        let bytes_max = scenario.server.limits.bytes;
        let too_large = bytes_max > 0 && (id.len() + session.len()) as u64 > bytes_max;
        let expects = Expects::Session { kind: Kind::Add { timeout_ms }, too_large };
        let operation = Operation::Session(SessionOperation::Add);
        Self { session: session.into(), ..Self::plain(operation, data, place, expects) }
    }

    /// A request that touches no session.
    fn odd(plan: &ApplicationPlan, random: &mut Random) -> Self {
        let add = |timeout_ms: u32, id_len: u32, rest: usize, status| {
            let mut data = timeout_ms.to_be_bytes().to_vec();
            data.extend_from_slice(&id_len.to_be_bytes());
            data.resize(data.len() + rest, 7);
            Self::plain(Operation::Session(SessionOperation::Add), data, 0, Expects::Status(status))
        };
        match random.below(7) {
            0 => add(SESSION_TIMEOUT_MS_MAX + 1, 4, 9, Status::TimeoutRange),
            1 => add(1_000, 10, 10, Status::Corrupt),
            2 => add(1_000, 0, 10, Status::IdRange),
            3 => add(1_000, 65, 70, Status::IdRange),
            4 => {
                let missing = Expects::Status(Status::NotOk);
                Self::plain(Operation::Session(SessionOperation::Get), Vec::new(), 0, missing)
            }
            5 => {
                let missing = Expects::Status(Status::NotOk);
                Self::plain(Operation::Session(SessionOperation::Remove), vec![1; 3_000], 0, missing)
            }
            _ if plan.patch_level == 0 => {
                let missing = Expects::Status(Status::NotOk);
                Self::plain(Operation::Session(SessionOperation::Have), vec![1; 65], 0, missing)
            }
            _ => Self::plain(Operation::Link(LinkOperation::Ping), Vec::new(), 0, Expects::Nothing),
        }
    }
}
