//! Arbitrary operations on the session table, alone and sharded, each answer compared with that of a list.
#![no_main]

use libdc::id::SessionId;
use libdc::table::{AddOutcome, SessionLimits, SessionStore, SessionTable, ShardedSessions};
use libdc::time::Time;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Run {
    sessions_max: u8,
    bytes_max: u16,
    shards: u8,
    seed: [u64; 2],
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait { ms: u16 },
    Add { id: Id, len: u8, timeout_ms: u16 },
    Get { id: Id },
    Remove { id: Id },
    Have { id: Id },
    Expire { at_most: u8 },
}

/// Few enough to force collisions.
#[derive(Arbitrary, Debug)]
struct Id {
    byte: u8,
    len: u8,
}

impl Id {
    fn bytes(&self) -> Vec<u8> {
        vec![self.byte % 32; 1 + usize::from(self.len % 64)]
    }
}

/// Id, session and expiry time, in the order of insertion.
struct List {
    limits: SessionLimits,
    sessions: Vec<(Vec<u8>, Vec<u8>, Time)>,
}

impl List {
    fn bytes(&self) -> u64 {
        self.sessions.iter().map(|(id, session, _)| (id.len() + session.len()) as u64).sum()
    }

    fn get(&self, id: &[u8]) -> Option<&[u8]> {
        self.sessions.iter().find(|(other, ..)| other == id).map(|(_, session, _)| &session[..])
    }

    fn remove(&mut self, id: &[u8]) -> bool {
        let before = self.sessions.len();
        self.sessions.retain(|(other, ..)| other != id);
        self.sessions.len() < before
    }

    fn add(&mut self, now: Time, id: &[u8], session: &[u8], timeout_ms: u32) -> AddOutcome {
        let size = (id.len() + session.len()) as u64;
        let SessionLimits { sessions, bytes } = self.limits;
        if bytes > 0 && size > bytes {
            return AddOutcome::TooLarge;
        }
        if self.get(id).is_some() {
            return AddOutcome::Matching;
        }
        let mut evicted = 0;
        if timeout_ms > 0 {
            let is_full = |list: &Self| {
                sessions > 0 && list.sessions.len() as u64 >= sessions
                    || bytes > 0 && list.bytes() + size > bytes
            };
            while is_full(self) {
                let soonest = (0..self.sessions.len()).min_by_key(|place| self.sessions[*place].2);
                self.sessions.remove(soonest.expect("what is full is not empty"));
                evicted += 1;
            }
            self.sessions.push((id.to_vec(), session.to_vec(), now.after_ms(timeout_ms.into())));
        }
        AddOutcome::Stored { evicted }
    }
}

fuzz_target!(|run: Run| {
    let limits = SessionLimits { sessions: run.sessions_max.into(), bytes: run.bytes_max.into() };
    let mut table = SessionTable::new(limits, run.seed);
    let shards = ShardedSessions::new(1 + usize::from(run.shards % 8), limits, run.seed);
    let mut list = List { limits, sessions: Vec::new() };
    let mut now = Time::from_ms(0);
    for (number, step) in run.steps.iter().enumerate() {
        list.sessions.retain(|(.., expires)| *expires > now);
        match step {
            Step::Wait { ms } => now = now.after_ms((*ms).into()),
            Step::Add { id, len, timeout_ms } => {
                let (id, session) = (id.bytes(), vec![number as u8; (*len).into()]);
                let (key, timeout_ms) = (SessionId::new(&id).expect("1 to 64 bytes"), u32::from(*timeout_ms));
                let expected = list.add(now, &id, &session, timeout_ms);
                assert_eq!(table.add(now, key, &session, timeout_ms), expected);
                assert_eq!(shards.add(now, key, &session, timeout_ms), expected);
            }
            Step::Get { id } => {
                let id = id.bytes();
                let key = SessionId::new(&id).expect("1 to 64 bytes");
                assert_eq!(table.get(now, key), list.get(&id));
                let mut out = Vec::new();
                assert_eq!(shards.get(now, key, &mut out).then_some(&out[..]), list.get(&id));
            }
            Step::Remove { id } => {
                let id = id.bytes();
                let key = SessionId::new(&id).expect("1 to 64 bytes");
                let expected = list.remove(&id);
                assert_eq!(table.remove(now, key), expected);
                assert_eq!(shards.remove(now, key), expected);
            }
            Step::Have { id } => {
                let id = id.bytes();
                let key = SessionId::new(&id).expect("1 to 64 bytes");
                assert_eq!(table.have(now, key), list.get(&id).is_some());
                assert_eq!(shards.have(now, key), list.get(&id).is_some());
            }
            Step::Expire { at_most } => {
                assert!(table.expire(now, (*at_most).into()) <= (*at_most).into());
                shards.expire(now);
            }
        }
    }
    list.sessions.retain(|(.., expires)| *expires > now);
    table.expire(now, usize::MAX);
    while shards.expire(now).next.is_some_and(|next| next <= now) {}
    let counted = (list.sessions.len() as u64, list.bytes());
    assert_eq!((table.len() as u64, table.bytes()), counted);
    let totals = shards.totals(now);
    assert_eq!((totals.sessions, totals.bytes), counted);
});
