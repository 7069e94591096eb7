//! The cost of an operation on the lock table, by the number of held locks.
//!
//! `cargo bench -p libdc --bench locks`; arguments such as `-- acquire` or `-- 1000000` select a part. Keys
//! have about 16 bytes and are used in random order.
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use libdc::id::{ConnectionId, LockKey, Owner, Token};
use libdc::table::{
    Completion, FenceSource, LockOutcome, LockSettings, OwnerKey, ReplyTo, ShardedLocks, WaiterId,
};
use libdc::time::Time;
use std::hint::black_box;
use std::time::Duration;

const SETTINGS: LockSettings =
    LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
const NOW: Time = Time::from_ms(1_000);
const QUEUE: u64 = 100_000;

fn locks() -> ShardedLocks {
    ShardedLocks::new(1, SETTINGS, FenceSource::starting_at(0), [7; 32])
}

fn owner(number: u64) -> Owner {
    Owner { connection: ConnectionId::new(number), local: 0 }
}

fn acquire(
    locks: &ShardedLocks,
    owner: Owner,
    key: &str,
    timeout_ms: u64,
    effects: &mut Vec<Completion>,
) -> LockOutcome {
    let reply = ReplyTo { connection: owner.connection, uid: 0 };
    match LockKey::new(key) {
        Some(key) => locks.acquire(NOW, OwnerKey { owner, key }, 1, 0, timeout_ms, reply, effects),
        None => LockOutcome::MaxLocks,
    }
}

fn token(outcome: LockOutcome) -> Token {
    if let LockOutcome::Granted(grant) = outcome { grant.token } else { Token::new(0, 0) }
}

fn release(locks: &ShardedLocks, key: &str, token: Token, effects: &mut Vec<Completion>) -> bool {
    LockKey::new(key).is_some_and(|key| locks.release(NOW, key, token, effects))
}

/// A table with `size` held locks, of one owner or of as many owners of a link.
fn filled(size: u64, owners: u64) -> ShardedLocks {
    let locks = locks();
    for n in 0..size {
        let owner = Owner { connection: ConnectionId::new(1), local: n % owners };
        acquire(&locks, owner, &format!("held-{n:011}"), 0, &mut Vec::new());
    }
    locks
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("locks");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for size in [1_000, 1_000_000] {
        let locks = filled(size, 1);
        let keys: Vec<String> = (0..size).map(|n| format!("free-{n:011}")).collect();
        let mut effects = Vec::new();
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % keys.len()
        };
        group.bench_function(BenchmarkId::new("acquire_release_one_key", size), |bencher| {
            bencher.iter(|| {
                let token = token(acquire(&locks, owner(2), "key", 0, &mut effects));
                black_box(release(&locks, "key", token, &mut effects))
            });
        });
        group.bench_function(BenchmarkId::new("acquire_release", size), |bencher| {
            bencher.iter(|| {
                let key = &keys[next()];
                let token = token(acquire(&locks, owner(2), key, 0, &mut effects));
                black_box(release(&locks, key, token, &mut effects))
            });
        });
    }
    hand_over(&mut group);
    close_connection(&mut group);
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// A key circulates among 64 owners, each of which waits for it again after its release.
fn hand_over(group: &mut Group<'_>) {
    let locks = locks();
    let mut effects = Vec::new();
    let mut held = token(acquire(&locks, owner(0), "key", 0, &mut effects));
    for n in 1..=64 {
        acquire(&locks, owner(n), "key", 9_000, &mut effects);
    }
    let mut holder = 0;
    group.bench_function("hand_over_among_64", |bencher| {
        bencher.iter(|| {
            release(&locks, "key", held, &mut effects);
            acquire(&locks, owner(holder), "key", 9_000, &mut effects);
            for effect in effects.drain(..) {
                (held, holder) = (token(effect.outcome), effect.reply.connection.number());
            }
        });
    });
}

/// All waiters of a key leave.
fn close_connection(group: &mut Group<'_>) {
    let queue = || {
        let locks = locks();
        let mut effects = Vec::new();
        let tickets: Vec<WaiterId> = (0..=QUEUE)
            .filter_map(|n| match acquire(&locks, owner(n), "key", 9_000 + n % 7, &mut effects) {
                LockOutcome::Waiting(ticket) => Some(ticket),
                _ => None,
            })
            .collect();
        (locks, tickets)
    };
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("cancel_all", QUEUE), |bencher| {
        bencher.iter_batched(
            queue,
            |(locks, tickets)| {
                let mut effects = Vec::new();
                let count = tickets.iter().filter(|ticket| locks.cancel(NOW, **ticket, &mut effects)).count();
                (locks, count)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function(BenchmarkId::new("disconnect_all", QUEUE), |bencher| {
        bencher.iter_batched(
            queue,
            |(locks, _)| {
                let mut effects = Vec::new();
                for n in 1..=QUEUE {
                    locks.release_connection(NOW, ConnectionId::new(n), &mut effects);
                }
                locks
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function(BenchmarkId::new("time_out_all", QUEUE), |bencher| {
        bencher.iter_batched(
            queue,
            |(locks, _)| {
                let mut effects = Vec::with_capacity(QUEUE as usize);
                let end = Time::from_ms(20_000);
                while locks.advance(end, &mut effects).is_some_and(|next| next <= end) {}
                (locks, effects)
            },
            BatchSize::PerIteration,
        );
    });
    for owners in [1, 1_000_000] {
        group.bench_function(BenchmarkId::new("release_a_million_of_owners", owners), |bencher| {
            bencher.iter_batched(
                || filled(1_000_000, owners),
                |locks| {
                    locks.release_connection(NOW, ConnectionId::new(1), &mut Vec::new());
                    locks
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
