//! The output does not depend on how the bytes of applications and server are split.

use super::scripted::{ScriptedMultiplexer, acquire, hex, key, token};
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::wire::frame::{Direction, LockOperation, Operation};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::MessageReader;
use proptest::prelude::*;

/// Requests of an application, in frames or in lines.
fn requests() -> impl Strategy<Value = (bool, Vec<usize>)> {
    (any::<bool>(), prop::collection::vec(0_usize..8, 1..30))
}

fn bytes_of(in_lines: bool, kinds: &[usize]) -> Vec<u8> {
    if in_lines {
        let lines = [
            "l\nk\n5\n".to_owned(),
            "l\r\nk\r\n0\r\n".to_owned(),
            "ping\n_\n\n".to_owned(),
            "zz\nk\n\n".to_owned(),
            format!("r\nk\n{}\n", hex(1)),
            "stats\n\n\n".to_owned(),
            "se\nk\n2 9\n".to_owned(),
            format!("l\n{}\n1\n", "x".repeat(300)),
        ];
        return kinds.iter().flat_map(|kind| lines[*kind].bytes()).collect();
    }
    let mut bytes = Vec::new();
    for (uid, kind) in (0..).zip(kinds) {
        let action = match kind {
            0 => acquire("k", 5_000),
            1 => acquire("k", 0),
            2 => LockAction::Release { key: key("k"), token: token(1) },
            3 => LockAction::Cancel { uid: 0 },
            4 => LockAction::Stats,
            5 => LockAction::Wait { key: key("k"), timeout_ms: 1 },
            6 => LockAction::Enqueue { key: key("k"), limit: 2, lease_ms: 3 },
            _ => {
                bytes.extend_from_slice(b"\0\x11\0\x01\0garbage that is no frame");
                continue;
            }
        };
        LockRequest { owner: 0, action }.write(uid, &mut bytes);
    }
    bytes
}

/// The answers of the server to all requests among these bytes.
fn responses(asked: &[u8]) -> Vec<u8> {
    let mut reader = MessageReader::link(Direction::Request);
    let mut input = asked;
    let mut out = Vec::new();
    while let Some(request) = reader.next(&mut input).expect("the agent sends well") {
        let json = " ".repeat(3_000);
        let json = format!("{{{json}}}");
        let answer = match request.head.operation {
            Operation::Lock(LockOperation::Stats) => LockAnswer::Stats(json.as_bytes()),
            Operation::Lock(LockOperation::Enqueue) => LockAnswer::Status(LockStatus::Queued),
            _ => LockAnswer::Status(LockStatus::Error),
        };
        answer.write(request.head, &mut out);
    }
    out
}

/// Plays until no output remains. Returns the bytes received by the application and by the server, and
/// whether there was an error.
fn play(stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>, bool) {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    let (mut got, mut asked) = (Vec::new(), Vec::new());
    let mut fault = false;
    let mut rest = stream;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() && !fault && agent.wants_input(id) {
        let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap_or(&1)));
        rest = after;
        fault = agent.send(id, piece).is_err();
    }
    loop {
        let output = agent.written(usize::MAX);
        asked.extend_from_slice(&output);
        let mut coming = &responses(&output)[..];
        if coming.is_empty() {
            break;
        }
        while !coming.is_empty() {
            let (piece, after) = coming.split_at(coming.len().min(*cuts.next().unwrap_or(&1)));
            coming = after;
            agent.receive(piece).expect("good answers");
            read_output(&mut agent, id, &mut got);
        }
    }
    read_output(&mut agent, id, &mut got);
    fault |= agent.check(id).is_err_and(LocalCloseReason::is_violation);
    (got, asked, fault)
}

fn read_output(agent: &mut ScriptedMultiplexer, id: LocalId, got: &mut Vec<u8>) {
    got.extend(agent.at(id));
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        (in_lines, kinds) in requests(),
        cuts in prop::collection::vec(1_usize..60, 1..20),
    ) {
        let stream = bytes_of(in_lines, &kinds);
        let whole = play(&stream, &[usize::MAX]);
        let cut = play(&stream, &cuts);
        prop_assert_eq!(whole, cut);
    }
}
