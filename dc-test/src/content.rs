//! Ids and contents of sessions, made from a number each, so that a model of a million sessions need not
//! remember them.

use fastrand::Rng;
use libdc::wire::session::SessionStatus;

/// Bytes of an id.
pub(crate) const ID_BYTES: usize = 32;

/// The id number `seed`.
pub(crate) fn id(seed: u64) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    Rng::with_seed(seed).fill(&mut id);
    id
}

/// Appends content number `seed`, of `len` bytes. A content of one byte is never a valid status byte, which
/// would make it an ambiguous answer to a GET.
pub(crate) fn write(out: &mut Vec<u8>, seed: u64, len: usize) {
    let start = out.len();
    out.resize(start + len, 0);
    let mut rng = Rng::with_seed(seed);
    rng.fill(&mut out[start..]);
    while let [byte] = &mut out[start..]
        && SessionStatus::from_wire(*byte).is_some()
    {
        *byte = rng.u8(..);
    }
}

/// Where `bytes` first differ from content number `seed` of `len` bytes; `None` if they don't.
pub(crate) fn first_difference(bytes: &[u8], seed: u64, len: usize) -> Option<usize> {
    let mut content = Vec::new();
    write(&mut content, seed, len);
    let equal = bytes.iter().zip(&content).take_while(|(a, b)| a == b).count();
    (bytes != content).then_some(equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_the_number_only() {
        assert_eq!(id(7), id(7));
        assert_ne!(id(7), id(8));
        let (mut a, mut b) = (vec![9], Vec::new());
        write(&mut a, 1, 300);
        write(&mut b, 1, 300);
        assert_eq!(a[1..], b);
        assert_eq!(first_difference(&b, 1, 300), None);
        assert_eq!(first_difference(&b, 1, 299), Some(299));
        assert_eq!(first_difference(&b[..200], 1, 300), Some(200));
        b[17] ^= 1;
        assert_eq!(first_difference(&b, 1, 300), Some(17));
    }

    #[test]
    fn a_single_byte_is_no_status() {
        for seed in 0..5000 {
            let mut byte = Vec::new();
            write(&mut byte, seed, 1);
            assert_eq!(SessionStatus::from_wire(byte[0]), None);
        }
    }
}
