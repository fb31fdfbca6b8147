//! `vgpu run`: a plain process with a slice of a GPU.

use vgpu_core::ExitCode;

use crate::global::Global;

/// Flags of `vgpu run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {}

impl Run {
    pub(crate) fn exec(self, _global: &Global) -> anyhow::Result<ExitCode> {
        anyhow::bail!("run: not there yet")
    }
}
