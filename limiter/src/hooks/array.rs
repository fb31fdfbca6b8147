//! Arrays and mipmapped arrays: charged what the driver says that one like it needs, found out on a
//! twin without memory, or else by a formula that is rounded up. One- and two-dimensional arrays have
//! zeros in their descriptors and are not free. Sparse and deferred arrays take nothing by themselves.

use std::ffi::c_uint;

use vgpu_cuda_sys::cuda::{
    CU_AD_FORMAT_FLOAT, CU_AD_FORMAT_HALF, CU_AD_FORMAT_SIGNED_INT8, CU_AD_FORMAT_SIGNED_INT16,
    CU_AD_FORMAT_SIGNED_INT32, CU_AD_FORMAT_UNSIGNED_INT8, CU_AD_FORMAT_UNSIGNED_INT16,
    CU_AD_FORMAT_UNSIGNED_INT32, CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_DESCRIPTOR_v1,
    CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY3D_DEFERRED_MAPPING, CUDA_ARRAY3D_DESCRIPTOR,
    CUDA_ARRAY3D_DESCRIPTOR_v1, CUDA_ARRAY3D_SPARSE, CUDA_SUCCESS, CUarray, CUarray_format,
    CUmipmappedArray, CUresult,
};
use vgpu_cuda_sys::{In, Out};
use vgpu_policy::Decision;
use vgpu_policy::memory::array_bytes;

use super::charge::{reserve, status, uncharged};
use crate::driver;
use crate::real::cuda as real;
use crate::session::{self, Session};

/// Every kind of array as the newest descriptor has it.
type Shape = CUDA_ARRAY3D_DESCRIPTOR;

fn flat(width: usize, height: usize, format: CUarray_format, channels: c_uint) -> Shape {
    Shape {
        Width: width,
        Height: height,
        Depth: 0,
        Format: format,
        NumChannels: channels,
        Flags: 0,
    }
}

/// Bytes of one channel; formats with several planes or compressed blocks take no more than 16.
fn channel_bytes(format: CUarray_format) -> u64 {
    match format {
        CU_AD_FORMAT_UNSIGNED_INT8 | CU_AD_FORMAT_SIGNED_INT8 => 1,
        CU_AD_FORMAT_UNSIGNED_INT16 | CU_AD_FORMAT_SIGNED_INT16 | CU_AD_FORMAT_HALF => 2,
        CU_AD_FORMAT_UNSIGNED_INT32 | CU_AD_FORMAT_SIGNED_INT32 | CU_AD_FORMAT_FLOAT => 4,
        _ => 16,
    }
}

fn formula(shape: &Shape, levels: c_uint) -> u64 {
    let element = channel_bytes(shape.Format).saturating_mul(shape.NumChannels.into());
    let dimensions = [shape.Width as u64, shape.Height as u64, shape.Depth as u64];
    let base = array_bytes(dimensions, element);
    // All smaller levels together are less than the largest one.
    if levels > 1 {
        base.saturating_mul(2)
    } else {
        base
    }
}

/// What an array of this shape takes. **Units:** bytes.
fn needed(shape: Option<Shape>, levels: Option<c_uint>) -> u64 {
    let Some(shape) = shape else { return 0 };
    if shape.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING) != 0 {
        return 0;
    }
    twin(&shape, levels).unwrap_or_else(|| formula(&shape, levels.unwrap_or(1)))
}

/// Asks the driver about a twin that has no memory.
fn twin(shape: &Shape, levels: Option<c_uint>) -> Option<u64> {
    let mut twin = *shape;
    twin.Flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    let mut device = -1;
    if real::cuCtxGetDevice(Out::of(&mut device)) != CUDA_SUCCESS {
        return None;
    }
    let mut needs = CUDA_ARRAY_MEMORY_REQUIREMENTS {
        size: 0,
        alignment: 0,
        reserved: [0; 4],
    };
    let needs_place = Out::of(&mut needs);
    let answer = if let Some(levels) = levels {
        let mut array: CUmipmappedArray = std::ptr::null_mut();
        let made =
            real::cuMipmappedArrayCreate(Out::of(&mut array), driver::argument(&twin), levels);
        (made == CUDA_SUCCESS).then(|| {
            let answer = real::cuMipmappedArrayGetMemoryRequirements(needs_place, array, device);
            real::cuMipmappedArrayDestroy(array);
            answer
        })
    } else {
        let mut array: CUarray = std::ptr::null_mut();
        let made = real::cuArray3DCreate_v2(Out::of(&mut array), driver::argument(&twin));
        (made == CUDA_SUCCESS).then(|| {
            let answer = real::cuArrayGetMemoryRequirements(needs_place, array, device);
            real::cuArrayDestroy(array);
            answer
        })
    };
    (answer == Some(CUDA_SUCCESS) && needs.size > 0).then_some(needs.size as u64)
}

