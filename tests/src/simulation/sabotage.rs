//! Planted bugs, by which the checks are checked: each must be found.

use libdc::id::SessionId;
use libdc::table::{Added, Expired, SessionStore, SessionTotals, ShardedSessions};
use libdc::time::Time;
use libdc::wire::message::Message;
use libdc::wire::session::Status;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// Two answers to an application change places, their uids staying where they are.
    SwapAnswers,
    /// Two answers to an application exchange their uids.
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
}

impl Sabotage {
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
        )
    }
}

/// One answer in so many is tampered with.
const ANSWERS_BETWEEN: u64 = 40;

/// Stands between an application and its answers.
#[derive(Debug)]
pub(crate) struct Tamperer {
    sabotage: Sabotage,
    seen: u64,
    held: Option<Message>,
}

impl Tamperer {
    /// Does this, now and then.
    pub(crate) const fn new(sabotage: Sabotage) -> Self {
        Self { sabotage, seen: 0, held: None }
    }

    /// What becomes of an answer.
    pub(crate) fn pass(&mut self, mut answer: Message) -> Vec<Message> {
        if let Some(mut held) = self.held.take() {
            if self.sabotage == Sabotage::SwapUids {
                std::mem::swap(&mut held.head.uid, &mut answer.head.uid);
            } else {
                std::mem::swap(&mut held.data, &mut answer.data);
            }
            return vec![held, answer];
        }
        self.seen += 1;
        if self.seen % ANSWERS_BETWEEN != 0 {
            return vec![answer];
        }
        match self.sabotage {
            Sabotage::SwapAnswers | Sabotage::SwapUids => {
                self.held = Some(answer);
                Vec::new()
            }
            Sabotage::DropAnswer => Vec::new(),
            Sabotage::AnswerTwice => vec![answer.clone(), answer],
            Sabotage::SayDisconnected => {
                answer.data = vec![Status::Disconnected as u8];
                vec![answer]
            }
            _ => vec![answer],
        }
    }
}

/// A store that does wrong.
pub(crate) struct BadStore {
    good: ShardedSessions,
    sabotage: Sabotage,
    /// Every session that was ever stored.
    ever: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl BadStore {
    /// Does this to what `good` says.
    pub(crate) const fn new(good: ShardedSessions, sabotage: Sabotage) -> Self {
        Self { good, sabotage, ever: Mutex::new(BTreeMap::new()) }
    }

    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> R) -> R {
        act(&mut self.ever.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn was_ever(&self, id: SessionId<'_>) -> bool {
        self.with(|ever| ever.contains_key(id.as_bytes()))
    }
}

impl SessionStore for BadStore {
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> Added {
        if self.sabotage == Sabotage::PhantomMatch && session.len() % 16 == 5 {
            return Added::Matching;
        }
        let added = self.good.add(now, id, session, timeout_ms);
        if matches!(added, Added::Stored { .. }) {
            self.with(|ever| ever.insert(id.as_bytes().to_vec(), session.to_vec()));
        }
        added
    }

    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let found = self.good.get(now, id, out);
        match self.sabotage {
            Sabotage::LoseSession if found && (out.len() - start) % 16 == 5 => {
                out.truncate(start);
                false
            }
            Sabotage::ShortenSession if found && out.len() - start > 2_048 => {
                out.truncate(start + 2_048);
                true
            }
            Sabotage::OtherSession if found => self.with(|ever| {
                if let Some((_, other)) = ever.range(id.as_bytes().to_vec()..).nth(1) {
                    out.truncate(start);
                    out.extend_from_slice(other);
                }
                true
            }),
            Sabotage::KeepExpired | Sabotage::KeepRemoved if !found => self.with(|ever| {
                let old = ever.get(id.as_bytes());
                out.extend_from_slice(old.map_or(&[], Vec::as_slice));
                old.is_some()
            }),
            _ => found,
        }
    }

    fn remove(&self, now: Time, id: SessionId<'_>) -> bool {
        let removed = self.good.remove(now, id);
        if self.sabotage == Sabotage::KeepExpired && removed {
            self.with(|ever| ever.remove(id.as_bytes()));
        }
        removed || (self.sabotage == Sabotage::RemoveTwice && self.was_ever(id))
    }

    fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        self.good.have(now, id)
    }

    fn expire(&self, now: Time) -> Expired {
        self.good.expire(now)
    }

    fn totals(&self, now: Time) -> SessionTotals {
        self.good.totals(now)
    }
}
