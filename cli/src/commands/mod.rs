//! One file a verb: a clap struct with its flags, and `exec`.
//!
//! To add a verb: a file with `struct Verb` (derive `clap::Args`, every flag with its `env`) and
//! `fn exec(self, &Global) -> anyhow::Result<ExitCode>`, then one line each in `Command` and in `Command::exec`.

mod cdi;
mod devices;
mod places;
mod ps;
mod run;
mod set;

use clap::Subcommand;
use vgpu_cdi::{GenerateError, VendorError};
use vgpu_core::ExitCode;
use vgpu_core::config::ConfigError;
use vgpu_hook::set::SetError;

use crate::global::Global;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write, check and list CDI specs
    #[command(subcommand)]
    Cdi(cdi::Cdi),
    /// List the GPUs of this node and the vGPUs they offer
    Devices(devices::Devices),
    /// List containers with their vGPUs and use
    Ps(ps::Ps),
    /// Run a command with a slice of a GPU, without a container
    Run(run::Run),
    /// Change the quota of a running container
    Set(set::Set),
}

impl Command {
    /// Does it.
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Cdi(cdi) => cdi.exec(global),
            Self::Devices(devices) => devices.exec(global),
            Self::Ps(ps) => ps.exec(global),
            Self::Run(run) => run.exec(global),
            Self::Set(set) => set.exec(global),
        }
    }
}

/// The exit code of a failure: wrong input is told apart from a machine that failed.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() || error.is::<set::NothingToSet>() {
        return ExitCode::Usage;
    }
    if let Some(error) = error.downcast_ref::<run::RunError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<SetError>() {
        return error.exit_code();
    }
    let vendor = match error.downcast_ref::<GenerateError>() {
        Some(GenerateError::Vendor(vendor)) => Some(vendor),
        Some(GenerateError::Profile(_) | GenerateError::NoneOffered { .. }) => {
            return ExitCode::Usage;
        }
        Some(GenerateError::Invalid(_)) | None => error.downcast_ref::<VendorError>(),
    };
    match vendor {
        Some(
            VendorError::NoDriver { .. }
            | VendorError::NoNvml { .. }
            | VendorError::NotLoaded { .. }
            | VendorError::NoGpu { .. },
        ) => ExitCode::NoDriver,
        _ => ExitCode::Failure,
    }
}
