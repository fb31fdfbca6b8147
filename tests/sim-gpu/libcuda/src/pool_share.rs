//! Pools that processes share.
//!
//! The handle of a pool is a file that says which GPU it is on; its allocations are shared one by one, as plain memory
//! is (see [`crate::ipc`]). Memory stays charged to the process whose pool it is.

use core::ffi::{c_ulonglong, c_void};
use std::os::fd::{AsRawFd, IntoRawFd};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::ipc::{Ticket, ticket};
use crate::pool::{Pool, Settings};
use crate::raw::{self, Protection};
use crate::region::Kind;
use crate::state::{handle, id, lock};

const POOL: u64 = u64::from_le_bytes(*b"sim-pool");
const POINTER: u64 = u64::from_le_bytes(*b"sim-pptr");
const PAGE: u64 = 4096;

const _: () = assert!(size_of::<Ticket>() == size_of::<CUmemPoolPtrExportData>());

/// `cuMemPoolExportToShareableHandle`: a descriptor that the program owns.
pub(crate) fn export(
    out: Out<c_void>,
    pool: CUmemoryPool,
    kind: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    let gpu = {
        let mut state = lock();
        let known = state.pool(id(pool))?;
        ensure(kind & known.settings.handle_types != 0)?;
        let device = known.device;
        state.gpu(device)
    };
    let file = raw::memory_file(PAGE).ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let page = raw::map_file(None, &file, 0, PAGE, Protection::ReadWrite);
    let page = page.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    raw::write(page, ticket(POOL, 0, 0, gpu));
    raw::unmap(page, PAGE);
    raw::write(raw::addr_out(out), file.into_raw_fd());
    Ok(())
}

/// `cuMemPoolImportFromShareableHandle`: a pool that only pointers can be imported from.
pub(crate) fn import(
    out: Out<CUmemoryPool>,
    os_handle: Out<c_void>,
    kind: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    ensure_or(
        kind == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    let file =
        raw::duplicate(raw::addr_out(os_handle) as i32).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(raw::file_len(file.as_raw_fd()) == Some(PAGE))?;
    let page = raw::map_file(None, &file, 0, PAGE, Protection::Read);
    let page = page.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let ticket: Ticket = raw::read(page);
    raw::unmap(page, PAGE);
    ensure(ticket.kind == POOL)?;
    let mut state = lock();
    let device = state
        .devices
        .iter()
        .position(|device| device.gpu.index as u64 == ticket.gpu);
    let device = device.ok_or(Fail(CUDA_ERROR_INVALID_DEVICE))?;
    let settings = Settings {
        location_type: CU_MEM_LOCATION_TYPE_DEVICE,
        location_id: device as i32,
        ..Settings::default()
    };
    let mut pool = Pool::new(device, false, settings, false);
    pool.imported = true;
    let imported = state.new_handle();
    state.pools.insert(imported, pool);
    put(out, handle(imported))
}

/// `cuMemPoolExportPointer`: for the start of an allocation of a pool that can be shared.
pub(crate) fn export_pointer(out: Out<CUmemPoolPtrExportData>, pointer: CUdeviceptr) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let region = state
        .regions
        .find(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let (base, size, device) = (region.base, region.size, region.device);
    let Kind::Pooled { pool } = region.kind else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    ensure(base == pointer && state.pool(pool)?.settings.handle_types != 0)?;
    let number = state.share(base)?;
    raw::write(
        raw::addr_out(out),
        ticket(POINTER, number, size, state.gpu(device)),
    );
    Ok(())
}

pub(crate) fn import_pointer(
    out: Out<CUdeviceptr>,
    pool: CUmemoryPool,
    data: Out<CUmemPoolPtrExportData>,
) -> Cu {
    ensure(!out.is_null() && !data.is_null())?;
    let ticket: Ticket = raw::read(raw::addr_out(data));
    ensure(ticket.kind == POINTER)?;
    let mut state = lock();
    ensure(state.pool(id(pool))?.imported)?;
    let base = state.open(&ticket, 0, id(pool))?;
    put(out, base)
}
