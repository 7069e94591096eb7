//! Replay of cases recorded from an original server.

use crate::server::{FixtureOptions, LockServerFixture};
use libdc::id::Token;
use libdc::secret::AuthToken;
use serde_json::Value;
use std::collections::BTreeMap;

/// The actual tokens for the placeholders in the recorded cases. Compares answers with the recording.
#[derive(Default)]
struct Tokens(BTreeMap<String, String>);

impl Tokens {
    fn put_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, token)| text.replace(name, token))
    }

    fn check(&mut self, case: &str, expected: &str, got: &str) {
        let (expected, got): (Vec<_>, Vec<_>) = (expected.split(' ').collect(), got.split(' ').collect());
        assert_eq!(expected.len(), got.len(), "{case}: {got:?} for {expected:?}");
        for (expected, got) in expected.into_iter().zip(got) {
            if expected.starts_with('<') && !self.0.contains_key(expected) {
                assert!(Token::from_hex(got.as_bytes()).is_some(), "{case}: {got}");
                assert!(!self.0.values().any(|known| known == got), "{case}: a token twice");
                self.0.insert(expected.to_owned(), got.to_owned());
            }
            assert_eq!(self.put_in(expected), got, "{case}");
        }
    }
}

fn options_of(arguments: &[Value]) -> FixtureOptions {
    let mut options = FixtureOptions::default();
    let mut arguments = arguments.iter().filter_map(Value::as_str);
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.parse::<u64>().ok()).expect("a number");
        match name {
            "--max-locks" => options.locks.locks_max = number(),
            "--max-waiters" => options.locks.waiters_max = number(),
            "--read-timeout" => options.read_timeout_ms = 1000 * number(),
            "--auth-token" => {
                let token = arguments.next().expect("a token");
                options.auth = Some(AuthToken::new(token.as_bytes()).expect("a token"));
            }
            "--auto-release-on-disconnect=false" => options.links.auto_release = false,
            // Connections are counted where they are accepted.
            "--max-connections" => drop(number()),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

#[test]
fn the_recorded_cases_are_answered_alike() {
    let text = include_str!("../../../tests/vectors/lock.json");
    let cases: Vec<Value> = serde_json::from_str(text).expect("json");
    assert!(cases.len() >= 40);
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        if name != "max_connections" {
            replay(name, case);
        }
    }
}

fn replay(name: &str, case: &Value) {
    let mut server = LockServerFixture::new(options_of(case["server_args"].as_array().expect("arguments")));
    // The recorder checked first that the server was running.
    server.opened = 1;
    let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut tokens, mut unread) = (Tokens::default(), BTreeMap::<u64, Vec<u8>>::new());
    for step in case["steps"].as_array().expect("steps") {
        if let Some(seconds) = step["sleep_s"].as_f64() {
            server.pass((seconds * 1000.0) as u64);
            continue;
        }
        let conn = step["conn"].as_str().expect("a connection");
        let id = *ids.entry(conn).or_insert_with(|| server.open());
        if step["close"].as_bool() == Some(true) {
            server.close(id);
            continue;
        }
        if let Some(send) = step["send"].as_str() {
            server.send(id, tokens.put_in(send).as_bytes());
        }
        let Some(expected) = step["reply"].as_str() else { continue };
        let pending = unread.entry(id).or_default();
        pending.extend(server.received(id));
        for _ in 0..120 {
            if pending.contains(&b'\n') || server.is_ending(id) {
                break;
            }
            server.pass(100);
            pending.extend(server.received(id));
        }
        if expected == "CLOSED" {
            assert!(server.is_ending(id) && pending.is_empty(), "{name}: not closed");
            continue;
        }
        let end = pending.iter().position(|byte| *byte == b'\n').expect(name);
        let line: Vec<u8> = pending.drain(..=end).collect();
        let line = std::str::from_utf8(&line[..end]).expect("text");
        match name {
            "stats" if expected.contains('{') => check_stats(line),
            _ => tokens.check(name, expected, line),
        }
    }
}

fn check_stats(line: &str) {
    let got: Value = serde_json::from_str(line.strip_prefix("ok ").expect("ok")).expect("json");
    assert_eq!(got["connections"], 2);
    let lock = &got["locks"][0];
    assert_eq!((&lock["key"], &lock["owner_conn_id"], &lock["waiters"]), (&"k".into(), &2.into(), &1.into()));
    let left = lock["lease_expires_in_s"].as_f64().expect("a number");
    assert!(left > 32.0 && left <= 33.0);
    let semaphore = serde_json::json!({"key": "s", "limit": 3, "holders": 1, "waiters": 0});
    assert_eq!(got["semaphores"], serde_json::json!([semaphore]));
    assert_eq!(got["idle_locks"][0]["key"], "idle");
    assert_eq!(got["idle_semaphores"], serde_json::json!([]));
    assert_eq!(got["totals"]["locks"], 1);
}
