//! `vgpu devices`: the GPUs of this node and the vGPUs they offer.

use vgpu_core::ExitCode;

use crate::global::Global;

/// Flags of `vgpu devices`.
#[derive(Debug, clap::Args)]
pub(crate) struct Devices {}

impl Devices {
    pub(crate) fn exec(self, _global: &Global) -> anyhow::Result<ExitCode> {
        anyhow::bail!("devices: not there yet")
    }
}
