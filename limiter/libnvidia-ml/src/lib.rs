//! The limiter's libnvidia-ml.so.1: every public function of nvml.h, made from the rows of the table.
//!
//! Owns nothing but the exports: what they do is in `vgpu-limiter`.
#![allow(
    unsafe_code,
    reason = "exports and stubs come from the rows of the table"
)]
#![allow(
    missing_docs,
    non_snake_case,
    clippy::not_unsafe_ptr_arg_deref,
    clippy::too_many_arguments,
    reason = "the driver's own names, signatures and documentation"
)]

#[allow(
    unused_imports,
    reason = "which types the hooked rows need is the table's affair"
)]
use core::ffi::*;

#[allow(clippy::wildcard_imports, reason = "the types of the rows")]
use vgpu_cuda_sys::nvml::*;
#[allow(unused_imports, reason = "as above")]
use vgpu_cuda_sys::{In, Out};
use vgpu_limiter::nvml_exports;

vgpu_cuda_sys::nvml_table!(nvml_exports);
