//! Devices: by ordinal, UUID and PCI address, names and properties.
//!
//! Owns [`Device`], what the process keeps for each visible GPU. Facts about a GPU come from the node's
//! description.

use core::ffi::{c_char, c_int, c_uint};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::attributes;
use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::pool::DevicePools;
use crate::primary::Primary;
use crate::raw;
use crate::space::Space;
use crate::state::{State, lock};
use crate::visible::Gpu;

/// A visible GPU.
#[derive(Debug)]
pub(crate) struct Device {
    /// Index on the node and description.
    pub(crate) gpu: Gpu,
    /// Its primary context.
    pub(crate) primary: Primary,
    /// Its part of the address space, from the first context on.
    pub(crate) space: Option<Space>,
    /// Its default and current memory pools.
    pub(crate) pools: DevicePools,
    /// Memory that graphs hold: used, used at most, reserved, reserved at most.
    pub(crate) graph_memory: [u64; 4],
}

impl Device {
    pub(crate) fn new(gpu: Gpu, primary: u64) -> Self {
        Self {
            gpu,
            primary: Primary::new(primary),
            space: None,
            pools: DevicePools::default(),
            graph_memory: [0; 4],
        }
    }

    /// Bytes that applications can have.
    pub(crate) fn total(&self) -> u64 {
        self.gpu.config.usable()
    }
}

impl State {
    /// The device with this ordinal.
    pub(crate) fn device(&mut self, ordinal: CUdevice) -> Cu<&mut Device> {
        let ordinal = usize::try_from(ordinal).or_else(|_| fail(CUDA_ERROR_INVALID_DEVICE))?;
        self.devices
            .get_mut(ordinal)
            .ok_or(Fail(CUDA_ERROR_INVALID_DEVICE))
    }

    /// The node's index of the device with this ordinal, which is known to exist.
    pub(crate) fn gpu(&self, ordinal: usize) -> usize {
        self.devices[ordinal].gpu.index
    }
}

pub(crate) fn get(out: Out<CUdevice>, ordinal: c_int) -> Cu {
    ensure(!out.is_null())?;
    lock().device(ordinal)?;
    put(out, ordinal)
}

pub(crate) fn count(out: Out<c_int>) -> Cu {
    put(out, lock().devices.len() as c_int)
}

pub(crate) fn name(out: Out<c_char>, len: c_int, dev: CUdevice) -> Cu {
    ensure(!out.is_null() && len > 0)?;
    let name = lock().device(dev)?.gpu.config.name.clone();
    put_text(out, len as usize, &name)
}

/// Writes `text` and a zero, cut to `len` bytes.
fn put_text(out: Out<c_char>, len: usize, text: &str) -> Cu {
    let mut bytes: Vec<c_char> = text
        .bytes()
        .take(len - 1)
        .map(|byte| byte as c_char)
        .collect();
    bytes.push(0);
    ensure(out.write_all(&bytes))
}

pub(crate) fn uuid(out: Out<CUuuid>, dev: CUdevice) -> Cu {
    let bytes = lock().device(dev)?.gpu.config.uuid_bytes();
    put(
        out,
        CUuuid {
            bytes: bytes.map(|byte| byte as c_char),
        },
    )
}

/// `cuDeviceGetLuid`: only Windows has LUIDs.
pub(crate) fn luid(_luid: Out<c_char>, _mask: Out<c_uint>, dev: CUdevice) -> Cu {
    lock().device(dev)?;
    fail(CUDA_ERROR_NOT_SUPPORTED)
}

/// `cuDeviceTotalMem` in both versions: what applications can have, cut to 32 bits for the first.
pub(crate) fn total_mem<T: TryFrom<u64> + Largest>(out: Out<T>, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let total = lock().device(dev)?.total();
    put(out, T::try_from(total).unwrap_or(T::LARGEST))
}

/// The largest value of a type, for sizes that do not fit.
pub(crate) trait Largest {
    /// It.
    const LARGEST: Self;
}

impl Largest for c_uint {
    const LARGEST: Self = Self::MAX;
}

impl Largest for usize {
    const LARGEST: Self = Self::MAX;
}

pub(crate) fn compute_capability(major: Out<c_int>, minor: Out<c_int>, dev: CUdevice) -> Cu {
    ensure(!major.is_null() && !minor.is_null())?;
    let capability = lock().device(dev)?.gpu.config.compute_capability;
    put(major, capability.0 as c_int)?;
    put(minor, capability.1 as c_int)
}

pub(crate) fn attribute(out: Out<c_int>, attribute: CUdevice_attribute, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let value =
        attributes::of(lock().device(dev)?, attribute).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    put(out, value)
}

