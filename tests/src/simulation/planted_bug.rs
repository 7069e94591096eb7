//! Planted bugs, by which the checks are checked: each must be found.

use libdc::id::SessionId;
use libdc::table::{AddOutcome, ExpiryStep, SessionStore, SessionTotals, ShardedSessions};
use libdc::time::Time;
use libdc::wire::message::Message;
use libdc::wire::session::SessionStatus;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlantedBug {
    /// None.
    #[default]
    None,
    /// Two answers to requests of one kind change places, their uids staying where they are.
    SwapAnswers,
    /// Two answers to requests of different kinds exchange their uids.
    SwapUids,
    /// An answer is never given.
    DropAnswer,
    /// An answer is given twice.
    AnswerTwice,
    /// DISCONNECTED is answered instead of what the server said.
    SayDisconnected,
    /// The agent does not notice that time passes.
    DeafAgent,
    /// An original server says that it is a new one, so that the agent sends what it does not understand.
    OriginalPretends,
    /// A session is found after it has expired.
    KeepExpired,
    /// A session is found after it was removed.
    KeepRemoved,
    /// A session is not found though it is there.
    LoseSession,
    /// The session of another id is found.
    OtherSession,
    /// A session is cut short.
    ShortenSession,
    /// An ADD finds a session in its way that is not there.
    PhantomMatch,
    /// A REMOVE removes what was removed before.
    RemoveTwice,
    /// More is stored than the limits allow.
    IgnoreLimits,
    /// The store panics.
    Panic,
    /// Sessions are found after the server was killed and started again.
    SurviveRestart,
    /// Fences begin anew with every server.
    RepeatFences,
    /// After a restart locks are granted at once, whoever may still hold them.
    GrantAtOnce,
    /// The locks of a broken link are released at once.
    ForgetGrace,
    /// What is held over a connection stays when it is gone.
    KeepLocksOfTheDead,
    /// The server does not notice that a connection is gone.
    ForgetToClose,
    /// Leases and waits never end by themselves.
    SleepOverLocks,
    /// A grant to one who waits is not told.
    LoseGrant,
    /// Somebody else can release a lock.
    ReleaseOfOthers,
    /// Who came later is granted first.
    HoldBackWaiters,
    /// A lost lock is claimed with success.
    ClaimsAlwaysGood,
    /// What is not held is renewed.
    RenewAlways,
    /// What was granted is said to be refused.
    RefuseGranted,
    /// The answers of the text protocol change places.
    SwapLines,
    /// An agent tries to reach its server again without a pause.
    NoRetryPause,
    /// The pauses of an agent are those of an outage, even after a link that lasted.
    PauseNeverReset,
    /// All agents draw the same random numbers for their pauses.
    AgentsInStep,
    /// An agent that ends closes its link without BYE.
    NoBye,
    /// An agent goes on behind HELLO as if it had been answered.
    ClaimBeforeWelcome,
    /// An agent takes GOAWAY for the loss of its link.
    GoAwayAsLoss,
    /// An agent that ends closes idle connections without reading once more.
    DrainUnread,
    /// An agent that ends closes connections without a request so far at once.
    NoDrainGrace,
    /// An agent that ends keeps connections without a request for as long as it can.
    EndlessDrainGrace,
    /// An agent waits for applications that do not read for as long as they like.
    NoWriteTimeout,
    /// A local connection that has spent its budget is not served again.
    ForgetMoreLocal,
    /// Waiters are not cancelled when the server shuts down.
    KeepWaiters,
    /// Locks are granted while the server shuts down.
    GrantWhileDraining,
    /// The server closes connections at the beginning of its shutdown, whatever is still to be written.
    LoseAnswersAtEnd,
    /// The server closes idle connections at the beginning of its shutdown without reading once more.
    IgnoreKernelInput,
    /// Connections that have received nothing stay open while the server shuts down.
    KeepNewcomers,
    /// A connection is served as long as it has input.
    IgnoreBudget,
    /// A connection that has spent its budget is not woken again.
    ForgetMore,
}

impl PlantedBug {
    /// Whether it is done to the sessions.
    pub(crate) const fn is_of_the_store(self) -> bool {
        matches!(
            self,
            Self::KeepExpired
                | Self::KeepRemoved
                | Self::LoseSession
                | Self::OtherSession
                | Self::ShortenSession
                | Self::PhantomMatch
                | Self::RemoveTwice
                | Self::Panic
        )
    }
}

/// One answer in so many is tampered with.
const ANSWERS_BETWEEN: u64 = 40;

/// Stands between an application and its answers.
#[derive(Debug)]
pub(crate) struct AnswerTamperer {
    sabotage: PlantedBug,
    seen: u64,
    held: Option<Message>,
}

