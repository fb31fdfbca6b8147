//! The fixed places of everything; each has a flag or a configuration key that moves it.

/// State that does not survive a reboot: grants, regions, sockets.
pub const RUN_DIR: &str = "/run/vgpu";
/// The limiter's libraries on the host.
pub const LIMITER_DIR: &str = "/usr/lib/vgpu";
/// The OCI hook on the host.
pub const HOOK: &str = "/usr/bin/vgpu-hook";
/// The node's configuration.
pub const CONFIG: &str = "/etc/vgpu/config.toml";
/// CDI specs that describe the node.
pub const CDI_STATIC: &str = "/etc/cdi";
/// CDI specs that come and go; they win over the static ones.
pub const CDI_DYNAMIC: &str = "/var/run/cdi";
/// The root that the driver's files are found under.
pub const DRIVER_ROOT: &str = "/";
/// The root that the device nodes are found under.
pub const DEV_ROOT: &str = "/";

/// The limiter's libraries in a container.
pub const CONTAINER_LIMITER_DIR: &str = "/usr/lib/vgpu";
/// The real driver libraries behind the limiter, in a container.
pub const CONTAINER_DRIVER_DIR: &str = "/usr/lib/vgpu/driver";
/// The shared pages of a container, in that container.
pub const CONTAINER_REGION_DIR: &str = "/usr/lib/vgpu/region";

/// The page that carries the limits; read-only in the container.
pub const REGION_LIMITS: &str = "limits";
/// The page that carries usage; writable in the container.
pub const REGION_USAGE: &str = "usage";
/// The page reserved for traces.
pub const REGION_TRACE: &str = "trace";

/// The limiter's stand-in for CUDA.
pub const LIBCUDA: &str = "libcuda.so.1";
/// The limiter's stand-in for NVML.
pub const LIBNVIDIA_ML: &str = "libnvidia-ml.so.1";
/// The name by which the limiter depends on the real CUDA driver library.
pub const LIBCUDA_DRIVER: &str = "libcuda-driver.so.1";
/// The name by which the limiter depends on the real NVML library.
pub const LIBNVIDIA_ML_DRIVER: &str = "libnvidia-ml-driver.so.1";

/// CDI vendor of our devices.
pub const CDI_VENDOR: &str = "tensor-fusion.ai";
/// CDI class of our devices.
pub const CDI_CLASS: &str = "vgpu";
/// CDI kind of our devices.
pub const CDI_KIND: &str = "tensor-fusion.ai/vgpu";
/// File name (without extension) of the spec that describes the node.
pub const CDI_SPEC_NAME: &str = "tensor-fusion.ai-vgpu";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_made_of_vendor_and_class() {
        assert_eq!(CDI_KIND, format!("{CDI_VENDOR}/{CDI_CLASS}"));
        assert_eq!(CDI_SPEC_NAME, CDI_KIND.replace('/', "-"));
    }
}
