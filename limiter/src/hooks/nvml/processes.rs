//! Processes on a device: those of this container, with the pids that the container knows.
//!
//! The lists come from the ledger, not from the driver, which knows everybody's processes and perhaps host pids
//! only; the driver says no more than whether it would serve the list. Graphics and MPS lists are empty: neither
//! is offered through the limiter.

use std::ffi::{c_char, c_uint};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_NO_PERMISSION, NVML_ERROR_NOT_FOUND, NVML_SUCCESS, nvmlDevice_t,
    nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_t, nvmlProcessInfo_v1_t,
    nvmlProcessInfo_v2_t, nvmlReturn_t,
};

use super::{good, list, observed, status};
use crate::real::nvml as real;

/// No MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;
/// The kind of process that `nvmlProcessDetailList_t` asks for by 0; the others are graphics and MPS.
const COMPUTE: c_uint = 0;

/// Fills the caller's array with processes of the kind that `ours` picks.
fn put<T: Copy>(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<T>,
    call: impl Fn(nvmlDevice_t, Out<c_uint>, Out<T>) -> nvmlReturn_t,
    ours: impl FnOnce(nvmlDevice_t) -> Result<Vec<T>, nvmlReturn_t>,
) -> nvmlReturn_t {
    if count.is_null() {
        return call(device, count, infos);
    }
    status(
        list::judged(|count, infos| call(device, count, infos))
            .and_then(|()| list::put(&ours(device)?, count, infos)),
    )
}

fn running<T>(device: nvmlDevice_t, entry: fn((u32, u64)) -> T) -> Result<Vec<T>, nvmlReturn_t> {
    let (observer, index) = observed(device)?;
    Ok(observer.processes(index).into_iter().map(entry).collect())
}

fn none<T>(device: nvmlDevice_t) -> Result<Vec<T>, nvmlReturn_t> {
    observed(device).map(|_| Vec::new())
}

fn first((pid, bytes): (u32, u64)) -> nvmlProcessInfo_v1_t {
    nvmlProcessInfo_v1_t {
        pid,
        usedGpuMemory: bytes,
    }
}

fn second((pid, bytes): (u32, u64)) -> nvmlProcessInfo_v2_t {
    nvmlProcessInfo_v2_t {
        pid,
        usedGpuMemory: bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    }
}

fn third((pid, bytes): (u32, u64)) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid,
        usedGpuMemory: bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    }
}

fn detail((pid, bytes): (u32, u64)) -> nvmlProcessDetail_v1_t {
    nvmlProcessDetail_v1_t {
        pid,
        usedGpuMemory: bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
        usedGpuCcProtectedMemory: 0,
    }
}

/// Bodies of one kind of list: the name, the driver's function, the structure, and where entries come from.
macro_rules! lists {
    ($($body:ident = $function:ident: $info:ty, $ours:expr;)*) => { $(
        #[doc = concat!("`", stringify!($function), "`.")]
        pub fn $body(
            device: nvmlDevice_t,
            count: Out<c_uint>,
            infos: Out<$info>,
        ) -> nvmlReturn_t {
            put(device, count, infos, real::$function, $ours)
        }
    )* };
}

lists! {
    compute_v1 = nvmlDeviceGetComputeRunningProcesses: nvmlProcessInfo_v1_t, |device| running(device, first);
    compute_v2 = nvmlDeviceGetComputeRunningProcesses_v2: nvmlProcessInfo_v2_t, |device| running(device, second);
    compute_v3 = nvmlDeviceGetComputeRunningProcesses_v3: nvmlProcessInfo_t, |device| running(device, third);
    graphics_v1 = nvmlDeviceGetGraphicsRunningProcesses: nvmlProcessInfo_v1_t, none;
    graphics_v2 = nvmlDeviceGetGraphicsRunningProcesses_v2: nvmlProcessInfo_v2_t, none;
    graphics_v3 = nvmlDeviceGetGraphicsRunningProcesses_v3: nvmlProcessInfo_t, none;
    mps_v1 = nvmlDeviceGetMPSComputeRunningProcesses: nvmlProcessInfo_v1_t, none;
    mps_v2 = nvmlDeviceGetMPSComputeRunningProcesses_v2: nvmlProcessInfo_v2_t, none;
    mps_v3 = nvmlDeviceGetMPSComputeRunningProcesses_v3: nvmlProcessInfo_t, none;
}

