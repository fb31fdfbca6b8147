//! `vgpu ps`: containers with their vGPUs and use.

use vgpu_core::ExitCode;

use crate::global::Global;

/// Flags of `vgpu ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {}

impl Ps {
    pub(crate) fn exec(self, _global: &Global) -> anyhow::Result<ExitCode> {
        anyhow::bail!("ps: not there yet")
    }
}
