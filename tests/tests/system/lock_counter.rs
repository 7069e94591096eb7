//! A counter that only the holder of a lock may change, on four hosts, while everything between them breaks.
//!
//! Thirty-two lockers behind four agents read the counter, and write it back one greater if their guard says that the
//! lock is theirs for long enough. The store of the counter refuses a fence that is smaller than one it has seen. No
//! update may be lost, and none that was made while the guard held true may be refused.
//!
//! Who holds the lock for a moment is hardly ever caught by a fault. So before the worst of them a locker is asked to keep
//! it until its guard says that it is lost, or somebody else has written: of these the first must be first.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::patience::PATIENCE;
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use libdc::client::lock::{AcquireOptions, Guard, LockClient, LockOptions};
use libdc::net::address::Address;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const HOSTS: usize = 4;
const LOCKERS_OF_A_HOST: usize = 8;
/// For how long the lock must be held still when the counter is about to be written.
const NEEDED: Duration = Duration::from_millis(100);
/// Updates between two faults.
const UPDATES: u64 = 40;

/// Where the counter is.
#[derive(Default)]
struct CounterStore {
    counter: Mutex<Counter>,
    changed: Condvar,
    written: Notify,
}

#[derive(Default)]
struct Counter {
    value: u64,
    fence: u64,
    /// Writes that came with a fence smaller than another's before, from who could not know better.
    stale: u64,
    /// How often the lock was kept.
    kept: u64,
}

impl CounterStore {
    fn read(&self) -> u64 {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner).value
    }

    /// Writes what was read before and one more, for a holder to whom the lock was promised at `promised` for as long as
    /// it needs.
    fn write(&self, fence: u64, value: u64, promised: Instant) {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = promised.elapsed() < NEEDED;
        if fence < counter.fence {
            assert!(
                !in_time,
                "fence {fence} is refused after {}, though its holder was told that it holds",
                counter.fence
            );
            counter.stale += 1;
            return;
        }
        assert_eq!(value, counter.value + 1, "an update was lost");
        (counter.value, counter.fence) = (value, fence);
        drop(counter);
        self.changed.notify_all();
        self.written.notify_waiters();
    }

    /// Keeps the lock until it is lost, or somebody else has written.
    async fn keep(&self, guard: &Guard) {
        let written = self.written.notified();
        self.counter.lock().unwrap_or_else(PoisonError::into_inner).kept += 1;
        self.changed.notify_all();
        tokio::select! {
            _ = guard.lost() => {}
            () = written => {}
        }
    }

    /// Waits until there were so many updates more.
    fn wait_for_updates(&self, count: u64) {
        self.wait_for_more(count, "the counter", |counter| counter.value);
    }

    /// Has a locker of a host keep the lock from now on.
    fn have_kept(&self, keep: &AtomicBool) {
        keep.store(true, Ordering::Relaxed);
        self.wait_for_more(1, "who is to keep the lock", |counter| counter.kept);
    }

    fn wait_for_more(&self, count: u64, what: &str, number: impl Fn(&Counter) -> u64) {
        let counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let goal = number(&counter) + count;
        let waited = self.changed.wait_timeout_while(counter, PATIENCE, |counter| number(counter) < goal);
        let (counter, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what} stands still at {} of {goal}", number(&counter));
    }
}

async fn count(address: Address, store: Arc<CounterStore>, keep: Arc<AtomicBool>, over: Arc<AtomicBool>) {
    let quick = LockOptions { retry: Duration::from_millis(50), ..LockOptions::default() };
    let client = LockClient::new(address, quick);
    let options = AcquireOptions { lease: Some(Duration::from_secs(3)), ..AcquireOptions::default() };
    while !over.load(Ordering::Relaxed) {
        // While its agent is away, or cut off, a locker tries again.
        let Ok(Some(guard)) = client.acquire_within("counter", PATIENCE, &options).await else { continue };
        let value = store.read();
        if keep.swap(false, Ordering::Relaxed) {
            store.keep(&guard).await;
        } else {
            tokio::task::yield_now().await;
        }
        let promised = Instant::now();
        if guard.is_valid_for(NEEDED) {
            store.write(guard.fence(), value + 1, promised);
        }
        // Where it can't be said, the lock is released by the end of the connection or of the lease.
        guard.release().await.ok();
    }
}

/// The processes of the fleet, and the network between them.
struct CounterFleet {
    server: ServerProcess,
    relays: Vec<TestRelay>,
    agents: Vec<AgentProcess>,
    /// For each host, whether one of its lockers is to keep the lock when it has it next.
    keeps: Vec<Arc<AtomicBool>>,
    _state: TestDir,
}

impl CounterFleet {
    fn start() -> Self {
        let state = TestDir::new();
        let directory = state.path().to_str().unwrap().to_owned();
        let server = ServerProcess::start(&["-state", &directory, "-grace", "1"]);
        let relays: Vec<_> = (0..HOSTS).map(|_| TestRelay::to(server.address())).collect();
        let options = ["-retry", "50", "-timeout", "1000"];
        let agents = relays.iter().map(|relay| AgentProcess::start(relay.address(), &options)).collect();
        let keeps = (0..HOSTS).map(|_| Arc::default()).collect();
        Self { server, relays, agents, keeps, _state: state }
    }

    /// Everything that can break, one thing after the other; between two of them the counter has to go on.
    fn suffer(&mut self, store: &CounterStore) {
        for round in 0..2 {
            for host in 0..HOSTS {
                self.relays[host].cut();
                store.wait_for_updates(UPDATES);
                self.relays[host].half_close(if round == 0 { RelayWay::Up } else { RelayWay::Down });
                store.wait_for_updates(UPDATES);
            }
            self.server.restart();
            store.wait_for_updates(UPDATES);
            let host = 2 * round;
            self.agents[host].restart();
            store.wait_for_updates(UPDATES);
            // Delayed until others have gone on, if need be after the grace; and then all at once.
            for way in [RelayWay::Down, RelayWay::Up] {
                self.relays[host + 1].hold(way);
                store.wait_for_updates(UPDATES);
                self.relays[host + 1].release(way);
            }
            // A host that has the lock, and is away for longer than the grace; of a server that knows it and of one that
            // was restarted.
            for restarts in [false, true] {
                store.have_kept(&self.keeps[host]);
                self.relays[host].refuse();
                if restarts {
                    self.server.restart();
                }
                store.wait_for_updates(UPDATES);
                self.relays[host].accept_again();
                store.wait_for_updates(UPDATES);
            }
        }
    }
}

#[test]
fn no_update_is_lost_whatever_breaks() {
    let mut fleet = CounterFleet::start();
    let (store, over) = (Arc::new(CounterStore::default()), Arc::new(AtomicBool::new(false)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut lockers = tokio::task::JoinSet::new();
    for (agent, keep) in fleet.agents.iter().zip(&fleet.keeps) {
        for _ in 0..LOCKERS_OF_A_HOST {
            let address: Address = unix(agent.socket()).parse().unwrap();
            let locker = count(address, Arc::clone(&store), Arc::clone(keep), Arc::clone(&over));
            lockers.spawn_on(locker, runtime.handle());
        }
    }
    fleet.suffer(&store);
    over.store(true, Ordering::Relaxed);
    let ended = runtime.block_on(lockers.join_all());
    assert_eq!(ended.len(), HOSTS * LOCKERS_OF_A_HOST);
    let counter = store.counter.lock().unwrap();
    println!("{} updates, {} refused that came too late", counter.value, counter.stale);
}
