//! `-write` and `-read`, and the verdict of tshark on the files.

use crate::output::exchange;
use crate::program::{SnoopProgram, over_tcp, program, run};
use crate::require::skip;
use libdc::wire::frame::SessionOperation;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

/// The output of tshark, or `None` if it is not installed.
fn tshark(file: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("tshark").arg("-r").arg(file).args(args).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The bytes of both directions of a connection as reassembled by tshark: client, then server.
fn followed(file: &Path, stream: usize) -> Option<[Vec<u8>; 2]> {
    let text = tshark(file, &["-q", "-z", &format!("follow,tcp,raw,{stream}")])?;
    let mut directions = [Vec::new(), Vec::new()];
    for line in text.lines() {
        // Bytes of the second end are indented.
        let digits = line.trim_start();
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let bytes =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            directions[usize::from(line.starts_with('\t'))].extend(bytes);
        }
    }
    Some(directions)
}

#[test]
fn a_capture_reads_as_what_was_printed_and_tshark_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.pcapng");
    let snoop = SnoopProgram::start(&["-hex", "-write", file.to_str().unwrap()]);
    let (client, server) = snoop.connect();
    for uid in 1..50 {
        let answer = vec![uid as u8; 600 * uid as usize];
        exchange(&client, &server, uid, SessionOperation::Get, &uid.to_be_bytes(), &answer);
    }
    let (mut other, mut other_server) = snoop.connect();
    exchange(&other, &other_server, 1, SessionOperation::Remove, &[1], &[0]);
    // More than fits one packet, and no frames.
    let garbage = vec![0xff; 200_000];
    let mut received = vec![0; garbage.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| other.write_all(&garbage).unwrap());
        other_server.read_exact(&mut received).unwrap();
    });
    for (client, server) in [(&client, &server), (&other, &other_server)] {
        client.shutdown(Shutdown::Write).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut client = client;
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let (printed, said) = snoop.interrupt();
    assert_eq!(said, "");

    let read = run(&["-hex", "-read", file.to_str().unwrap()]);
    assert!(read.status.success());
    assert_eq!(String::from_utf8(read.stdout).unwrap(), printed);

    let Some(problems) = tshark(&file, &["-q", "-z", "expert,warn"]) else {
        skip("tshark is not installed");
        return;
    };
    assert!(!problems.contains("Warn") && !problems.contains("Errors"), "{problems}");
    let mut expected = [Vec::new(), Vec::new()];
    for uid in 1..50_u32 {
        use libdc::wire::frame::{MessageHead, Operation};
        let head = MessageHead::request(uid, Operation::Session(SessionOperation::Get));
        libdc::wire::message::write_message(&mut expected[0], head, &uid.to_be_bytes());
        let answer = vec![uid as u8; 600 * uid as usize];
        libdc::wire::message::write_message(&mut expected[1], head.response(), &answer);
    }
    assert!(followed(&file, 0).unwrap() == expected, "the first connection");
    let [client_bytes, server_bytes] = followed(&file, 1).unwrap();
    assert_eq!((client_bytes.len(), server_bytes.len()), (15 + garbage.len(), 15));
}

#[test]
fn tcp_connections_keep_their_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.pcapng");
    let (mut child, mut client, mut server) = over_tcp(&["-count", "1", "-write", file.to_str().unwrap()]);
    let from = client.local_addr().unwrap();
    let get = [0, 0x11, 0, 1, 0, 0, 0, 0, 17, 0, 1, 1, 0, 1, 0x5f];
    client.write_all(&get).unwrap();
    let mut received = [0; 15];
    server.read_exact(&mut received).unwrap();
    assert!(child.wait().unwrap().success());
    let output = program().args(["-connections", "-read", file.to_str().unwrap()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(&format!("#1 ● opened  from {from}")), "{text}");
    assert!(lines[1].ends_with("#1 → GET     uid=17  id=5f (1)"), "{text}");
    assert!(lines[2].ends_with("#1 ○ still open  1 request unanswered"), "{text}");
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.pcapng");
    // A limit on the size of files stands for a disk that is full.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dc_snoop")]);
    command.args(["-json", "-write", file.to_str().unwrap()]);
    let mut snoop = SnoopProgram::start_command(command);
    let (client, server) = snoop.connect();
    for uid in 1..100 {
        exchange(&client, &server, uid, SessionOperation::Get, &[1], &[7; 1000]);
    }
    let said = snoop.stderr_line();
    assert!(said.contains("out.pcapng: File too large (os error 27); nothing more is written"), "{said}");
    exchange(&client, &server, 100, SessionOperation::Get, &[1], &[7; 1000]);
    let (printed, rest) = snoop.interrupt();
    assert_eq!((printed.lines().count(), rest.as_str()), (200, ""));

    let read = run(&["-json", "-read", file.to_str().unwrap()]);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let count = String::from_utf8(read.stdout).unwrap().lines().count();
    assert!((1..200).contains(&count), "{count} lines");
}