/// Charges, calls, and notes the handle that the driver wrote.
fn charged<T>(
    shape: Option<Shape>,
    levels: Option<c_uint>,
    result: Out<*mut T>,
    destroy: fn(*mut T) -> CUresult,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let reservation = match reserve(needed(shape, levels), result, Session::place) {
        Decision::Allow(reservation) => reservation,
        Decision::Deny(deny) => return status(deny),
        Decision::Bypass(_) => return uncharged(result, call(), destroy),
    };
    let answer = call();
    if answer == CUDA_SUCCESS
        && let Some(handle) = result.read()
    {
        reservation.keep_for_array(handle.addr() as u64);
    }
    answer
}

/// `cuArrayCreate`, the 32-bit form of CUDA 2.
pub fn create_v1(handle: Out<CUarray>, descriptor: In<CUDA_ARRAY_DESCRIPTOR_v1>) -> CUresult {
    let shape = descriptor
        .read()
        .map(|d| flat(d.Width as usize, d.Height as usize, d.Format, d.NumChannels));
    let call = || real::cuArrayCreate(handle, descriptor);
    charged(shape, None, handle, real::cuArrayDestroy, call)
}

/// `cuArrayCreate_v2`.
pub fn create(handle: Out<CUarray>, descriptor: In<CUDA_ARRAY_DESCRIPTOR>) -> CUresult {
    let shape = descriptor
        .read()
        .map(|d| flat(d.Width, d.Height, d.Format, d.NumChannels));
    let call = || real::cuArrayCreate_v2(handle, descriptor);
    charged(shape, None, handle, real::cuArrayDestroy, call)
}

/// `cuArray3DCreate`, the 32-bit form of CUDA 2.
pub fn create_3d_v1(handle: Out<CUarray>, descriptor: In<CUDA_ARRAY3D_DESCRIPTOR_v1>) -> CUresult {
    let shape = descriptor.read().map(|d| Shape {
        Depth: d.Depth as usize,
        Flags: d.Flags,
        ..flat(d.Width as usize, d.Height as usize, d.Format, d.NumChannels)
    });
    let call = || real::cuArray3DCreate(handle, descriptor);
    charged(shape, None, handle, real::cuArrayDestroy, call)
}

/// `cuArray3DCreate_v2`.
pub fn create_3d(handle: Out<CUarray>, descriptor: In<CUDA_ARRAY3D_DESCRIPTOR>) -> CUresult {
    let call = || real::cuArray3DCreate_v2(handle, descriptor);
    charged(descriptor.read(), None, handle, real::cuArrayDestroy, call)
}

/// `cuMipmappedArrayCreate`.
pub fn create_mipmapped(
    handle: Out<CUmipmappedArray>,
    descriptor: In<CUDA_ARRAY3D_DESCRIPTOR>,
    levels: c_uint,
) -> CUresult {
    let call = || real::cuMipmappedArrayCreate(handle, descriptor, levels);
    charged(
        descriptor.read(),
        Some(levels),
        handle,
        real::cuMipmappedArrayDestroy,
        call,
    )
}

/// As for memory: out of the books first, back where the driver refuses.
fn destroyed(handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let Some(array) = session.arrays.take(handle) else {
        return call();
    };
    let answer = call();
    if answer == CUDA_SUCCESS {
        session.ledger.refund(array.device, array.bytes);
    } else {
        session.arrays.insert(handle, array);
    }
    answer
}

/// `cuArrayDestroy`.
pub fn destroy(array: CUarray) -> CUresult {
    destroyed(array.addr() as u64, || real::cuArrayDestroy(array))
}

/// `cuMipmappedArrayDestroy`.
pub fn destroy_mipmapped(array: CUmipmappedArray) -> CUresult {
    destroyed(array.addr() as u64, || real::cuMipmappedArrayDestroy(array))
}
