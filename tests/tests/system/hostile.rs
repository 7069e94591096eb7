//! Peers that violate the protocol. Each causes one log line, and affects no other connection.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, OK, TestConnection, request};
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use std::io::ErrorKind;
use std::thread;

/// The start of a TLS 1.3 `ClientHello`.
const TLS_HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0x5a, 0x11, 0x8f, 0x20, 0x77, 0x09,
    0xc4,
];
/// The header of a GET that announces 2048 bytes of data.
const INCOMPLETE: &[u8] = &[0x00, 0x11, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0x08, 0x00];
/// The longest session for an id of 32 bytes.
const LONGEST_SESSION: usize = 32_728;
const LONG_ID: [u8; 32] = [7; 32];

#[test]
fn server_logs_and_closes_connection_with_garbage() {
    let mut server = ServerProcess::start(&[]);
    let (bad, lines) = (send_garbage(|| server.connect()), server.process.stop());
    one_line_each(bad, &lines);
}

#[test]
fn agent_logs_and_closes_connection_with_garbage() {
    let server = ServerProcess::start(&[]);
    let mut agent = AgentProcess::start(server.address(), &[]);
    let (bad, lines) = (send_garbage(|| agent.connect()), agent.process.stop());
    one_line_each(bad, &lines);
    assert_eq!(server.process.log.with(" WARN "), Vec::<String>::new(), "garbage reached the server");
}

/// Sends garbage on connections, beside others that keep working. Returns the number of bad ones.
fn send_garbage(connect: impl Fn() -> TestConnection) -> usize {
    let mut good = connect();
    assert_eq!(good.add(b"id", b"session"), OK);
    let mut garbage: Vec<Vec<u8>> = (1..=60).map(random_bytes).collect();
    garbage.push(TLS_HELLO.to_vec());
    garbage.push(b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n".to_vec());
    garbage.push(vec![b'l'; 257]);
    garbage.push(vec![0; 3]);
    garbage.push(vec![0xff; 100_000]);
    // A valid request before the garbage is answered.
    garbage.push([request(1, SessionOperation::Have, b"id").as_slice(), TLS_HELLO].concat());
    for bytes in &garbage {
        let mut bad = connect();
        // It may be closed before everything is sent.
        bad.try_write(bytes).ok();
        let answer = bad.read_to_end();
        assert!(answer.is_empty() || answer.len() == 15 || answer == b"error\n", "{answer:?}");
        assert_eq!(good.get(b"id"), b"session");
        // This connection sends nothing and closes, which is valid.
        drop(connect());
    }
    garbage.len()
}

/// Bytes that begin no request, different for each seed.
fn random_bytes(seed: u32) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = move || {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        (word >> 24) as u8
    };
    // A lower-case letter would begin the line protocol.
    std::iter::once(next() | 0x81).chain((0..seed * 7).map(|_| next())).collect()
}

fn one_line_each(bad: usize, lines: &[String]) {
    let closures: Vec<&String> = lines.iter().filter(|line| line.contains("closed: ")).collect();
    assert_eq!(closures.len(), bad, "one line for each bad connection");
    for line in &closures {
        assert!(line.contains("peer=") && !line.contains("unknown"), "{line}");
        assert!(line.contains(" WARN ") && line.contains("connection=#"), "{line}");
        let reasons = [" at byte ", "TLS", "a line of more than 256 bytes"];
        assert!(reasons.iter().any(|reason| line.contains(reason)), "{line}");
    }
    let others = lines.iter().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert_eq!(others.count(), bad, "there are other warnings");
    assert!(lines.len() < bad + 60, "{} lines for {bad} bad connections", lines.len());
}

#[test]
fn server_closes_connection_with_incomplete_request() {
    let server = ServerProcess::start(&["-read-timeout", "1"]);
    closes_incomplete(|| server.connect(), &server.process, "not whole within the read timeout");
}

#[test]
fn agent_closes_connection_with_incomplete_request() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    closes_incomplete(|| agent.connect(), &agent.process, "not whole after 23000 ms");
}

fn closes_incomplete(connect: impl Fn() -> TestConnection, process: &TestProcess, closures: &str) {
    let mut good = connect();
    assert_eq!(good.add(b"id", b"session"), OK);
    let mut slow: Vec<TestConnection> = (0..10).map(|_| connect()).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        connection.write(&INCOMPLETE[..INCOMPLETE.len() - number]);
    }
    slow[0].write(&[b'x'; 2047]);
    assert_eq!(good.get(b"id"), b"session");
    slow.iter_mut().for_each(|connection| assert_eq!(connection.read_to_end(), b""));
    slow.iter().for_each(|_| drop(process.log.expect(closures)));
    assert_eq!(good.get(b"id"), b"session", "a connection without a pending request was closed too");
}

#[test]
fn server_closes_connection_that_never_reads_its_answers() {
    let server = ServerProcess::start(&["-write-timeout", "1"]);
    closes_unread(|| server.connect(), &server.process, "no answer was read for 1000 ms");
}

#[test]
fn agent_closes_connection_that_never_reads_its_answers() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    closes_unread(|| agent.connect(), &agent.process, "no answer was read for 5000 ms");
    // A client that does not read has no effect on the server.
    assert_eq!(server.process.log.with(" WARN "), Vec::<String>::new());
}

fn closes_unread(connect: impl Fn() -> TestConnection + Sync, process: &TestProcess, closures: &str) {
    const UNREAD: usize = 8;
    let mut good = connect();
    assert_eq!(good.add(&LONG_ID, &vec![b'x'; LONGEST_SESSION]), OK);
    let requests: Vec<u8> = (0..1000).flat_map(|uid| request(uid, SessionOperation::Get, &LONG_ID)).collect();
    thread::scope(|scope| {
        let send_without_reading = || {
            let mut unread = connect();
            loop {
                if let Err(error) = unread.try_write(&requests) {
                    return error.kind();
                }
            }
        };
        let unread: Vec<_> = (0..UNREAD).map(|_| scope.spawn(send_without_reading)).collect();
        for _ in 0..UNREAD {
            assert_eq!(good.get(&LONG_ID).len(), LONGEST_SESSION);
            process.log.expect(closures);
        }
        for end in unread {
            let end = end.join().unwrap();
            assert!(matches!(end, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end}");
        }
    });
    assert_eq!(good.have(b"id"), NOTOK);
    let peak_kib = process.peak_kib();
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB for {UNREAD} connections that do not read");
}
