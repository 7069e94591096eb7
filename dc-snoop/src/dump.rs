//! `-hex`: bytes as hexadecimal digits and characters, sixteen a line. Redacted bytes are dots.
//!
//! ```text
//!       0000  00 11 00 01 01 00 00 00  11 00 01 01 00 03 ·· ··  |..............··|
//!       *
//!       0030  ··                                                |·|
//! ```
//!
//! Repeated rows of dots are left out; `*` stands for them, as in hexdump(1).

use dc_snoop::decode::{DecodedLines, DecodedMessage, Redaction};
use libdc::limits::{FRAME_DATA_BYTES_MAX, FRAME_HEADER_BYTES};
use libdc::wire::message::MessageRef;
use std::fmt::Write;
use std::ops::Range;

/// Which bytes are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedactedBytes {
    None,
    All,
    /// In the frames of a message: these parts of its data, in order.
    Data(Vec<Range<usize>>),
    /// In text: these parts, in order.
    Text(Vec<Range<usize>>),
}

impl RedactedBytes {
    pub(crate) fn of_message(message: MessageRef<'_>, secrets: Redaction) -> Self {
        match secrets {
            Redaction::Shown => Self::None,
            Redaction::Hidden => {
                Self::Data(DecodedMessage::decode(message).secret_ranges(message.data.len()))
            }
        }
    }

    pub(crate) fn of_text(said: &[u8], content: &DecodedLines<'_>, secrets: Redaction) -> Self {
        match secrets {
            Redaction::Shown => Self::None,
            Redaction::Hidden => Self::Text(content.secret_ranges(said)),
        }
    }

    pub(crate) const fn all(secrets: Redaction) -> Self {
        match secrets {
            Redaction::Shown => Self::None,
            Redaction::Hidden => Self::All,
        }
    }

    fn hides(&self, offset: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Text(ranges) => is_in(ranges, offset),
            Self::Data(ranges) => {
                let frame = FRAME_HEADER_BYTES + FRAME_DATA_BYTES_MAX;
                let before = offset / frame * FRAME_DATA_BYTES_MAX;
                let within = (offset % frame).checked_sub(FRAME_HEADER_BYTES);
                within.is_some_and(|within| is_in(ranges, before + within))
            }
        }
    }
}

/// Whether one of the ranges, which are in order, has this place.
fn is_in(ranges: &[Range<usize>], place: usize) -> bool {
    let next = ranges.partition_point(|range| range.end <= place);
    ranges.get(next).is_some_and(|range| range.start <= place)
}

/// Appends the dump of `bytes` to `out`.
pub(crate) fn write(out: &mut String, bytes: &[u8], hidden: &RedactedBytes) {
    if *hidden == RedactedBytes::All {
        out.push_str("      (hidden, -secrets shows them)\n");
        return;
    }
    let (mut blank_before, mut left_out) = (false, false);
    for (number, row) in bytes.chunks(16).enumerate() {
        let offset = number * 16;
        let blank = row.len() == 16 && (offset..offset + 16).all(|offset| hidden.hides(offset));
        if blank && blank_before {
            out.push_str(if left_out { "" } else { "      *\n" });
            left_out = true;
            continue;
        }
        (blank_before, left_out) = (blank, false);
        let result = row_of(out, row, offset, hidden);
        debug_assert!(result.is_ok(), "a string takes any text");
    }
}

fn row_of(out: &mut String, row: &[u8], offset: usize, hidden: &RedactedBytes) -> std::fmt::Result {
    write!(out, "      {offset:04x} ")?;
    for column in 0..16 {
        out.push_str(if column % 8 == 0 { " " } else { "" });
        match row.get(column) {
            None => out.push_str("   "),
            Some(_) if hidden.hides(offset + column) => out.push_str("·· "),
            Some(byte) => write!(out, "{byte:02x} ")?,
        }
    }
    out.push_str(" |");
    for (column, byte) in row.iter().enumerate() {
        out.push(match byte {
            _ if hidden.hides(offset + column) => '·',
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
    }
    out.push_str("|\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(range: Range<usize>) -> RedactedBytes {
        RedactedBytes::Data(std::iter::once(range).collect())
    }

    #[test]
    fn rows_are_aligned_and_secrets_dotted() {
        let bytes: Vec<u8> = (0x3a..0x3a + 18).collect();
        let mut out = String::new();
        write(&mut out, &bytes, &hidden(1..4));
        let expected = "      0000  3a 3b 3c 3d 3e 3f 40 41  42 43 44 45 46 47 48 ··  |:;<=>?@ABCDEFGH·|\n      \
                        0010  ·· ··                                             |··|\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn rows_of_nothing_but_dots_are_told_once() {
        let mut out = String::new();
        write(&mut out, &[7; 80], &hidden(0..60));
        let offsets: Vec<&str> = out.lines().map(|line| &line[6..line.len().min(10)]).collect();
        assert_eq!(offsets, ["0000", "0010", "*", "0040"]);
    }

    #[test]
    fn headers_between_secret_data_are_shown() {
        let hidden = hidden(0..4096);
        let shown: Vec<usize> = (0..2 * 2062).filter(|offset| !hidden.hides(*offset)).collect();
        assert_eq!(shown, (0..14).chain(2062..2076).collect::<Vec<_>>());
    }

    #[test]
    fn each_of_several_secrets_is_dotted() {
        let ranges = vec![1..2, 4..6];
        let seen = |hidden: RedactedBytes| (0..20).filter(|at| hidden.hides(*at)).collect::<Vec<_>>();
        assert_eq!(seen(RedactedBytes::Text(ranges.clone())), [1, 4, 5]);
        assert_eq!(seen(RedactedBytes::Data(ranges)), [15, 18, 19]);
    }

    #[test]
    fn unknown_bytes_are_hidden_as_a_whole() {
        let mut out = String::new();
        write(&mut out, b"abc", &RedactedBytes::all(Redaction::Hidden));
        assert_eq!(out, "      (hidden, -secrets shows them)\n");
    }
}
