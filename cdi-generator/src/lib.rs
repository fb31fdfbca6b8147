//! Finds GPUs and driver files and writes the CDI specs that offer slices of them.
//!
//! ```text
//! vendor::Vendor::inventory    what GPUs are there        (NVML)          -> Inventory
//! vendor::Vendor::*_edits      what containers need       (files, nodes)  -> ContainerEdits
//! generate::generate           every name and its quota   (configuration) -> Spec
//! spec::file::write            whole or not at all
//! ```
//!
//! Each step's input and output are plain data, so each is tested without the others. Nothing here prints, keeps state
//! or changes anything but the file it is told to write. A spec declares the lowest version that it needs, fixes no
//! device numbers, and is the same bytes for the same node. **Source:** CDI v1.1.0; `docs/cdi.md` is the manual.

pub mod discover;
pub mod generate;
pub mod inventory;
pub mod list;
pub mod spec;
pub mod vendor;

pub use generate::{GenerateError, Naming, Settings, generate};
pub use inventory::{Gpu, Inventory};
pub use vendor::{Capabilities, Places, Vendor, VendorError};
