//! NVML as the container sees it: its quota, its processes.

pub mod init;
pub mod memory;
pub mod processes;

use std::ffi::c_char;

use vgpu_core::DeviceUuid;
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{NVML_ERROR_NO_PERMISSION, NVML_SUCCESS, nvmlDevice_t, nvmlReturn_t};
use vgpu_region::Observer;

use crate::real::nvml as real;
use crate::session;

/// `NVML_DEVICE_UUID_V2_BUFFER_SIZE`.
const UUID_ROOM: usize = 96;

/// The region, and the device's index in it.
fn observed(device: nvmlDevice_t) -> Result<(&'static Observer, usize), nvmlReturn_t> {
    let observer = session::observer().map_err(|_| NVML_ERROR_NO_PERMISSION)?;
    let uuid = uuid(device)?.ok_or(NVML_ERROR_NO_PERMISSION)?;
    let index = observer
        .limits()
        .find(&uuid)
        .ok_or(NVML_ERROR_NO_PERMISSION)?;
    Ok((observer, index))
}

/// The UUID of a handle; `None` for one that is no whole GPU. A bad handle is the driver's error.
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
