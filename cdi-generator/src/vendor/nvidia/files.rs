//! Which files and nodes of NVIDIA's driver there are for which use.
//!
//! **Source:** the lists of NVIDIA's `libnvidia-container` (`src/nvc_info.c`) and `nvidia-container-toolkit` v1.20
//! (`pkg/nvcdi`, `internal/discover`), by capability. Lists only; what exists is found by [`crate::discover`].

use crate::vendor::Capability;

/// Libraries of the driver's version, without `libcuda` and `libnvidia-ml`, which the limiter stands in front of.
pub(super) const fn libraries(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Compute => &[
            "libcudadebugger",
            "libnvidia-opencl",
            "libnvidia-gpucomp",
            "libnvidia-ptxjitcompiler",
            "libnvidia-fatbinaryloader",
            "libnvidia-allocator",
            "libnvidia-compiler",
            "libnvidia-pkcs11",
            "libnvidia-pkcs11-openssl3",
            "libnvidia-nvvm",
            "libnvidia-tileiras",
        ],
        Capability::Utility => &["libnvidia-cfg", "libnvidia-nscq", "libnvidia-sandboxutils"],
        Capability::Graphics => &[
            "libnvidia-eglcore",
            "libnvidia-glcore",
            "libnvidia-tls",
            "libnvidia-glsi",
            "libnvidia-fbc",
            "libnvidia-ifr",
            "libnvidia-rtcore",
            "libnvoptix",
            "libGLX_nvidia",
            "libEGL_nvidia",
            "libGLESv2_nvidia",
            "libGLESv1_CM_nvidia",
            "libnvidia-glvkspirv",
            "libnvidia-cbl",
            "libnvidia-vulkan-producer",
            "libnvidia-present",
        ],
        Capability::Video => &[
            "vdpau/libvdpau_nvidia",
            "libnvidia-encode",
            "libnvidia-opticalflow",
            "libnvcuvid",
        ],
        Capability::Display => &["nvidia/xorg/libglxserver_nvidia"],
        Capability::Ngx => &["libnvidia-ngx"],
    }
}

/// Libraries that come with the driver under versions of their own.
pub(super) const fn unversioned_libraries(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Compute => &["libnvidia-nvvm70"],
        Capability::Graphics => &[
            "libnvidia-egl-gbm",
            "libnvidia-egl-wayland",
            "libnvidia-egl-wayland2",
            "libnvidia-egl-xcb",
            "libnvidia-egl-xlib",
        ],
        Capability::Utility | Capability::Video | Capability::Display | Capability::Ngx => &[],
    }
}

/// Whether a library's file name is of interest at all; keeps the look into a system's library directories short.
pub(super) fn is_ours(name: &str) -> bool {
    const PREFIXES: [&str; 10] = [
        "libcuda", // libcudadebugger too
        "libnvidia-",
        "libnvcuvid",
        "libnvoptix",
        "libvdpau_nvidia",
        "libGLX_nvidia",
        "libEGL_nvidia",
        "libGLESv",
        "libglxserver_nvidia",
        "libnvidia_",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Programs.
pub(super) const fn programs(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Compute => &["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"],
        Capability::Utility => &[
            "nvidia-smi",
            "nvidia-debugdump",
            "nvidia-persistenced",
            "nv-fabricmanager",
            "nvidia-imex",
            "nvidia-imex-ctl",
        ],
        Capability::Display => &["nvidia-xconfig"],
        Capability::Graphics | Capability::Video | Capability::Ngx => &[],
    }
}

/// Where programs are.
pub(super) const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/bin",
    "/sbin",
];

/// Configuration and data files, each below one of [`DATA_DIRECTORIES`].
pub(super) const fn data(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Compute => &["OpenCL/vendors/nvidia.icd"],
        Capability::Graphics => &[
            "glvnd/egl_vendor.d/10_nvidia.json",
            "egl/egl_external_platform.d/15_nvidia_gbm.json",
            "egl/egl_external_platform.d/10_nvidia_wayland.json",
            "egl/egl_external_platform.d/09_nvidia_wayland2.json",
            "egl/egl_external_platform.d/20_nvidia_xcb.json",
            "egl/egl_external_platform.d/20_nvidia_xlib.json",
            "nvidia/nvoptix.bin",
            "vulkan/icd.d/nvidia_icd.json",
            "vulkan/icd.d/nvidia_icd.x86_64.json",
            "vulkan/icd.d/nvidia_icd.aarch64.json",
            "vulkan/explicit_layer.d/nvidia_layers.json",
            "vulkan/implicit_layer.d/nvidia_layers.json",
        ],
        Capability::Display => &[
            "X11/xorg.conf.d/10-nvidia.conf",
            "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
        ],
        Capability::Utility | Capability::Video | Capability::Ngx => &[],
    }
}

/// Where data files are.
pub(super) const DATA_DIRECTORIES: [&str; 3] = ["/etc", "/usr/local/share", "/usr/share"];

/// Where firmware is, below the kernel's own search path.
pub(super) const FIRMWARE_DIRECTORIES: [&str; 2] = ["/lib/firmware/updates", "/lib/firmware"];

/// Sockets of the driver's daemons.
pub(super) const SOCKETS: [&[&str]; 3] = [
    &[
        "/run/nvidia-persistenced/socket",
        "/var/run/nvidia-persistenced/socket",
    ],
    &[
        "/run/nvidia-fabricmanager/socket",
        "/var/run/nvidia-fabricmanager/socket",
    ],
    &["/tmp/nvidia-mps"],
];

/// The node that every use needs.
pub(super) const CONTROL_NODE: &str = "/dev/nvidiactl";

/// Nodes that do not belong to one GPU.
pub(super) const fn nodes(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Compute => &["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"],
        Capability::Graphics | Capability::Display => &["/dev/nvidia-modeset"],
        Capability::Utility | Capability::Video | Capability::Ngx => &[],
    }
}
