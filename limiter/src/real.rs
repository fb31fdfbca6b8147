//! The driver's functions, as hooks call them: `real::cuda::cuMemAlloc_v2(..)`.
//!
//! # Safety
//! A caller hands on the arguments that the application gave to the same function, or ones that the
//! API's documentation allows, so the driver finds what it would find without us. The address comes
//! from the driver's own symbol of that name ([`crate::driver`]), whose signature is the row's.
#![allow(unsafe_code, reason = "calls foreign functions by address")]
#![allow(
    non_snake_case,
    dead_code,
    clippy::too_many_arguments,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "one function for each row of the table, under the driver's own name"
)]

/// The CUDA driver.
pub mod cuda {
    use core::ffi::*;

    use vgpu_cuda_sys::cuda::*;
    use vgpu_cuda_sys::{In, Out};

    use crate::driver::CUDA as LIBRARY;
    use crate::table::callers;

    vgpu_cuda_sys::cuda_table!(callers);
}

/// NVML.
pub mod nvml {
    use core::ffi::*;

    use vgpu_cuda_sys::nvml::*;
    use vgpu_cuda_sys::{In, Out};

    use crate::driver::NVML as LIBRARY;
    use crate::table::callers;

    vgpu_cuda_sys::nvml_table!(callers);
}
