//! The cost of an operation on the session table, by the number of sessions.
//!
//! `cargo bench -p libdc --bench table`; arguments such as `-- get` or `-- 1000000` select a part. Sessions
//! have ids of 32 bytes and 180 bytes of data. They are used in random order, so that the caches hold no more
//! than in production.
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use libdc::id::SessionId;
use libdc::limits::SESSION_TIMEOUT_MS_MAX;
use libdc::table::{SessionLimits, SessionStore, SessionTable, ShardedSessions};
use libdc::time::Time;
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES: [u64; 4] = [1_000, 100_000, 1_000_000, 4_000_000];
const SESSION: [u8; 180] = [7; 180];
const NOW: Time = Time::from_ms(1_000);

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for size in SIZES {
        get(&mut group, size);
        get_from_store(&mut group, size);
        remove_and_add(&mut group, size);
        add_at_the_limit(&mut group, size);
    }
    group.finish();
}

fn get(group: &mut BenchmarkGroup<'_, WallTime>, size: u64) {
    let table = filled(size, 0);
    let mut random = Random(1);
    group.bench_function(BenchmarkId::new("get", size), |bencher| {
        bencher.iter(|| {
            let id = id(random.next() % size);
            black_box(table.get(NOW, key(&id))).map(<[u8]>::len)
        });
    });
    group.bench_function(BenchmarkId::new("get_missing", size), |bencher| {
        bencher.iter(|| {
            let id = id(size + random.next() % size);
            black_box(table.have(NOW, key(&id)))
        });
    });
    group.bench_function(BenchmarkId::new("nothing_but_the_id", size), |bencher| {
        bencher.iter(|| black_box(id(random.next() % size)));
    });
}

/// The same behind a lock, with the session copied: one by one, and with 16 requests known in advance.
fn get_from_store(group: &mut BenchmarkGroup<'_, WallTime>, size: u64) {
    let store = ShardedSessions::new(1, SessionLimits::default(), [3, 4]);
    let mut random = Random(4);
    for n in 0..size {
        store.add(NOW, key(&id(n)), &SESSION, timeout_ms(&mut random));
    }
    let mut out = Vec::with_capacity(16 * SESSION.len());
    for known in [1, 16] {
        group.bench_function(BenchmarkId::new(format!("store_get_{known}_known"), size), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations.div_ceil(16) {
                    let ids: [[u8; 32]; 16] = std::array::from_fn(|_| id(random.next() % size));
                    let keys = ids.each_ref().map(key);
                    out.clear();
                    let start = Instant::now();
                    for keys in keys.chunks(known) {
                        if known > 1 {
                            store.prefetch(keys);
                        }
                        for key in keys {
                            black_box(store.get(NOW, *key, &mut out));
                        }
                    }
                    spent += start.elapsed();
                }
                spent.mul_f64(iterations as f64 / (iterations.div_ceil(16) * 16) as f64)
            });
        });
    }
}

/// Removes a hundred sessions and adds them again; each half is timed separately.
fn remove_and_add(group: &mut BenchmarkGroup<'_, WallTime>, size: u64) {
    let mut table = filled(size, 0);
    let mut random = Random(2);
    for timed_half in ["remove", "add"] {
        group.bench_function(BenchmarkId::new(timed_half, size), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations.div_ceil(100) {
                    let first = random.next() % size;
                    let ids: Vec<[u8; 32]> = (0..100).map(|n| id((first + n * 7919) % size)).collect();
                    let start = Instant::now();
                    for id in &ids {
                        black_box(table.remove(NOW, key(id)));
                    }
                    let removed = start.elapsed();
                    let start = Instant::now();
                    for id in &ids {
                        black_box(table.add(NOW, key(id), &SESSION, timeout_ms(&mut random)));
                    }
                    spent += if timed_half == "add" { start.elapsed() } else { removed };
                }
                spent.mul_f64(iterations as f64 / (iterations.div_ceil(100) * 100) as f64)
            });
        });
    }
}

/// Every ADD evicts: with equal timeouts, as in most installations, and with random ones.
fn add_at_the_limit(group: &mut BenchmarkGroup<'_, WallTime>, size: u64) {
    let mut table = filled(size, size);
    let mut random = Random(3);
    let mut next = size;
    group.bench_function(BenchmarkId::new("add_evicting", size), |bencher| {
        bencher.iter(|| {
            next += 1;
            table.add(Time::from_ms(1_000 + next / 64), key(&id(next)), &SESSION, SESSION_TIMEOUT_MS_MAX)
        });
    });
    group.bench_function(BenchmarkId::new("add_evicting_any_timeout", size), |bencher| {
        bencher.iter(|| {
            next += 1;
            table.add(NOW, key(&id(next)), &SESSION, timeout_ms(&mut random))
        });
    });
}

fn filled(size: u64, limit: u64) -> SessionTable {
    let mut table = SessionTable::new(SessionLimits { sessions: limit, bytes: 0 }, [3, 4]);
    let mut random = Random(4);
    for n in 0..size {
        table.add(NOW, key(&id(n)), &SESSION, timeout_ms(&mut random));
    }
    table
}

/// Several days, so that nothing expires.
fn timeout_ms(random: &mut Random) -> u32 {
    SESSION_TIMEOUT_MS_MAX / 2 + (random.next() % u64::from(SESSION_TIMEOUT_MS_MAX / 2)) as u32
}

fn id(n: u64) -> [u8; 32] {
    let mut id = [0; 32];
    let mut random = Random(n.wrapping_mul(0xd134_2543_de82_ef95));
    for part in id.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes());
    }
    id
}

fn key(id: &[u8; 32]) -> SessionId<'_> {
    SessionId::new(id).expect("32 bytes are an id")
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
