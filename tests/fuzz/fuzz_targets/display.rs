//! Arbitrary bytes from both peers, in any interleaving: they are observed and printed without a panic, and
//! every byte is accounted for.
//!
//! The input is a sequence of pieces: a byte whose lowest bit is the sender and whose other bits are the
//! length, then the bytes.
#![no_main]

use libdc::proto::observe::{Event, Observer, Sender};
use libdc::wire::display::{Content, Secrets, show_stream};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: &[u8]| {
    let mut observer = Observer::new();
    let mut rest = input;
    let mut at = Duration::ZERO;
    while let Some((&first, after)) = rest.split_first() {
        let (mut piece, next) = after.split_at(usize::from(first >> 1).min(after.len()));
        rest = next;
        at += Duration::from_micros(1);
        let sender = if first & 1 == 0 { Sender::Client } else { Sender::Server };
        while let Some(event) = observer.next(sender, at, &mut piece) {
            if let Event::Message(passed) = &event {
                let content = Content::of(passed.message);
                for secrets in [Secrets::Hidden, Secrets::Shown] {
                    assert!(!content.show(secrets).to_string().contains('\n'));
                }
            }
        }
        assert!(piece.is_empty(), "the observer left bytes");
    }
    for secrets in [Secrets::Hidden, Secrets::Shown] {
        assert!(!show_stream(input, secrets).to_string().is_empty() || input.is_empty());
    }
});
