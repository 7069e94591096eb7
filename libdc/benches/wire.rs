//! The cost of parsing and encoding messages, in batches as a socket delivers them.
//!
//! The times are those of a batch of [`BATCH`] messages; criterion also prints messages per second.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use libdc::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{MessageReader, write_message};
use std::hint::black_box;

/// The number of messages in one batch.
const BATCH: u32 = 64;

const GET: Operation = Operation::Session(SessionOperation::Get);

/// `BATCH` messages with `data_len` bytes of data each.
fn batch(direction: Direction, data_len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    let data = vec![0x5a; data_len];
    for uid in 0..BATCH {
        let head = MessageHead { direction, ..MessageHead::request(uid, GET) };
        write_message(&mut stream, head, &data);
    }
    stream
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let kinds = [
        ("get request of 46 bytes", Direction::Request, 32),
        ("get response of 194 bytes", Direction::Response, 180),
        ("get response of 3 frames", Direction::Response, 5000),
    ];
    for (name, direction, data_len) in kinds {
        let stream = batch(direction, data_len);
        let mut reader = MessageReader::new(Some(direction));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut input = black_box(stream.as_slice());
                while let Some(message) = reader.next(&mut input).expect("a valid stream") {
                    black_box((message.head.uid, message.head.operation, message.data));
                }
            });
        });
    }
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for (name, data_len) in
        [("status response of 15 bytes", 1), ("get response of 194 bytes", 180), ("3 frames", 5000)]
    {
        let data = vec![0x5a; data_len];
        let mut out = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                for uid in 0..BATCH {
                    write_message(&mut out, MessageHead::request(uid, GET).response(), black_box(&data));
                }
                black_box(out.as_slice());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
