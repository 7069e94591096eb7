//! Pairs programs of the last release with new ones, in both directions.
//!
//! `tests/last-release` builds the old ones. If it fails, these tests are skipped, or fail under
//! `DISTCACHE_TESTS_REQUIRE=1`.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::daemon::stderr;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::{last_release, program};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use std::path::Path;

/// The exit status of `dc_lock -nonblock` if another client holds the lock.
const STATUS_CONFLICT: i32 = 75;

/// A program of the last release, or a new one.
#[derive(Clone, Copy, Debug)]
enum Release {
    Last(&'static Path),
    New,
}

impl Release {
    fn launch(self, program: &'static str) -> ProgramLaunch {
        match self {
            Self::Last(directory) => ProgramLaunch::new(program).of(directory),
            Self::New => ProgramLaunch::new(program),
        }
    }

    /// The path of a program.
    fn path(self, name: &str) -> String {
        let path = match self {
            Self::Last(directory) => directory.join(name),
            Self::New => program(name),
        };
        path.to_str().expect("a path of UTF-8").to_owned()
    }
}

/// Runs a program to its end, which must be a success, and returns what it prints.
fn succeed(launch: &ProgramLaunch) -> String {
    let output = launch.output();
    assert!(output.status.success(), "{launch:?} ends with {}: {}", output.status, stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Checks sessions and locks at `address` with `dc_test`.
fn check(release: Release, address: &str) {
    let test = || release.launch("dc_test").with(["-connect", address, "-clients", "4"]);
    let sessions = succeed(&test().with(["-sessions", "20", "-ops", "400"]));
    assert!(sessions.contains("400"), "{sessions}");
    let locks = succeed(&test().with(["-locks", "-keys", "2", "-ops", "200"]));
    assert!(locks.contains("200"), "{locks}");
}

/// Takes a lock with `dc_lock` of `holder`; meanwhile `other` cannot take it.
fn lock(holder: Release, other: Release, address: &str) {
    let take = || holder.launch("dc_lock").with(["-connect", address, "key", "--"]);
    assert_eq!(succeed(&take().with(["sh", "-c", "echo held $DC_LOCK_KEY"])), "held key\n");
    let refused = [&other.path("dc_lock"), "-connect", address, "-nonblock", "key", "--", "true"];
    let output = take().with(refused).output();
    assert_eq!(output.status.code(), Some(STATUS_CONFLICT), "{}", stderr(&output));
}

/// Runs a server and an agent of these releases, with clients of both at each of them.
fn pair(server: Release, agent: Release, clients: [Release; 2]) {
    let server = ServerProcess::launch(server.launch("dc_server"));
    let agent = AgentProcess::launch(agent.launch("dc_client"), server.address());
    for address in [unix(agent.socket()), format!("IP:{}", server.address())] {
        for client in clients {
            check(client, &address);
        }
        let [one, other] = clients;
        lock(one, other, &address);
        lock(other, one, &address);
    }
}

#[test]
fn new_server_serves_old_agent_and_old_clients() {
    let Some(last) = last_release().map(Release::Last) else { return };
    pair(Release::New, last, [Release::New, last]);
}

#[test]
fn old_server_serves_new_agent_and_new_clients() {
    let Some(last) = last_release().map(Release::Last) else { return };
    pair(last, Release::New, [Release::New, last]);
}

#[test]
fn last_release_is_another_version() {
    let Some(last) = last_release().map(Release::Last) else { return };
    let [old, new] =
        [last, Release::New].map(|release| succeed(&release.launch("dc_server").with(["-version"])));
    assert!(old.starts_with("dc_server ") && new.starts_with("dc_server ") && old != new, "{old}{new}");
}

/// Takes a free lock and returns its fence. The lock is held until the connection closes or the server exits.
fn fence(server: &ServerProcess) -> u64 {
    let answer = server.connect().request("l\nkey\n0\n");
    let token = answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{answer}"));
    u64::from_str_radix(&token[..16], 16).expect("a fence")
}

#[test]
fn new_server_reads_state_of_old_server() {
    let Some(last) = last_release().map(Release::Last) else { return };
    for is_orderly in [true, false] {
        let state = TestDir::new();
        let options = ["-state", state.path().to_str().unwrap()];
        let start = |release: Release| ServerProcess::launch(release.launch("dc_server").with(options));
        let mut old = start(last);
        let first = fence(&old);
        if is_orderly {
            old.process.stop();
        } else {
            old.kill();
        }
        let written = state.names();
        assert!(!written.is_empty());
        let new = start(Release::New);
        assert!(fence(&new) > first, "fences grow from release to release");
        assert_eq!(state.names(), written);
    }
}
