//! Types and the table of entry points of the CUDA driver and NVML, generated from the headers.
//!
//! [`cuda_table!`] and [`nvml_table!`] hand every public function to a macro of the caller, one row each:
//!
//! ```text
//! { 17 alloc cuMemAlloc_v2 [memory::alloc] (dptr: Out<CUdeviceptr>, bytesize: usize) -> CUresult }
//!   slot class name        body, if hooked  signature
//! ```
//!
//! The caller imports `core::ffi::*`, `In`, `Out` and `cuda::*` (or `nvml::*`).
//!
//! Class and body come from `cuda.entries` and `nvml.entries`, everything else from the headers (`make codegen`).
//! Exports, hooks and slots of the limiter and the stubs of the simulated driver are made from these rows, so a
//! function exists everywhere or nowhere. This crate calls nothing and must never depend on anything.

mod arg;
#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "C declarations keep their C names and shapes"
)]
mod generated;
mod nested;

pub use arg::{In, Out};
pub use generated::{CUDA_COUNT, NVML_COUNT, cuda_types as cuda, nvml_types as nvml};

/// The names and versions that `cuGetProcAddress` knows.
pub mod versions {
    pub use crate::Version;
    pub use crate::generated::versions::CUDA_VERSIONS;
}

/// One (name, version) that `cuGetProcAddress` can answer.
///
/// **Source**: `cudaTypedefs.h`, whose `PFN_<base>_v<since>[_ptsz|_ptds]` pair in order with the exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Name that the caller asks for, without version or stream suffix.
    pub base: &'static str,
    /// First CUDA version that has this form, as in `CUDA_VERSION` (12000 is 12.0).
    pub since: u32,
    /// The per-thread-default-stream form.
    pub per_thread: bool,
    /// Symbol of the library that implements it.
    pub export: &'static str,
}

const fn version(
    base: &'static str,
    since: u32,
    per_thread: bool,
    export: &'static str,
) -> Version {
    Version {
        base,
        since,
        per_thread,
        export,
    }
}
