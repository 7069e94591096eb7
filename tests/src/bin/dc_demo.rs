//! `cargo demo`: shows distcache with a fleet of two hosts, both simulated on this one.
//!
//! The programs and their traffic are real, and everything is removed at the end. The exit status is 0 if
//! every step succeeds, and 1 otherwise.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::callers::Callers;
use dc_tests::harness::master::MasterProcess;
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::programs::{directory, program};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::snoop::SnoopProcess;
use libdc::client::blocking::Client;
use libdc::client::lock::blocking::LockClient;
use libdc::client::lock::{AcquireOptions, LockError, LockOptions};
use libdc::client::{Error, SessionOptions};
use std::cell::Cell;
use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The timeout of the stored sessions.
const KEPT: Duration = Duration::from_secs(300);
/// Sessions as a TLS server makes them: an id and opaque bytes.
const SESSIONS: [(&[u8], &[u8]); 3] = [
    (b"session-of-alice", &[0xa1; 183]),
    (b"session-of-bob", &[0xb0; 1_172]),
    (b"session-of-carol", &[0xca; 3_080]),
];
/// The lock that both hosts compete for.
const KEY: &str = "nightly-backup";
/// The wait timeout of the second host.
const WAIT: Duration = Duration::from_secs(60);
/// The agents' `-retry`, in milliseconds.
const RETRY_MS: &str = "200";
/// Number of restarts under load, and the fewest calls meanwhile that prove something.
const RESTARTS: usize = 5;
const CALLS_MIN: u64 = 100;

fn main() -> ExitCode {
    // A failed step panics. The message is printed once, below the output of the programs.
    panic::set_hook(Box::new(|_| {}));
    match panic::catch_unwind(show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
            eprintln!("dc_demo: {}", text.unwrap_or("unknown error"));
            ExitCode::FAILURE
        }
    }
}

fn show() {
    println!("distcache: two hosts share their TLS sessions, and a lock\n");
    print_step(
        "build",
        "dc_server, dc_client, dc_snoop, dc_master (the first time this takes a minute or two)",
    );
    print_step("", &format!("now in {}", directory().display()));
    let mut fleet = DemoFleet::start();
    fleet.resume();
    fleet.watch("← REMOVE", "the output of dc_snoop for host B; each session is shown by length and digest");
    fleet.lock();
    fleet.watch(
        "← RELEASE",
        "the same operations in dc_snoop; only the fence of a token is shown, as it is not secret",
    );
    fleet.lose_server();
    fleet.find_server();
    fleet.restart_unnoticed();
    fleet.stop();
    println!("\nAll went well.");
}

/// A server, the agents of two hosts A and B, an application on each, and `dc_snoop` between B and the
/// server.
struct DemoFleet {
    server: ServerProcess,
    snoop: SnoopProcess,
    agents: [AgentProcess; 2],
    a: Client,
    b: Client,
    /// Number of `dc_snoop`'s lines examined so far.
    shown: Cell<usize>,
}

impl DemoFleet {
    fn start() -> Self {
        let server = ServerProcess::start(&[]);
        print_step("server", &format!("dc_server   -listen IP:{}", server.address()));
        let snoop = SnoopProcess::start(server.address(), &[]);
        let start = |host: &str, upstream| {
            let agent = AgentProcess::start(upstream, &["-retry", RETRY_MS]);
            let listen = unix(agent.socket());
            print_step(host, &format!("dc_client   -listen {listen} -server IP:{upstream}"));
            let client =
                Client::new(listen.parse().expect("the address of an agent"), SessionOptions::default());
            (agent, client)
        };
        let (agent_a, a) = start("host A", server.address());
        let (agent_b, b) = start("host B", snoop.address());
        print_step("", "            (this one through dc_snoop, which shows the traffic)");
        Self { server, snoop, agents: [agent_a, agent_b], a, b, shown: Cell::new(0) }
    }

    fn resume(&mut self) {
        self.store_and_resume();
        let (count, bytes) =
            (SESSIONS.len(), SESSIONS.iter().map(|(_, session)| session.len()).sum::<usize>());
        print_step("store", &format!("host A stores {count} sessions, {bytes} bytes"));
        print_step(
            "resume",
            &format!("host B, which those clients visit next, finds all {count}: no full handshake"),
        );
        let (id, _) = SESSIONS[2];
        assert!(must(self.b.remove(id)), "the session to remove was not found");
        assert!(!must(self.a.have(id)), "a removed session is still found");
        print_step("remove", "host B removes one, and host A no longer finds it");
    }

    /// Prints the requests and answers since the last call, up to the answer `last`.
    fn watch(&self, last: &str, what: &str) {
        let log = &self.snoop.process.log;
        let before = self.shown.get();
        log.expect(last);
        print_step("watch", what);
        let lines = log.lines();
        let is_of_link =
            |line: &str| ["PING", "HELLO", "OPEN", "CLAIM"].iter().any(|name| line.contains(name));
        let messages = lines[before..].iter().filter(|line| line.contains('→') || line.contains('←'));
        messages.filter(|line| !is_of_link(line)).for_each(|line| println!("    {line}"));
        self.shown.set(lines.len());
    }

