//! Reassembles the segments of a capture into the bytes of each direction, in order and once.
//!
//! A capture may miss segments, or have them twice, out of order or truncated. Segments behind a hole wait
//! until the hole is filled, until [`AHEAD_BYTES_MAX`] or [`AHEAD_SEGMENTS_MAX`] wait, or until the
//! connection ends. Then the hole is reported as a gap.

use std::collections::VecDeque;

/// Most bytes that wait behind a hole.
const AHEAD_BYTES_MAX: usize = 4 << 20;
/// Most segments that wait behind a hole.
const AHEAD_SEGMENTS_MAX: usize = 256;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    /// The next sequence number, once there was a segment.
    next: Option<u32>,
    /// Segments behind a hole, in the order of their numbers.
    ahead: VecDeque<(u32, Vec<u8>)>,
    ahead_bytes: usize,
    /// The number behind the last byte.
    end: Option<u32>,
}

/// A piece of a direction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Vec<u8>),
    Gap(u32),
}

impl Reassembly {
    /// Whether the direction has not begun.
    pub(crate) const fn is_new(&self) -> bool {
        self.next.is_none()
    }

    /// The direction begins with this number.
    pub(crate) const fn begin(&mut self, sequence: u32) {
        self.next = Some(sequence);
    }

    /// The direction ends before this number.
    pub(crate) const fn end(&mut self, sequence: u32) {
        self.end = Some(sequence);
    }

    /// Whether all bytes of the direction have been returned.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.is_some() && self.next == self.end
    }

    /// A segment with data.
    pub(crate) fn segment(&mut self, sequence: u32, data: &[u8]) {
        let next = *self.next.get_or_insert(sequence);
        // Old data, or the part of it that is.
        let old = distance(sequence, next).max(0) as usize;
        let Some(data) = data.get(old..).filter(|data| !data.is_empty()) else { return };
        let sequence = if old > 0 { next } else { sequence };
        let place =
            self.ahead.partition_point(|(other, _)| distance(next, *other) < distance(next, sequence));
        self.ahead.insert(place, (sequence, data.to_vec()));
        self.ahead_bytes += data.len();
    }

    /// The next piece in order. With `force` holes are not waited for.
    pub(crate) fn next_piece(&mut self, force: bool) -> Option<Piece> {
        let next = self.next?;
        loop {
            let (sequence, data) = self.ahead.front()?;
            let hole = distance(next, *sequence);
            if hole > 0 {
                let full = self.ahead.len() > AHEAD_SEGMENTS_MAX || self.ahead_bytes > AHEAD_BYTES_MAX;
                if !force && !full {
                    return None;
                }
                self.next = Some(*sequence);
                return Some(Piece::Gap(hole as u32));
            }
            let old = hole.unsigned_abs() as usize;
            let fresh = data.get(old..).unwrap_or_default().to_vec();
            self.ahead_bytes -= data.len();
            self.ahead.pop_front();
            if !fresh.is_empty() {
                self.next = Some(next.wrapping_add(fresh.len() as u32));
                return Some(Piece::Data(fresh));
            }
        }
    }
}

/// From `from` to `to`, where numbers begin again at 0 after 2³² − 1.
const fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(reassembly: &mut Reassembly, force: bool) -> Vec<Piece> {
        std::iter::from_fn(|| reassembly.next_piece(force)).collect()
    }

    fn data(bytes: &[u8]) -> Piece {
        Piece::Data(bytes.to_vec())
    }

    #[test]
    fn duplicate_and_partial_segments_are_reported_once() {
        let mut reassembly = Reassembly::default();
        reassembly.begin(u32::MAX);
        reassembly.segment(u32::MAX, b"abc");
        assert_eq!(pieces(&mut reassembly, false), [data(b"abc")]);
        reassembly.segment(u32::MAX, b"abc");
        reassembly.segment(1, b"cde");
        assert_eq!(pieces(&mut reassembly, false), [data(b"de")]);
        reassembly.end(4);
        assert!(reassembly.is_complete());
    }

    #[test]
    fn a_hole_is_waited_for_and_told_at_the_end() {
        let mut reassembly = Reassembly::default();
        reassembly.segment(0, b"ab");
        reassembly.segment(5, b"fg");
        assert_eq!(pieces(&mut reassembly, false), [data(b"ab")]);
        assert_eq!(pieces(&mut reassembly, true), [Piece::Gap(3), data(b"fg")]);
    }

    #[test]
    fn a_hole_is_not_waited_for_for_ever() {
        let mut reassembly = Reassembly::default();
        reassembly.begin(0);
        for number in 0..=AHEAD_SEGMENTS_MAX as u32 {
            assert_eq!(pieces(&mut reassembly, false), []);
            reassembly.segment(10 + number, b"x");
        }
        assert_eq!(reassembly.next_piece(false), Some(Piece::Gap(10)));
        assert_eq!(pieces(&mut reassembly, false).len(), AHEAD_SEGMENTS_MAX + 1);
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_same_bytes(
            start in any::<u32>(),
            bytes in proptest::collection::vec(any::<u8>(), 1..200),
            ranges in proptest::collection::vec((any::<prop::sample::Index>(), 1..30_usize), 0..40),
        ) {
            let mut reassembly = Reassembly::default();
            reassembly.begin(start);
            let mut seen = Vec::new();
            let whole = (0..bytes.len()).step_by(20).map(|from| (from, 20)).rev();
            let some = ranges.iter().map(|(index, len)| (index.index(bytes.len()), *len));
            for (from, len) in some.chain(whole) {
                let to = (from + len).min(bytes.len());
                reassembly.segment(start.wrapping_add(from as u32), &bytes[from..to]);
                for piece in pieces(&mut reassembly, false) {
                    match piece {
                        Piece::Data(data) => seen.extend(data),
                        Piece::Gap(_) => prop_assert!(false, "there is no gap"),
                    }
                }
            }
            prop_assert_eq!(seen, bytes);
        }
    }
}
