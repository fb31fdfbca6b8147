//! Physical allocations of virtual memory management: alive while a handle *or* a mapping holds them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One physical allocation that was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Index of the device in the region.
    pub(crate) device: usize,
    /// What was charged. **Units:** bytes.
    pub(crate) bytes: u64,
    /// References by handles plus mappings.
    holders: u64,
}

/// The books. Handles that are not in them (imported ones, host memory) are nobody's charge here.
#[derive(Debug, Default)]
pub(crate) struct Books {
    chunks: HashMap<u64, Chunk>,
    /// Handle -> (chunk, references by this handle).
    handles: HashMap<u64, (u64, u64)>,
    /// Start of a mapping -> (length, chunk).
    mappings: BTreeMap<u64, (u64, u64)>,
    last: u64,
}

/// The books, to be held across the driver's call that releases or maps, since a handle may come back for
/// another chunk as soon as it is released. Processes that map memory do so seldom.
#[derive(Debug, Default)]
pub(crate) struct Physical(Mutex<Books>);

impl Physical {
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// A handle was created, and `bytes` were charged for it.
    pub(crate) fn created(&mut self, handle: u64, device: usize, bytes: u64) {
        self.last = self.last.wrapping_add(1);
        self.chunks.insert(
            self.last,
            Chunk {
                device,
                bytes,
                holders: 1,
            },
        );
        self.handles.insert(handle, (self.last, 1));
    }

    /// A reference by this handle is gone; answers the chunk if that was its last holder.
    pub(crate) fn released(&mut self, handle: u64) -> Option<Chunk> {
        let (chunk, references) = self.handles.get_mut(&handle)?;
        let chunk = *chunk;
        *references = references.saturating_sub(1);
        if *references == 0 {
            self.handles.remove(&handle);
        }
        self.let_go(chunk)
    }

    /// The chunk of this handle is mapped.
    pub(crate) fn mapped(&mut self, address: u64, length: u64, handle: u64) {
        if let Some((chunk, _)) = self.handles.get(&handle).copied()
            && self.hold(chunk)
        {
            self.mappings.insert(address, (length, chunk));
        }
    }

    /// The mappings that start in this range are gone; answers the chunks that had no other holder.
    pub(crate) fn unmapped(&mut self, address: u64, length: u64) -> Vec<Chunk> {
        let end = address.saturating_add(length);
        let range = self.mappings.range(address..end);
        let gone: Vec<(u64, u64)> = range.map(|(start, (_, chunk))| (*start, *chunk)).collect();
        gone.into_iter()
            .filter_map(|(start, chunk)| {
                self.mappings.remove(&start);
                self.let_go(chunk)
            })
            .collect()
    }

    /// A handle was given out for what is mapped at this address.
    pub(crate) fn retained(&mut self, handle: u64, address: u64) {
        let before = self.mappings.range(..=address).next_back();
        let Some((start, (length, chunk))) = before.map(|(start, rest)| (*start, *rest)) else {
            return;
        };
        if address.saturating_sub(start) < length && self.hold(chunk) {
            let (_, references) = self.handles.entry(handle).or_insert((chunk, 0));
            *references = references.saturating_add(1);
        }
    }

    fn hold(&mut self, chunk: u64) -> bool {
        self.chunks.get_mut(&chunk).is_some_and(|chunk| {
            chunk.holders = chunk.holders.saturating_add(1);
            true
        })
    }

    fn let_go(&mut self, chunk: u64) -> Option<Chunk> {
        let held = self.chunks.get_mut(&chunk)?;
        held.holders = held.holders.saturating_sub(1);
        if held.holders == 0 {
            self.chunks.remove(&chunk)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(chunk: Option<Chunk>) -> u64 {
        chunk.map_or(0, |chunk| chunk.bytes)
    }

    #[test]
    fn a_mapping_keeps_a_released_handles_memory() {
        let mut books = Books::default();
        books.created(7, 0, 100);
        books.mapped(0x1000, 0x100, 7);
        assert_eq!(bytes(books.released(7)), 0);
        assert_eq!(books.released(7), None, "the handle is gone");
        let gone = books.unmapped(0x1000, 0x100);
        assert_eq!((gone.len(), gone[0].bytes), (1, 100));
        assert!(books.unmapped(0x1000, 0x100).is_empty());
    }

    #[test]
    fn a_handle_keeps_unmapped_memory_and_may_be_mapped_twice() {
        let mut books = Books::default();
        books.created(7, 0, 100);
        books.mapped(0x1000, 0x100, 7);
        books.mapped(0x2000, 0x100, 7);
        assert!(books.unmapped(0x1000, 0x2000).is_empty());
        assert_eq!(bytes(books.released(7)), 100);
    }

    #[test]
    fn a_retained_handle_is_one_more_holder_under_the_same_or_another_number() {
        for number in [7, 8] {
            let mut books = Books::default();
            books.created(7, 0, 100);
            books.mapped(0x1000, 0x100, 7);
            books.retained(number, 0x10ff);
            books.retained(9, 0x1100);
            assert_eq!(bytes(books.released(7)), 0);
            assert!(books.unmapped(0x1000, 0x100).is_empty());
            assert_eq!(books.released(9), None, "nothing is mapped there");
            assert_eq!(bytes(books.released(number)), 100);
        }
    }

    #[test]
    fn what_was_not_created_here_is_left_alone() {
        let mut books = Books::default();
        books.mapped(0x1000, 0x100, 7);
        books.retained(8, 0x1000);
        assert_eq!(books.released(7), None);
        assert!(books.unmapped(0, u64::MAX).is_empty());
    }
}
