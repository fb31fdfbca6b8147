//! Asks the driver, through the NVML of its own root, what GPUs there are.
//!
//! One GPU that does not answer is left out with a warning; it must not take the others with it.

use std::fs;
use std::path::Path;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use super::{files, memory};
use crate::discover::Root;
use crate::discover::library::{Library, LibraryDirectories};
use crate::inventory::{Gpu, Inventory};
use crate::vendor::VendorError;

/// Where the kernel lists the nodes of a PCI device.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

pub(super) fn inventory(root: &Root) -> Result<Inventory, VendorError> {
    let directories = LibraryDirectories::scan(root, files::is_ours);
    let library = find_library(root, &directories)?;
    let path = root.host(&library.path);
    let fail = |action| {
        let library = path.display().to_string();
        move |error| {
            if matches!(error, NvmlError::DriverNotLoaded) {
                return VendorError::NotLoaded { library };
            }
            VendorError::Nvml {
                action,
                library,
                cause: Box::new(error),
            }
        }
    };
    let nvml = Nvml::builder()
        .lib_path(path.as_os_str())
        .init()
        .map_err(fail("start talking to the driver"))?;
    let driver_version = nvml
        .sys_driver_version()
        .map_err(fail("ask for the driver's version"))?;
    let cuda_version = nvml.sys_cuda_driver_version().ok().map(|version| {
        let (major, minor) = (
            cuda_driver_version_major(version),
            cuda_driver_version_minor(version),
        );
        format!("{major}.{minor}")
    });
    let count = nvml.device_count().map_err(fail("count the GPUs"))?;
    let gpus: Vec<Gpu> = (0..count)
        .filter_map(|index| usable(&nvml, index))
        .collect();
    if gpus.is_empty() {
        return Err(VendorError::NoGpu {
            version: driver_version,
        });
    }
    Ok(Inventory {
        driver_version,
        cuda_version,
        gpus,
    })
}

/// The NVML of the driver root, or what is missing.
fn find_library(root: &Root, directories: &LibraryDirectories) -> Result<Library, VendorError> {
    let in_use = directories.linked("libnvidia-ml.so.1");
    if let Some(library) = in_use.or_else(|| directories.find("libnvidia-ml", None)) {
        return Ok(library);
    }
    let shown = root.path().display().to_string();
    match directories.find("libcuda", None) {
        Some(cuda) => {
            let found = root.host(&cuda.path).display().to_string();
            Err(VendorError::NoNvml { root: shown, found })
        }
        None => {
            let searched: Vec<String> = directories
                .searched()
                .map(|path| path.display().to_string())
                .collect();
            let searched = if searched.is_empty() {
                "nor any library directory".to_owned()
            } else {
                format!("in {}", searched.join(", "))
            };
            Err(VendorError::NoDriver {
                root: shown,
                searched,
            })
        }
    }
}

/// The GPU at `index` if it can be offered.
fn usable(nvml: &Nvml, index: u32) -> Option<Gpu> {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => {
            tracing::warn!(index, %error, "GPU left out: the driver does not give it out");
            return None;
        }
    };
    if device.mig_mode().is_ok_and(|mode| mode.current != 0) {
        tracing::warn!(
            index,
            "GPU left out: MIG is on, and its instances are not offered yet"
        );
        return None;
    }
    match describe(&device, index) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            tracing::warn!(index, error, "GPU left out");
            None
        }
    }
}

fn describe(device: &Device<'_>, index: u32) -> Result<Gpu, String> {
    let fail = |what: &'static str| move |error: NvmlError| format!("{what}: {error}");
    let uuid = device.uuid().map_err(fail("no UUID"))?;
    let uuid = uuid
        .parse()
        .map_err(|error: vgpu_core::ParseError| error.to_string())?;
    let (vram, reserved) =
        memory::total_and_reserved(device).map_err(fail("no memory information"))?;
    let pci_bus_id = device.pci_info().ok().map(|pci| pci.bus_id);
    Ok(Gpu {
        index,
        uuid,
        name: device.name().map_err(fail("no name"))?,
        vram,
        reserved,
        minor: device.minor_number().map_err(fail("no minor number"))?,
        dri_nodes: pci_bus_id.as_deref().map(dri_nodes).unwrap_or_default(),
        pci_bus_id,
    })
}

/// The names in `/dev/dri` of the device at `bus_id`, in order.
fn dri_nodes(bus_id: &str) -> Vec<String> {
    // NVML writes a domain of eight digits in upper case, the kernel one of four in lower case.
    let bus_id = bus_id.to_lowercase();
    let short = bus_id.strip_prefix("0000").unwrap_or(&bus_id);
    let folder = Path::new(PCI_DEVICES).join(short).join("drm");
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("card") || name.starts_with("renderD"))
        .collect();
    names.sort();
    names
}
