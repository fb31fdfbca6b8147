//! Libraries, programs and data files of a driver root.

use crate::config::NodeConfig;
use crate::root::elf::shared_object;
use crate::root::{LIB_DIR, Libraries, Manifest, RootError};

/// Libraries named `<name>.so.<driver version>`, with the SONAME's suffix; empty where the SONAME is the version.
const VERSIONED: &[(&str, &str)] = &[
    ("libcudadebugger", "1"),
    ("libnvcuvid", "1"),
    ("libnvidia-allocator", "1"),
    ("libnvidia-cfg", "1"),
    ("libnvidia-encode", "1"),
    ("libnvidia-eglcore", ""),
    ("libnvidia-fbc", "1"),
    ("libnvidia-glcore", ""),
    ("libnvidia-glsi", ""),
    ("libnvidia-glvkspirv", ""),
    ("libnvidia-gpucomp", ""),
    ("libnvidia-ngx", "1"),
    ("libnvidia-nvvm", "4"),
    ("libnvidia-opencl", "1"),
    ("libnvidia-opticalflow", "1"),
    ("libnvidia-pkcs11-openssl3", ""),
    ("libnvidia-ptxjitcompiler", "1"),
    ("libnvidia-rtcore", ""),
    ("libnvidia-sandboxutils", "1"),
    ("libnvidia-tls", ""),
    ("libnvoptix", "1"),
    ("libEGL_nvidia", "0"),
    ("libGLESv1_CM_nvidia", "1"),
    ("libGLESv2_nvidia", "2"),
    ("libGLX_nvidia", "0"),
    ("vdpau/libvdpau_nvidia", "1"),
];

/// Programs of the driver that containers get.
const PROGRAMS: &[&str] = &[
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
];

/// Data files: path below the root and content.
const DATA: &[(&str, &str)] = &[
    ("etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n"),
    (
        "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libnvidia-egl-gbm.so.1\"}}\n",
    ),
    (
        "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libEGL_nvidia.so.0\"}}\n",
    ),
    ("usr/share/nvidia/nvoptix.bin", "placeholder\n"),
    (
        "usr/share/vulkan/icd.d/nvidia_icd.json",
        "{\"file_format_version\":\"1.0.1\",\"ICD\":{\"library_path\":\"libGLX_nvidia.so.0\",\"api_version\":\"1.4.312\"}}\n",
    ),
    (
        "usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
        "{\"file_format_version\":\"1.0.0\"}\n",
    ),
];

pub(super) fn libraries(
    made: &mut Manifest,
    config: &NodeConfig,
    built: &Libraries,
) -> Result<(), RootError> {
    let version = &config.driver_version;
    for (name, from) in [("libcuda", &built.cuda), ("libnvidia-ml", &built.nvml)] {
        made.copy(from, &format!("{LIB_DIR}/{name}.so.{version}"))?;
        made.link(
            &format!("{LIB_DIR}/{name}.so.1"),
            &format!("{name}.so.{version}"),
        )?;
        made.link(&format!("{LIB_DIR}/{name}.so"), &format!("{name}.so.1"))?;
    }
    for (path, suffix) in VERSIONED {
        let name = path.rsplit('/').next().unwrap_or(path);
        let file = format!("{name}.so.{version}");
        let soname = if suffix.is_empty() {
            file.clone()
        } else {
            format!("{name}.so.{suffix}")
        };
        made.file(
            &format!("{LIB_DIR}/{path}.so.{version}"),
            &shared_object(&soname),
            0o755,
        )?;
        if !suffix.is_empty() {
            made.link(&format!("{LIB_DIR}/{path}.so.{suffix}"), &file)?;
        }
    }
    let nvvm70 = shared_object("libnvidia-nvvm70.so.4");
    made.file(&format!("{LIB_DIR}/libnvidia-nvvm70.so.4"), &nvvm70, 0o755)
}

pub(super) fn programs(made: &mut Manifest) -> Result<(), RootError> {
    for name in PROGRAMS {
        let script =
            format!("#!/bin/sh\necho '{name}: a placeholder of the simulated node' >&2\nexit 1\n");
        made.file(&format!("usr/bin/{name}"), script.as_bytes(), 0o755)?;
    }
    Ok(())
}

pub(super) fn data(made: &mut Manifest, config: &NodeConfig) -> Result<(), RootError> {
    let version = &config.driver_version;
    for (path, content) in DATA {
        made.file(path, content.as_bytes(), 0o644)?;
    }
    for name in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
        made.file(
            &format!("lib/firmware/nvidia/{version}/{name}"),
            b"placeholder\n",
            0o644,
        )?;
    }
    if made.root() == std::path::Path::new("/") {
        return Ok(()); // the real /proc takes no files
    }
    proc_files(made, config)
}

/// What the kernel module shows in `/proc`.
fn proc_files(made: &mut Manifest, config: &NodeConfig) -> Result<(), RootError> {
    let version = format!(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (simulated)\n",
        config.driver_version
    );
    made.file("proc/driver/nvidia/version", version.as_bytes(), 0o444)?;
    let params = b"ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n";
    made.file("proc/driver/nvidia/params", params, 0o444)?;
    made.file(
        "proc/driver/nvidia-caps/mig-minors",
        b"config 1\nmonitor 2\n",
        0o444,
    )?;
    for gpu in &config.gpus {
        // The kernel prints the domain with four digits, and in lower case.
        let bus = gpu.pci_bus_id()[4..].to_lowercase();
        let text = format!(
            "Model: \t\t {}\nIRQ:   \t\t 100\nGPU UUID: \t {}\nBus Type: \t PCIe\nBus Location: \t {bus}\nDevice Minor: \t {}\n",
            gpu.name, gpu.uuid, gpu.minor
        );
        made.file(
            &format!("proc/driver/nvidia/gpus/{bus}/information"),
            text.as_bytes(),
            0o444,
        )?;
    }
    Ok(())
}
