//! The connections of a server's threads are walked, frozen and thawed.

use dc_daemon::drivers::registry::Registry;
use dc_daemon::drivers::server::{ServerDriver, ServerSettings};
use dc_daemon::drivers::workers::Workers;
use dc_daemon::listen::limiter::{ConnectionLimiter, ConnectionLimits};
use libdc::net::clock::DriverClock;
use libdc::net::socket::Socket;
use libdc::service::{LinkPolicy, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

struct RegistryFixture {
    server: Arc<ServerDriver>,
    workers: Workers,
    limiter: Arc<ConnectionLimiter>,
}

impl RegistryFixture {
    fn new(threads: usize) -> Self {
        let sessions = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        let settings =
            LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
        let locks = ShardedLocks::new(1, settings, FenceSource::starting_at(1), [3; 32]);
        let links = LinkPolicy { grace_ms: 10_000, auto_release: true };
        let service = Arc::new(Service::new(Arc::new(sessions), locks, links, None));
        let settings = ServerSettings { read_timeout_ms: 23_000, write_timeout_ms: 5_000, progress: 0 };
        Self {
            server: Arc::new(ServerDriver::new(service, DriverClock::start(), settings)),
            workers: Workers::start(&Handle::current(), threads).expect("threads"),
            limiter: Arc::new(ConnectionLimiter::new(ConnectionLimits::default())),
        }
    }

    fn connect(&self) -> UnixStream {
        let (near, far) = UnixStream::pair().expect("a socket pair");
        let (server, permit) = (Arc::clone(&self.server), self.limiter.acquire());
        self.workers.spawn(Socket::Unix(far), move |socket| server.serve(socket, permit));
        near
    }

    /// Connections of each worker.
    async fn counts(&self) -> Vec<usize> {
        self.workers.visit(|registry: &mut Registry| registry.len()).await
    }
}

async fn ping(client: &mut UnixStream) {
    client.write_all(b"ping\n_\n\n").await.expect("written");
    assert_eq!(answer(client).await, "ok\n");
}

async fn answer(client: &mut UnixStream) -> String {
    let mut answer = [0; 64];
    let count = client.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test]
async fn registries_hold_the_connections_of_their_threads() {
    let fixture = RegistryFixture::new(3);
    let mut clients: Vec<_> = (0..6).map(|_| fixture.connect()).collect();
    for client in &mut clients {
        ping(client).await;
    }
    assert_eq!(fixture.counts().await, [2, 2, 2]);
    let ids = fixture.workers.visit(|registry| {
        let mut ids = Vec::new();
        registry.for_each(|connection| {
            assert!(connection.machine().is_idle());
            ids.push(connection.id().number());
        });
        ids
    });
    let mut ids = ids.await.concat();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    drop(clients);
    fixture.workers.finished().await;
    assert_eq!(fixture.counts().await, [0, 0, 0]);
}

#[tokio::test]
async fn frozen_connections_answer_only_when_thawed() {
    let fixture = RegistryFixture::new(1);
    let mut client = fixture.connect();
    ping(&mut client).await;
    fixture.workers.freeze().await;
    client.write_all(b"ping\n_\n\n").await.expect("written");
    // This event comes after that of the request, from the same runtime.
    let (mut near, mut far) = UnixStream::pair().expect("a socket pair");
    near.write_all(b"x").await.expect("written");
    far.read_exact(&mut [0]).await.expect("read");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let would_block = client.try_read(&mut [0]).expect_err("no answer while frozen");
    assert_eq!(would_block.kind(), std::io::ErrorKind::WouldBlock);
    let has_input = fixture.workers.visit(|registry| {
        let mut has_input = false;
        registry.for_each(|connection| has_input |= connection.socket().has_input());
        has_input
    });
    assert_eq!(has_input.await, [true], "the request is still in the kernel");
    fixture.workers.thaw().await;
    assert_eq!(answer(&mut client).await, "ok\n");
}

#[tokio::test]
async fn drain_during_a_freeze_is_delivered_when_thawed() {
    let fixture = RegistryFixture::new(2);
    let mut clients = [fixture.connect(), fixture.connect()];
    for client in &mut clients {
        ping(client).await;
    }
    fixture.workers.freeze().await;
    fixture.server.drain();
    assert_eq!(fixture.counts().await, [1, 1]);
    fixture.workers.thaw().await;
    fixture.workers.finished().await;
    assert_eq!(fixture.counts().await, [0, 0]);
    for client in &mut clients {
        assert_eq!(answer(client).await, "", "closed");
    }
}

/// Most processor time for walking 10,000 idle connections.
const WALK: Duration = Duration::from_millis(5);

#[tokio::test]
async fn ten_thousand_idle_connections_are_walked_within_5_ms() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let count = 10_000.min((hard as usize).saturating_sub(200) / 2);
    let fixture = RegistryFixture::new(1);
    let mut clients: Vec<_> = (0..count).map(|_| fixture.connect()).collect();
    for client in &mut clients {
        ping(client).await;
    }
    let walk = fixture.workers.visit(|registry| {
        let processor_time = || {
            let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
            Duration::from(time)
        };
        let (mut idle, started) = (0, processor_time());
        registry.for_each(|connection| idle += usize::from(connection.machine().is_idle()));
        (idle, processor_time() - started)
    });
    let (idle, time) = walk.await[0];
    println!("{idle} connections walked in {time:?}");
    assert_eq!(idle, count);
    assert!(time <= WALK, "{time:?} for {count} connections");
}
