//! Memory pools: stream-ordered allocation from reserved memory.
//!
//! A pool reserves device memory in pieces of 32 MiB (what drivers do; 2 MiB where that is all that is left) and
//! cuts allocations from them, in units of 512 bytes. Reserved memory is what the GPU is charged. Freed memory stays
//! reserved; at each synchronisation a pool gives unused pieces back until it holds no more than its release
//! threshold. Pools of host memory count the same way and charge nobody.
//!
//! Allocation takes effect when it is called, a free when the stream comes to it.

use std::collections::BTreeMap;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::memory::units;
use crate::queue::{self, Work};
use crate::region::{Kind, Region, whole_pages};
use crate::space::Space;
use crate::state::{State, handle, id, lock, node};
use crate::{raw, stream};

/// How much a pool grows at a time, and at least.
const GRANULE: u64 = 32 << 20;
const SMALL_GRANULE: u64 = 2 << 20;

/// A device's pools; 0 until they are first asked for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct DevicePools {
    default: u64,
    current: u64,
}

/// What a pool was created with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) handle_types: CUmemAllocationHandleType,
    pub(crate) location_type: CUmemLocationType,
    pub(crate) location_id: i32,
    /// 0 for no limit.
    pub(crate) max_size: u64,
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Ordinal of the device; for host pools, of the device whose address space serves.
    pub(crate) device: usize,
    pub(crate) host: bool,
    pub(crate) settings: Settings,
    pub(crate) is_default: bool,
    /// Reserved pieces: start and length.
    pub(crate) pieces: BTreeMap<u64, u64>,
    pub(crate) free: Space,
    /// Sizes of live allocations.
    pub(crate) live: BTreeMap<u64, u64>,
    pub(crate) threshold: u64,
    pub(crate) reuse: [i32; 3],
    pub(crate) reserved: u64,
    pub(crate) reserved_high: u64,
    pub(crate) used: u64,
    pub(crate) used_high: u64,
    /// Access of other devices, by ordinal.
    pub(crate) access: BTreeMap<i32, CUmemAccess_flags>,
    /// It was destroyed with allocations alive, and goes with the last.
    pub(crate) doomed: bool,
    /// It is another process's: nothing can be allocated from it.
    pub(crate) imported: bool,
}

impl Pool {
    pub(crate) fn new(device: usize, host: bool, settings: Settings, is_default: bool) -> Self {
        Self {
            device,
            host,
            settings,
            is_default,
            pieces: BTreeMap::new(),
            free: Space::default(),
            live: BTreeMap::new(),
            threshold: 0,
            reuse: [1; 3],
            reserved: 0,
            reserved_high: 0,
            used: 0,
            used_high: 0,
            access: BTreeMap::new(),
            doomed: false,
            imported: false,
        }
    }

    /// Cuts an allocation from what is reserved.
    fn cut(&mut self, size: u64) -> Option<u64> {
        // What can be shared has pages of its own.
        let align = if self.settings.handle_types == 0 {
            512
        } else {
            4096
        };
        let size = size.next_multiple_of(align);
        let base = self.free.take(size, align)?;
        self.live.insert(base, size);
        self.used += size;
        self.used_high = self.used_high.max(self.used);
        Some(base)
    }

    /// Pieces that nothing lives in.
    fn unused(&self) -> Vec<(u64, u64)> {
        let free: Vec<(u64, u64)> = self.free.pieces().collect();
        let whole = |start: u64, len: u64| {
            free.iter()
                .any(|&(at, size)| at <= start && start + len <= at + size)
        };
        self.pieces
            .iter()
            .map(|(&start, &len)| (start, len))
            .filter(|&(start, len)| whole(start, len))
            .collect()
    }
}

impl State {
    pub(crate) fn pool(&mut self, pool: u64) -> Cu<&mut Pool> {
        self.pools
            .get_mut(&pool)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }

    fn default_pool(&mut self, device: usize) -> u64 {
        let known = self.devices[device].pools.default;
        if known != 0 {
            return known;
        }
        let settings = Settings {
            location_type: CU_MEM_LOCATION_TYPE_DEVICE,
            location_id: device as i32,
            ..Settings::default()
        };
        let pool = self.new_handle();
        self.pools
            .insert(pool, Pool::new(device, false, settings, true));
        self.devices[device].pools = DevicePools {
            default: pool,
            current: pool,
        };
        pool
    }

    fn current_pool(&mut self, device: usize) -> u64 {
        let default = self.default_pool(device);
        let current = self.devices[device].pools.current;
        if self.pools.contains_key(&current) {
            current
        } else {
            default
        }
    }

