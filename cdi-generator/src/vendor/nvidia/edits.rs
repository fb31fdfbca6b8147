//! From an inventory to container edits; looks at files and never at NVML.

use std::path::{Path, PathBuf};

use vgpu_core::paths;

use super::files;
use crate::discover::library::LibraryDirectories;
use crate::discover::{self, Discover, Files, Libraries, Nodes, Sockets, file, node};
use crate::inventory::{Gpu, Inventory};
use crate::spec::{ContainerEdits, Mount};
use crate::vendor::{Capabilities, Capability, Places, VendorError};

/// Keeps an NVIDIA runtime, where it is the default, from adding every GPU beside ours.
const NO_OTHER_GPUS: &str = "NVIDIA_VISIBLE_DEVICES=void";

/// What every container with any GPU needs.
pub(super) fn common(
    inventory: &Inventory,
    places: &Places,
    capabilities: &Capabilities,
) -> Result<ContainerEdits, VendorError> {
    let mut edits = ContainerEdits {
        env: vec![NO_OTHER_GPUS.to_owned()],
        ..ContainerEdits::default()
    };
    edits.append(control_nodes(places, capabilities)?);
    let directories = LibraryDirectories::scan(&places.driver_root, files::is_ours);
    edits
        .mounts
        .extend(driver_behind_limiter(inventory, places, &directories)?);
    edits.mounts.extend(limiter(places));
    edits.append(driver_files(inventory, places, capabilities, &directories));
    Ok(edits)
}

/// What a container with this GPU needs beyond that.
pub(super) fn of_gpu(
    gpu: &Gpu,
    places: &Places,
    capabilities: &Capabilities,
) -> Result<ContainerEdits, VendorError> {
    let path = PathBuf::from(format!("/dev/nvidia{}", gpu.minor));
    let node = node::find(&places.dev_root, &path).ok_or_else(|| no_node(places, &path))?;
    let mut edits = ContainerEdits {
        device_nodes: vec![node],
        ..ContainerEdits::default()
    };
    if capabilities.has(Capability::Graphics) || capabilities.has(Capability::Display) {
        let dri = gpu
            .dri_nodes
            .iter()
            .map(|name| Path::new("/dev/dri").join(name))
            .collect();
        edits.append(
            Nodes {
                root: &places.dev_root,
                paths: dri,
            }
            .discover(),
        );
    }
    Ok(edits)
}

fn no_node(places: &Places, path: &Path) -> VendorError {
    VendorError::NoNode {
        root: places.dev_root.path().display().to_string(),
        path: path.display().to_string(),
    }
}

fn control_nodes(
    places: &Places,
    capabilities: &Capabilities,
) -> Result<ContainerEdits, VendorError> {
    let control = Path::new(files::CONTROL_NODE);
    if node::find(&places.dev_root, control).is_none() {
        return Err(no_node(places, control));
    }
    let more = capabilities
        .iter()
        .flat_map(files::nodes)
        .map(PathBuf::from);
    let paths = std::iter::once(control.to_owned()).chain(more).collect();
    Ok(discover::all(&[&Nodes {
        root: &places.dev_root,
        paths,
    }]))
}

/// The two libraries that the limiter stands in front of, under the names by which it depends on them.
fn driver_behind_limiter(
    inventory: &Inventory,
    places: &Places,
    directories: &LibraryDirectories,
) -> Result<[Mount; 2], VendorError> {
    let version = inventory.driver_version.as_str();
    let root = &places.driver_root;
    let behind = |name: &str, container_name: &str| {
        let library = directories.find(name, Some(version))?;
        let target = Path::new(paths::CONTAINER_DRIVER_DIR).join(container_name);
        Some(file::read_only(&root.host(&library.path), &target))
    };
    let cuda = behind("libcuda", paths::LIBCUDA_DRIVER).ok_or_else(|| VendorError::NoLibrary {
        root: root.path().display().to_string(),
        version: version.to_owned(),
    })?;
    let nvml =
        behind("libnvidia-ml", paths::LIBNVIDIA_ML_DRIVER).ok_or_else(|| VendorError::NoNvml {
            root: root.path().display().to_string(),
            found: cuda.host_path.clone(),
        })?;
    Ok([cuda, nvml])
}

/// The limiter's two libraries.
fn limiter(places: &Places) -> impl Iterator<Item = Mount> {
    [paths::LIBCUDA, paths::LIBNVIDIA_ML]
        .into_iter()
        .map(|name| {
            let target = Path::new(paths::CONTAINER_LIMITER_DIR).join(name);
            file::read_only(&places.limiter_dir.join(name), &target)
        })
}

/// Everything else of the driver, at the paths it has on the host.
fn driver_files(
    inventory: &Inventory,
    places: &Places,
    capabilities: &Capabilities,
    directories: &LibraryDirectories,
) -> ContainerEdits {
    let root = &places.driver_root;
    let under = |directories: &[&str]| directories.iter().map(PathBuf::from).collect();
    let libraries = Libraries {
        directories,
        version: &inventory.driver_version,
        names: capabilities
            .iter()
            .flat_map(files::libraries)
            .copied()
            .collect(),
        unversioned: capabilities
            .iter()
            .flat_map(files::unversioned_libraries)
            .copied()
            .collect(),
    };
    let programs = Files {
        root,
        directories: under(&files::PROGRAM_DIRECTORIES),
        names: capabilities
            .iter()
            .flat_map(files::programs)
            .copied()
            .collect(),
    };
    let firmware_name = format!("nvidia/{}/gsp*.bin", inventory.driver_version);
    let firmware = Files {
        root,
        directories: firmware_directories(places),
        names: vec![&firmware_name],
    };
    let data = Files {
        root,
        directories: under(&files::DATA_DIRECTORIES),
        names: capabilities.iter().flat_map(files::data).copied().collect(),
    };
    let sockets = Sockets {
        root,
        paths: files::SOCKETS.to_vec(),
    };
    discover::all(&[&libraries, &programs, &firmware, &data, &sockets])
}

/// The kernel's search path for firmware; what was set at run time counts only where the driver is the host's own.
fn firmware_directories(places: &Places) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if places.driver_root.is_host() {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let set = read("/sys/module/firmware_class/parameters/path");
        if set.trim().starts_with('/') {
            directories.push(PathBuf::from(set.trim()));
        }
        let release = read("/proc/sys/kernel/osrelease");
        for directory in files::FIRMWARE_DIRECTORIES {
            directories.push(Path::new(directory).join(release.trim()));
            directories.push(PathBuf::from(directory));
        }
        return directories;
    }
    directories.extend(files::FIRMWARE_DIRECTORIES.map(PathBuf::from));
    directories
}
