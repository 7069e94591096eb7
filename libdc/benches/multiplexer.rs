//! The cost of the machines without a socket: a request and its answer through the agent's multiplexer, and
//! through the server's side of a connection.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use libdc::id::{ConnectionId, LinkId, SessionId};
use libdc::proto::agent::multiplexer::{Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::LinkState;
use libdc::proto::server::{ServerConnection, ServerContext, ServerTimeouts};
use libdc::service::{Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use libdc::wire::frame::{MessageHead, Operation, SessionOperation};
use libdc::wire::message::write_message;
use libdc::wire::session::AddRequest;
use std::hint::black_box;
use std::sync::Arc;

const NOW: Time = Time::from_ms(1);
const GET: Operation = Operation::Session(SessionOperation::Get);
const ADD: Operation = Operation::Session(SessionOperation::Add);
const SESSION: [u8; 180] = [7; 180];

fn service() -> Arc<Service> {
    let sessions = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
    let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
    let locks = ShardedLocks::new(1, settings, FenceSource::starting_at(1), [3; 32]);
    let links = LinkPolicy { grace_ms: 10_000, auto_release: true };
    Arc::new(Service::new(Arc::new(sessions), locks, links, None))
}

/// A step of the server's side, with what its driver does around it.
fn answer(connection: &mut ServerConnection, service: &Service, asked: &[u8], out: &mut Vec<u8>) {
    let (mut effects, mut counters) = (Effects::new(), RequestCounters::default());
    let (effects, counters) = (&mut effects, &mut counters);
    let mut cx = ServerContext { now: NOW, service, output: out, effects, counters };
    connection.begin_turn(&mut cx);
    connection.handle_input(&mut cx, asked);
    service.record(counters);
}

fn stored(service: &Service) -> ServerConnection {
    let mut connection =
        ServerConnection::new(NOW, ConnectionId::new(1), service, ServerTimeouts { read_ms: 0, write_ms: 0 });
    let mut data = Vec::new();
    for number in 0..1_000_u32 {
        let id = id(number);
        let Some(id) = SessionId::new(&id) else { continue };
        data.clear();
        AddRequest { timeout_ms: 600_000, id, session: &SESSION }.write(&mut data);
        let mut request = Vec::new();
        write_message(&mut request, MessageHead::request(number, ADD), &data);
        let mut out = Vec::new();
        answer(&mut connection, service, &request, &mut out);
    }
    connection
}

fn id(number: u32) -> [u8; 32] {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    id[28..].copy_from_slice(&number.to_be_bytes());
    id
}

fn gets(depth: u32) -> Vec<u8> {
    let mut requests = Vec::new();
    for number in 0..depth {
        write_message(&mut requests, MessageHead::request(number, GET), &id(number));
    }
    requests
}

fn server(c: &mut Criterion) {
    let mut group = c.benchmark_group("server connection: GET of 180 bytes");
    for depth in [1_u32, 16, 64] {
        let service = service();
        let mut connection = stored(&service);
        let requests = gets(depth);
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(u64::from(depth)));
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            b.iter(|| {
                out.clear();
                answer(&mut connection, &service, black_box(&requests), &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn agent(c: &mut Criterion) {
    let mut group = c.benchmark_group("multiplexer: GET of 180 bytes there and back");
    for locals in [1_usize, 64] {
        let service = service();
        let mut connection = stored(&service);
        let mut multiplexer = Multiplexer::new(
            MultiplexerSettings { timeout_ms: 5_000, idle_ms: 0 },
            LinkIdentity { link_id: LinkId::new([3; 16]), auth_token: None },
        );
        let mut answers = Vec::new();
        multiplexer.link_connected(NOW, &[9; 32]);
        let ids: Vec<_> = (0..locals).map(|_| multiplexer.local_open(NOW)).collect();
        let request = gets(1);
        let mut exchange = |multiplexer: &mut Multiplexer| {
            answers.clear();
            let asked = multiplexer.link_poll_output();
            answer(&mut connection, &service, asked, &mut answers);
            multiplexer.link_wrote(NOW, multiplexer.link_poll_output().len());
            multiplexer.link_handle_input(NOW, &answers);
        };
        // The probe, and then the messages that open the link.
        exchange(&mut multiplexer);
        exchange(&mut multiplexer);
        exchange(&mut multiplexer);
        assert!(matches!(multiplexer.link_phase(), LinkState::Up { .. }));
        group.throughput(Throughput::Elements(locals as u64));
        group.bench_function(BenchmarkId::new("local connections", locals), |b| {
            b.iter(|| {
                for id in &ids {
                    multiplexer.local_handle_input(NOW, *id, black_box(&request));
                }
                exchange(&mut multiplexer);
                while let Some(id) = multiplexer.poll_ready() {
                    let len = multiplexer.local_poll_output(NOW, id).len();
                    multiplexer.local_wrote(NOW, id, len);
                    assert!(!multiplexer.local_needs_turn(id), "good requests");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, server, agent);
criterion_main!(benches);