    /// Reserves one more piece, for an allocation of `size` bytes.
    fn grow(&mut self, pool: u64, size: u64) -> Cu {
        let known = self.pool(pool)?;
        let (device, host, reserved) = (known.device, known.host, known.reserved);
        let most = if known.settings.max_size == 0 {
            u64::MAX
        } else {
            known.settings.max_size
        };
        let mut last = Fail(CUDA_ERROR_OUT_OF_MEMORY);
        for granule in [GRANULE, SMALL_GRANULE] {
            let len = size.checked_next_multiple_of(granule);
            let len = len.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
            if reserved.saturating_add(len) > most.div_ceil(granule).saturating_mul(granule) {
                continue;
            }
            let piece = if host {
                self.take_addresses(device, len, SMALL_GRANULE)
            } else {
                self.take_device(device, len, SMALL_GRANULE, len)
            };
            match piece {
                Ok(start) => {
                    let pool = self.pool(pool)?;
                    pool.pieces.insert(start, len);
                    pool.free.give(start, len);
                    pool.reserved += len;
                    pool.reserved_high = pool.reserved_high.max(pool.reserved);
                    return Ok(());
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Allocates from a pool.
    pub(crate) fn allocate_pooled(&mut self, pool: u64, size: u64) -> Cu<u64> {
        ensure(size > 0)?;
        let known = self.pool(pool)?;
        let shared = known.settings.handle_types != 0;
        let len = if shared {
            whole_pages(units(size)?)
        } else {
            units(size)?
        };
        let (device, host) = (known.device, known.host);
        let base = match known.cut(len) {
            Some(base) => base,
            None => {
                if self.grow(pool, len).is_err() {
                    // What other pools of the device keep for later is worth less than this allocation.
                    self.trim_device(device);
                    self.grow(pool, len)?;
                }
                self.pool(pool)?
                    .cut(len)
                    .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?
            }
        };
        let mut region = Region::new(base, size, Kind::Pooled { pool }, device, 0);
        region.written = host;
        self.add_region(region);
        Ok(base)
    }

    /// Gives an allocation back to its pool.
    pub(crate) fn free_pooled(&mut self, pool: u64, base: u64, written: bool) {
        let Some(known) = self.pools.get_mut(&pool) else {
            return;
        };
        let Some(size) = known.live.remove(&base) else {
            return;
        };
        if written {
            raw::discard(base, size);
        }
        known.used -= size;
        known.free.give(base, size);
        if known.doomed && known.live.is_empty() {
            self.shrink(pool, 0);
            self.pools.remove(&pool);
        }
        self.pool_slack = true;
    }

    /// A stream has come to a free.
    pub(crate) fn free_async_now(&mut self, address: u64) -> Cu {
        let region = self
            .regions
            .remove(address)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        self.free_region(region);
        Ok(())
    }

    /// Gives unused pieces back until no more than `keep` bytes are reserved.
    fn shrink(&mut self, pool: u64, keep: u64) {
        let Some(known) = self.pools.get(&pool) else {
            return;
        };
        let (device, host) = (known.device, known.host);
        for (start, len) in known.unused() {
            let Some(known) = self.pools.get_mut(&pool) else {
                return;
            };
            if known.reserved <= keep || known.reserved - len < keep {
                continue;
            }
            known.free.take_at(start, len);
            known.pieces.remove(&start);
            known.reserved -= len;
            if !host {
                let gpu = self.gpu(device);
                node().refund(gpu, len);
            }
            self.give_addresses(device, start, len, true);
        }
    }

    /// A synchronisation: pools give back what lies above their thresholds.
    pub(crate) fn trim_pools(&mut self) {
        if !core::mem::take(&mut self.pool_slack) {
            return;
        }
        let pools: Vec<(u64, u64)> = self
            .pools
            .iter()
            .map(|(&id, pool)| (id, pool.threshold))
            .collect();
        for (pool, threshold) in pools {
            self.shrink(pool, threshold);
        }
    }

    /// The last context of a device is gone: so is what its pools hold.
    pub(crate) fn end_pools_of(&mut self, device: usize) {
        let of = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.device == device && !pool.host);
        let live: Vec<u64> = of.flat_map(|(_, pool)| pool.live.keys().copied()).collect();
        for base in live {
            if let Some(region) = self.regions.remove(base) {
                self.free_region(region);
            }
        }
        self.trim_device(device);
    }

    fn trim_device(&mut self, device: usize) {
        let of = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.device == device && !pool.host);
        let pools: Vec<u64> = of.map(|(&id, _)| id).collect();
        for pool in pools {
            self.shrink(pool, 0);
        }
    }

    /// What a location means for pools: the ordinal of a device, and whether the memory is the host's.
    fn pool_location(&mut self, location: &CUmemLocation) -> Cu<(usize, bool)> {
        match location.type_ {
            CU_MEM_LOCATION_TYPE_DEVICE => {
                let ordinal = location_id(location);
                self.device(ordinal)?;
                Ok((ordinal as usize, false))
            }
            CU_MEM_LOCATION_TYPE_HOST | CU_MEM_LOCATION_TYPE_HOST_NUMA => Ok((0, true)),
            _ => fail(CUDA_ERROR_INVALID_VALUE),
        }
    }
}

/// The number in a location: a device's ordinal or a NUMA node.
pub(crate) fn location_id(location: &CUmemLocation) -> i32 {
    raw::read(&raw const location.__bindgen_anon_1 as u64)
}

pub(crate) fn create(out: Out<CUmemoryPool>, props: In<CUmemPoolProps>) -> Cu {
    ensure(!out.is_null())?;
    let props = props.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(props.allocType == CU_MEM_ALLOCATION_TYPE_PINNED)?;
    let mut state = lock();
    let (device, host) = state.pool_location(&props.location)?;
    ensure(!host || props.location.type_ != CU_MEM_LOCATION_TYPE_HOST || props.handleTypes == 0)?;
    let supported = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    ensure_or(
        props.handleTypes & !supported == 0,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    let pool = state.new_handle();
    let settings = Settings {
        handle_types: props.handleTypes,
        location_type: props.location.type_,
        location_id: location_id(&props.location),
        max_size: props.maxSize as u64,
    };
    state
        .pools
        .insert(pool, Pool::new(device, host, settings, false));
    put(out, handle(pool))
}

/// `cuMemPoolDestroy`: allocations that live keep the pool's memory until they are freed.
pub(crate) fn destroy(pool: CUmemoryPool) -> Cu {
    let mut state = lock();
    let known = state.pool(id(pool))?;
    ensure(!known.is_default && !known.doomed)?;
    known.doomed = true;
    let (device, empty) = (known.device, known.live.is_empty());
    if state.devices[device].pools.current == id(pool) {
        state.devices[device].pools.current = state.devices[device].pools.default;
    }
    state.shrink(id(pool), 0);
    if empty {
        state.pools.remove(&id(pool));
    }
    Ok(())
}

pub(crate) fn device_default(out: Out<CUmemoryPool>, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.device(dev)?;
    put(out, handle(state.default_pool(dev as usize)))
}

pub(crate) fn device_get(out: Out<CUmemoryPool>, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.device(dev)?;
    put(out, handle(state.current_pool(dev as usize)))
}

pub(crate) fn device_set(dev: CUdevice, pool: CUmemoryPool) -> Cu {
    let mut state = lock();
    state.device(dev)?;
    state.default_pool(dev as usize);
    let known = state.pool(id(pool))?;
    ensure(known.device == dev as usize && !known.host && !known.imported)?;
    state.devices[dev as usize].pools.current = id(pool);
    Ok(())
}

fn device_of(location: Out<CUmemLocation>, kind: CUmemAllocationType) -> Cu<CUdevice> {
    let location = location.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(kind == CU_MEM_ALLOCATION_TYPE_PINNED)?;
    ensure_or(
        location.type_ == CU_MEM_LOCATION_TYPE_DEVICE,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    Ok(location_id(&location))
}

pub(crate) fn location_default(
    out: Out<CUmemoryPool>,
    location: Out<CUmemLocation>,
    kind: CUmemAllocationType,
) -> Cu {
    device_default(out, device_of(location, kind)?)
}

pub(crate) fn location_get(
    out: Out<CUmemoryPool>,
    location: Out<CUmemLocation>,
    kind: CUmemAllocationType,
) -> Cu {
    device_get(out, device_of(location, kind)?)
}

pub(crate) fn location_set(
    location: Out<CUmemLocation>,
    kind: CUmemAllocationType,
    pool: CUmemoryPool,
) -> Cu {
    device_set(device_of(location, kind)?, pool)
}

pub(crate) fn trim(pool: CUmemoryPool, keep: usize) -> Cu {
    let mut state = lock();
    state.pool(id(pool))?;
    state.shrink(id(pool), keep as u64);
    Ok(())
}

/// `cuMemAllocAsync`: from the current pool of the stream's device.
pub(crate) fn alloc_async(out: Out<CUdeviceptr>, size: usize, stream: CUstream) -> Cu {
    ensure(!out.is_null())?;
    let stream = stream::resolve(stream)?;
    let mut state = lock();
    if let Some(address) = state.capture_alloc(stream, size as u64)? {
        return put(out, address);
    }
    let device = state.stream_device(stream);
    let pool = state.current_pool(device);
    put(out, state.allocate_pooled(pool, size as u64)?)
}

pub(crate) fn alloc_from(
    out: Out<CUdeviceptr>,
    size: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Cu {
    ensure(!out.is_null())?;
    let stream = stream::resolve(stream)?;
    let mut state = lock();
    let known = state.pool(id(pool))?;
    ensure(!known.doomed && !known.imported)?;
    if let Some(address) = state.capture_alloc(stream, size as u64)? {
        return put(out, address);
    }
    put(out, state.allocate_pooled(id(pool), size as u64)?)
}

/// `cuMemFreeAsync`: frees pool memory, and plain memory too, when the stream comes to it.
pub(crate) fn free_async(pointer: CUdeviceptr, stream: CUstream) -> Cu {
    let stream = stream::resolve(stream)?;
    if pointer == 0 {
        return Ok(());
    }
    let mut state = lock();
    let region = state
        .regions
        .starting_at(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let work = match region.kind {
        Kind::Pooled { .. } | Kind::Device { .. } | Kind::Managed { .. } => Work::Free(pointer),
        Kind::Imported { pool, .. } if pool != 0 => Work::Free(pointer),
        Kind::Graph { .. } => Work::GraphMemory {
            address: pointer,
            live: false,
        },
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    };
    drop(state);
    queue::submit(stream, work)
}
