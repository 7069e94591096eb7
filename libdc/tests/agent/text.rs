//! The line protocol at the agent: order of answers, refusals, closing.

use super::scripted::{CANCEL, ScriptedMultiplexer, acquire, hex, lock, token};
use libdc::limits::{LOCAL_HELD_BACK_BYTES_MAX, LOCAL_READ_TIMEOUT_MS};
use libdc::proto::agent::local::LocalCloseReason;
use libdc::wire::line::LineTooLong;
use libdc::wire::lock::{LockAction, LockAnswer, LockStatus};

const FINISHED: Result<(), LocalCloseReason> = Err(LocalCloseReason::PeerFinished);
const TOO_LONG: LocalCloseReason = LocalCloseReason::LineTooLong(LineTooLong);

#[test]
fn a_request_in_lines_is_one_in_a_frame_to_the_server() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "l\nk\n5 33\n");
    let output = agent.written(usize::MAX);
    assert_eq!(output[..5], [0, 0x11, 0, 1, 0]);
    assert_eq!(output[9..14], [1, 0, 1, 0, 31]);
    let owner_and_key = [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'k'];
    let limit_timeout_lease = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0x80, 0xe8];
    assert_eq!(output[14..], [&owner_and_key[..], &limit_timeout_lease].concat());

    let mut answer = [0, 0x11, 0, 1, 1].to_vec();
    answer.extend_from_slice(&output[5..11]);
    answer.extend_from_slice(&[1, 0, 25, 0]);
    answer.extend_from_slice(&[&token(7).to_bytes()[..], &33_000_u64.to_be_bytes()].concat());
    agent.receive(&answer).unwrap();
    assert_eq!(agent.lines_at(id), "ok 0000000000000007000000000000feed 33\n");
}

#[test]
fn each_connection_is_a_separate_owner() {
    let mut agent = ScriptedMultiplexer::linked();
    let (one, other) = (agent.open(), agent.open());
    agent.text(one, "l\nk\n0\n");
    agent.text(other, "e\nk\n\n");
    let owners: Vec<u64> = agent.at_server().iter().map(|message| lock(message).owner).collect();
    assert_eq!(owners, [1, 2]);
}

#[test]
fn non_blocking_lines_are_sent_together_answered_in_order() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, &format!("r\na\n{}\nping\n_\n\nn\nb\n{} 5\nzz\n_\n\ne\nc\n\n", hex(1), hex(2)));
    let asked = agent.at_server();
    assert_eq!(asked.len(), 3);
    agent.reply(&asked[2], LockAnswer::Status(LockStatus::Queued));
    assert_eq!(agent.lines_at(id), "", "an answer came before its turn");
    agent.reply(&asked[0], LockAnswer::Status(LockStatus::Ok));
    assert_eq!(agent.lines_at(id), "ok\nok\n", "the release and the ping");
    agent.reply(&asked[1], LockAnswer::Renewed { lease_ms: 5_000 });
    assert_eq!(agent.lines_at(id), "ok 5\nerror\nqueued\n");
}

#[test]
fn blocking_line_delays_the_lines_behind_it() {
    let mut agent = ScriptedMultiplexer::linked();
    let (id, other) = (agent.open(), agent.open());
    agent.text(id, "l\nk\n5\nping\n_\n\nl\nj\n0\n");
    let blocked = agent.request();
    assert_eq!(agent.lines_at(id), "");
    agent.text(other, "ping\n_\n\n");
    assert_eq!(agent.lines_at(other), "ok\n", "another connection was held back");
    agent.reply(&blocked, LockAnswer::Status(LockStatus::Timeout));
    assert_eq!(agent.lines_at(id), "timeout\nok\n");
    let request = agent.request();
    assert_eq!(lock(&request).action, acquire("j", 0));
}

#[test]
fn stats_are_requested_one_at_a_time() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "stats\n\n\nstats\n\n\n");
    let request = agent.request();
    assert_eq!(lock(&request).action, LockAction::Stats);
    let json = format!("{{{}}}", " ".repeat(5_000));
    agent.reply(&request, LockAnswer::Stats(json.as_bytes()));
    assert_eq!(agent.lines_at(id), format!("ok {json}\n"));
    assert_eq!(lock(&agent.request()).action, LockAction::Stats);
}

#[test]
fn invalid_line_request_is_answered_error() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "zz\nk\n1\nauth\n_\nsecret\nl\nk k\n1\nl\nk\n-1\nping\r\n_\r\n\r\n");
    assert_eq!(agent.lines_at(id), "error\nerror\nerror\nerror\nok\n");
    assert_eq!(agent.at_server(), []);
    assert_eq!(agent.check(id), Ok(()));
}

#[test]
fn a_line_that_is_too_long_is_the_last_after_all_answers() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, &format!("l\nk\n5\nr\nk\n{}\n{}", hex(1), "x".repeat(257)));
    let blocked = agent.request();
    assert_eq!(agent.lines_at(id), "", "no request is taken behind a blocked one");
    agent.reply(&blocked, LockAnswer::Status(LockStatus::Timeout));
    assert_eq!(agent.lines_at(id), "timeout\n");
    let release = agent.request();
    assert_eq!(agent.multiplexer.local_deadline(id), None, "the connection ends, and awaits no request");
    assert!(agent.wants_input(id), "the end of the connection would not be noticed");
    agent.text(id, "ping\n_\n\n");
    assert_eq!(agent.check(id), Ok(()), "an answer is to come");
    agent.reply(&release, LockAnswer::Status(LockStatus::Error));
    assert_eq!(agent.check(id), Ok(()), "the answers are to be written");
    assert_eq!(agent.lines_at(id), "error\nerror\n");
    assert_eq!(agent.check(id), Err(TOO_LONG));
}

