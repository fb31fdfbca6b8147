//! Device memory: plain, pitched and managed allocations, and how much is left.
//!
//! Sizes are charged to the GPU in units of 512 bytes, the alignment that every allocation has. (A real driver hands
//! out 2 MiB blocks and cuts small allocations from them; the simulator leaves that out so that tests can count.)
//! It must never touch the bytes: pages appear when something is written.

use core::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::capture;
use crate::device::Largest;
use crate::error::{Cu, Fail, ensure, ensure_or, invalid, put, put_optional};
use crate::region::{Kind, Region};
use crate::state::{State, lock, node};

/// Alignment of allocations, and the unit in which they are charged.
pub(crate) const UNIT: u64 = 512;
/// Rows of pitched memory start at multiples of this.
const PITCH: u64 = 512;

/// A number that is 32 bits wide in the first version of a function and 64 in the second.
pub(crate) trait Wide: Copy + TryFrom<u64> {
    /// The value.
    fn wide(self) -> u64;
    /// Whether addresses must fit in 32 bits.
    const LOW: bool;
}

impl Wide for u32 {
    fn wide(self) -> u64 {
        u64::from(self)
    }
    const LOW: bool = true;
}

impl Wide for u64 {
    fn wide(self) -> u64 {
        self
    }
    const LOW: bool = false;
}

impl Wide for usize {
    fn wide(self) -> u64 {
        self as u64
    }
    const LOW: bool = false;
}

/// `value` in the width that the caller's version has; what is too large for it cannot be told.
pub(crate) fn narrow<T: Wide>(value: u64) -> Cu<T> {
    T::try_from(value).or(Err(Fail(CUDA_ERROR_NOT_SUPPORTED)))
}

/// The size in whole units.
pub(crate) fn units(size: u64) -> Cu<u64> {
    size.checked_next_multiple_of(UNIT)
        .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))
}

impl State {
    /// Allocates on the current context's device; below 4 GiB for callers whose pointers have 32 bits.
    pub(crate) fn allocate(
        &mut self,
        size: u64,
        low: bool,
        kind: impl FnOnce(u64) -> Kind,
    ) -> Cu<u64> {
        ensure(size > 0)?;
        let context = self.current()?;
        let device = self.contexts[&context].device;
        let charged = units(size)?;
        let base = if low {
            self.take_low(device, charged)?
        } else {
            // Large blocks start where large pages do.
            let align = if size >= 2 << 20 { 2 << 20 } else { UNIT };
            self.take_device(device, charged, align, charged)?
        };
        self.add_region(Region::new(base, size, kind(charged), device, context));
        Ok(base)
    }
}

/// `cuMemAlloc` in both versions.
pub(crate) fn alloc<P: Wide, N: Wide>(out: Out<P>, size: N) -> Cu {
    ensure(!out.is_null() && size.wide() > 0)?;
    capture::forbid_unsafe()?;
    let base = lock().allocate(size.wide(), P::LOW, |charged| Kind::Device { charged })?;
    put(out, narrow(base)?)
}

/// `cuMemAllocPitch` in both versions: rows padded to 512 bytes.
pub(crate) fn alloc_pitch<P: Wide, N: Wide>(
    out: Out<P>,
    pitch: Out<N>,
    width: N,
    height: N,
    element: c_uint,
) -> Cu {
    ensure(!out.is_null() && !pitch.is_null() && matches!(element, 4 | 8 | 16))?;
    ensure(width.wide() > 0 && height.wide() > 0)?;
    capture::forbid_unsafe()?;
    let row = width.wide().checked_next_multiple_of(PITCH);
    let row = row.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let size = row
        .checked_mul(height.wide())
        .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let base = lock().allocate(size, P::LOW, |charged| Kind::Device { charged })?;
    put(pitch, narrow(row)?)?;
    put(out, narrow(base)?)
}

/// `cuMemAllocManaged`: charged to the current device from the start, as if it were resident there.
pub(crate) fn alloc_managed(out: Out<CUdeviceptr>, size: usize, flags: c_uint) -> Cu {
    ensure(!out.is_null() && size > 0)?;
    ensure(flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST)?;
    capture::forbid_unsafe()?;
    let mut state = lock();
    let base = state.allocate(size as u64, false, |charged| Kind::Managed {
        charged,
        flags,
    })?;
    if let Some(region) = state.regions.starting_at(base) {
        // The program writes to it without telling us.
        region.written = true;
    }
    put(out, base)
}

/// `cuMemFree` in both versions; null is freed gladly. Pool memory may be freed here too.
pub(crate) fn free<P: Wide>(pointer: P) -> Cu {
    if pointer.wide() == 0 {
        return lock().current().map(drop);
    }
    capture::forbid_unsafe()?;
    let mut state = lock();
    state.current()?;
    let region = state
        .regions
        .starting_at(pointer.wide())
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    match region.kind {
        Kind::Device { .. } | Kind::Managed { .. } | Kind::Pooled { .. } => {}
        Kind::Imported { pool, .. } if pool != 0 => {}
        // The address stays the graph's.
        Kind::Graph { .. } => return state.graph_memory(pointer.wide(), false),
        _ => return invalid(),
    }
    if let Some(region) = state.regions.remove(pointer.wide()) {
        state.free_region(region);
    }
    Ok(())
}

/// `cuMemGetInfo` in both versions: what the GPU has free for anybody, and what applications can have.
pub(crate) fn get_info<T: Largest + TryFrom<u64>>(free: Out<T>, total: Out<T>) -> Cu {
    let (left, all) = {
        let state = lock();
        let device = state.current_device()?;
        (
            node().free_memory(state.gpu(device))?,
            state.devices[device].total(),
        )
    };
    put_optional(free, T::try_from(left).unwrap_or(T::LARGEST))?;
    put_optional(total, T::try_from(all).unwrap_or(T::LARGEST))
}

/// `cuMemGetAddressRange` in both versions.
pub(crate) fn address_range<P: Wide, N: Wide>(base: Out<P>, size: Out<N>, pointer: P) -> Cu {
    let mut state = lock();
    state.current()?;
    let region = state
        .regions
        .at(pointer.wide())
        .ok_or(Fail(CUDA_ERROR_NOT_FOUND))?;
    ensure_or(region.kind != Kind::Reserved, CUDA_ERROR_NOT_FOUND)?;
    put_optional(base, narrow(region.base)?)?;
    put_optional(size, narrow(region.size)?)
}