    fn lock(&self) {
        let client = |agent: &AgentProcess| {
            let address = unix(agent.socket()).parse().expect("the address of an agent");
            must_lock(LockClient::connect(address, LockOptions::default()))
        };
        let [a, b] = self.agents.each_ref().map(client);
        let options = AcquireOptions::default();

        let held = must_lock(a.acquire(KEY, &options));
        let fence = held.fence();
        print_step("lock", &format!("host A takes the lock {KEY}, with fence {fence}"));
        assert!(must_lock(b.try_acquire(KEY, &options)).is_none(), "two hosts hold the same lock");
        let queued = must_lock(b.enqueue(KEY, &options));
        assert!(!queued.is_held(), "two hosts hold the same lock");
        print_step("", "host B tries and does not get it, so it queues and waits");
        let released = Instant::now();
        must_lock(held.release());
        let held = must_lock(queued.wait_within(WAIT)).expect("the lock within the wait timeout");
        let took_us = released.elapsed().as_micros();
        let further = held.fence() - fence;
        assert!(further > 0, "the fencing token did not increase");
        print_step(
            "",
            &format!(
                "host A releases it: host B has it within {took_us} µs, with a fence that is higher by {further}"
            ),
        );
        must_lock(held.release());

        // The line protocol takes a lock with three lines, from a shell if need be.
        let mut application = self.agents[0].connect();
        let answer = application.request(&format!("l\n{KEY}\n0\n"));
        assert!(answer.starts_with("ok "), "a free lock was not granted: {answer}");
        let queued = must_lock(b.enqueue(KEY, &options));
        assert!(!queued.is_held(), "two hosts hold the same lock");
        let ended = Instant::now();
        drop(application);
        let held = must_lock(queued.wait_within(WAIT)).expect("the lock within the wait timeout");
        let took_us = ended.elapsed().as_micros();
        print_step(
            "",
            &format!("an application on host A exits while holding it: host B has it within {took_us} µs"),
        );
        must_lock(held.release());
    }

    fn lose_server(&mut self) {
        self.server.kill();
        for agent in &self.agents {
            agent.process.log.expect("the link is lost");
        }
        let asked = Instant::now();
        for client in [&mut self.a, &mut self.b] {
            let answer = client.get(SESSIONS[0].0);
            assert!(matches!(answer, Err(Error::Disconnected)), "without a server the answer was {answer:?}");
        }
        let took_us = asked.elapsed().as_micros() / 2;
        print_step(
            "outage",
            &format!("the server is killed: both get DISCONNECTED within {took_us} µs, and continue"),
        );
    }

    fn find_server(&mut self) {
        self.server.restart();
        let back = Instant::now();
        for agent in &self.agents {
            agent.process.log.expect("the link is up");
        }
        let took_ms = back.elapsed().as_millis();
        print_step(
            "recovery",
            &format!("the server is back: the agents found it within {took_ms} ms (-retry {RETRY_MS})"),
        );
        self.store_and_resume();
        print_step("", "sessions are stored and resumed again; no application had to reconnect");
    }

    fn restart_unnoticed(&self) {
        let upstream = format!("IP:{}", self.server.address());
        let agent = ["-server", &upstream, "-log", "warn"];
        let mut master = MasterProcess::for_command(&program("dc_client"), &["-start", "0"], &agent);
        print_step("host C", &format!("dc_master   -listen tcp://{} -command dc_client", master.address()));
        let address = format!("IP:{}", master.address()).parse().expect("the address of a master");
        let callers = Callers::of_sessions(address);
        (0..RESTARTS).for_each(|_| master.restart());
        callers.wait_for(CALLS_MIN);
        let counters = callers.finish();
        counters.all_answered(CALLS_MIN);
        let calls = counters.answered;
        print_step(
            "restart",
            &format!(
                "SIGHUP {RESTARTS} times: the agent was replaced each time, and all {calls} calls meanwhile were answered"
            ),
        );
        TestProcess::stop(&mut master.process);
    }

    fn store_and_resume(&mut self) {
        for (id, session) in SESSIONS {
            must(self.a.add(id, session, KEPT));
        }
        for (id, session) in SESSIONS {
            assert!(
                must(self.b.get(id)).as_deref() == Some(session),
                "host B did not find what host A stored"
            );
        }
    }

    fn stop(self) {
        let Self { mut server, mut snoop, agents: [mut agent_a, mut agent_b], .. } = self;
        let sockets = [agent_a.socket().to_owned(), agent_b.socket().to_owned()];
        let all = [&mut agent_a.process, &mut agent_b.process, &mut snoop.process, &mut server.process];
        for process in all {
            TestProcess::stop(process);
        }
        assert!(sockets.iter().all(|socket| !socket.exists()), "an agent left its socket behind");
        print_step("stop", "all programs have shut down gracefully, and left nothing behind");
    }
}

/// Prints one line: the step and its result.
fn print_step(step: &str, what: &str) {
    println!("{step:<10}{what}");
}

/// Unwraps the result of a session operation, or panics with the error's text.
fn must<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Unwraps the result of a lock operation, or panics with the error's text.
fn must_lock<T>(result: Result<T, LockError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