#[test]
fn incomplete_line_request_times_out_with_error() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "ping\n_\n\nl\n");
    let end = agent.now.after_ms(LOCAL_READ_TIMEOUT_MS);
    assert_eq!(agent.multiplexer.local_deadline(id), Some(end));
    agent.now = agent.now.after_ms(1_000);
    agent.text(id, "k\n");
    assert_eq!(agent.multiplexer.local_deadline(id), Some(end));
    assert_eq!(agent.lines_at(id), "ok\n");
    agent.now = end;
    assert_eq!(agent.check(id), Ok(()));
    assert_eq!(agent.lines_at(id), "error\n");
    assert_eq!(agent.check(id), Err(LocalCloseReason::ReadTimeout));
}

#[test]
fn time_runs_for_half_a_request_only_when_it_could_be_taken() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "l\nk\n5\nr\n");
    assert_eq!(agent.multiplexer.local_deadline(id), None);
    agent.now = agent.now.after_ms(1_000);
    let blocked = agent.request();
    agent.reply(&blocked, LockAnswer::Status(LockStatus::Timeout));
    agent.at(id);
    assert_eq!(agent.multiplexer.local_deadline(id), Some(agent.now.after_ms(LOCAL_READ_TIMEOUT_MS)));
}

#[test]
fn a_blocked_connection_is_read_so_that_its_end_is_noticed() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "l\nk\n5\nping\n_\n\n");
    let blocked = agent.request();
    assert!(agent.wants_input(id));
    agent.text(id, &"ping\n_\n\n".repeat(LOCAL_HELD_BACK_BYTES_MAX / 8));
    assert!(!agent.wants_input(id), "no end of bytes is held back");
    agent.reply(&blocked, LockAnswer::Status(LockStatus::Timeout));
    assert_eq!(agent.lines_at(id), format!("timeout\n{}", "ok\n".repeat(1 + LOCAL_HELD_BACK_BYTES_MAX / 8)));
    assert!(agent.wants_input(id));
}

#[test]
fn end_of_input_cancels_the_blocked_request() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.text(id, "l\nk\n5\nl\nj\n5\nhalf");
    let blocked = agent.request();
    agent.multiplexer.local_handle_input(agent.now, id, &[]);
    agent.multiplexer.local_handle_input(agent.now, id, &[]);
    let cancel = agent.request();
    assert_eq!(cancel.head.operation, CANCEL);
    assert_eq!(lock(&cancel).action, LockAction::Cancel { uid: blocked.head.uid });
    assert_ne!(agent.check(id), FINISHED);
    agent.reply(&blocked, LockAnswer::Status(LockStatus::Timeout));
    agent.reply(&cancel, LockAnswer::Status(LockStatus::Ok));
    assert_eq!(agent.lines_at(id), "timeout\n");
    // A request received before the end of input is sent, but does not block.
    let request = agent.request();
    assert_eq!(lock(&request).action, acquire("j", 0));
    agent.grant(&request, 1, 1_000);
    assert_ne!(agent.check(id), FINISHED, "an answer is to be written");
    assert_eq!(agent.lines_at(id), format!("ok {} 1\n", hex(1)));
    assert_eq!(agent.check(id), FINISHED, "half a request is nothing to wait for");
}

#[test]
fn outages_are_answered_at_once_in_order() {
    let mut agent = ScriptedMultiplexer::new(0, None);
    let id = agent.open();
    agent.text(id, "l\nk\n5\nping\n_\n\nstats\n\n\n");
    assert_eq!(agent.lines_at(id), "error_disconnected\nok\nerror_disconnected\n");
    agent.connect();
    agent.text(id, &format!("r\na\n{}\nl\nk\n5\nping\n_\n\n", hex(1)));
    assert_eq!(agent.at_server().len(), 2);
    agent.lose_link();
    assert_eq!(agent.lines_at(id), "error_disconnected\nerror_disconnected\nok\n");
    assert_eq!(agent.multiplexer.in_flight(), 0);
}

#[test]
fn distcache_1_server_has_no_locks() {
    let mut agent = ScriptedMultiplexer::new(0, None);
    agent.multiplexer.link_connected(agent.now, &[7; 32]);
    let mut probe = agent.request();
    probe.head = probe.head.response();
    probe.head.patch_level = 0;
    let mut bytes = Vec::new();
    libdc::wire::message::write_message(&mut bytes, probe.head, &[1]);
    agent.receive(&bytes).unwrap();
    let id = agent.open();
    agent.text(id, "l\nk\n5\nping\n_\n\n");
    assert_eq!(agent.lines_at(id), "error_unsupported\nok\n");
    let frames = agent.open();
    agent.ask(frames, 3, acquire("k", 5));
    assert_eq!(agent.frames_at(frames), [(3, vec![LockStatus::ErrorUnsupported as u8])]);
    agent.close(id);
    assert!(!agent.multiplexer.send_bye(agent.now));
    assert_eq!(agent.at_server(), [], "a request that it does not support was sent");
}
