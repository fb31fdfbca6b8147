//! Device memory on the page: who holds how much.
//!
//! Bytes only; addresses and contents belong to the simulated CUDA library. The sum a GPU is kept beside the
//! parts so that an allocation looks at one word.

use std::sync::atomic::Ordering::Relaxed;

use crate::page::layout::SLOTS;
use crate::page::{Guard, Page, PageError};

/// Memory of one GPU at one moment, in bytes. `total = reserved + used + free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// On the card.
    pub total: u64,
    /// Kept by the driver.
    pub reserved: u64,
    /// Held by clients, context footprints included.
    pub used: u64,
    /// What is left.
    pub free: u64,
}

/// What one client slot has on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessShare {
    /// The slot.
    pub slot: u32,
    /// Process id as the daemon sees it.
    pub pid: u32,
    /// Contexts alive.
    pub contexts: u64,
    /// Bytes held, context footprints included.
    pub bytes: u64,
}

impl Page {
    /// Slots that are given out.
    pub fn live_slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..SLOTS as u32).filter(|&slot| self.slot(slot).generation.load(Relaxed) & 1 == 1)
    }
}

impl Guard<'_> {
    /// Charges `bytes` on GPU `device` to `slot`.
    ///
    /// # Errors
    /// [`PageError::OutOfMemory`] when the GPU has less left.
    pub fn alloc(&self, slot: u32, device: usize, bytes: u64) -> Result<(), PageError> {
        self.take(device, bytes)?;
        let held = &self.page.share(slot, device).held;
        held.store(held.load(Relaxed) + bytes, Relaxed);
        Ok(())
    }

    /// Gives back `bytes` of what `slot` holds on GPU `device`; never more than it holds.
    pub fn free(&self, slot: u32, device: usize, bytes: u64) {
        let held = &self.page.share(slot, device).held;
        let bytes = bytes.min(held.load(Relaxed));
        held.store(held.load(Relaxed) - bytes, Relaxed);
        self.give_back(device, bytes);
    }

    /// A new context of `slot` on GPU `device`: takes the node's context footprint.
    ///
    /// # Errors
    /// [`PageError::OutOfMemory`] when the GPU has less left.
    pub fn context_add(&self, slot: u32, device: usize) -> Result<(), PageError> {
        self.take(device, self.page.device(device).footprint.load(Relaxed))?;
        let contexts = &self.page.share(slot, device).contexts;
        contexts.store(contexts.load(Relaxed) + 1, Relaxed);
        Ok(())
    }

    /// A context of `slot` on GPU `device` is gone.
    pub fn context_remove(&self, slot: u32, device: usize) {
        let contexts = &self.page.share(slot, device).contexts;
        let count = contexts.load(Relaxed);
        if count > 0 {
            contexts.store(count - 1, Relaxed);
            self.give_back(device, self.page.device(device).footprint.load(Relaxed));
        }
    }

    /// Bytes that clients hold on GPU `device`, and bytes left.
    pub fn used_and_free(&self, device: usize) -> (u64, u64) {
        let words = self.page.device(device);
        let used = words.used.load(Relaxed);
        (used, words.capacity.load(Relaxed).saturating_sub(used))
    }

    /// What `slot` has on GPU `device`.
    pub fn process_share(&self, slot: u32, device: usize) -> ProcessShare {
        let share = self.page.share(slot, device);
        let contexts = share.contexts.load(Relaxed);
        let footprint = self.page.device(device).footprint.load(Relaxed);
        let bytes = share.held.load(Relaxed) + contexts * footprint;
        ProcessShare {
            slot,
            pid: self.page.slot(slot).pid.load(Relaxed),
            contexts,
            bytes,
        }
    }

    /// Takes everything from `slot`, on every GPU: the client is gone.
    pub(crate) fn wipe(&self, slot: u32, now: u64) {
        for device in 0..self.page.devices() {
            self.advance(device, now);
            let bytes = self.process_share(slot, device).bytes;
            self.give_back(device, bytes);
            self.forget_time(slot, device);
            let share = self.page.share(slot, device);
            share.held.store(0, Relaxed);
            share.contexts.store(0, Relaxed);
        }
    }

    /// Makes the per-GPU words follow from the per-slot ones again.
    pub(crate) fn recompute(&self) {
        for device in 0..self.page.devices() {
            let used = self
                .page
                .live_slots()
                .map(|slot| self.process_share(slot, device).bytes);
            self.page.device(device).used.store(used.sum(), Relaxed);
            self.recompute_active(device);
        }
    }

    fn take(&self, device: usize, bytes: u64) -> Result<(), PageError> {
        let (used, free) = self.used_and_free(device);
        if bytes > free {
            return Err(PageError::OutOfMemory {
                requested: bytes,
                free,
            });
        }
        self.page.device(device).used.store(used + bytes, Relaxed);
        Ok(())
    }

    fn give_back(&self, device: usize, bytes: u64) {
        let used = &self.page.device(device).used;
        used.store(used.load(Relaxed).saturating_sub(bytes), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MIB, NodeConfig};

    fn page() -> Page {
        let text =
            "count = 2\ncontext_footprint_mib = 10\n[gpu]\nvram_mib = 100\nreserved_mib = 20";
        let page = Page::create(&NodeConfig::parse(text).unwrap()).unwrap();
        page.slot(0).generation.store(1, Relaxed);
        page.slot(1).generation.store(1, Relaxed);
        page
    }

    #[test]
    fn a_full_gpu_refuses_and_says_what_is_left() {
        let page = page();
        let guard = page.lock(0).unwrap();
        guard.alloc(0, 0, 50 * MIB).unwrap();
        guard.context_add(1, 0).unwrap();
        let refused = guard.alloc(1, 0, 20 * MIB + 1);
        let free = 20 * MIB;
        assert_eq!(
            refused,
            Err(PageError::OutOfMemory {
                requested: free + 1,
                free
            })
        );
        guard.alloc(1, 0, free).unwrap();
        assert_eq!(guard.used_and_free(0), (80 * MIB, 0));
        assert_eq!(guard.used_and_free(1), (0, 80 * MIB));
    }

    #[test]
    fn the_dead_give_back_everything() {
        let page = page();
        let guard = page.lock(0).unwrap();
        guard.context_add(1, 1).unwrap();
        guard.alloc(1, 1, MIB).unwrap();
        guard.alloc(0, 1, MIB).unwrap();
        assert_eq!(guard.process_share(1, 1).bytes, 11 * MIB);
        guard.wipe(1, 5);
        assert_eq!(guard.used_and_free(1).0, MIB);
        assert_eq!(guard.process_share(1, 1).bytes, 0);
    }

    #[test]
    fn freeing_too_much_frees_what_is_held() {
        let page = page();
        let guard = page.lock(0).unwrap();
        guard.alloc(0, 0, 5).unwrap();
        guard.free(0, 0, 9);
        guard.context_remove(0, 0);
        assert_eq!(guard.used_and_free(0).0, 0);
    }
}
