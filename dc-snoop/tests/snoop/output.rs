//! Printed output, and the end of the program.

use crate::program::{SnoopProgram, run};
use libdc::wire::frame::{MessageHead, Operation, SessionOperation};
use libdc::wire::message::write_message;
use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;

/// A request and its answer.
pub(crate) fn exchange(
    client: &UnixStream,
    server: &UnixStream,
    uid: u32,
    operation: SessionOperation,
    request: &[u8],
    answer: &[u8],
) {
    let head = MessageHead::request(uid, Operation::Session(operation));
    for (mut from, mut to, head, data) in
        [(client, server, head, request), (server, client, head.response(), answer)]
    {
        let mut bytes = Vec::new();
        write_message(&mut bytes, head, data);
        from.write_all(&bytes).unwrap();
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes);
    }
}

#[test]
fn a_line_a_message_with_outcome_and_time() {
    let snoop = SnoopProgram::start(&["-json"]);
    let (client, server) = snoop.connect();
    exchange(&client, &server, 17, SessionOperation::Get, &[0x5f, 0x0a], &[9; 5000]);
    exchange(&client, &server, 18, SessionOperation::Have, &[0x5f, 0x0a], &[1]);
    let (printed, said) = snoop.interrupt();
    assert_eq!(said, "");
    let objects: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let brief: Vec<String> = objects
        .iter()
        .map(|it| {
            format!("{} {} {} {} {}", it["connection"], it["event"], it["operation"], it["uid"], it["status"])
        })
        .collect();
    let expected = [
        r#"1 "request" "GET" 17 null"#,
        r#"1 "response" "GET" 17 "OK""#,
        r#"1 "request" "HAVE" 18 null"#,
        r#"1 "response" "HAVE" 18 "NOTOK""#,
    ];
    assert_eq!(brief, expected);
    assert_eq!(objects[1]["session"]["bytes"], 5000);
    assert!(objects[1]["took_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn text_is_relayed_as_it_comes_and_shown_without_its_secrets() {
    let snoop = SnoopProgram::start(&["-hex"]);
    let (mut client, mut server) = snoop.connect();
    let token = "0000000000001fbb0123456789abcdef";
    let turns = [
        ("auth\n_\nsesame\n".to_owned(), "ok\n".to_owned()),
        ("l\nnightly-backup\n10 60\n".to_owned(), format!("ok {token} 60\n")),
        (format!("r\nnightly-backup\n{token}\n"), "ok\n".to_owned()),
    ];
    for (request, answer) in turns {
        client.write_all(request.as_bytes()).unwrap();
        let mut received = vec![0; request.len()];
        server.read_exact(&mut received).unwrap();
        assert_eq!(received, request.as_bytes());
        server.write_all(answer.as_bytes()).unwrap();
        let mut received = vec![0; answer.len()];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, answer.as_bytes());
    }
    let (printed, _) = snoop.interrupt();
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains('#')).collect();
    // Without the time of day and the latency.
    let said: Vec<&str> = lines.iter().map(|line| line[17..].split("   ").next().unwrap()).collect();
    let expected = [
        "#1 → auth",
        "#1 ← auth",
        "#1 → lock",
        "#1 ← lock",
        "#1 → release key=nightly-backup fence=8123 token a6c5",
        "#1 ← release ok",
    ];
    assert_eq!(said, expected, "{printed}");
    assert!(lines[2].ends_with("key=nightly-backup timeout=10s lease=60s"), "{printed}");
    assert!(lines[3].contains("ok fence=8123 lease=60s token a6c5"), "{printed}");
    for secret in ["sesame", "0123456789abcdef", "73 65 73 61", "|0123"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[test]
fn count_ends_the_program() {
    let mut snoop = SnoopProgram::start(&["-count", "3", "-filter", "op=GET"]);
    let mut stdout = snoop.stdout();
    let (mut client, server) = snoop.connect();
    exchange(&client, &server, 1, SessionOperation::Have, &[1], &[0]);
    exchange(&client, &server, 2, SessionOperation::Get, &[1], &[1]);
    let mut third = Vec::new();
    write_message(&mut third, MessageHead::request(3, Operation::Session(SessionOperation::Get)), &[1]);
    client.write_all(&third).unwrap();
    assert!(snoop.wait().success());
    let mut printed = String::new();
    stdout.read_to_string(&mut printed).unwrap();
    let [first, second, third]: [&str; 3] = printed.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(first.contains("→ GET     uid=2"), "{printed}");
    assert!(second.contains("← GET     uid=2"), "{printed}");
    assert!(third.contains("→ GET     uid=3"), "{printed}");
}

#[test]
fn closed_output_ends_the_program() {
    let mut snoop = SnoopProgram::start(&[] as &[&str]);
    let mut stdout = snoop.stdout();
    let (mut client, server) = snoop.connect();
    exchange(&client, &server, 1, SessionOperation::Get, &[1], &[1]);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let get = [0, 0x11, 0, 1, 0, 0, 0, 0, 17, 0, 1, 1, 0, 1, 0x5f];
    // Writes until the program has ended.
    while client.write_all(&get).is_ok() {}
    assert!(snoop.wait().success());
    assert_eq!(snoop.stderr_line(), "");
}

#[test]
fn an_interrupt_ends_the_statistics_with_all_that_passed() {
    let snoop = SnoopProgram::start(&["-stats", "1h"]);
    let (client, server) = snoop.connect();
    exchange(&client, &server, 1, SessionOperation::Get, &[1], &[1]);
    exchange(&client, &server, 2, SessionOperation::Get, &[1], &[7; 100]);
    let (printed, _) = snoop.interrupt();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[1], "in all");
    assert!(lines[2].contains("1 new connection  →"), "{printed}");
    let columns: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!((columns[0], &columns[2..6]), ("GET", &["2", "1", "50.0", "%"][..]), "{printed}");
}

#[test]
fn mistakes_are_one_line_and_their_status() {
    let output = run(&["-listen", "IP:1"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "dc_snoop: -server is missing (or -read)\n");
    let output = run(&["-read", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "dc_snoop: -read /nowhere/at/all: No such file or directory (os error 2)\n");
    let output = run(&["-listen", "IP:127.0.0.1:0", "-server", "IP:1", "-write", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1));
    let output = run(&["-read", env!("CARGO_BIN_EXE_dc_snoop")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it is not a capture that can be read"), "{said}");
}
