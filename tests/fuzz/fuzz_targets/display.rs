//! Arbitrary bytes from both peers, in any interleaving: they are observed and printed without a panic, and
//! every byte is accounted for.
//!
//! The input is a sequence of pieces: a byte whose lowest bit is the sender and whose other bits are the
//! length, then the bytes.
#![no_main]

use dc_snoop::decode::{DecodedMessage, Redaction, show_stream};
use dc_snoop::observe::{Endpoint, ObservedEvent, Observer};
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
        let sender = if first & 1 == 0 { Endpoint::Client } else { Endpoint::Server };
        while let Some(event) = observer.next(sender, at, &mut piece) {
            if let ObservedEvent::Message(passed) = &event {
                let content = DecodedMessage::decode(passed.message);
                for secrets in [Redaction::Hidden, Redaction::Shown] {
                    assert!(!content.show(secrets).to_string().contains('\n'));
                }
            }
        }
        assert!(piece.is_empty(), "the observer left bytes");
    }
    for secrets in [Redaction::Hidden, Redaction::Shown] {
        assert!(!show_stream(input, secrets).to_string().is_empty() || input.is_empty());
    }
});
