//! Device memory: plain, pitched and managed; and giving back, also of what [`super::pool`] gave.
//!
//! What is charged is the request, rounded up by the ledger; a pitched allocation is charged what
//! the driver's pitch makes of it. Host memory is never charged.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUdeviceptr, CUdeviceptr_v1, CUresult, CUstream};
use vgpu_policy::Decision;
use vgpu_policy::memory::pitched;

use super::charge::{Reservation, reserve, status, uncharged};
use crate::device::Place;
use crate::live::UNKNOWN_POOL;
use crate::real::cuda as real;
use crate::session::{self, Session};

/// What a row of a pitched allocation is padded to at least, on every GPU so far.
const PITCH_ALIGNMENT: u64 = 512;

/// Charges, calls the driver, and notes the address that it wrote to `result`.
fn charged<T: Copy + Into<u64>>(
    bytes: usize,
    result: Out<T>,
    place: impl FnOnce(&'static Session) -> Option<Place>,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let reservation = match reserve(bytes as u64, result, place) {
        Decision::Allow(reservation) => reservation,
        Decision::Deny(deny) => return status(deny),
        Decision::Bypass(_) => return uncharged(result, call(), free_given),
    };
    let status = call();
    if status == CUDA_SUCCESS
        && let Some(address) = result.read()
    {
        reservation.keep_for(address.into(), 0);
    }
    status
}

fn free_given<T: Into<u64>>(address: T) -> CUresult {
    real::cuMemFree_v2(address.into())
}

/// `cuMemAlloc`, the 32-bit form of CUDA 2.
pub fn alloc_v1(dptr: Out<CUdeviceptr_v1>, bytesize: c_uint) -> CUresult {
    let call = || real::cuMemAlloc(dptr, bytesize);
    charged(bytesize as usize, dptr, Session::place, call)
}

/// `cuMemAlloc_v2`.
pub fn alloc(dptr: Out<CUdeviceptr>, bytesize: usize) -> CUresult {
    charged(bytesize, dptr, Session::place, || {
        real::cuMemAlloc_v2(dptr, bytesize)
    })
}

/// `cuMemAllocManaged`: charged whole, since all of it may come to live on the GPU.
pub fn alloc_managed(dptr: Out<CUdeviceptr>, bytesize: usize, flags: c_uint) -> CUresult {
    let call = || real::cuMemAllocManaged(dptr, bytesize, flags);
    charged(bytesize, dptr, Session::place, call)
}

/// Charges rows padded to the least pitch, and settles to the pitch that the driver chose.
fn charged_pitch<T: Copy + Into<u64>, S: Copy>(
    (result, pitch): (Out<T>, Out<S>),
    (width, height): (u64, u64),
    wide: fn(S) -> u64,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let least = pitched(width, height, PITCH_ALIGNMENT);
    let reservation = match reserve(least, result, Session::place) {
        Decision::Allow(reservation) => reservation,
        Decision::Deny(deny) => return status(deny),
        Decision::Bypass(_) => return uncharged(result, call(), free_given),
    };
    let status = call();
    if status != CUDA_SUCCESS {
        return status;
    }
    let (Some(address), Some(pitch)) = (result.read(), pitch.read()) else {
        return status;
    };
    keep_settled(
        reservation,
        address.into(),
        wide(pitch).saturating_mul(height),
    )
}

fn keep_settled(mut reservation: Reservation, address: u64, bytes: u64) -> CUresult {
    if let Err(deny) = reservation.settle(bytes) {
        real::cuMemFree_v2(address);
        return status(deny);
    }
    reservation.keep_for(address, 0);
    CUDA_SUCCESS
}

/// `cuMemAllocPitch`, the 32-bit form of CUDA 2.
pub fn alloc_pitch_v1(
    dptr: Out<CUdeviceptr_v1>,
    pitch: Out<c_uint>,
    width: c_uint,
    height: c_uint,
    element: c_uint,
) -> CUresult {
    charged_pitch(
        (dptr, pitch),
        (width.into(), height.into()),
        u64::from,
        || real::cuMemAllocPitch(dptr, pitch, width, height, element),
    )
}

/// `cuMemAllocPitch_v2`.
pub fn alloc_pitch(
    dptr: Out<CUdeviceptr>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    element: c_uint,
) -> CUresult {
    charged_pitch(
        (dptr, pitch),
        (width as u64, height as u64),
        |pitch| pitch as u64,
        || real::cuMemAllocPitch_v2(dptr, pitch, width, height, element),
    )
}

/// Takes the allocation out of the books first, because the driver may give its address to another
/// thread as soon as it is freed, and puts it back where the driver refuses.
fn freed(address: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let Some(allocation) = session.live.take(address) else {
        return call();
    };
    let status = call();
    if status == CUDA_SUCCESS {
        session
            .ledger
            .refund(allocation.device, allocation.own_charge());
        if !matches!(allocation.pool, 0 | UNKNOWN_POOL) {
            session.settle_pool(allocation.pool);
        }
    } else {
        session.live.insert(address, allocation);
    }
    status
}

/// `cuMemFree`, the 32-bit form of CUDA 2.
pub fn free_v1(dptr: CUdeviceptr_v1) -> CUresult {
    freed(dptr.into(), || real::cuMemFree(dptr))
}

/// `cuMemFree_v2`.
pub fn free(dptr: CUdeviceptr) -> CUresult {
    freed(dptr, || real::cuMemFree_v2(dptr))
}

/// `cuMemFreeAsync`.
pub fn free_async(dptr: CUdeviceptr, stream: CUstream) -> CUresult {
    freed(dptr, || real::cuMemFreeAsync(dptr, stream))
}

/// `cuMemFreeAsync_ptsz`.
pub fn free_async_ptsz(dptr: CUdeviceptr, stream: CUstream) -> CUresult {
    freed(dptr, || real::cuMemFreeAsync_ptsz(dptr, stream))
}