pub(crate) fn properties(out: Out<CUdevprop>, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let device = state.device(dev)?;
    let of = |attribute| attributes::of(device, attribute).unwrap_or(0);
    put(
        out,
        CUdevprop {
            maxThreadsPerBlock: of(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
            maxThreadsDim: [
                of(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X),
                of(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y),
                of(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z),
            ],
            maxGridSize: [
                of(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
                of(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
                of(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z),
            ],
            sharedMemPerBlock: of(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
            totalConstantMemory: of(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
            SIMDWidth: of(CU_DEVICE_ATTRIBUTE_WARP_SIZE),
            memPitch: of(CU_DEVICE_ATTRIBUTE_MAX_PITCH),
            regsPerBlock: of(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK),
            clockRate: of(CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
            textureAlign: of(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
        },
    )
}

/// `cuDeviceGetPCIBusId`: `domain:bus:device.function`, the domain with four digits.
pub(crate) fn pci_bus_id(out: Out<c_char>, len: c_int, dev: CUdevice) -> Cu {
    ensure(!out.is_null() && len > 0)?;
    let mut state = lock();
    let config = &state.device(dev)?.gpu.config;
    let text = format!(
        "{:04x}:{:02x}:{:02x}.0",
        config.pci_domain, config.pci_bus, config.pci_device
    );
    put_text(out, len as usize, &text)
}

/// `cuDeviceGetByPCIBusId`: takes `domain:bus:device.function`, without function, and without domain.
pub(crate) fn by_pci_bus_id(out: Out<CUdevice>, text: In<c_char>) -> Cu {
    ensure(!out.is_null())?;
    let text = raw::text(text).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let wanted = parse_bus_id(&text).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let state = lock();
    let found = state.devices.iter().position(|device| {
        let config = &device.gpu.config;
        (config.pci_domain, config.pci_bus, config.pci_device) == wanted
    });
    put(
        out,
        found.ok_or(Fail(CUDA_ERROR_INVALID_DEVICE))? as CUdevice,
    )
}

fn parse_bus_id(text: &str) -> Option<(u32, u32, u32)> {
    let (address, function) = text.split_once('.').unwrap_or((text, "0"));
    u32::from_str_radix(function, 16).ok()?;
    let parts: Option<Vec<u32>> = address
        .split(':')
        .map(|part| u32::from_str_radix(part, 16).ok())
        .collect();
    match *parts?.as_slice() {
        [domain, bus, device] => Some((domain, bus, device)),
        [bus, device] => Some((0, bus, device)),
        _ => None,
    }
}

pub(crate) fn exec_affinity_support(
    out: Out<c_int>,
    kind: CUexecAffinityType,
    dev: CUdevice,
) -> Cu {
    ensure(!out.is_null() && kind == CU_EXEC_AFFINITY_TYPE_SM_COUNT)?;
    lock().device(dev)?;
    // Only clients of an MPS server may choose SMs.
    put(out, 0)
}

/// Elements of a 1D texture over linear memory, as on every GPU of today.
pub(crate) fn texture_1d_width(
    out: Out<usize>,
    format: CUarray_format,
    channels: c_uint,
    dev: CUdevice,
) -> Cu {
    ensure(!out.is_null() && matches!(channels, 1 | 2 | 4))?;
    crate::array::format_bytes(format)?;
    lock().device(dev)?;
    put(out, 1 << 28)
}

pub(crate) fn can_access_peer(out: Out<c_int>, dev: CUdevice, peer: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.device(dev)?;
    state.device(peer)?;
    // All GPUs of a simulated node are on one NVLink switch.
    put(out, c_int::from(dev != peer))
}

pub(crate) fn p2p_attribute(
    out: Out<c_int>,
    attribute: CUdevice_P2PAttribute,
    source: CUdevice,
    target: CUdevice,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.device(source)?;
    state.device(target)?;
    ensure_or(source != target, CUDA_ERROR_INVALID_DEVICE)?;
    put(
        out,
        match attribute {
            CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK => 0,
            CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED
            | CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED
            | CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED => 1,
            CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED => 0,
            _ => return fail(CUDA_ERROR_INVALID_VALUE),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_ids_are_read_in_each_form() {
        assert_eq!(parse_bus_id("0000:1b:00.0"), Some((0, 0x1b, 0)));
        assert_eq!(parse_bus_id("00000001:1B:02"), Some((1, 0x1b, 2)));
        assert_eq!(parse_bus_id("1b:00"), Some((0, 0x1b, 0)));
        assert_eq!(parse_bus_id("gpu"), None);
        assert_eq!(parse_bus_id("1b"), None);
    }
}
