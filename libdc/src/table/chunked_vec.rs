//! An array that grows without moving what is in it.
//!
//! A `Vec` that is full copies everything to a place twice as large: at a million sessions that is a
//! pause, and for its time three times the memory. Here the elements lie in chunks of 4096; growing
//! allocates one more. Only the list of chunks, 8 bytes for 4096 elements, is ever copied.
//!
//! Indexing at or past the length is a mistake of the caller and panics, but within the last chunks
//! only in debug builds: there it finds an element that was left behind.

use std::ops::{Index, IndexMut};

/// Elements of a chunk.
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 12;

/// A growable array in chunks, indexed by `u32`.
pub(super) struct ChunkedVec<T> {
    /// Every chunk is whole: what is past the length holds default values.
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T: Default> ChunkedVec<T> {
    /// An empty array; it allocates nothing.
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// The number of elements.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends an element.
    pub(super) fn push(&mut self, value: T) {
        if self.len == self.chunks.len() << CHUNK_BITS {
            self.grow();
        }
        self.chunks[self.len >> CHUNK_BITS][self.len & (CHUNK - 1)] = value;
        self.len += 1;
    }

    /// Removes the last element and gives back memory at the end.
    ///
    /// One empty chunk is kept, so that a length going to and fro over a boundary allocates nothing.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        let last = std::mem::take(&mut self.chunks[self.len >> CHUNK_BITS][self.len & (CHUNK - 1)]);
        if (self.chunks.len() << CHUNK_BITS) - self.len > 2 * CHUNK {
            self.chunks.pop();
        }
        Some(last)
    }

    /// Puts `value` at `index`, which is in the array or right behind its end.
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
    fn elements_are_where_they_were_put() {
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
    fn growing_moves_nothing() {
        let mut array = filled();
        let before: *const u32 = &raw const array[5];
        for n in 0..10 * CHUNK as u32 {
            array.push(n);
        }
        assert_eq!(before, &raw const array[5]);
    }

    #[test]
    fn popping_gives_the_chunks_back_but_one() {
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
    fn past_the_end_is_refused() {
        let array: ChunkedVec<u32> = ChunkedVec::new();
        let _ = array[0];
    }
}
