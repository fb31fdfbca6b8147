//! The names of every environment variable that vgpu reads or sets.
//!
//! None of them carries enforcement state: a tenant can set its own environment, so limits never come from here.

/// `--config`: the node's configuration file.
pub const CONFIG: &str = "VGPU_CONFIG";
/// Log filter of the programs (`info`, `debug`, `vgpu_cdi=trace`); for the limiter, any value turns its log on.
pub const LOG: &str = "VGPU_LOG";
/// `--log-format`: `text` or `json`.
pub const LOG_FORMAT: &str = "VGPU_LOG_FORMAT";
/// `--json`: print data as JSON.
pub const JSON: &str = "VGPU_JSON";
/// `--output` of `vgpu cdi generate`.
pub const OUTPUT: &str = "VGPU_OUTPUT";
/// `--format` of `vgpu cdi generate`.
pub const FORMAT: &str = "VGPU_FORMAT";
/// `--driver-root`.
pub const DRIVER_ROOT: &str = "VGPU_DRIVER_ROOT";
/// `--dev-root`.
pub const DEV_ROOT: &str = "VGPU_DEV_ROOT";
/// `--device-name`: `index`, `uuid`, or both.
pub const DEVICE_NAME: &str = "VGPU_DEVICE_NAME";
/// `--capabilities`: which of the driver's files go into containers.
pub const CAPABILITIES: &str = "VGPU_CAPABILITIES";
/// `--cdi-spec-dir`.
pub const CDI_SPEC_DIR: &str = "VGPU_CDI_SPEC_DIR";
/// `--run-dir`.
pub const RUN_DIR: &str = "VGPU_RUN_DIR";
/// `--limiter-dir`.
pub const LIMITER_DIR: &str = "VGPU_LIMITER_DIR";
/// `--hook`: the OCI hook's path on the host.
pub const HOOK_PATH: &str = "VGPU_HOOK_PATH";
/// `--for` of `vgpu cdi validate`: the engine that has to accept the spec.
pub const VALIDATE_FOR: &str = "VGPU_VALIDATE_FOR";
/// `--vram` of `vgpu run`.
pub const VRAM: &str = "VGPU_VRAM";
/// `--compute` of `vgpu run`.
pub const COMPUTE: &str = "VGPU_COMPUTE";
/// `--gpu` of `vgpu run`.
pub const GPU: &str = "VGPU_GPU";
/// Set by our CDI specs for the hook itself: a hook entry without `env` would inherit the container's environment
/// on older runtimes.
pub const HOOK: &str = "VGPU_HOOK";
