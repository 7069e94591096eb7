//! Every case recorded from an original dflockd, replayed against the server and through an agent.
//!
//! Each case has a separate server with the options of the recording. Cases without options are also replayed
//! through an agent, over Unix sockets.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::TestConnection;
use dc_tests::harness::server::ServerProcess;
use serde_json::Value;
use std::collections::BTreeMap;

const RECORDING: &str = include_str!("../../vectors/lock.json");

#[test]
fn server_answers_as_original_dflockd() {
    for case in cases() {
        let options: Vec<_> =
            case["server_args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let server = ServerProcess::start(&options);
        // The recorder probed the server first, so the probe is connection 1.
        if options.iter().all(|option| *option != "--max-connections") {
            let mut first = server.connect();
            if !options.contains(&"--auth-token") {
                assert_eq!(first.request("ping\n_\n\n"), "ok");
            }
            first.finish();
            assert_eq!(first.read_to_end(), b"");
        }
        replay(&case, || server.connect());
    }
}

#[test]
fn agent_answers_as_original_dflockd() {
    // No case affects the next one: an idle key would keep its limit.
    let server = ServerProcess::start(&["-gc-max-idle", "0"]);
    let agent = AgentProcess::start(server.address(), &[]);
    for case in cases().iter().filter(|case| case["server_args"].as_array().is_some_and(Vec::is_empty)) {
        // The statistics number the agent's connections otherwise.
        if case["name"] != "stats" {
            replay(case, || agent.connect());
            // The server learns about the closed connections with a delay.
            while !is_empty(&stats(|| agent.connect())) {}
        }
    }
}

/// Whether no key is held, waited for or remembered.
fn is_empty(stats: &Value) -> bool {
    let lists = ["locks", "semaphores", "idle_locks", "idle_semaphores"];
    lists.iter().all(|list| stats[list].as_array().is_some_and(Vec::is_empty))
}

fn cases() -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(RECORDING).unwrap();
    assert_eq!(cases.len(), 40);
    cases
}

fn replay(case: &Value, connect: impl Fn() -> TestConnection) {
    let name = case["name"].as_str().unwrap();
    let mut connections: BTreeMap<&str, TestConnection> = BTreeMap::new();
    let mut tokens: BTreeMap<String, String> = BTreeMap::new();
    for step in case["steps"].as_array().unwrap() {
        if let Some(seconds) = step["sleep_s"].as_f64() {
            wait_for_lease(seconds, &connect);
            continue;
        }
        let conn = step["conn"].as_str().unwrap();
        let connection = connections.entry(conn).or_insert_with(&connect);
        if step["close"].as_bool() == Some(true) {
            connections.remove(conn);
            continue;
        }
        if let Some(send) = step["send"].as_str() {
            let send = tokens.iter().fold(send.to_owned(), |text, (name, token)| text.replace(name, token));
            let blocks = step["reply"].is_null() && name != "read_timeout_closes";
            let waiting = if blocks { waiters(&connect) } else { 0 };
            // The server may close before it has received all of it.
            connection.try_write(send.as_bytes()).ok();
            // Requests on different connections must arrive in the order of the recording.
            while blocks && waiters(&connect) == waiting && !connection.has_input() {}
        }
        match step["reply"].as_str() {
            None => {}
            Some("CLOSED") => {
                assert_eq!(connection.read_to_end(), b"", "{name}: more bytes than were recorded");
            }
            Some(expected) if expected.contains('{') => check_stats(&connection.line()),
            Some(expected) => check(name, expected, &connection.line(), &mut tokens),
        }
    }
}

/// The statistics, requested on a separate connection.
fn stats(connect: impl Fn() -> TestConnection) -> Value {
    let mut connection = connect();
    let stats =
        serde_json::from_str(connection.request("stats\n_\n\n").strip_prefix("ok ").unwrap()).unwrap();
    connection.finish();
    assert_eq!(connection.read_to_end(), b"");
    stats
}

/// The number of waiters, over all keys.
fn waiters(connect: impl Fn() -> TestConnection) -> u64 {
    let stats = stats(connect);
    let lists = ["locks", "semaphores"].map(|list| stats[list].as_array().unwrap().clone());
    lists.iter().flatten().filter_map(|entry| entry["waiters"].as_u64()).sum()
}

/// Waits until a lease of this many seconds has expired.
fn wait_for_lease(seconds: f64, connect: impl Fn() -> TestConnection) {
    let (mut holder, mut waiter) = (connect(), connect());
    let lease = seconds.ceil();
    assert!(holder.request(&format!("l\ntime\n0 {lease}\n")).starts_with("ok "));
    assert!(waiter.request("l\ntime\n60\n").starts_with("ok "));
}

fn check(name: &str, expected: &str, actual: &str, tokens: &mut BTreeMap<String, String>) {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.split(' ').collect(), actual.split(' ').collect());
    assert_eq!(expected.len(), actual.len(), "{name}: {actual:?} for {expected:?}");
    for (expected, actual) in expected.into_iter().zip(actual) {
        if expected.starts_with('<') {
            assert!(
                actual.len() == 32 && actual.bytes().all(|digit| digit.is_ascii_hexdigit()),
                "{name}: {actual}"
            );
            assert_eq!(
                tokens.entry(expected.to_owned()).or_insert_with(|| actual.to_owned()),
                actual,
                "{name}"
            );
        } else {
            assert_eq!(expected, actual, "{name}");
        }
    }
}

fn check_stats(line: &str) {
    let stats: Value = serde_json::from_str(line.strip_prefix("ok ").unwrap()).unwrap();
    assert_eq!((&stats["connections"], &stats["idle_semaphores"]), (&2.into(), &serde_json::json!([])));
    let lock = &stats["locks"][0];
    assert_eq!((&lock["key"], &lock["owner_conn_id"], &lock["waiters"]), (&"k".into(), &2.into(), &1.into()));
    let left = lock["lease_expires_in_s"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 33.0);
    let semaphore = serde_json::json!({"key": "s", "limit": 3, "holders": 1, "waiters": 0});
    assert_eq!(stats["semaphores"], serde_json::json!([semaphore]));
    assert_eq!(stats["idle_locks"][0]["key"], "idle");
}
