//! A growable array that never moves its elements.
//!
//! A full `Vec` copies everything into a new allocation twice as large. At a million sessions that is a
//! pause, and takes three times the memory while it lasts. Here the elements are stored in chunks of 4096,
//! and growing allocates one more chunk. Only the list of chunks, 8 bytes for 4096 elements, is ever copied.
//!
//! Indexing at or past the length is a bug of the caller and panics. Within the last chunks it panics only in
//! debug builds; a release build returns a stale element.

use std::ops::{Index, IndexMut};

/// The number of elements in a chunk.
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 12;

/// A growable array in chunks, indexed by `u32`.
pub(super) struct ChunkedVec<T> {
    /// Every chunk is fully initialised: elements past the length are default values.
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T: Default> ChunkedVec<T> {
    /// An empty array, without any allocation.
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, value: T) {
        if self.len == self.chunks.len() << CHUNK_BITS {
            self.grow();
        }
        self.chunks[self.len >> CHUNK_BITS][self.len & (CHUNK - 1)] = value;
        self.len += 1;
    }

    /// Removes the last element and frees the last chunks that are empty.
    ///
    /// One empty chunk is kept, so that a length that alternates around a boundary allocates nothing.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        let last = std::mem::take(&mut self.chunks[self.len >> CHUNK_BITS][self.len & (CHUNK - 1)]);
        if (self.chunks.len() << CHUNK_BITS) - self.len > 2 * CHUNK {
            self.chunks.pop();
        }
        Some(last)
    }

    /// Writes `value` at `index`, which must be in the array or directly behind its end.
    pub(super) fn set_or_push(&mut self, index: u32, value: T) {
        if (index as usize) < self.len {
            self[index] = value;
        } else {
            debug_assert_eq!(index as usize, self.len, "no gaps");
            self.push(value);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let chunk: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
        if let Ok(chunk) = chunk.try_into() {
            self.chunks.push(chunk);
        }
    }
}

impl<T> Index<u32> for ChunkedVec<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        debug_assert!((index as usize) < self.len, "index {index} of {}", self.len);
        &self.chunks[(index >> CHUNK_BITS) as usize][index as usize & (CHUNK - 1)]
    }
}

impl<T> IndexMut<u32> for ChunkedVec<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        debug_assert!((index as usize) < self.len, "index {index} of {}", self.len);
        &mut self.chunks[(index >> CHUNK_BITS) as usize][index as usize & (CHUNK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 3 * CHUNK as u32 + 7;

    fn filled() -> ChunkedVec<u32> {
        let mut array = ChunkedVec::new();
        for n in 0..MANY {
            array.push(n);
        }
        array
    }

    #[test]
    fn elements_keep_their_indices() {
        let mut array = filled();
        array[CHUNK as u32] = 1;
        assert_eq!(array.len(), MANY as usize);
        assert_eq!(array[CHUNK as u32], 1);
        assert!((0..MANY).all(|n| array[n] == n || n == CHUNK as u32));
        array.set_or_push(MANY, 5);
        array.set_or_push(0, 6);
        assert_eq!((array[MANY], array[0], array.len()), (5, 6, MANY as usize + 1));
    }

    #[test]
    fn growing_does_not_move_elements() {
        let mut array = filled();
        let before: *const u32 = &raw const array[5];
        for n in 0..10 * CHUNK as u32 {
            array.push(n);
        }
        assert_eq!(before, &raw const array[5]);
    }

    #[test]
    fn pop_frees_all_empty_chunks_but_one() {
        let mut array = filled();
        for n in (0..MANY).rev() {
            assert_eq!(array.pop(), Some(n));
            assert!(array.chunks.len() * CHUNK - array.len() <= 2 * CHUNK);
        }
        assert_eq!(array.pop(), None);
        assert_eq!(array.chunks.len(), 2);
        array.push(1);
        assert_eq!(array[0], 1);
    }

    #[test]
    #[should_panic(expected = "index")]
    fn index_past_the_end_panics() {
        let array: ChunkedVec<u32> = ChunkedVec::new();
        let _ = array[0];
    }
}
