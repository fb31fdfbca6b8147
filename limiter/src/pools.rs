//! What the memory pools of this process were charged: what they keep reserved, not what was asked of
//! them, because a pool keeps freed memory and other processes cannot have it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{
    CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA,
    CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT, CU_MEMPOOL_ATTR_LOCATION_ID,
    CU_MEMPOOL_ATTR_LOCATION_TYPE, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
    CU_MEMPOOL_ATTR_USED_MEM_CURRENT, CUDA_SUCCESS, CUdevice, CUmemPool_attribute, CUmemoryPool,
    CUstream,
};

use crate::device::Place;
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
    attribute(handle(pool), CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, 0_u64)
}

/// What a pool has reserved without using it. **Units:** bytes.
pub(crate) fn unused(pool: usize) -> u64 {
    let used = attribute(handle(pool), CU_MEMPOOL_ATTR_USED_MEM_CURRENT, 0_u64);
    reserved(pool)
        .zip(used)
        .map_or(0, |(reserved, used)| reserved.saturating_sub(used))
}

/// Whether a pool is known to be of host memory.
pub(crate) fn is_host(pool: CUmemoryPool) -> bool {
    !pool.is_null()
        && attribute(pool, CU_MEMPOOL_ATTR_LOCATION_TYPE, 0_u32).is_some_and(|kind| {
            matches!(
                kind,
                CU_MEM_LOCATION_TYPE_HOST
                    | CU_MEM_LOCATION_TYPE_HOST_NUMA
                    | CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT
            )
        })
}

fn attribute<T>(pool: CUmemoryPool, name: CUmemPool_attribute, mut value: T) -> Option<T> {
    let place = driver::untyped(Out::of(&mut value));
    (real::cuMemPoolGetAttribute(pool, name, place) == CUDA_SUCCESS).then_some(value)
}

/// The device of a pool: drivers before 13 do not say, but their devices know their own pools.
fn ordinal_of(pool: CUmemoryPool) -> Option<CUdevice> {
    let kind = attribute(pool, CU_MEMPOOL_ATTR_LOCATION_TYPE, 0_u32);
    if kind == Some(CU_MEM_LOCATION_TYPE_DEVICE) {
        return attribute(pool, CU_MEMPOOL_ATTR_LOCATION_ID, 0_i32);
    }
    let mut count = 0;
    real::cuDeviceGetCount(Out::of(&mut count));
    (0..count).find(|device| {
        let mut own: CUmemoryPool = std::ptr::null_mut();
        let ask = [real::cuDeviceGetDefaultMemPool, real::cuDeviceGetMemPool];
        ask.iter()
            .any(|ask| ask(Out::of(&mut own), *device) == CUDA_SUCCESS && own == pool)
    })
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

    /// Has the pool give back what it keeps without need beyond `keep` bytes, and settles.
    pub(crate) fn trim(&mut self, session: &Session, pool: usize, keep: u64) {
        real::cuMemPoolTrimTo(handle(pool), usize::try_from(keep).unwrap_or(usize::MAX));
        if let Some(reserved) = reserved(pool) {
            self.settle(session, reserved);
        }
    }
}

impl Session {
    /// Where an allocation from this pool is: the pool's device, or the stream's for its current pool.
    pub(crate) fn place_of_pool(&self, pool: CUmemoryPool, stream: CUstream) -> Option<Place> {
        if pool.is_null() {
            return self.place_of_stream(stream);
        }
        let known = self.pools.accounts().get(&pool.addr()).copied();
        match (known, self.place_of_stream(stream)) {
            (Some(account), place) => {
                let (ordinal, context) = place.map_or((-1, 0), |at| (at.ordinal, at.context));
                Some(Place {
                    device: Some(account.device),
                    ordinal,
                    context,
                })
            }
            (None, place) => match ordinal_of(pool) {
                Some(ordinal) if place.is_none_or(|at| at.ordinal != ordinal) => {
                    self.ordinal_place(ordinal)
                }
                Some(_) | None => place,
            },
        }
    }

    /// Settles one pool, after something of it was freed.
    pub(crate) fn settle_pool(&self, pool: usize) {
        if let Some(account) = self.pools.accounts().get_mut(&pool)
            && let Some(reserved) = reserved(pool)
        {
            account.settle(self, reserved);
        }
    }

    /// Settles all pools: a synchronisation may have shrunk them since. Answers whether there are any.
    pub(crate) fn settle_pools(&self) -> bool {
        if self.pools.is_empty() {
            return false;
        }
        for (pool, account) in self.pools.accounts().iter_mut() {
            if let Some(reserved) = reserved(*pool) {
                account.settle(self, reserved);
            }
        }
        true
    }

    /// Gives back what the pools of this process keep of a device without need, if `bytes` could be had
    /// then; whether it was done.
    #[cold]
    pub(crate) fn relieve_pools(&self, device: usize, bytes: u64) -> bool {
        if self.pools.is_empty() {
            return false;
        }
        let mut accounts = self.pools.accounts();
        let here = || accounts.values().filter(|account| account.device == device);
        let pooled = here().fold(0_u64, |sum, account| sum.saturating_add(account.charged));
        let others = self.ledger.used(device).saturating_sub(pooled);
        if others.saturating_add(bytes) > self.ledger.limits().quota(device) {
            return false;
        }
        for (pool, account) in accounts.iter_mut().filter(|(_, it)| it.device == device) {
            account.trim(self, *pool, 0);
        }
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
