//! Which GPUs there are: those with an entry in the limits page, numbered from 0 in the driver's order. Any other
//! does not exist: looking for it answers what the driver answers for a GPU that is not in the machine.

use std::ffi::{c_char, c_uint};

use vgpu_cuda_sys::nvml::{
    NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_FOUND, NVML_SUCCESS, nvmlDevice_t,
    nvmlGpuTopologyLevel_t, nvmlReturn_t, nvmlUUID_t, nvmlUnit_t,
};
use vgpu_cuda_sys::{In, Out};

use super::{good, is_mig, list, observed, status};
use crate::real::nvml as real;

/// The handles of the container's GPUs. One that the driver does not hand out is nobody's.
fn visible() -> Result<Vec<nvmlDevice_t>, nvmlReturn_t> {
    let mut count = 0;
    good(real::nvmlDeviceGetCount_v2(Out::of(&mut count)))?;
    let handle = |index| {
        let mut device = std::ptr::null_mut();
        let answer = real::nvmlDeviceGetHandleByIndex_v2(index, Out::of(&mut device));
        (answer == NVML_SUCCESS).then_some(device)
    };
    Ok((0..count).filter_map(handle).filter(granted).collect())
}

fn granted(device: &nvmlDevice_t) -> bool {
    observed(*device).is_ok()
}

fn count(out: Out<c_uint>, call: impl Fn(Out<c_uint>) -> nvmlReturn_t) -> Result<(), nvmlReturn_t> {
    if out.is_null() {
        return good(call(out));
    }
    let mut bare = 0;
    good(call(Out::of(&mut bare)))?;
    out.write(list::number(&visible()?));
    Ok(())
}

/// `nvmlDeviceGetCount`.
pub fn count_v1(device_count: Out<c_uint>) -> nvmlReturn_t {
    status(count(device_count, real::nvmlDeviceGetCount))
}

/// `nvmlDeviceGetCount_v2`.
pub fn count_v2(device_count: Out<c_uint>) -> nvmlReturn_t {
    status(count(device_count, real::nvmlDeviceGetCount_v2))
}

fn by_index(
    index: c_uint,
    out: Out<nvmlDevice_t>,
    call: impl Fn(c_uint, Out<nvmlDevice_t>) -> nvmlReturn_t,
) -> Result<(), nvmlReturn_t> {
    let devices = visible()?;
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| devices.get(index));
    match found {
        Some(device) if out.write(*device) => Ok(()),
        // No such index, or no place for it: an index that no driver has gets its answer.
        Some(_) | None => good(call(c_uint::MAX, out)),
    }
}

/// `nvmlDeviceGetHandleByIndex`.
pub fn by_index_v1(index: c_uint, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    status(by_index(index, device, real::nvmlDeviceGetHandleByIndex))
}

/// `nvmlDeviceGetHandleByIndex_v2`.
pub fn by_index_v2(index: c_uint, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    status(by_index(index, device, real::nvmlDeviceGetHandleByIndex_v2))
}

/// What the driver finds, unless it is somebody else's.
fn found(out: Out<nvmlDevice_t>, call: impl Fn(Out<nvmlDevice_t>) -> nvmlReturn_t) -> nvmlReturn_t {
    if out.is_null() {
        return call(out);
    }
    let mut device = std::ptr::null_mut();
    match call(Out::of(&mut device)) {
        NVML_SUCCESS if granted(&device) => {
            out.write(device);
            NVML_SUCCESS
        }
        NVML_SUCCESS => NVML_ERROR_NOT_FOUND,
        error => error,
    }
}

/// `nvmlDeviceGetHandleByUUID`.
pub fn by_uuid(uuid: In<c_char>, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    found(device, |place| real::nvmlDeviceGetHandleByUUID(uuid, place))
}

/// `nvmlDeviceGetHandleByUUIDV`.
pub fn by_uuid_value(uuid: In<nvmlUUID_t>, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    found(device, |place| {
        real::nvmlDeviceGetHandleByUUIDV(uuid, place)
    })
}

/// `nvmlDeviceGetHandleBySerial`.
pub fn by_serial(serial: In<c_char>, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    found(device, |place| {
        real::nvmlDeviceGetHandleBySerial(serial, place)
    })
}

/// `nvmlDeviceGetHandleByPciBusId`.
pub fn by_bus_id_v1(bus_id: In<c_char>, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    found(device, |place| {
        real::nvmlDeviceGetHandleByPciBusId(bus_id, place)
    })
}

/// `nvmlDeviceGetHandleByPciBusId_v2`.
pub fn by_bus_id_v2(bus_id: In<c_char>, device: Out<nvmlDevice_t>) -> nvmlReturn_t {
    found(device, |place| {
        real::nvmlDeviceGetHandleByPciBusId_v2(bus_id, place)
    })
}

/// `nvmlDeviceGetIndex`: the place among the container's GPUs. A MIG device's index is one within its GPU.
pub fn index(device: nvmlDevice_t, index: Out<c_uint>) -> nvmlReturn_t {
    let mut bare = 0;
    let place = if index.is_null() {
        index
    } else {
        Out::of(&mut bare)
    };
    let answer = real::nvmlDeviceGetIndex(device, place);
    if answer != NVML_SUCCESS {
        return answer;
    }
    let own = visible().map(|devices| devices.iter().position(|other| *other == device));
    match own.map(|place| place.and_then(|place| c_uint::try_from(place).ok())) {
        Ok(Some(place)) => bare = place,
        Ok(None) if is_mig(device) => {}
        Ok(None) => return NVML_ERROR_INVALID_ARGUMENT,
        Err(error) => return error,
    }
    index.write(bare);
    NVML_SUCCESS
}

/// A list of GPUs without those of others. No room at all asks for the number and is no error.
fn filtered(
    count: Out<c_uint>,
    out: Out<nvmlDevice_t>,
    call: impl Fn(Out<c_uint>, Out<nvmlDevice_t>) -> nvmlReturn_t,
) -> Result<(), nvmlReturn_t> {
    let Some(room) = count.read() else {
        return good(call(count, out));
    };
    let mut devices = list::fetch(std::ptr::null_mut(), call)?;
    devices.retain(granted);
    if room == 0 || out.is_null() {
        count.write(list::number(&devices));
        return Ok(());
    }
    list::put(&devices, count, out)
}

/// `nvmlDeviceGetTopologyNearestGpus`.
pub fn nearest(
    device: nvmlDevice_t,
    level: nvmlGpuTopologyLevel_t,
    count: Out<c_uint>,
    out: Out<nvmlDevice_t>,
) -> nvmlReturn_t {
    status(filtered(count, out, |count, out| {
        real::nvmlDeviceGetTopologyNearestGpus(device, level, count, out)
    }))
}

/// `nvmlSystemGetTopologyGpuSet`.
pub fn near_cpu(cpu: c_uint, count: Out<c_uint>, out: Out<nvmlDevice_t>) -> nvmlReturn_t {
    status(filtered(count, out, |count, out| {
        real::nvmlSystemGetTopologyGpuSet(cpu, count, out)
    }))
}

/// `nvmlUnitGetDevices`.
pub fn of_unit(unit: nvmlUnit_t, count: Out<c_uint>, out: Out<nvmlDevice_t>) -> nvmlReturn_t {
    status(filtered(count, out, |count, out| {
        real::nvmlUnitGetDevices(unit, count, out)
    }))
}
