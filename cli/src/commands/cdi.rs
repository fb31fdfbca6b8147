//! `vgpu cdi`: write, check and list CDI specs.

use clap::Subcommand;
use vgpu_core::ExitCode;

use crate::global::Global;

/// What to do with CDI specs.
#[derive(Debug, Subcommand)]
pub(crate) enum Cdi {
    /// Find the GPUs and write their spec
    Generate,
}

impl Cdi {
    pub(crate) fn exec(self, _global: &Global) -> anyhow::Result<ExitCode> {
        anyhow::bail!("cdi: not there yet")
    }
}
