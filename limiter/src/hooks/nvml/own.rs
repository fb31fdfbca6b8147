//! Which of the processes that the driver lists are this container's.
//!
//! The region knows the container's processes by the pids of their own pid namespace. A driver may list pids of
//! the caller's namespace or of the host's, which it does not say. Where these are one and the same, a pid is a
//! pid; elsewhere the two lists are compared, pids and bytes. What cannot be told is answered
//! `NVML_ERROR_NOT_SUPPORTED`, as on a GPU in MIG mode, rather than by what may be somebody else's numbers.

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
        let ours = observer.processes(index);
        let theirs = driver_processes(device)?;
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

/// A process's pid and the bytes that it holds of the GPU.
type Process = (u32, u64);

fn has(list: &[Process], pid: u32) -> bool {
    list.iter().any(|(other, _)| *other == pid)
}

/// Lists whose pids mean the same. A process that is just coming or going may be in one of them only.
fn common(ours: &[Process], theirs: &[Process]) -> Own {
    let both = ours.iter().filter(|(pid, _)| has(theirs, *pid));
    Own {
        pairs: both.map(|(pid, _)| (*pid, *pid)).collect(),
        alone: theirs.iter().all(|(pid, _)| has(ours, *pid)),
    }
}

/// Both lists in the order of their pids. Pids are handed out in the same order in every namespace, so lists of
/// the same length belong together in that order if they are of the same processes. That they are, and not a
/// neighbour that came while one of ours went, only the bytes can say.
fn matched(ours: &[Process], theirs: &[Process]) -> Option<Own> {
    if ours.iter().all(|(pid, _)| has(theirs, *pid)) {
        return Some(common(ours, theirs));
    }
    let bytes = |list: &[Process]| list.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>();
    (bytes(ours) == bytes(theirs)).then(|| Own {
        pairs: theirs
            .iter()
            .zip(ours)
            .map(|((driver, _), (own, _))| (*driver, *own))
            .collect(),
        alone: true,
    })
}

/// All processes that the driver lists for a GPU, in the order of their pids.
fn driver_processes(device: nvmlDevice_t) -> Result<Vec<Process>, nvmlReturn_t> {
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
    let both = compute.iter().chain(&graphics);
    let mut processes: Vec<Process> = both.map(|one| (one.pid, one.usedGpuMemory)).collect();
    processes.sort_unstable();
    processes.dedup_by_key(|(pid, _)| *pid);
    Ok(processes)
}

type ListFunction = fn(nvmlDevice_t, Out<std::ffi::c_uint>, Out<nvmlProcessInfo_t>) -> nvmlReturn_t;

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes of 7 bytes each.
    fn list<const N: usize>(pids: [u32; N]) -> [Process; N] {
        pids.map(|pid| (pid, 7))
    }

    #[test]
    fn pids_of_the_same_namespace_are_themselves() {
        let own = matched(&list([5, 9]), &[(3, 1), (5, 1), (9, 1)]).unwrap();
        assert_eq!((own.inside(5), own.inside(3)), (Some(5), None));
        assert!(!own.alone);
        assert!(matched(&list([5, 9]), &list([5, 9])).unwrap().alone);
    }

    #[test]
    fn who_comes_or_goes_spoils_nothing_on_the_host() {
        let own = common(&list([5, 9]), &list([3, 9]));
        assert_eq!((own.inside(9), own.inside(5)), (Some(9), None));
        assert!(!own.alone);
        assert!(common(&list([5, 9]), &list([9])).alone);
    }

    #[test]
    fn a_container_alone_on_its_gpu_knows_its_processes_in_order() {
        let own = matched(&list([1, 40]), &list([8001, 8100])).unwrap();
        assert_eq!((own.inside(8100), own.outside(1)), (Some(40), Some(8001)));
        assert!(own.alone);
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let none = |ours: &[Process], theirs: &[Process]| assert_eq!(matched(ours, theirs), None);
        none(&list([1]), &list([8001, 8100]));
        // A chance hit, a driver that hides them, a neighbour that came while one of ours went.
        none(&list([1, 40]), &list([40, 8001, 8100]));
        none(&list([1]), &[]);
        none(&[(1, 7), (40, 8)], &[(8001, 7), (9000, 9)]);
    }

    #[test]
    fn nobody_is_nobody() {
        let none = matched(&[], &list([8001])).unwrap();
        assert!(none.is_empty() && !none.alone);
        assert!(matched(&[], &[]).unwrap().alone);
    }
}
