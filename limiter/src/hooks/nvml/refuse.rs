//! What would change the node for everybody: clocks, power, modes, MIG instances, counters.
//!
//! One body for all of them, and the driver never hears of the call. It is refused also to a container with an
//! unlimited quota: the node is still everybody's.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{NVML_ERROR_NO_PERMISSION, NVML_ERROR_UNINITIALIZED, nvmlReturn_t};

use crate::real::nvml as real;

/// `NVML_ERROR_NO_PERMISSION`, as the driver answers who is not root; before `nvmlInit` what it answers then.
pub fn no_permission() -> nvmlReturn_t {
    let mut count = 0;
    match real::nvmlDeviceGetCount_v2(Out::of(&mut count)) {
        NVML_ERROR_UNINITIALIZED => NVML_ERROR_UNINITIALIZED,
        _ => NVML_ERROR_NO_PERMISSION,
    }
}
