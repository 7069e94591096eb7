//! Arbitrary bytes as the line protocol: they parse alike however they are split, an overlong line is
//! reported when its last byte arrives, parsed values are encoded to the same bytes, and nothing breaks the
//! line on which it is printed.
//!
//! Byte 0 of the input is the number of cuts of two bytes that follow; the rest is the stream.
#![no_main]

use dc_fuzz::ends;
use dc_snoop::decode::{DecodedLines, Redaction};
use dc_snoop::observe::{Endpoint, ObservedEvent, Observer};
use libdc::wire::frame::Direction;
use libdc::wire::line::{LineRequest, LineTooLong, RequestLines};
use libdc::wire::lock::{LockAction, LockAnswer, LockStatus};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

type Reading = (Vec<[Vec<u8>; 3]>, Option<LineTooLong>);

fuzz_target!(|input: &[u8]| {
    let [cuts, rest @ ..] = input else { return };
    let Some((cuts, stream)) = rest.split_at_checked(2 * usize::from(cuts % 16)) else { return };
    let cuts: Vec<u16> = cuts.chunks(2).map(|cut| u16::from_be_bytes([cut[0], cut[1]])).collect();

    let (at_once, _) = read(stream, std::iter::once(stream.len()));
    let (in_pieces, _) = read(stream, ends(&cuts, stream.len()).into_iter());
    assert_eq!(at_once, in_pieces);
    let (by_bytes, arrived) = read(stream, 1..=stream.len());
    assert!(stream.is_empty() || by_bytes == at_once);
    if by_bytes.1.is_some() {
        let line = stream[..arrived].iter().rev().take_while(|byte| **byte != b'\n').count();
        assert!(line == 257 || line == 258, "reported after {line} bytes");
    }
    for [command, key, argument] in &at_once.0 {
        request(&RequestLines { command, key, argument });
    }
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        answer(line);
    }
    for sender in [Endpoint::Client, Endpoint::Server] {
        let whole = observed(sender, stream, [stream.len()].into_iter());
        assert_eq!(observed(sender, stream, ends(&cuts, stream.len()).into_iter()), whole);
    }
});

fn read(stream: &[u8], ends: impl Iterator<Item = usize>) -> (Reading, usize) {
    let (mut used, mut requests) = (0, Vec::new());
    for end in ends {
        let mut input = &stream[used..end];
        loop {
            match RequestLines::next(&mut input) {
                Ok(Some(RequestLines { command, key, argument })) => {
                    requests.push([command.to_vec(), key.to_vec(), argument.to_vec()]);
                }
                Ok(None) => break,
                Err(too_long) => return ((requests, Some(too_long)), end),
            }
        }
        used = end - input.len();
    }
    ((requests, None), stream.len())
}

/// A valid request parses alike when it is written in its longest form.
fn request(lines: &RequestLines<'_>) {
    let Some(request) = LineRequest::parse(lines) else { return };
    assert!(lines.known_command().is_some());
    let LineRequest::Lock(action) = request else { return };
    let (command, key, argument) = match action {
        LockAction::Acquire { key, limit, timeout_ms, lease_ms } => {
            ("sl", key, format!("{} {limit}{}", timeout_ms / 1000, lease(lease_ms)))
        }
        LockAction::Enqueue { key, limit, lease_ms } => ("se", key, format!("{limit}{}", lease(lease_ms))),
        LockAction::Wait { key, timeout_ms } => ("sw", key, format!("{}", timeout_ms / 1000)),
        LockAction::Release { key, token } => ("sr", key, hex(&token.to_hex())),
        LockAction::Renew { key, token, lease_ms } => {
            ("sn", key, format!("{}{}", hex(&token.to_hex()), lease(lease_ms)))
        }
        LockAction::Cancel { .. } => panic!("there is no such command"),
        LockAction::Stats => return,
    };
    let written =
        RequestLines { command: command.as_bytes(), key: key.as_bytes(), argument: argument.as_bytes() };
    assert_eq!(LineRequest::parse(&written), Some(request));
}

fn lease(ms: u64) -> String {
    if ms == 0 { String::new() } else { format!(" {}", ms / 1000) }
}

fn hex(digits: &[u8]) -> String {
    String::from_utf8_lossy(digits).into_owned()
}

fn answer(line: &[u8]) {
    let Some(answer) = LockAnswer::parse_line(line) else { return };
    assert!(LockStatus::ALL.contains(&answer.status()));
    let mut written = Vec::new();
    answer.write_line(&mut written);
    assert_eq!(LockAnswer::parse_line(&written), Some(answer));
}

/// The observations of one direction of the line protocol: lines, and the raw bytes after an overlong one.
fn observed(sender: Endpoint, stream: &[u8], ends: impl Iterator<Item = usize>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut observer, mut start) = (Observer::new(), 0);
    let (mut lines, mut raw) = (Vec::new(), Vec::new());
    if !stream.first().is_some_and(u8::is_ascii_lowercase) {
        return (lines, raw);
    }
    for end in ends {
        let mut piece = &stream[start..end];
        start = end;
        while let Some(event) = observer.next(sender, Duration::ZERO, &mut piece) {
            match event {
                ObservedEvent::Text(said) => {
                    let content = DecodedLines::decode(said.direction, said.raw);
                    assert_eq!(said.direction == Direction::Request, sender == Endpoint::Client);
                    for secrets in [Redaction::Hidden, Redaction::Shown] {
                        assert!(!content.show(secrets).to_string().contains('\n'));
                    }
                    let mut shown = 0;
                    for range in content.secret_ranges(said.raw) {
                        assert!(shown <= range.start && range.start < range.end);
                        shown = range.end;
                    }
                    assert!(shown <= said.raw.len());
                    lines.push(said.raw.to_vec());
                }
                ObservedEvent::Raw(bytes) => raw.extend_from_slice(bytes),
                other => panic!("{other:?} in text"),
            }
        }
        assert!(piece.is_empty(), "the observer left bytes");
    }
    let told = lines.iter().map(Vec::len).sum::<usize>() + raw.len();
    assert_eq!(told + observer.unfinished(sender), stream.len());
    (lines, raw)
}
