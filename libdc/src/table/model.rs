//! Naive models of the session tables, and random operations on tables and models alike.

use super::{AddOutcome, SessionLimits, SessionStore, SessionTable, SessionTotals, ShardedSessions};
use crate::id::SessionId;
use crate::time::Time;
use proptest::prelude::*;
use std::sync::Mutex;

/// Sessions in the order of their insertion. Expired ones are removed at once.
struct NaiveSessions {
    limits: SessionLimits,
    sessions: Vec<(Vec<u8>, Vec<u8>, Time)>,
    evicted: u64,
    expired: u64,
}

impl NaiveSessions {
    fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: Vec::new(), evicted: 0, expired: 0 }
    }

    fn at(&mut self, now: Time) {
        let before = self.sessions.len();
        self.sessions.retain(|(.., expires)| *expires > now);
        self.expired += (before - self.sessions.len()) as u64;
    }

    fn bytes(&self) -> usize {
        self.sessions.iter().map(|(id, session, _)| id.len() + session.len()).sum()
    }

    fn index_of(&self, id: &[u8]) -> Option<usize> {
        self.sessions.iter().position(|(other, ..)| other == id)
    }

    fn full(&self, more: usize) -> bool {
        let SessionLimits { sessions, bytes } = self.limits;
        sessions > 0 && self.sessions.len() as u64 + 1 > sessions
            || bytes > 0 && (self.bytes() + more) as u64 > bytes
    }

    fn add(&mut self, now: Time, id: &[u8], session: &[u8], timeout_ms: u32) -> AddOutcome {
        let size = id.len() + session.len();
        if self.limits.bytes > 0 && size as u64 > self.limits.bytes {
            return AddOutcome::TooLarge;
        }
        if self.index_of(id).is_some() {
            return AddOutcome::Matching;
        }
        let expires = now.after_ms(u64::from(timeout_ms)).min(Time::from_ms((1 << 44) - 1));
        if expires <= now {
            return AddOutcome::Stored { evicted: 0 };
        }
        let mut evicted = 0;
        while self.full(size) {
            // The first minimum: the oldest of the sessions that expire together.
            let soonest = (0..self.sessions.len()).min_by_key(|index| self.sessions[*index].2).unwrap();
            self.sessions.remove(soonest);
            evicted += 1;
        }
        self.evicted += evicted as u64;
        self.sessions.push((id.to_vec(), session.to_vec(), expires));
        AddOutcome::Stored { evicted }
    }

    fn totals(&self) -> SessionTotals {
        let Self { evicted, expired, .. } = *self;
        SessionTotals { sessions: self.sessions.len() as u64, bytes: self.bytes() as u64, evicted, expired }
    }
}

/// Adapts a bare table to the store trait, so that one driver serves all.
struct Bare(Mutex<SessionTable>);

impl SessionStore for Bare {
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        self.0.lock().unwrap().add(now, id, session, timeout_ms)
    }

    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool {
        let table = self.0.lock().unwrap();
        let session = table.get(now, id);
        out.extend_from_slice(session.unwrap_or_default());
        session.is_some()
    }

    fn remove(&self, now: Time, id: SessionId<'_>) -> bool {
        self.0.lock().unwrap().remove(now, id)
    }

    fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        self.0.lock().unwrap().have(now, id)
    }

    fn prefetch(&self, ids: &[SessionId<'_>]) {
        self.0.lock().unwrap().prefetch(ids);
    }

    fn expire(&self, now: Time) -> super::ExpiryStep {
        let mut table = self.0.lock().unwrap();
        super::ExpiryStep { sessions: table.expire(now, 3), next: table.next_expiry() }
    }

    fn totals(&self, _: Time) -> SessionTotals {
        self.0.lock().unwrap().totals()
    }
}

#[derive(Clone, Debug)]
enum ModelStep {
    Wait(u64),
    Add { id: Vec<u8>, len: usize, timeout_ms: u32 },
    Get(Vec<u8>),
    Remove(Vec<u8>),
    Have(Vec<u8>),
    Prefetch(Vec<Vec<u8>>),
    Expire,
    Count,
}

