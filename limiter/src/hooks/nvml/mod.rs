//! NVML as the container sees it: its GPUs, its quota, its processes, and nothing of the node to change.
//!
//! | module | owns |
//! |---|---|
//! | [`init`] | no GPU without limits |
//! | [`devices`] | which GPUs there are, and their numbers |
//! | [`memory`] | capacity: the quota, from the same snapshot as CUDA's answers |
//! | [`processes`], [`accounting`], [`sessions`] | the container's processes, with the pids that it knows |
//! | [`utilization`] | what they use, relative to the container's share |
//! | [`refuse`] | whatever would change the node for everybody |
//!
//! The driver judges every call first where it would: a bad handle, structure version or null pointer is its
//! error. What it answers lands in places of ours, so that no thread ever sees the bare numbers.

pub mod accounting;
pub mod devices;
pub mod init;
pub mod memory;
pub mod processes;
pub mod refuse;
pub mod sessions;
pub mod utilization;

mod known;
mod list;
mod own;

use std::ffi::{c_char, c_uint};

use vgpu_core::DeviceUuid;
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{NVML_ERROR_NO_PERMISSION, NVML_SUCCESS, nvmlDevice_t, nvmlReturn_t};
use vgpu_region::Observer;

use crate::real::nvml as real;
use crate::session;

/// `NVML_DEVICE_UUID_V2_BUFFER_SIZE`.
const UUID_ROOM: usize = 96;

/// The region, and the device's index in it. A MIG device without an entry of its own belongs to its GPU's.
fn observed(device: nvmlDevice_t) -> Result<(&'static Observer, usize), nvmlReturn_t> {
    let observer = session::observer().map_err(|_| NVML_ERROR_NO_PERMISSION)?;
    let gpus = known::gpus(observer);
    let find = |device| uuid(device).map(|uuid| gpus.iter().position(|gpu| Some(gpu.uuid) == uuid));
    let index = match find(device)? {
        Some(index) => Some(index),
        None => parent(device).map_or(Ok(None), find)?,
    };
    Ok((observer, index.ok_or(NVML_ERROR_NO_PERMISSION)?))
}

/// The GPU of a MIG device; `None` for a whole GPU.
fn parent(device: nvmlDevice_t) -> Option<nvmlDevice_t> {
    if !is_mig(device) {
        return None;
    }
    let mut parent = std::ptr::null_mut();
    let answer = real::nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device, Out::of(&mut parent));
    (answer == NVML_SUCCESS).then_some(parent)
}

fn is_mig(device: nvmlDevice_t) -> bool {
    let mut mig: c_uint = 0;
    real::nvmlDeviceIsMigDeviceHandle(device, Out::of(&mut mig)) == NVML_SUCCESS && mig != 0
}

/// The UUID of a handle; `None` where its text is none. A bad handle is the driver's error.
fn uuid(device: nvmlDevice_t) -> Result<Option<[u8; 16]>, nvmlReturn_t> {
    let mut text: [c_char; UUID_ROOM] = [0; UUID_ROOM];
    let room = u32::try_from(UUID_ROOM).unwrap_or_default();
    let [first, ..] = &mut text;
    let answer = real::nvmlDeviceGetUUID(device, Out::of(first), room);
    if answer != NVML_SUCCESS {
        return Err(answer);
    }
    let bytes: Vec<u8> = text
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| byte.cast_unsigned())
        .collect();
    let parsed = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.parse::<DeviceUuid>().ok());
    Ok(parsed.map(|uuid| uuid.as_bytes()))
}

/// The status of a body that stops at the first error.
fn status(answer: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    answer.err().unwrap_or(NVML_SUCCESS)
}

/// The driver's status as something to stop at.
fn good(answer: nvmlReturn_t) -> Result<(), nvmlReturn_t> {
    if answer == NVML_SUCCESS {
        Ok(())
    } else {
        Err(answer)
    }
}
