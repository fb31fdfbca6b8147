//! `cuInit`: no GPU without limits.

use std::ffi::c_uint;

use vgpu_cuda_sys::cuda::CUresult;

use super::charge::status;
use crate::real::cuda as real;
use crate::session;

/// `CUDA_ERROR_NOT_PERMITTED` where the region cannot be used, and never an unlimited GPU.
pub fn init(flags: c_uint) -> CUresult {
    match session::current() {
        Ok(_) => real::cuInit(flags),
        Err(deny) => status(deny),
    }
}
