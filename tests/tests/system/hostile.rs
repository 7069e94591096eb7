//! Peers that do not keep to the protocol. Each costs one line of the log, and nobody else anything.

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
/// The header of a GET with 2048 bytes of data.
const PROMISE: &[u8] = &[0x00, 0x11, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0x08, 0x00];
/// With an id of 32 bytes, no session is longer.
const LONGEST_SESSION: usize = 32_728;
const LONG_ID: [u8; 32] = [7; 32];

#[test]
fn what_is_no_request_costs_the_server_a_line_and_its_sender_the_connection() {
    let mut server = ServerProcess::start(&[]);
    let (bad, lines) = (send_garbage(|| server.connect()), server.process.stop());
    one_line_each(bad, &lines);
}

#[test]
fn what_is_no_request_costs_the_agent_a_line_and_its_sender_the_connection() {
    let server = ServerProcess::start(&[]);
    let mut agent = AgentProcess::start(server.address(), &[]);
    let (bad, lines) = (send_garbage(|| agent.connect()), agent.process.stop());
    one_line_each(bad, &lines);
    assert_eq!(server.process.log.with(" WARN "), Vec::<String>::new(), "the server saw something of it");
}

/// Connections that send garbage, and others that work on. Returns how many bad ones there were.
fn send_garbage(connect: impl Fn() -> TestConnection) -> usize {
    let mut good = connect();
    assert_eq!(good.add(b"id", b"session"), OK);
    let mut garbage: Vec<Vec<u8>> = (1..=60).map(random_bytes).collect();
    garbage.push(TLS_HELLO.to_vec());
    garbage.push(b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n".to_vec());
    garbage.push(vec![b'l'; 257]);
    garbage.push(vec![0; 3]);
    garbage.push(vec![0xff; 100_000]);
    // What comes before the garbage is answered.
    garbage.push([request(1, SessionOperation::Have, b"id").as_slice(), TLS_HELLO].concat());
    for bytes in &garbage {
        let mut bad = connect();
        // It may be closed before everything is sent.
        bad.try_write(bytes).ok();
        let answer = bad.read_to_end();
        assert!(answer.is_empty() || answer.len() == 15 || answer == b"error\n", "{answer:?}");
        assert_eq!(good.get(b"id"), b"session");
        // Nothing was wrong with this one, but that it left.
        drop(connect());
    }
    garbage.len()
}

/// Bytes that no request begins with, different for each seed.
fn random_bytes(seed: u32) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = move || {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        (word >> 24) as u8
    };
    // What begins with a small letter is text.
    std::iter::once(next() | 0x81).chain((0..seed * 7).map(|_| next())).collect()
}

fn one_line_each(bad: usize, lines: &[String]) {
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("closed: ")).collect();
    assert_eq!(told.len(), bad, "one line for each bad connection");
    for line in &told {
        assert!(line.contains("peer=") && !line.contains("unknown"), "{line}");
        assert!(line.contains(" WARN ") && line.contains("connection=#"), "{line}");
        let reasons = [" at byte ", "TLS", "a line of more than 256 bytes"];
        assert!(reasons.iter().any(|reason| line.contains(reason)), "{line}");
    }
    let others = lines.iter().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert_eq!(others.count(), bad, "something else was worth a warning");
    assert!(lines.len() < bad + 60, "{} lines for {bad} bad connections", lines.len());
}

#[test]
fn the_server_closes_a_connection_that_promises_data_and_sends_none() {
    let server = ServerProcess::start(&["-read-timeout", "1"]);
    breaks_its_promise(|| server.connect(), &server.process, "not whole within the read timeout");
}

#[test]
fn the_agent_closes_a_connection_that_promises_data_and_sends_none() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    breaks_its_promise(|| agent.connect(), &agent.process, "not whole after 23000 ms");
}

fn breaks_its_promise(connect: impl Fn() -> TestConnection, process: &TestProcess, told: &str) {
    let mut good = connect();
    assert_eq!(good.add(b"id", b"session"), OK);
    let mut slow: Vec<TestConnection> = (0..10).map(|_| connect()).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        connection.write(&PROMISE[..PROMISE.len() - number]);
    }
    slow[0].write(&[b'x'; 2047]);
    assert_eq!(good.get(b"id"), b"session");
    slow.iter_mut().for_each(|connection| assert_eq!(connection.read_to_end(), b""));
    slow.iter().for_each(|_| drop(process.log.expect(told)));
    assert_eq!(good.get(b"id"), b"session", "a connection without a request under way was closed too");
}

#[test]
fn the_server_closes_a_connection_that_never_reads_and_does_not_keep_its_answers() {
    let server = ServerProcess::start(&["-write-timeout", "1"]);
    never_reads(|| server.connect(), &server.process, "no answer was read for 1000 ms");
}

#[test]
fn the_agent_closes_a_connection_that_never_reads_and_does_not_keep_its_answers() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    never_reads(|| agent.connect(), &agent.process, "no answer was read for 5000 ms");
    // Whoever does not read is not the server's affair.
    assert_eq!(server.process.log.with(" WARN "), Vec::<String>::new());
}

fn never_reads(connect: impl Fn() -> TestConnection + Sync, process: &TestProcess, told: &str) {
    const DEAF: usize = 8;
    let mut good = connect();
    assert_eq!(good.add(&LONG_ID, &vec![b'x'; LONGEST_SESSION]), OK);
    let requests: Vec<u8> = (0..1000).flat_map(|uid| request(uid, SessionOperation::Get, &LONG_ID)).collect();
    thread::scope(|scope| {
        let ask_for_ever = || {
            let mut deaf = connect();
            loop {
                if let Err(error) = deaf.try_write(&requests) {
                    return error.kind();
                }
            }
        };
        let deaf: Vec<_> = (0..DEAF).map(|_| scope.spawn(ask_for_ever)).collect();
        for _ in 0..DEAF {
            assert_eq!(good.get(&LONG_ID).len(), LONGEST_SESSION);
            process.log.expect(told);
        }
        for end in deaf {
            let end = end.join().unwrap();
            assert!(matches!(end, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end}");
        }
    });
    assert_eq!(good.have(b"id"), NOTOK);
    let peak_kib = process.peak_kib();
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB for {DEAF} connections that do not read");
}
