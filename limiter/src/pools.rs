//! What the memory pools of this process were charged: what they keep reserved, not what was asked of
//! them, because a pool keeps freed memory and other processes cannot have it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CUDA_SUCCESS, CUmemoryPool};

use crate::driver;
use crate::real::cuda as real;
use crate::session::Session;

/// One pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// Index of the device in the region.
    pub(crate) device: usize,
    /// What was charged. **Units:** bytes.
    pub(crate) charged: u64,
}

/// All pools that were allocated from, by handle as a number.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    accounts: Mutex<HashMap<usize, Account>>,
    /// Whether there is any, for those who only pass by.
    any: AtomicBool,
}

/// What a pool keeps reserved; `None`: the driver does not say. **Units:** bytes.
pub(crate) fn reserved(pool: usize) -> Option<u64> {
    let mut bytes = 0_u64;
    let place = driver::untyped(Out::of(&mut bytes));
    let answer =
        real::cuMemPoolGetAttribute(handle(pool), CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, place);
    (answer == CUDA_SUCCESS).then_some(bytes)
}

fn handle(pool: usize) -> CUmemoryPool {
    std::ptr::without_provenance_mut(pool)
}

impl Pools {
    /// The accounts, until the guard is dropped. Nobody who holds it may reserve by `charge::reserve`,
    /// which may want to relieve them.
    pub(crate) fn accounts(&self) -> MutexGuard<'_, HashMap<usize, Account>> {
        self.any.store(true, Relaxed);
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }
}

impl Account {
    /// Brings the charge to what is reserved. More than the quota allows stays uncharged until there
    /// is room: the pool has it already.
    pub(crate) fn settle(&mut self, session: &Session, reserved: u64) {
        if let Some(more) = reserved.checked_sub(self.charged) {
            if more == 0 || session.ledger.charge(self.device, more).is_err() {
                return;
            }
        } else {
            session
                .ledger
                .refund(self.device, self.charged.saturating_sub(reserved));
        }
        self.charged = reserved;
    }
}

impl Session {
    /// Settles one pool, after something of it was freed.
    pub(crate) fn settle_pool(&self, pool: usize) {
        if let Some(account) = self.pools.accounts().get_mut(&pool)
            && let Some(reserved) = reserved(pool)
        {
            account.settle(self, reserved);
        }
    }

    /// Settles all pools: a synchronisation may have shrunk them since.
    pub(crate) fn settle_pools(&self) {
        if self.pools.is_empty() {
            return;
        }
        for (pool, account) in self.pools.accounts().iter_mut() {
            if let Some(reserved) = reserved(*pool) {
                account.settle(self, reserved);
            }
        }
    }

    /// Gives back what the pools of this process keep without need; whether there are any.
    pub(crate) fn relieve_pools(&self) -> bool {
        if self.pools.is_empty() {
            return false;
        }
        for pool in self.pools.accounts().keys() {
            real::cuMemPoolTrimTo(handle(*pool), 0);
        }
        self.settle_pools();
        true
    }

    /// The primary context of a device ended: a pool that cannot be asked any more holds nothing.
    pub(crate) fn end_pools(&self, device: usize) {
        if self.pools.is_empty() {
            return;
        }
        for (pool, account) in self.pools.accounts().iter_mut() {
            if account.device == device {
                account.settle(self, reserved(*pool).unwrap_or(0));
            }
        }
    }
}
