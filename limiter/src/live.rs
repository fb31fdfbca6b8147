//! The allocations of this process that were charged: address -> what was charged, where.
//!
//! Sharded, so that threads seldom meet; flat, so that a million live allocations cost what one does.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;

/// From a pool that cannot be asked: the allocation bears its charge itself.
pub(crate) const UNKNOWN_POOL: usize = usize::MAX;

/// What was charged for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Index of the device in the region.
    pub(crate) device: usize,
    /// What was charged. **Units:** bytes.
    pub(crate) bytes: u64,
    /// The context that was current, as a number.
    pub(crate) context: usize,
    /// The pool that it came from, as a number, and that bears its charge: 0 for none. Pooled memory
    /// outlives a context that was created, but not the primary one.
    pub(crate) pool: usize,
}

impl Allocation {
    /// What is to be refunded when it is freed. **Units:** bytes.
    pub(crate) fn own_charge(&self) -> u64 {
        if matches!(self.pool, 0 | UNKNOWN_POOL) {
            self.bytes
        } else {
            0
        }
    }
}

/// Addresses are multiples of 256 or more: their low bits say nothing.
#[derive(Debug, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, address: u64) {
        let mixed = (self.0 ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Shard = Mutex<HashMap<u64, Allocation, BuildHasherDefault<AddressHasher>>>;

/// All charged allocations.
#[derive(Debug)]
pub(crate) struct Live {
    shards: [Shard; SHARDS],
}

impl Default for Live {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

fn locked(
    shard: &Shard,
) -> MutexGuard<'_, HashMap<u64, Allocation, BuildHasherDefault<AddressHasher>>> {
    // A panic between two operations of a map leaves it whole.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    fn shard(&self, address: u64) -> Option<&Shard> {
        let mixed = (address >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        self.shards.get(usize::try_from(mixed).ok()?)
    }

    /// Notes an allocation; answers what was noted for this address before, which the driver must
    /// have freed without our knowledge.
    pub(crate) fn insert(&self, address: u64, allocation: Allocation) -> Option<Allocation> {
        locked(self.shard(address)?).insert(address, allocation)
    }

    /// Takes an allocation out, before the driver is asked to free it: afterwards another thread
    /// may be given the same address.
    pub(crate) fn take(&self, address: u64) -> Option<Allocation> {
        locked(self.shard(address)?).remove(&address)
    }

    /// Takes out all allocations that `gone` names, with their addresses.
    pub(crate) fn take_all(&self, gone: impl Fn(&Allocation) -> bool) -> Vec<(u64, Allocation)> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            locked(shard).retain(|address, allocation| {
                let stays = !gone(allocation);
                if !stays {
                    taken.push((*address, *allocation));
                }
                stays
            });
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(bytes: u64, context: usize) -> Allocation {
        Allocation {
            device: 0,
            bytes,
            context,
            pool: 0,
        }
    }

    #[test]
    fn what_was_noted_is_taken_once() {
        let live = Live::default();
        assert_eq!(live.insert(0x7000, allocation(1, 1)), None);
        assert_eq!(
            live.insert(0x7000, allocation(2, 1)),
            Some(allocation(1, 1))
        );
        assert_eq!(live.take(0x7000), Some(allocation(2, 1)));
        assert_eq!(live.take(0x7000), None);
    }

    #[test]
    fn a_context_takes_its_allocations_along() {
        let live = Live::default();
        for n in 0..1000 {
            live.insert(n << 9, allocation(n, usize::from(n % 2 == 0)));
        }
        assert_eq!(
            live.take_all(|allocation| allocation.context == 1).len(),
            500
        );
        assert_eq!(live.take(0), None);
        assert_eq!(live.take(1 << 9), Some(allocation(1, 0)));
    }
}
