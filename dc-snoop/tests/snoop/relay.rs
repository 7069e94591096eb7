//! The relay passes bytes on unchanged.

use crate::program::{SnoopProgram, over_tcp};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

/// Pseudo-random bytes, the same for the same seed (`SplitMix64`).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let word = |index: usize| {
        let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len.div_ceil(8)).flat_map(|index| word(index).to_le_bytes()).take(len).collect()
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn random_bytes_pass_unchanged_both_ways_at_once() {
    let mut snoop = SnoopProgram::start(&["-hex"]);
    let mut stdout = snoop.stdout();
    thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let pairs: Vec<_> = (0..4).map(|_| snoop.connect()).collect();
    thread::scope(|scope| {
        for (number, (client, server)) in pairs.iter().enumerate() {
            let number = number as u64;
            let ends: [(&UnixStream, &UnixStream, u64); 2] =
                [(client, server, number), (server, client, 100 + number)];
            for (mut from, to, seed) in ends {
                scope.spawn(move || {
                    from.write_all(&noise(seed, 3_000_000)).unwrap();
                    from.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || assert!(read_all(to) == noise(seed, 3_000_000), "seed {seed}"));
            }
        }
    });
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let snoop = SnoopProgram::start(&[] as &[&str]);
    for client_first in [true, false] {
        let (client, server) = snoop.connect();
        let (first, second) = if client_first { (&client, &server) } else { (&server, &client) };
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(second), b"");
        let mut second = second;
        second.write_all(b"still here").unwrap();
        second.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(first), b"still here");
    }
}

#[test]
fn a_reset_is_passed_on_as_one() {
    let (mut child, client, mut server) = over_tcp(&[]);
    server.write_all(b"unread").unwrap();
    let mut peeked = [0; 6];
    while client.peek(&mut peeked).unwrap() < 6 {}
    // Closing with unread data resets the connection.
    drop(client);
    let error = server.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    crate::program::interrupt(&child);
    let printed = String::from_utf8(read_all(child.stdout.take().unwrap())).unwrap();
    child.wait().unwrap();
    assert!(printed.contains("#1 ○ reset by the client"), "{printed}");
}

#[test]
fn a_server_that_is_away_costs_one_connection_and_a_line() {
    let snoop = SnoopProgram::start(&[] as &[&str]);
    std::fs::rename(snoop.path("server"), snoop.path("away")).unwrap();
    let refused = UnixStream::connect(snoop.path("listen")).unwrap();
    assert_eq!(read_all(refused), b"");
    std::fs::rename(snoop.path("away"), snoop.path("server")).unwrap();
    let (mut client, server) = snoop.connect();
    client.write_all(b"hello").unwrap();
    drop(client);
    assert_eq!(read_all(server), b"hello");
    let (printed, _) = snoop.interrupt();
    let first = printed.lines().next().unwrap();
    assert!(first.contains("#1 × refused  cannot connect to UNIX:"), "{first}");
    assert!(first.ends_with("No such file or directory (os error 2)"), "{first}");
}

#[test]
fn a_slow_reader_slows_the_writer() {
    let snoop = SnoopProgram::start(&[] as &[&str]);
    let (mut client, mut server) = snoop.connect();
    client.set_nonblocking(true).unwrap();
    // The server reads nothing. The sockets and one buffer fill up, then writes would block.
    let (chunk, mut sent, mut refused) = ([0xff; 64 << 10], 0, 0);
    while refused < 1000 {
        match client.write(&chunk) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                thread::yield_now();
            }
        }
        assert!(sent < 32 << 20, "{sent} bytes are held somewhere");
    }
    drop(client);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while let count @ 1.. = server.read(&mut buffer).unwrap() {
        received += count;
    }
    assert_eq!(received, sent);
}

#[test]
fn an_output_that_nobody_reads_does_not_hold_up_the_relay() {
    let mut snoop = SnoopProgram::start(&["-connections"]);
    let (mut client, mut server) = snoop.connect();
    // A GET of one byte, a quarter of a million times: more lines than the queue holds.
    let get = [0, 0x11, 0, 1, 0, 0, 0, 0, 17, 0, 1, 1, 0, 1, 0x5f];
    let all = get.repeat(250_000);
    let expected = all.len();
    let writer = thread::spawn(move || client.write_all(&all));
    let mut received = vec![0; expected];
    server.read_exact(&mut received).unwrap();
    assert!(received.chunks(get.len()).all(|frame| frame == get));
    writer.join().unwrap().unwrap();
    drop(server);
    let mut stdout = snoop.stdout();
    let reader = thread::spawn(move || String::from_utf8(read_all(&mut stdout)).unwrap());
    snoop.interrupt();
    let printed = reader.join().unwrap();
    let shown = printed.lines().filter(|line| line.contains("→ GET")).count();
    let dropped: usize = printed
        .lines()
        .filter_map(|line| {
            line.strip_prefix("… ")?.strip_suffix(" not shown: the output is slower than what passes")
        })
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert!(dropped > 0, "{shown} lines are shown, none dropped");
    // Its opening and its end are lines too.
    assert!((250_000..=250_002).contains(&(shown + dropped)), "{shown} + {dropped}");
}
