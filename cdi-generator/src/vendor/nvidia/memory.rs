//! The VRAM of a GPU and what the driver keeps of it.
//!
//! # Safety
//! One foreign call, `nvmlDeviceGetMemoryInfo`, for drivers before 510, which lack the second version that the wrapper
//! calls. Invariants: the handle comes from a live `Device` of the same library and outlives the call; the output is
//! the structure of the function's own signature.

#![allow(
    unsafe_code,
    reason = "the wrapper offers only the second version of this call"
)]

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use vgpu_core::Bytes;

/// Total VRAM and what the driver keeps of it; nothing kept where the driver is too old to say.
pub(super) fn total_and_reserved(device: &Device<'_>) -> Result<(Bytes, Bytes), NvmlError> {
    match device.memory_info() {
        Ok(info) => Ok((Bytes(info.total), Bytes(info.reserved))),
        Err(NvmlError::FailedToLoadSymbol(_)) => Ok((total(device)?, Bytes::ZERO)),
        Err(error) => Err(error),
    }
}

/// Total VRAM by the first version of the call.
fn total(device: &Device<'_>) -> Result<Bytes, NvmlError> {
    let lib = device.nvml().lib();
    let get = lib
        .nvmlDeviceGetMemoryInfo
        .as_ref()
        .map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))?;
    // SAFETY: the handle is only passed to the library that it came from, below, while `device` is borrowed.
    let handle = unsafe { device.handle() };
    // SAFETY: the structure is three integers (its type is that of the function's parameter), for which zero is valid.
    let mut memory = unsafe { mem::zeroed() };
    // SAFETY: `get` was loaded under this name from the library, `handle` is a live device of it, and `memory` is a
    // writable structure of the type that the signature names.
    nvml_try(unsafe { get(handle, &raw mut memory) })?;
    Ok(Bytes(memory.total))
}
