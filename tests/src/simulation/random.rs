//! A random number generator that depends on its seed alone: xoshiro256** by Blackman and Vigna, seeded by
//! splitmix64.

use std::ops::RangeInclusive;

/// A random sequence, determined by its seed.
#[derive(Clone, Debug)]
pub(crate) struct SeededRng {
    state: [u64; 4],
}

impl SeededRng {
    /// Starts the sequence of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut seeds = seed;
        Self { state: std::array::from_fn(|_| splitmix(&mut seeds)) }
    }

    /// A uniform number of 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A uniform number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number within the range.
    pub(crate) fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True with a probability of `per_mille` in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// A uniformly chosen element of `choices`, which must not be empty.
    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    /// Puts the items into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Fills `bytes` with random bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Starts a separate sequence, so that draws from it do not change this one.
    pub(crate) const fn fork(&mut self) -> Self {
        Self { state: [self.next(), self.next(), self.next(), self.next() | 1] }
    }
}

/// The next number of splitmix64, which expands the seed.
const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_matches_reference_implementations() {
        // From the reference implementations. A change here changes the run of every seed.
        let mut state = 0;
        assert_eq!(splitmix(&mut state), 0xe220_a839_7b1d_cdaf);
        let mut random = SeededRng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| random.next()).collect();
        assert_eq!(first, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn numbers_cover_exactly_their_range() {
        let mut random = SeededRng::new(1);
        let drawn: Vec<u64> = (0..200).map(|_| random.between(3..=6)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&6)));
        assert!(!random.chance(0) && random.chance(1_000));
    }
}
