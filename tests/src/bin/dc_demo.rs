//! `cargo demo`: a fleet of two hosts on this one, and what distcache does for it.
//!
//! Everything is real, the programs and what passes between them, and everything is gone at the end. The exit
//! status is 0 if all went as it says, and 1 otherwise.

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

/// How long the sessions are kept.
const KEPT: Duration = Duration::from_secs(300);
/// Sessions as a TLS server makes them: an id and some bytes that mean something to it alone.
const SESSIONS: [(&[u8], &[u8]); 3] = [
    (b"session-of-alice", &[0xa1; 183]),
    (b"session-of-bob", &[0xb0; 1_172]),
    (b"session-of-carol", &[0xca; 3_080]),
];
/// What both hosts want to do, and only one at a time may.
const KEY: &str = "nightly-backup";
/// And the other waits for it no longer than this.
const WAIT: Duration = Duration::from_secs(60);
/// The agents try to reach a server that is away this often, in milliseconds.
const RETRY_MS: &str = "200";
/// How often a program is restarted while it is called, and the fewest calls meanwhile that show something.
const RESTARTS: usize = 5;
const CALLS_MIN: u64 = 100;

fn main() -> ExitCode {
    // What can't go on panics; to who watches that is one line, below what the programs had to say.
    panic::set_hook(Box::new(|_| {}));
    match panic::catch_unwind(show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
            eprintln!("dc_demo: {}", text.unwrap_or("something went wrong"));
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
    fleet.watch("← REMOVE", "what dc_snoop saw of host B; sessions are shown as a length and a digest");
    fleet.lock();
    fleet.watch("← RELEASE", "what dc_snoop saw of that; of a token its fence is shown, which is no secret");
    fleet.lose_server();
    fleet.find_server();
    fleet.restart_unnoticed();
    fleet.stop();
    println!("\nAll went well.");
}

/// A server, the agents of two hosts A and B, an application on each, and a tap on the wire between B and the
/// server.
struct DemoFleet {
    server: ServerProcess,
    snoop: SnoopProcess,
    agents: [AgentProcess; 2],
    a: Client,
    b: Client,
    /// Lines of the tap that have been looked at.
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
        print_step("", "            (this one through dc_snoop, which shows what passes)");
        Self { server, snoop, agents: [agent_a, agent_b], a, b, shown: Cell::new(0) }
    }

    fn resume(&mut self) {
        self.store_and_resume();
        let (count, bytes) =
            (SESSIONS.len(), SESSIONS.iter().map(|(_, session)| session.len()).sum::<usize>());
        print_step("store", &format!("host A stores {count} sessions, {bytes} bytes"));
        print_step(
            "resume",
            &format!("host B, where those clients come next, has all {count}: no full handshake"),
        );
        let (id, _) = SESSIONS[2];
        assert!(done(self.b.remove(id)), "there was nothing to remove");
        assert!(!done(self.a.have(id)), "a session is still there after it was removed");
        print_step("remove", "host B removes one, and host A does not find it any more");
    }

    /// Shows the requests and answers that have passed since the last time, up to the answer `last`.
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
            had(LockClient::connect(address, LockOptions::default()))
        };
        let [a, b] = self.agents.each_ref().map(client);
        let options = AcquireOptions::default();

        let held = had(a.acquire(KEY, &options));
        let fence = held.fence();
        print_step("lock", &format!("host A takes the lock {KEY}, with fence {fence}"));
        assert!(had(b.try_acquire(KEY, &options)).is_none(), "two hosts hold one lock");
        let place = had(b.enqueue(KEY, &options));
        assert!(!place.is_held(), "two hosts hold one lock");
        print_step("", "host B tries and does not get it, so it queues and waits");
        let released = Instant::now();
        had(held.release());
        let held = had(place.wait_within(WAIT)).expect("the lock in time");
        let took_us = released.elapsed().as_micros();
        let further = held.fence() - fence;
        assert!(further > 0, "a fence did not grow");
        print_step(
            "",
            &format!(
                "host A releases it: host B has it within {took_us} µs, with a fence that is {further} more"
            ),
        );
        had(held.release());

        // Three lines of text are enough to take a lock, from a shell if need be.
        let mut application = self.agents[0].connect();
        let answer = application.request(&format!("l\n{KEY}\n0\n"));
        assert!(answer.starts_with("ok "), "a free lock was not to be had: {answer}");
        let place = had(b.enqueue(KEY, &options));
        assert!(!place.is_held(), "two hosts hold one lock");
        let ended = Instant::now();
        drop(application);
        let held = had(place.wait_within(WAIT)).expect("the lock in time");
        let took_us = ended.elapsed().as_micros();
        print_step(
            "",
            &format!("an application on host A ends and holds it: host B has it within {took_us} µs"),
        );
        had(held.release());
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
            &format!("the server is killed: both are told DISCONNECTED, within {took_us} µs, and go on"),
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
        let tally = callers.finish();
        tally.all_answered(CALLS_MIN);
        let calls = tally.answered;
        print_step(
            "restart",
            &format!(
                "SIGHUP {RESTARTS} times: the agent was replaced each time, and {calls} calls meanwhile all got their answer"
            ),
        );
        TestProcess::stop(&mut master.process);
    }

    fn store_and_resume(&mut self) {
        for (id, session) in SESSIONS {
            done(self.a.add(id, session, KEPT));
        }
        for (id, session) in SESSIONS {
            assert!(
                done(self.b.get(id)).as_deref() == Some(session),
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
        print_step("stop", "all programs have ended in good order, and nothing is left");
    }
}

/// One line: which step, and what it shows.
fn print_step(step: &str, what: &str) {
    println!("{step:<10}{what}");
}

/// The result of an operation that must not fail.
fn done<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The same for locks.
fn had<T>(result: Result<T, LockError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
