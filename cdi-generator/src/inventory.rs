//! What a node has, as plain data: the output of looking at the machine and the input of everything else.

use serde::Serialize;
use vgpu_core::{Bytes, DeviceUuid};

/// The GPUs of a node and their driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// The driver's version, `580.95.05`.
    pub driver_version: String,
    /// The CUDA version of the driver, `13.0`, where it says.
    pub cuda_version: Option<String>,
    /// The GPUs, by index.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The driver's number for it, the N of `gpuN`. Not stable across hardware changes; the UUID is.
    pub index: u32,
    /// Its identity.
    pub uuid: DeviceUuid,
    /// Its model.
    pub name: String,
    /// All of its VRAM. **Units:** bytes.
    pub vram: Bytes,
    /// What the driver keeps of it for itself. **Units:** bytes.
    pub reserved: Bytes,
    /// The number of its device node, the N of `/dev/nvidiaN`; not the index.
    pub minor: u32,
    /// Where it is on the PCI bus, `00000000:3B:00.0`, where the driver says.
    pub pci_bus_id: Option<String>,
    /// Its nodes in `/dev/dri`, for graphics.
    pub dri_nodes: Vec<String>,
}

impl Gpu {
    /// What there is to divide: the VRAM less what the driver keeps.
    #[must_use]
    pub const fn capacity(&self) -> Bytes {
        self.vram.saturating_sub(self.reserved)
    }
}
