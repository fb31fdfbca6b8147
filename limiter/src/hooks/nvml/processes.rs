//! Processes on a device: those of this container, with the pids that the container knows.
//!
//! The list comes from the ledger, not from the driver, which knows host pids and everybody's
//! processes. Graphics and MPS lists are empty: neither is offered through the limiter.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_INSUFFICIENT_SIZE, NVML_ERROR_INVALID_ARGUMENT, NVML_SUCCESS, nvmlDevice_t,
    nvmlProcessInfo_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, nvmlReturn_t,
};

use super::observed;

/// No MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// Fills the caller's array. **Shape:** `count` comes in as the room and goes out as the number; too
/// little room answers `NVML_ERROR_INSUFFICIENT_SIZE` and writes the number only.
fn list<T: Copy>(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<T>,
    entry: fn(u32, u64) -> T,
) -> nvmlReturn_t {
    let (observer, index) = match observed(device) {
        Ok(found) => found,
        Err(error) => return error,
    };
    answer(&observer.processes(index), count, infos, entry)
}

fn answer<T: Copy>(
    processes: &[(u32, u64)],
    count: Out<c_uint>,
    infos: Out<T>,
    entry: fn(u32, u64) -> T,
) -> nvmlReturn_t {
    let Some(room) = count.read() else {
        return NVML_ERROR_INVALID_ARGUMENT;
    };
    let number = c_uint::try_from(processes.len()).unwrap_or(c_uint::MAX);
    if room < number {
        count.write(number);
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    if number > 0 && infos.is_null() {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    let entries: Vec<T> = processes
        .iter()
        .map(|(pid, bytes)| entry(*pid, *bytes))
        .collect();
    infos.write_all(&entries);
    count.write(number);
    NVML_SUCCESS
}

/// An empty list of a device that the container has.
fn none<T: Copy>(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<T>,
    entry: fn(u32, u64) -> T,
) -> nvmlReturn_t {
    match observed(device) {
        Ok(_) => answer(&[], count, infos, entry),
        Err(error) => error,
    }
}

fn first(pid: u32, bytes: u64) -> nvmlProcessInfo_v1_t {
    nvmlProcessInfo_v1_t {
        pid,
        usedGpuMemory: bytes,
    }
}

fn second(pid: u32, bytes: u64) -> nvmlProcessInfo_v2_t {
    nvmlProcessInfo_v2_t {
        pid,
        usedGpuMemory: bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    }
}

fn third(pid: u32, bytes: u64) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid,
        usedGpuMemory: bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    }
}

/// `nvmlDeviceGetComputeRunningProcesses`.
pub fn compute_v1(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_v1_t>,
) -> nvmlReturn_t {
    list(device, count, infos, first)
}

/// `nvmlDeviceGetComputeRunningProcesses_v2`.
pub fn compute_v2(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_v2_t>,
) -> nvmlReturn_t {
    list(device, count, infos, second)
}

/// `nvmlDeviceGetComputeRunningProcesses_v3`.
pub fn compute_v3(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_t>,
) -> nvmlReturn_t {
    list(device, count, infos, third)
}

/// `nvmlDeviceGetGraphicsRunningProcesses` and `nvmlDeviceGetMPSComputeRunningProcesses`.
pub fn none_v1(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_v1_t>,
) -> nvmlReturn_t {
    none(device, count, infos, first)
}

/// The `_v2` of both.
pub fn none_v2(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_v2_t>,
) -> nvmlReturn_t {
    none(device, count, infos, second)
}

/// The `_v3` of both.
pub fn none_v3(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlProcessInfo_t>,
) -> nvmlReturn_t {
    none(device, count, infos, third)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: nvmlProcessInfo_v1_t = nvmlProcessInfo_v1_t {
        pid: 0,
        usedGpuMemory: 0,
    };

    #[test]
    fn too_little_room_tells_how_much_is_needed() {
        let (mut count, mut infos) = (1, [NONE; 2]);
        let processes = [(7, 70), (8, 80)];
        let status = answer(
            &processes,
            Out::of(&mut count),
            Out::of(&mut infos[0]),
            first,
        );
        assert_eq!(
            (status, count, infos[0].pid),
            (NVML_ERROR_INSUFFICIENT_SIZE, 2, 0)
        );
        let mut none = 0;
        let status = answer::<nvmlProcessInfo_v1_t>(&[], Out::of(&mut none), Out::null(), first);
        assert_eq!((status, none), (NVML_SUCCESS, 0));
    }

    #[test]
    fn nowhere_to_put_it_is_the_callers_mistake() {
        let mut count = 5;
        let status =
            answer::<nvmlProcessInfo_v1_t>(&[(7, 70)], Out::of(&mut count), Out::null(), first);
        assert_eq!(status, NVML_ERROR_INVALID_ARGUMENT);
        let status = answer::<nvmlProcessInfo_v1_t>(&[], Out::null(), Out::null(), first);
        assert_eq!(status, NVML_ERROR_INVALID_ARGUMENT);
    }
}
