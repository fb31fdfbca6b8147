//! Which of the processes that the driver lists are this container's.
//!
//! The region knows the container's processes by the pids of their own pid namespace. A driver may list pids of
//! the caller's namespace or of the host's, which it does not say. Where these are one and the same, a pid is a
//! pid; elsewhere the two lists are compared. What cannot be told is answered `NVML_ERROR_NOT_SUPPORTED`, as on a
//! GPU in MIG mode, and never by somebody else's numbers.

use std::os::unix::fs::MetadataExt;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_NOT_SUPPORTED, nvmlDevice_t, nvmlProcessInfo_t,
    nvmlReturn_t,
};
use vgpu_region::Observer;

use super::list;
use crate::real::nvml as real;

/// Inode of the machine's first pid namespace. **Source:** `PROC_PID_INIT_INO` of the kernel.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The container's processes on one GPU.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// The driver's pid, and the container's.
    pairs: Vec<(u32, u32)>,
    /// Nobody else is on the GPU.
    pub(super) alone: bool,
}

impl Own {
    /// Compares the driver's list with the region's.
    pub(super) fn of(
        device: nvmlDevice_t,
        observer: &Observer,
        index: usize,
    ) -> Result<Self, nvmlReturn_t> {
        let ours: Vec<u32> = observer
            .processes(index)
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        let theirs = driver_pids(device)?;
        if in_first_namespace() {
            return Ok(common(&ours, &theirs));
        }
        matched(&ours, &theirs).ok_or(NVML_ERROR_NOT_SUPPORTED)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The container's pid for one of the driver's; `None`: not of this container.
    pub(super) fn inside(&self, theirs: u32) -> Option<u32> {
        let found = self.pairs.iter().find(|(driver, _)| *driver == theirs);
        found.map(|(_, own)| *own)
    }

    /// The driver's pid for one of the container's.
    pub(super) fn outside(&self, own: u32) -> Option<u32> {
        let found = self.pairs.iter().find(|(_, inside)| *inside == own);
        found.map(|(driver, _)| *driver)
    }
}

fn in_first_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|data| data.ino() == FIRST_NAMESPACE)
}

/// Lists whose pids mean the same. A process that is just coming or going may be in one of them only.
fn common(ours: &[u32], theirs: &[u32]) -> Own {
    let both = ours.iter().filter(|pid| theirs.contains(pid));
    Own {
        pairs: both.map(|pid| (*pid, *pid)).collect(),
        alone: theirs.iter().all(|pid| ours.contains(pid)),
    }
}

/// Both lists in the order of their pids. Pids are handed out in the same order in every namespace, so lists of
/// the same length that are all ours belong together in that order.
fn matched(ours: &[u32], theirs: &[u32]) -> Option<Own> {
    let alone = ours.len() == theirs.len();
    if ours.iter().all(|pid| theirs.contains(pid)) {
        return Some(common(ours, theirs));
    }
    alone.then(|| Own {
        pairs: theirs.iter().copied().zip(ours.iter().copied()).collect(),
        alone,
    })
}

/// All pids that the driver lists for a GPU, in order.
fn driver_pids(device: nvmlDevice_t) -> Result<Vec<u32>, nvmlReturn_t> {
    let blank = nvmlProcessInfo_t {
        pid: 0,
        usedGpuMemory: 0,
        gpuInstanceId: 0,
        computeInstanceId: 0,
    };
    let fetch = |call: ListFunction| list::fetch(blank, |count, out| call(device, count, out));
    let compute = match fetch(real::nvmlDeviceGetComputeRunningProcesses_v3) {
        // Drivers before 510: the second form has the same structure.
        Err(NVML_ERROR_FUNCTION_NOT_FOUND) => fetch(real::nvmlDeviceGetComputeRunningProcesses_v2)?,
        answer => answer?,
    };
    // Not every GPU draws.
    let graphics = fetch(real::nvmlDeviceGetGraphicsRunningProcesses_v3).unwrap_or_default();
    let mut pids: Vec<u32> = compute.iter().chain(&graphics).map(|one| one.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

type ListFunction = fn(nvmlDevice_t, Out<std::ffi::c_uint>, Out<nvmlProcessInfo_t>) -> nvmlReturn_t;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_the_same_namespace_are_themselves() {
        let own = matched(&[5, 9], &[3, 5, 9]).unwrap();
        assert_eq!((own.inside(5), own.inside(3)), (Some(5), None));
        assert!(!own.alone);
        assert!(matched(&[5, 9], &[5, 9]).unwrap().alone);
    }

    #[test]
    fn who_comes_or_goes_spoils_nothing_on_the_host() {
        let own = common(&[5, 9], &[3, 9]);
        assert_eq!((own.inside(9), own.inside(5)), (Some(9), None));
        assert!(!own.alone);
        assert!(common(&[5, 9], &[9]).alone);
    }

    #[test]
    fn a_container_alone_on_its_gpu_knows_its_processes_in_order() {
        let own = matched(&[1, 40], &[8001, 8100]).unwrap();
        assert_eq!((own.inside(8100), own.outside(1)), (Some(40), Some(8001)));
        assert!(own.alone);
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        assert_eq!(matched(&[1], &[8001, 8100]), None);
        assert_eq!(matched(&[1, 40], &[40, 8001, 8100]), None, "a chance hit");
        assert_eq!(matched(&[1], &[]), None, "a driver that hides them");
    }

    #[test]
    fn nobody_is_nobody() {
        let none = matched(&[], &[8001]).unwrap();
        assert!(none.is_empty() && !none.alone);
        assert!(matched(&[], &[]).unwrap().alone);
    }
}
