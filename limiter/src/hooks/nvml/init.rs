//! `nvmlInit`: no GPU without limits.

use std::ffi::c_uint;

use vgpu_cuda_sys::nvml::{NVML_ERROR_NO_PERMISSION, nvmlReturn_t};

use super::known;
use crate::real::nvml as real;
use crate::session;

fn permitted(call: impl FnOnce() -> nvmlReturn_t) -> nvmlReturn_t {
    match session::observer() {
        Ok(observer) => {
            known::gpus(observer);
            call()
        }
        Err(_) => NVML_ERROR_NO_PERMISSION,
    }
}

/// `nvmlInit`, the form before NVML 5.
pub fn v1() -> nvmlReturn_t {
    permitted(real::nvmlInit)
}

/// `nvmlInit_v2`.
pub fn v2() -> nvmlReturn_t {
    permitted(real::nvmlInit_v2)
}

/// `nvmlInitWithFlags`.
pub fn with_flags(flags: c_uint) -> nvmlReturn_t {
    permitted(|| real::nvmlInitWithFlags(flags))
}
