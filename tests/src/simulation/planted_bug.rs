//! Planted bugs that validate the checks: each must be found.

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
    /// Two answers to requests of one kind are swapped; their uids stay.
    SwapAnswers,
    /// Two answers to requests of different kinds have their uids swapped.
    SwapUids,
    /// An answer is dropped.
    DropAnswer,
    /// An answer is sent twice.
    AnswerTwice,
    /// DISCONNECTED replaces the server's answer.
    SayDisconnected,
    /// The agent does not notice the passage of time.
    DeafAgent,
    /// A distcache 1.x server claims to be a new one, so the agent sends messages that it does not
    /// understand.
    OriginalPretends,
    /// A lookup finds a session after it has expired.
    KeepExpired,
    /// A lookup finds a session after it was removed.
    KeepRemoved,
    /// A lookup does not find a session that is present.
    LoseSession,
    /// A lookup finds the session of another id.
    OtherSession,
    /// A session is truncated.
    ShortenSession,
    /// An ADD is refused because of a session that is not present.
    PhantomMatch,
    /// A REMOVE removes an already removed session.
    RemoveTwice,
    /// The store exceeds its limits.
    IgnoreLimits,
    /// The store panics.
    Panic,
    /// Sessions survive a kill and restart of the server.
    SurviveRestart,
    /// Every server process issues the same fences again.
    RepeatFences,
    /// After a restart locks are granted at once, without waiting for the grace period.
    GrantAtOnce,
    /// The locks of a broken link are released at once.
    ForgetGrace,
    /// Locks acquired over a connection stay held after its end.
    KeepLocksOfTheDead,
    /// The server does not detect the end of a connection.
    ForgetToClose,
    /// Leases and waits never expire.
    SleepOverLocks,
    /// A waiter is not notified of its grant.
    LoseGrant,
    /// A client can release the lock of another.
    ReleaseOfOthers,
    /// A later waiter is granted before an earlier one.
    HoldBackWaiters,
    /// A lost lock is claimed with success.
    ClaimsAlwaysGood,
    /// A renewal succeeds without a held lock.
    RenewAlways,
    /// A granted request is answered with a refusal.
    RefuseGranted,
    /// The answers of the line protocol are swapped.
    SwapLines,
    /// An agent reconnects without a pause.
    NoRetryPause,
    /// An agent keeps the pauses of an outage, even after a long-lived link.
    PauseNeverReset,
    /// All agents draw the same random numbers for their pauses.
    AgentsInStep,
    /// An agent that shuts down closes its link without BYE.
    NoBye,
    /// An agent continues after HELLO without waiting for the answer.
    ClaimBeforeWelcome,
    /// An agent treats GOAWAY as the loss of its link.
    GoAwayAsLoss,
    /// An agent that shuts down closes idle connections without a final read.
    DrainUnread,
    /// An agent that shuts down immediately closes connections that have not sent a request yet.
    NoDrainGrace,
    /// An agent that shuts down keeps connections without a request until its shutdown timeout.
    EndlessDrainGrace,
    /// An agent waits without limit for applications that do not read.
    NoWriteTimeout,
    /// A local connection that has used up its budget is not scheduled again.
    ForgetMoreLocal,
    /// Waiters are not cancelled when the server shuts down.
    KeepWaiters,
    /// Locks are granted while the server shuts down.
    GrantWhileDraining,
    /// The server closes connections at the beginning of its shutdown, even with output pending.
    LoseAnswersAtEnd,
    /// The server closes idle connections at the beginning of its shutdown without a final read.
    IgnoreKernelInput,
    /// Connections that have received nothing stay open during the shutdown of the server.
    KeepNewcomers,
    /// A connection is served as long as it has input, regardless of its budget.
    IgnoreBudget,
    /// A connection that has used up its budget is not scheduled again.
    ForgetMore,
}

impl PlantedBug {
    /// Whether the bug is in the session store.
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

/// Interval between answers that are tampered with, counted in answers.
const ANSWERS_BETWEEN: u64 = 40;

/// Tampers with the answers between the agent and an application.
#[derive(Debug)]
pub(crate) struct AnswerTamperer {
    sabotage: PlantedBug,
    seen: u64,
    held: Option<Message>,
}

impl AnswerTamperer {
    /// Plants this bug, if it concerns answers.
    pub(crate) const fn new(sabotage: PlantedBug) -> Self {
        Self { sabotage, seen: 0, held: None }
    }

    /// Passes an answer on, or tampers with it.
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

/// A faulty session store.
pub(crate) struct FaultyStore {
    good: ShardedSessions,
    sabotage: PlantedBug,
    /// The last session stored under each id.
    ever: Mutex<BTreeMap<Vec<u8>, OldAnswers>>,
}

struct OldAnswers {
    session: Vec<u8>,
    expires: Time,
    removed: bool,
}

impl FaultyStore {
    /// Wraps `good` and plants this bug in its results.
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
