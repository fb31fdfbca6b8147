//! Host memory: allocated by the driver, or registered with it.
//!
//! It is the program's own memory in the end; it never counts as memory of a GPU.

use core::ffi::{c_uint, c_void};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::capture;
use crate::error::{Cu, Fail, ensure, ensure_or, put};
use crate::memory::{Wide, narrow};
use crate::raw;
use crate::region::{Kind, Region, whole_pages};
use crate::state::lock;

const ALLOC_FLAGS: c_uint =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
const REGISTER_FLAGS: c_uint = CU_MEMHOSTREGISTER_PORTABLE
    | CU_MEMHOSTREGISTER_DEVICEMAP
    | CU_MEMHOSTREGISTER_IOMEMORY
    | CU_MEMHOSTREGISTER_READ_ONLY;

/// `cuMemAllocHost` in both versions.
pub(crate) fn alloc_plain<N: Wide>(out: Out<*mut c_void>, size: N) -> Cu {
    // Under unified addressing everything is portable and mapped.
    make(
        out,
        size.wide(),
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP,
    )
}

pub(crate) fn alloc(out: Out<*mut c_void>, size: usize, flags: c_uint) -> Cu {
    ensure(flags & !ALLOC_FLAGS == 0)?;
    make(out, size as u64, flags)
}

fn make(out: Out<*mut c_void>, size: u64, flags: c_uint) -> Cu {
    ensure(!out.is_null() && size > 0)?;
    capture::forbid_unsafe()?;
    let mut state = lock();
    let context = state.current()?;
    let device = state.contexts[&context].device;
    let pages = size
        .checked_next_multiple_of(4096)
        .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let base = raw::reserve(pages, raw::Protection::ReadWrite, false);
    let base = base.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    state.add_region(Region::new(
        base,
        size,
        Kind::Host { owned: true, flags },
        device,
        context,
    ));
    put(out, base as *mut c_void)
}

pub(crate) fn free(pointer: Out<c_void>) -> Cu {
    let mut state = lock();
    state.current()?;
    let address = raw::addr_out(pointer);
    let region = state
        .regions
        .starting_at(address)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(matches!(region.kind, Kind::Host { owned: true, .. }))?;
    if let Some(region) = state.regions.remove(address) {
        state.free_region(region);
    }
    Ok(())
}

/// `cuMemHostRegister` in both versions.
pub(crate) fn register(pointer: Out<c_void>, size: usize, flags: c_uint) -> Cu {
    ensure(!pointer.is_null() && size > 0 && flags & !REGISTER_FLAGS == 0)?;
    let mut state = lock();
    let context = state.current()?;
    let device = state.contexts[&context].device;
    let base = raw::addr_out(pointer);
    let taken = state.regions.overlap(base, size as u64);
    ensure_or(!taken, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)?;
    ensure(raw::is_mapped(base, whole_pages(size as u64)))?;
    let kind = Kind::Host {
        owned: false,
        flags,
    };
    state.add_region(Region::new(base, size as u64, kind, device, context));
    Ok(())
}

pub(crate) fn unregister(pointer: Out<c_void>) -> Cu {
    let mut state = lock();
    let address = raw::addr_out(pointer);
    ensure(address != 0)?;
    let region = state.regions.starting_at(address);
    let registered =
        region.is_some_and(|region| matches!(region.kind, Kind::Host { owned: false, .. }));
    ensure_or(registered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)?;
    state.regions.remove(address);
    Ok(())
}

/// `cuMemHostGetDevicePointer` in both versions: the same address, as under unified addressing.
pub(crate) fn device_pointer<P: Wide>(out: Out<P>, pointer: Out<c_void>, flags: c_uint) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    let mut state = lock();
    state.current()?;
    let address = raw::addr_out(pointer);
    let region = state
        .regions
        .at(address)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(region.is_host() || matches!(region.kind, Kind::Managed { .. }))?;
    put(out, narrow(address)?)
}

pub(crate) fn get_flags(out: Out<c_uint>, pointer: Out<c_void>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.current()?;
    let region = state
        .regions
        .at(raw::addr_out(pointer))
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    match region.kind {
        // Mapping is implied where every address is unified.
        Kind::Host { flags, .. } => put(out, flags | CU_MEMHOSTALLOC_DEVICEMAP),
        _ => crate::error::invalid(),
    }
}
