//! NVIDIA: the GPUs that NVML lists, the files of the driver, and the limiter in front of it.
//!
//! | file | what |
//! |---|---|
//! | `nvml` | asking the driver |
//! | `memory` | the one question that the wrapper cannot ask older drivers |
//! | `files` | which files and nodes there are for which use |
//! | `edits` | from an inventory to container edits |

mod edits;
mod files;
mod memory;
mod nvml;

use super::{Capabilities, Places, Vendor, VendorError};
use crate::inventory::{Gpu, Inventory};
use crate::spec::ContainerEdits;

/// NVIDIA's GPUs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nvidia;

impl Vendor for Nvidia {
    fn name(&self) -> &'static str {
        "nvidia"
    }

    fn inventory(&self, places: &Places) -> Result<Inventory, VendorError> {
        nvml::inventory(&places.driver_root)
    }

    fn common_edits(
        &self,
        inventory: &Inventory,
        places: &Places,
        capabilities: &Capabilities,
    ) -> Result<ContainerEdits, VendorError> {
        edits::common(inventory, places, capabilities)
    }

    fn gpu_edits(
        &self,
        gpu: &Gpu,
        places: &Places,
        capabilities: &Capabilities,
    ) -> Result<ContainerEdits, VendorError> {
        edits::of_gpu(gpu, places, capabilities)
    }
}
