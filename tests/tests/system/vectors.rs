//! Every case recorded from an original session server, replayed against the server and through an agent.
//!
//! As in the recording, one server with `-sessions 64` runs all cases in order: a case may find sessions
//! stored by an earlier one, and some rely on it. A connection that stays open must still work after its
//! case.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, TestConnection, request};
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use serde_json::Value;

const RECORDING: &str = include_str!("../../vectors/session.json");
const HEADER_BYTES: usize = 14;
/// A uid that the recording does not use.
const PROBE_UID: u32 = 0xfeed_face;

#[test]
fn server_answers_as_original_server() {
    let server = ServerProcess::start(&["-sessions", "64"]);
    replay_all(|| server.connect());
}

#[test]
fn agent_answers_as_original_server() {
    let server = ServerProcess::start(&["-sessions", "64"]);
    let agent = AgentProcess::start(server.address(), &[]);
    replay_all(|| agent.connect());
}

fn replay_all(connect: impl Fn() -> TestConnection) {
    let cases: Vec<Value> = serde_json::from_str(RECORDING).unwrap();
    assert_eq!(cases.len(), 40);
    for case in cases {
        replay(&case, connect());
    }
}

fn replay(case: &Value, mut connection: TestConnection) {
    let name = &case["name"];
    let mut closed = false;
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        assert!(!closed, "{name}: a step after the end");
        // The server may close before it has received all of it.
        let sent = connection.try_write(&bytes(&step["send"]));
        let Some(reply) = step.get("reply") else {
            sent.unwrap();
            continue;
        };
        closed = step["closed"].as_bool().unwrap();
        let reply = bytes(reply);
        let answer = if closed { connection.read_to_end() } else { connection.read(reply.len()) };
        assert_eq!(masked(answer), masked(reply), "{name}, step {number}");
    }
    if !closed {
        connection.write(&request(PROBE_UID, SessionOperation::Have, b"never stored"));
        // An answer omitted from the recording may precede it.
        let answer = std::iter::repeat_with(|| connection.receive()).find(|it| it.head.uid == PROBE_UID);
        assert_eq!(answer.unwrap().data, NOTOK, "{name}: the connection no longer works");
    }
}

/// Clears the patch level, which differs between servers.
fn masked(mut frames: Vec<u8>) -> Vec<u8> {
    let mut start = 0;
    while let Some(header) = frames.get_mut(start..start + HEADER_BYTES) {
        header[3] = 0;
        start += HEADER_BYTES + usize::from(u16::from_be_bytes([header[12], header[13]]));
    }
    frames
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
