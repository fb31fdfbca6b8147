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
/// `--device` of `vgpu set`.
pub const SET_DEVICE: &str = "VGPU_SET_DEVICE";
/// `--vram` of `vgpu set`: not that of `vgpu run`, which may be exported for good.
pub const SET_VRAM: &str = "VGPU_SET_VRAM";
/// `--compute` of `vgpu set`.
pub const SET_COMPUTE: &str = "VGPU_SET_COMPUTE";
/// `--qos` of `vgpu set`.
pub const SET_QOS: &str = "VGPU_SET_QOS";
/// `--force` of `vgpu set`.
pub const SET_FORCE: &str = "VGPU_SET_FORCE";
/// HAMi's VRAM limit, also with `_<index>` behind it; an input of `vgpu run`.
pub const HAMI_MEMORY_LIMIT: &str = "CUDA_DEVICE_MEMORY_LIMIT";
/// HAMi's compute limit, also with `_<index>` behind it; an input of `vgpu run`.
pub const HAMI_SM_LIMIT: &str = "CUDA_DEVICE_SM_LIMIT";
/// TensorFusion's VRAM limit; an input of `vgpu run`.
pub const TENSOR_FUSION_MEMORY_LIMIT: &str = "TENSOR_FUSION_CUDA_MEM_LIMIT";
/// TensorFusion's compute limit; an input of `vgpu run`.
pub const TENSOR_FUSION_COMPUTE_LIMIT: &str = "TENSOR_FUSION_CUDA_UP_LIMIT";
/// Set by our CDI specs for the hook itself: a hook entry without `env` would inherit the container's environment
/// on older runtimes.
pub const HOOK: &str = "VGPU_HOOK";
