//! Device address space: which addresses of a reserved range are free.
//!
//! Owns addresses only, not the bytes behind them. An allocation takes the smallest free piece that fits (best
//! fit) and frees merge with their neighbours, so neither makes a system call.

use std::collections::{BTreeMap, BTreeSet};

/// Free pieces of a range.
#[derive(Debug, Default)]
pub(crate) struct Space {
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
}

impl Space {
    /// A range that is free as a whole.
    pub(crate) fn new(start: u64, len: u64) -> Self {
        let mut space = Self::default();
        space.insert(start, len);
        space
    }

    fn insert(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.by_start.insert(start, len);
            self.by_size.insert((len, start));
        }
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(len, start));
    }

    /// Takes `len` bytes at a multiple of `align`; `None` when no free piece is long enough.
    pub(crate) fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        let fits =
            |&&(size, start): &&(u64, u64)| start.next_multiple_of(align) + len <= start + size;
        let &(size, start) = self.by_size.range((len, 0)..).find(fits)?;
        self.carve(start, size, start.next_multiple_of(align), len)
    }

    /// Takes exactly the range at `at`; `None` when a part of it is not free.
    pub(crate) fn take_at(&mut self, at: u64, len: u64) -> Option<u64> {
        let (&start, &size) = self.by_start.range(..=at).next_back()?;
        if at + len > start + size {
            return None;
        }
        self.carve(start, size, at, len)
    }

    fn carve(&mut self, start: u64, size: u64, at: u64, len: u64) -> Option<u64> {
        self.remove(start, size);
        self.insert(start, at - start);
        self.insert(at + len, start + size - at - len);
        Some(at)
    }

    /// Gives a piece back that was taken.
    pub(crate) fn give(&mut self, mut start: u64, mut len: u64) {
        if let Some((&before, &size)) = self.by_start.range(..start).next_back()
            && before + size == start
        {
            self.remove(before, size);
            start = before;
            len += size;
        }
        if let Some(&size) = self.by_start.get(&(start + len)) {
            self.remove(start + len, size);
            len += size;
        }
        self.insert(start, len);
    }

    /// Free pieces, as (start, length).
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_start.iter().map(|(&start, &len)| (start, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frees_merge_in_any_order() {
        let mut space = Space::new(0x1000, 0x4000);
        let taken: Vec<u64> = (0..4).map(|_| space.take(0x1000, 512).unwrap()).collect();
        assert_eq!(space.take(1, 1), None);
        for index in [1, 3, 0, 2] {
            space.give(taken[index], 0x1000);
        }
        assert_eq!(space.pieces().collect::<Vec<_>>(), [(0x1000, 0x4000)]);
    }

    #[test]
    fn the_smallest_piece_that_fits_is_taken() {
        let mut space = Space::new(0x1000, 0x10000);
        let small = space.take(0x400, 512).unwrap();
        let wall = space.take(0x200, 512).unwrap();
        space.give(small, 0x400);
        assert_eq!(space.take(0x300, 512), Some(small));
        assert_eq!(space.take(0x2000, 0x2000), Some(0x2000));
        assert!(wall < 0x2000);
        assert_eq!(space.take_at(0x8000, 0x1000), Some(0x8000));
        assert_eq!(space.take_at(0x8800, 0x10), None);
    }
}
