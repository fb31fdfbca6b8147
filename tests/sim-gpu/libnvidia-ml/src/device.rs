//! What a GPU is: names, numbers, PCI, modes, error counts.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::Ordering::Relaxed;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{
    Answer, Failure, INVALID, characters, expect_version, put, put_prefix, version,
};
use crate::handle::{self, Gpu};

/// The structure for a GPU's PCI address.
fn pci(gpu: &Gpu) -> nvmlPciInfo_t {
    let config = gpu.config;
    let bus_id = config.pci_bus_id();
    nvmlPciInfo_t {
        busIdLegacy: characters(&bus_id[4..]),
        domain: config.pci_domain,
        bus: config.pci_bus,
        device: config.pci_device,
        pciDeviceId: config.pci_device_id,
        pciSubSystemId: config.pci_subsystem_id,
        busId: characters(&bus_id),
    }
}

/// The PCI address in the newest form or an older one: 1 ends before the subsystem id, 2 behind it.
pub(crate) fn pci_info(device: nvmlDevice_t, out: Out<nvmlPciInfo_t>, form: u32) -> Answer {
    let length = match form {
        1 => std::mem::offset_of!(nvmlPciInfo_t, pciSubSystemId),
        2 => std::mem::offset_of!(nvmlPciInfo_t, busId),
        _ => size_of::<nvmlPciInfo_t>(),
    };
    put_prefix(out, &pci(&handle::gpu(device)?), length)
}

pub(crate) fn pci_info_extended(device: nvmlDevice_t, out: Out<nvmlPciInfoExt_t>) -> Answer {
    let pci = pci(&handle::gpu(device)?);
    expect_version(out, 1)?;
    let info = nvmlPciInfoExt_t {
        version: version::<nvmlPciInfoExt_t>(1),
        domain: pci.domain,
        bus: pci.bus,
        device: pci.device,
        pciDeviceId: pci.pciDeviceId,
        pciSubSystemId: pci.pciSubSystemId,
        // A 3D controller.
        baseClass: 3,
        subClass: 2,
        busId: pci.busId,
    };
    put(out, info)
}

pub(crate) fn name(gpu: &Gpu) -> String {
    gpu.config.name.clone()
}

pub(crate) fn uuid(gpu: &Gpu) -> String {
    gpu.config.uuid.clone()
}

pub(crate) fn serial(gpu: &Gpu) -> String {
    gpu.config.serial.clone()
}

pub(crate) fn firmware_version(gpu: &Gpu) -> String {
    gpu.node.config().driver_version.clone()
}

pub(crate) fn board_id(gpu: &Gpu) -> Answer<c_uint> {
    Ok(gpu.config.pci_domain << 16 | gpu.config.pci_bus << 8 | gpu.config.pci_device)
}

pub(crate) fn compute_capability(gpu: &Gpu) -> Answer<(c_int, c_int)> {
    let (major, minor) = gpu.config.compute_capability;
    Ok((major as c_int, minor as c_int))
}

pub(crate) fn architecture(gpu: &Gpu) -> Answer<nvmlDeviceArchitecture_t> {
    Ok(match gpu.config.compute_capability {
        (7, 5) => NVML_DEVICE_ARCH_TURING,
        (7, _) => NVML_DEVICE_ARCH_VOLTA,
        (8, 9) => NVML_DEVICE_ARCH_ADA,
        (8, _) => NVML_DEVICE_ARCH_AMPERE,
        (9, _) => NVML_DEVICE_ARCH_HOPPER,
        (10..=12, _) => NVML_DEVICE_ARCH_BLACKWELL,
        _ => NVML_DEVICE_ARCH_UNKNOWN,
    })
}

/// FP32 lanes: 64 a multiprocessor on Volta, Turing and the A100, 128 on the others.
pub(crate) fn cores(gpu: &Gpu) -> Answer<c_uint> {
    let lanes = match gpu.config.compute_capability {
        (7, _) | (8, 0) => 64,
        _ => 128,
    };
    Ok(gpu.config.sm_count * lanes)
}

pub(crate) fn compute_mode(gpu: &Gpu) -> Answer<nvmlComputeMode_t> {
    Ok(gpu
        .node
        .page()
        .device(gpu.page_index)
        .compute_mode
        .load(Relaxed))
}

pub(crate) fn persistence_mode(gpu: &Gpu) -> Answer<nvmlEnableState_t> {
    Ok(gpu
        .node
        .page()
        .device(gpu.page_index)
        .persistence
        .load(Relaxed))
}

pub(crate) fn set_compute_mode(device: nvmlDevice_t, mode: nvmlComputeMode_t) -> Answer {
    let gpu = handle::gpu(device)?;
    if mode >= NVML_COMPUTEMODE_COUNT {
        return Err(INVALID);
    }
    if mode == NVML_COMPUTEMODE_EXCLUSIVE_THREAD {
        return Err(Failure(NVML_ERROR_NOT_SUPPORTED));
    }
    administrator()?;
    gpu.node
        .page()
        .device(gpu.page_index)
        .compute_mode
        .store(mode, Relaxed);
    Ok(())
}

pub(crate) fn set_persistence_mode(device: nvmlDevice_t, mode: nvmlEnableState_t) -> Answer {
    let gpu = handle::gpu(device)?;
    if mode > NVML_FEATURE_ENABLED {
        return Err(INVALID);
    }
    administrator()?;
    gpu.node
        .page()
        .device(gpu.page_index)
        .persistence
        .store(mode, Relaxed);
    Ok(())
}

/// Settings are for root, as with the real driver.
#[allow(unsafe_code, reason = "std does not tell the user id")]
fn administrator() -> Answer {
    // SAFETY: always succeeds and touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    root.then_some(()).ok_or(Failure(NVML_ERROR_NO_PERMISSION))
}