fn ids() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..12u8).prop_map(|n| vec![n]),
        2 => (0..60u8).prop_map(|n| vec![n; 1 + n as usize % 5]),
        1 => (0..3u8).prop_map(|n| vec![n; 64]),
    ]
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let wait = prop_oneof![3 => 0..3u64, 2 => 3..30u64, 1 => prop::sample::select(vec![100, 5_000, 1 << 40])];
    let timeout = prop_oneof![1 => Just(0), 3 => 1..4u32, 4 => 4..60u32, 1 => Just(604_800_000)];
    let len = prop_oneof![5 => 0..12usize, 1 => 12..80usize];
    let step = prop_oneof![
        3 => wait.prop_map(ModelStep::Wait),
        8 => (ids(), len, timeout).prop_map(|(id, len, timeout_ms)| ModelStep::Add { id, len, timeout_ms }),
        4 => ids().prop_map(ModelStep::Get),
        2 => ids().prop_map(ModelStep::Remove),
        1 => ids().prop_map(ModelStep::Have),
        1 => prop::collection::vec(ids(), 0..40).prop_map(ModelStep::Prefetch),
        1 => Just(ModelStep::Expire),
        1 => Just(ModelStep::Count),
    ];
    prop::collection::vec(step, 1..300)
}

fn limits() -> impl Strategy<Value = SessionLimits> {
    let sessions = prop::sample::select(vec![0, 1, 2, 7, 20]);
    let bytes = prop::sample::select(vec![0, 1, 10, 60, 200]);
    (sessions, bytes).prop_map(|(sessions, bytes)| SessionLimits { sessions, bytes })
}

/// Applies `steps` to a store and to the model, and compares every answer.
fn drive(
    store: &impl SessionStore,
    limits: SessionLimits,
    start: Time,
    steps: &[ModelStep],
) -> Result<(), TestCaseError> {
    let key = |id| SessionId::new(id).unwrap();
    let mut model = NaiveSessions::new(limits);
    let mut now = start;
    for (number, step) in steps.iter().enumerate() {
        model.at(now);
        match step {
            ModelStep::Wait(ms) => now = now.after_ms(*ms),
            ModelStep::Add { id, len, timeout_ms } => {
                let session = vec![number as u8; *len];
                let added = store.add(now, key(id), &session, *timeout_ms);
                prop_assert_eq!(added, model.add(now, id, &session, *timeout_ms));
            }
            ModelStep::Get(id) => {
                let mut out = vec![1, 2];
                let found = store.get(now, key(id), &mut out);
                let expected = model.index_of(id).map(|index| &model.sessions[index].1[..]);
                prop_assert_eq!(found, expected.is_some());
                prop_assert_eq!(&out[..2], &[1, 2]);
                prop_assert_eq!(&out[2..], expected.unwrap_or_default());
            }
            ModelStep::Remove(id) => {
                let index = model.index_of(id);
                prop_assert_eq!(store.remove(now, key(id)), index.is_some());
                index.map(|index| model.sessions.remove(index));
            }
            ModelStep::Have(id) => prop_assert_eq!(store.have(now, key(id)), model.index_of(id).is_some()),
            ModelStep::Prefetch(ids) => store.prefetch(&ids.iter().map(|id| key(id)).collect::<Vec<_>>()),
            ModelStep::Expire => {
                store.expire(now);
            }
            ModelStep::Count => expire_and_compare_totals(store, &model, now)?,
        }
        // Not after every step, because counting triggers an expiry pass.
        if number % 7 != 0 {
            continue;
        }
        let totals = store.totals(now);
        prop_assert!(limits.allow(totals.sessions, totals.bytes), "{totals:?}");
        prop_assert_eq!(totals.evicted, model.evicted);
    }
    model.at(now);
    expire_and_compare_totals(store, &model, now)
}

fn expire_and_compare_totals(
    store: &impl SessionStore,
    model: &NaiveSessions,
    now: Time,
) -> Result<(), TestCaseError> {
    while store.expire(now).next.is_some_and(|next| next <= now) {}
    prop_assert_eq!(store.totals(now), model.totals());
    prop_assert_eq!(store.expire(now).next, model.sessions.iter().map(|(.., expires)| *expires).min());
    Ok(())
}

proptest! {
    #[test]
    fn table_and_sharded_store_match_model(
        limits in limits(),
        steps in steps(),
        start in prop::sample::select(vec![0, 1_000, (1 << 44) - 60, u64::MAX - 60]),
        seed in any::<[u64; 2]>(),
    ) {
        let start = Time::from_ms(start);
        drive(&Bare(Mutex::new(SessionTable::new(limits, seed))), limits, start, &steps)?;
        for shards in [1, 4] {
            drive(&ShardedSessions::new(shards, limits, seed), limits, start, &steps)?;
        }
    }
}
