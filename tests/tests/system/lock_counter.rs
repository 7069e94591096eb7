//! A counter that only the holder of a lock may change, on four hosts, under every fault.
//!
//! Thirty-two clients behind four agents read the counter, and write it back incremented if their guard is
//! valid for long enough. The store of the counter rejects a fence smaller than the largest so far. No update
//! may be lost, and no update made under a valid guard may be rejected.
//!
//! A fault rarely hits a lock that is held for a moment. So before the worst faults a client keeps the lock
//! until its guard is lost, or another client has written: the loss must be first.

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
/// The remaining lease required before the counter is written.
const NEEDED: Duration = Duration::from_millis(100);
/// Updates between two faults.
const UPDATES: u64 = 40;

/// The store of the counter.
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
    /// Writes with a fence smaller than an earlier one, by clients whose guard had expired meanwhile.
    stale: u64,
    /// How many times a client has kept the lock.
    kept: u64,
}

impl CounterStore {
    fn read(&self) -> u64 {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner).value
    }

    /// Writes the value for a client whose guard, at the time `promised`, was valid for at least [`NEEDED`].
    fn write(&self, fence: u64, value: u64, promised: Instant) {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = promised.elapsed() < NEEDED;
        if fence < counter.fence {
            assert!(
                !in_time,
                "fence {fence} is rejected after {}, although its guard was valid",
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

    /// Keeps the lock until it is lost, or another client has written.
    async fn keep(&self, guard: &Guard) {
        let written = self.written.notified();
        self.counter.lock().unwrap_or_else(PoisonError::into_inner).kept += 1;
        self.changed.notify_all();
        tokio::select! {
            _ = guard.lost() => {}
            () = written => {}
        }
    }

    /// Waits for this many further updates.
    fn wait_for_updates(&self, count: u64) {
        self.wait_for_more(count, "the counter", |counter| counter.value);
    }

    /// Makes a client of a host keep the lock from now on, and waits until one does.
    fn make_holder_keep(&self, keep: &AtomicBool) {
        keep.store(true, Ordering::Relaxed);
        self.wait_for_more(1, "the client that keeps the lock", |counter| counter.kept);
    }

    fn wait_for_more(&self, count: u64, what: &str, number: impl Fn(&Counter) -> u64) {
        let counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        let goal = number(&counter) + count;
        let waited = self.changed.wait_timeout_while(counter, PATIENCE, |counter| number(counter) < goal);
        let (counter, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what} stays at {} of {goal}", number(&counter));
    }
}

async fn count(address: Address, store: Arc<CounterStore>, keep: Arc<AtomicBool>, over: Arc<AtomicBool>) {
    let quick = LockOptions { retry: Duration::from_millis(50), ..LockOptions::default() };
    let client = LockClient::new(address, quick);
    let options = AcquireOptions { lease: Some(Duration::from_secs(3)), ..AcquireOptions::default() };
    while !over.load(Ordering::Relaxed) {
        // While the agent is down or cut off, the client retries.
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
        // If the release fails, the end of the connection or of the lease releases the lock.
        guard.release().await.ok();
    }
}

/// The processes of the fleet, and the network between them.
struct CounterFleet {
    server: ServerProcess,
    relays: Vec<TestRelay>,
    agents: Vec<AgentProcess>,
    /// For each host, whether the next holder there keeps the lock.
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

    /// Injects every fault in turn; after each, the counter must advance.
    fn inject_faults(&mut self, store: &CounterStore) {
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
            // Delayed until other hosts have made progress, if need be after the grace period; then released
            // at once.
            for way in [RelayWay::Down, RelayWay::Up] {
                self.relays[host + 1].hold(way);
                store.wait_for_updates(UPDATES);
                self.relays[host + 1].release(way);
            }
            // A host with the lock is cut off for longer than the grace period, from a server that knows the
            // lock and from a restarted one.
            for restarts in [false, true] {
                store.make_holder_keep(&self.keeps[host]);
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
fn counter_under_lock_loses_no_update_under_faults() {
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
    fleet.inject_faults(&store);
    over.store(true, Ordering::Relaxed);
    let ended = runtime.block_on(lockers.join_all());
    assert_eq!(ended.len(), HOSTS * LOCKERS_OF_A_HOST);
    let counter = store.counter.lock().unwrap();
    println!("{} updates, {} late ones rejected", counter.value, counter.stale);
}