impl AnswerTamperer {
    /// Does this, now and then.
    pub(crate) const fn new(sabotage: PlantedBug) -> Self {
        Self { sabotage, seen: 0, held: None }
    }

    /// What becomes of an answer.
    pub(crate) fn pass(&mut self, mut answer: Message) -> Vec<Message> {
        let swaps_uids = self.sabotage == PlantedBug::SwapUids;
        let suits = |held: &mut Message| {
            let same_kind = held.head.operation == answer.head.operation;
            same_kind != swaps_uids && held.data != answer.data
        };
        if let Some(mut held) = self.held.take_if(suits) {
            if swaps_uids {
                std::mem::swap(&mut held.head.uid, &mut answer.head.uid);
            } else {
                std::mem::swap(&mut held.data, &mut answer.data);
            }
            return vec![held, answer];
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(ANSWERS_BETWEEN) {
            return vec![answer];
        }
        match self.sabotage {
            PlantedBug::SwapAnswers | PlantedBug::SwapUids if self.held.is_none() => {
                self.held = Some(answer);
                Vec::new()
            }
            PlantedBug::DropAnswer => Vec::new(),
            PlantedBug::AnswerTwice => vec![answer.clone(), answer],
            PlantedBug::SayDisconnected => {
                answer.data = vec![SessionStatus::Disconnected as u8];
                vec![answer]
            }
            _ => vec![answer],
        }
    }
}

/// A store that does wrong.
pub(crate) struct FaultyStore {
    good: ShardedSessions,
    sabotage: PlantedBug,
    /// Every session that was ever stored, the last one under each id.
    ever: Mutex<BTreeMap<Vec<u8>, OldAnswers>>,
}

struct OldAnswers {
    session: Vec<u8>,
    expires: Time,
    removed: bool,
}

impl FaultyStore {
    /// Does this to what `good` says.
    pub(crate) const fn new(good: ShardedSessions, sabotage: PlantedBug) -> Self {
        Self { good, sabotage, ever: Mutex::new(BTreeMap::new()) }
    }

    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<Vec<u8>, OldAnswers>) -> R) -> R {
        act(&mut self.ever.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn was_ever(&self, id: SessionId<'_>) -> bool {
        self.with(|ever| ever.contains_key(id.as_bytes()))
    }
}

impl SessionStore for FaultyStore {
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        if self.sabotage == PlantedBug::PhantomMatch && session.len() % 16 == 5 {
            return AddOutcome::Matching;
        }
        let added = self.good.add(now, id, session, timeout_ms);
        if matches!(added, AddOutcome::Stored { .. }) {
            let expires = now.after_ms(u64::from(timeout_ms));
            let old = OldAnswers { session: session.to_vec(), expires, removed: false };
            self.with(|ever| ever.insert(id.as_bytes().to_vec(), old));
        }
        added
    }

    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let found = self.good.get(now, id, out);
        match self.sabotage {
            PlantedBug::LoseSession if found && (out.len() - start) % 16 == 5 => {
                out.truncate(start);
                false
            }
            PlantedBug::ShortenSession if found && out.len() - start > 2_048 => {
                out.truncate(start + 2_048);
                true
            }
            PlantedBug::OtherSession if found => self.with(|ever| {
                if let Some((_, other)) = ever.range(id.as_bytes().to_vec()..).nth(1) {
                    out.truncate(start);
                    out.extend_from_slice(&other.session);
                }
                true
            }),
            PlantedBug::KeepExpired | PlantedBug::KeepRemoved if !found => self.with(|ever| {
                let wants_removed = self.sabotage == PlantedBug::KeepRemoved;
                let suits =
                    |old: &&OldAnswers| old.removed == wants_removed && (old.expires > now) == wants_removed;
                let Some(old) = ever.get(id.as_bytes()).filter(suits) else { return false };
                out.extend_from_slice(&old.session);
                true
            }),
            _ => found,
        }
    }

    fn remove(&self, now: Time, id: SessionId<'_>) -> bool {
        let removed = self.good.remove(now, id);
        if removed {
            self.with(|ever| ever.get_mut(id.as_bytes()).map(|old| old.removed = true));
        }
        removed || (self.sabotage == PlantedBug::RemoveTwice && self.was_ever(id))
    }

    fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        assert_ne!(self.sabotage, PlantedBug::Panic, "planted");
        self.good.have(now, id)
    }

    fn expire(&self, now: Time) -> ExpiryStep {
        self.good.expire(now)
    }

    fn totals(&self, now: Time) -> SessionTotals {
        self.good.totals(now)
    }
}
