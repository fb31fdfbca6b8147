//! The vocabulary of vgpu: sizes, shares, GPU identities, quotas, CDI names, the hook's command line, the node's
//! configuration and the fixed places of everything.
//!
//! This crate must stay cheap to depend on: the limiter is loaded into other people's processes, so without default
//! features there is no outside crate here at all, and never any unsafe code, async or NVML. Every parser answers
//! with an error that carries the input, the position or key, and what would be right.
//!
//! | module | what |
//! |---|---|
//! | [`bytes`], [`percent`], [`uuid`], [`qos`], [`quota`] | the parts of a quota, and the quota |
//! | [`name`] | CDI qualified names |
//! | [`hook_args`] | the frozen command line between CDI spec and OCI hook |
//! | `config` | `/etc/vgpu/config.toml` (feature `config`) |
//! | [`mod@env`], [`paths`], [`exit`] | names of environment variables, places, exit codes |

#![forbid(unsafe_code)]

pub mod bytes;
#[cfg(feature = "config")]
pub mod config;
pub mod env;
mod error;
pub mod exit;
pub mod hook_args;
pub mod name;
pub mod paths;
pub mod percent;
pub mod qos;
pub mod quota;
#[cfg(feature = "serde")]
mod serde_impls;
pub mod uuid;

pub use bytes::Bytes;
#[cfg(feature = "config")]
pub use config::Config;
pub use error::ParseError;
pub use exit::ExitCode;
pub use hook_args::{HookArgs, Stage};
pub use name::QualifiedName;
pub use percent::Percent;
pub use qos::QosClass;
pub use quota::{Backend, Quota};
pub use uuid::DeviceUuid;