/// `nvmlDeviceGetRunningProcessDetailList`: the list that says which kind it wants.
pub fn details(device: nvmlDevice_t, list: Out<nvmlProcessDetailList_t>) -> nvmlReturn_t {
    let Some(asked) = list.read() else {
        return real::nvmlDeviceGetRunningProcessDetailList(device, list);
    };
    status(details_of(device, list, asked))
}

fn details_of(
    device: nvmlDevice_t,
    list: Out<nvmlProcessDetailList_t>,
    mut asked: nvmlProcessDetailList_t,
) -> Result<(), nvmlReturn_t> {
    // Version and kind are the driver's to judge; it gets no room, so it writes no process.
    list::judged(|_, _: Out<nvmlProcessDetail_v1_t>| {
        let mut bare = nvmlProcessDetailList_t {
            numProcArrayEntries: 0,
            procArray: std::ptr::null_mut(),
            ..asked
        };
        real::nvmlDeviceGetRunningProcessDetailList(device, Out::of(&mut bare))
    })?;
    let details = if asked.mode == COMPUTE {
        running(device, detail)?
    } else {
        none(device)?
    };
    let array = asked.processes();
    let listed = list::put(&details, Out::of(&mut asked.numProcArrayEntries), array);
    list.write(asked);
    listed
}

/// `nvmlSystemGetProcessName`: of a process that this one can see. The driver may look a pid up among the host's,
/// so its word counts only for what `/proc` knows, and `/proc` answers where it knows nothing.
pub fn name(pid: c_uint, name: Out<c_char>, length: c_uint) -> nvmlReturn_t {
    if name.is_null() || length == 0 {
        return real::nvmlSystemGetProcessName(pid, name, length);
    }
    status(name_of(pid, length).map(|text| {
        name.write_all(&text);
    }))
}

fn name_of(pid: c_uint, length: c_uint) -> Result<Vec<c_char>, nvmlReturn_t> {
    // Longer than any path, and than the driver's own limit.
    let length = length.min(1 << 16);
    let room = usize::try_from(length).unwrap_or_default();
    let mut text: Vec<c_char> = vec![0; room];
    let place = text.first_mut().map_or(Out::null(), Out::of);
    match real::nvmlSystemGetProcessName(pid, place, length) {
        NVML_SUCCESS if command(pid).is_some() => {
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(room);
            text.truncate(end.saturating_add(1));
            Ok(text)
        }
        NVML_SUCCESS | NVML_ERROR_NOT_FOUND | NVML_ERROR_NO_PERMISSION => command(pid)
            .map(|name| cut(&name, room))
            .ok_or(NVML_ERROR_NOT_FOUND),
        error => Err(good(error).err().unwrap_or(error)),
    }
}

/// The program of a process of this pid namespace.
fn command(pid: c_uint) -> Option<Vec<u8>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    line.split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
}

/// As a C string that fits.
fn cut(name: &[u8], room: usize) -> Vec<c_char> {
    name.iter()
        .take(room.saturating_sub(1))
        .map(|byte| byte.cast_signed())
        .chain([0])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_the_room_that_there_is() {
        assert_eq!(cut(b"abc", 4), [97, 98, 99, 0]);
        assert_eq!(cut(b"abc", 2), [97, 0]);
        assert_eq!(cut(b"", 1), [0]);
    }

    #[test]
    fn processes_that_are_not_there_have_no_name() {
        assert!(command(std::process::id()).is_some_and(|name| !name.is_empty()));
        assert_eq!(command(u32::MAX), None);
    }
}
