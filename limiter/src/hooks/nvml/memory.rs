//! Memory of a device: the quota, from the same snapshot as CUDA's answers.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_SUCCESS, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlReturn_t,
};
use vgpu_policy::MemorySnapshot;

use super::observed;
use crate::real::nvml as real;

fn snapshot(
    device: nvmlDevice_t,
    real_total: u64,
    real_free: u64,
) -> Result<MemorySnapshot, nvmlReturn_t> {
    let (observer, index) = observed(device)?;
    let granted = observer.limits().granted(index);
    Ok(MemorySnapshot {
        limit: granted.limit,
        charged: observer.used(index),
        untracked: granted.untracked,
        real_total,
        real_free,
    })
}

/// `nvmlDeviceGetMemoryInfo`.
pub fn v1(device: nvmlDevice_t, memory: Out<nvmlMemory_t>) -> nvmlReturn_t {
    if memory.is_null() {
        return real::nvmlDeviceGetMemoryInfo(device, memory);
    }
    let mut bare = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    let answer = real::nvmlDeviceGetMemoryInfo(device, Out::of(&mut bare));
    if answer != NVML_SUCCESS {
        return answer;
    }
    match snapshot(device, bare.total, bare.free) {
        Ok(shown) => {
            memory.write(nvmlMemory_t {
                total: shown.total(),
                free: shown.free(),
                used: shown.used_beside_free(),
            });
            NVML_SUCCESS
        }
        Err(error) => error,
    }
}

/// `nvmlDeviceGetMemoryInfo_v2`. What the driver reserves was taken off before quotas were made.
pub fn v2(device: nvmlDevice_t, memory: Out<nvmlMemory_v2_t>) -> nvmlReturn_t {
    let Some(mut bare) = memory.read() else {
        return real::nvmlDeviceGetMemoryInfo_v2(device, memory);
    };
    let answer = real::nvmlDeviceGetMemoryInfo_v2(device, Out::of(&mut bare));
    if answer != NVML_SUCCESS {
        return answer;
    }
    match snapshot(device, bare.total, bare.free) {
        Ok(shown) => {
            memory.write(nvmlMemory_v2_t {
                total: shown.total(),
                reserved: 0,
                free: shown.free(),
                used: shown.used_beside_free(),
                ..bare
            });
            NVML_SUCCESS
        }
        Err(error) => error,
    }
}
