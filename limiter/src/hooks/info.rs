//! What the container sees of its GPU's memory, all from one snapshot.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUdevice, CUresult};
use vgpu_policy::MemorySnapshot;
use vgpu_policy::memory::narrow;

use super::charge::status;
use crate::real::cuda as real;
use crate::session::{self, Session};

impl Session {
    /// What is known of a device; all zeros for one that was not granted.
    fn snapshot(&self, device: Option<usize>, real_free: u64, real_total: u64) -> MemorySnapshot {
        let granted = device
            .map(|index| self.ledger.limits().granted(index))
            .unwrap_or_default();
        MemorySnapshot {
            limit: granted.limit,
            charged: device.map_or(0, |index| self.ledger.used_by_the_living(index)),
            untracked: granted.untracked,
            real_total,
            real_free,
        }
    }
}

/// A place of ours where the application has one of its own.
fn instead<T: Copy>(wanted: Out<T>, own: &mut T) -> Out<T> {
    if wanted.is_null() {
        wanted
    } else {
        Out::of(own)
    }
}

/// `cuMemGetInfo_v2`: the quota and what is left of it. The driver is asked first, so that its
/// errors stay its own, and with places of ours, so that no thread ever sees the bare numbers.
pub fn mem(free: Out<usize>, total: Out<usize>) -> CUresult {
    let session = match session::current() {
        Ok(session) => session,
        Err(deny) => return status(deny),
    };
    if free.is_null() && total.is_null() {
        return real::cuMemGetInfo_v2(free, total);
    }
    let (mut real_free, mut real_total) = (0, 0);
    if free.is_null() || total.is_null() {
        // Whether one null is an error is for the driver to say.
        let answer = real::cuMemGetInfo_v2(
            instead(free, &mut real_free),
            instead(total, &mut real_total),
        );
        if answer != CUDA_SUCCESS {
            return answer;
        }
    }
    let answer = real::cuMemGetInfo_v2(Out::of(&mut real_free), Out::of(&mut real_total));
    if answer == CUDA_SUCCESS {
        session.settle_pools();
        let device = session.place().and_then(|place| place.device);
        let shown = session.snapshot(device, real_free as u64, real_total as u64);
        free.write(usize::try_from(shown.free()).unwrap_or(usize::MAX));
        total.write(usize::try_from(shown.total()).unwrap_or(usize::MAX));
    }
    answer
}

/// `cuMemGetInfo`, the 32-bit form of CUDA 2: saturated.
pub fn mem_v1(free: Out<c_uint>, total: Out<c_uint>) -> CUresult {
    let (mut wide_free, mut wide_total) = (0, 0);
    let (mut narrow_free, mut narrow_total) = (0, 0);
    // The driver's own old form says whether it is still served.
    let answer = real::cuMemGetInfo(
        instead(free, &mut narrow_free),
        instead(total, &mut narrow_total),
    );
    if answer != CUDA_SUCCESS {
        return answer;
    }
    let answer = mem(Out::of(&mut wide_free), Out::of(&mut wide_total));
    if answer == CUDA_SUCCESS {
        free.write(narrow(wide_free as u64));
        total.write(narrow(wide_total as u64));
    }
    answer
}

/// `cuDeviceTotalMem_v2`: the quota.
pub fn total(bytes: Out<usize>, dev: CUdevice) -> CUresult {
    let session = match session::current() {
        Ok(session) => session,
        Err(deny) => return status(deny),
    };
    if bytes.is_null() {
        return real::cuDeviceTotalMem_v2(bytes, dev);
    }
    let mut real_total = 0;
    let answer = real::cuDeviceTotalMem_v2(Out::of(&mut real_total), dev);
    if answer == CUDA_SUCCESS {
        let shown = session.snapshot(session.index_of(dev), 0, real_total as u64);
        bytes.write(usize::try_from(shown.total()).unwrap_or(usize::MAX));
    }
    answer
}

/// `cuDeviceTotalMem`, the 32-bit form of CUDA 2: saturated.
pub fn total_v1(bytes: Out<c_uint>, dev: CUdevice) -> CUresult {
    let mut ours = 0;
    let answer = real::cuDeviceTotalMem(instead(bytes, &mut ours), dev);
    if answer != CUDA_SUCCESS {
        return answer;
    }
    let mut wide = 0;
    let answer = total(Out::of(&mut wide), dev);
    if answer == CUDA_SUCCESS {
        bytes.write(narrow(wide as u64));
    }
    answer
}
