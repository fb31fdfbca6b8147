//! Virtual memory management: physical memory is charged when it is created, by its own location and
//! not by the current context, and refunded when neither a handle nor a mapping holds it any more.

use std::ffi::{c_ulonglong, c_void};

use vgpu_cuda_sys::cuda::{
    CU_MEM_LOCATION_TYPE_DEVICE, CUDA_SUCCESS, CUdeviceptr, CUmemAllocationProp,
    CUmemGenericAllocationHandle, CUresult,
};
use vgpu_cuda_sys::{In, Out};
use vgpu_policy::Decision;

use super::charge::{reserve, status, uncharged};
use crate::driver;
use crate::physical::Books;
use crate::real::cuda as real;
use crate::session::{self, Session};

/// `cuMemCreate`. Host locations are not VRAM, and their ids mean nothing.
pub fn create(
    handle: Out<CUmemGenericAllocationHandle>,
    size: usize,
    prop: In<CUmemAllocationProp>,
    flags: c_ulonglong,
) -> CUresult {
    let call = || real::cuMemCreate(handle, size, prop, flags);
    let location = prop.read().map(|prop| prop.location);
    let Some(location) = location.filter(|at| at.type_ == CU_MEM_LOCATION_TYPE_DEVICE) else {
        return call();
    };
    let ordinal = driver::location_id(location);
    let reservation = match reserve(size as u64, handle, |session| {
        session.ordinal_place(ordinal)
    }) {
        Decision::Allow(reservation) => reservation,
        Decision::Deny(deny) => return status(deny),
        Decision::Bypass(_) => return uncharged(handle, call(), real::cuMemRelease),
    };
    let session = reservation.session();
    let answer = call();
    if answer == CUDA_SUCCESS
        && let Some(handle) = handle.read()
    {
        // Whoever released this number before holds the books until that is noted.
        let device = reservation.device();
        let mut books = session.physical.books();
        books.created(handle, device, reservation.keep());
    }
    answer
}

/// Makes the driver's call with the books in hand, and brings them up to date when it succeeds.
fn booked(call: impl FnOnce() -> CUresult, note: impl FnOnce(&Session, &mut Books)) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let mut books = session.physical.books();
    let answer = call();
    if answer == CUDA_SUCCESS {
        note(session, &mut books);
    }
    answer
}

/// `cuMemRelease`: one reference less.
pub fn release(handle: CUmemGenericAllocationHandle) -> CUresult {
    booked(
        || real::cuMemRelease(handle),
        |session, books| {
            if let Some(chunk) = books.released(handle) {
                session.ledger.refund(chunk.device, chunk.bytes);
            }
        },
    )
}

/// `cuMemMap`: a mapping holds the memory too.
pub fn map(
    ptr: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: c_ulonglong,
) -> CUresult {
    booked(
        || real::cuMemMap(ptr, size, offset, handle, flags),
        |_, books| books.mapped(ptr, size as u64, handle),
    )
}

/// `cuMemUnmap`: all mappings in the range.
pub fn unmap(ptr: CUdeviceptr, size: usize) -> CUresult {
    booked(
        || real::cuMemUnmap(ptr, size),
        |session, books| {
            for chunk in books.unmapped(ptr, size as u64) {
                session.ledger.refund(chunk.device, chunk.bytes);
            }
        },
    )
}

/// `cuMemRetainAllocationHandle`: one reference more.
pub fn retain(handle: Out<CUmemGenericAllocationHandle>, addr: Out<c_void>) -> CUresult {
    booked(
        || real::cuMemRetainAllocationHandle(handle, addr),
        |_, books| {
            if let Some(handle) = handle.read() {
                books.retained(handle, addr.as_ptr().addr() as u64);
            }
        },
    )
}
