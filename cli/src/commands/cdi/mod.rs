//! `vgpu cdi`: write, check and list CDI specs.

mod generate;
mod list;
mod validate;

use clap::Subcommand;
use vgpu_core::ExitCode;

use crate::global::Global;

/// What to do with CDI specs.
#[derive(Debug, Subcommand)]
pub(crate) enum Cdi {
    /// Find the GPUs and write the spec that offers them
    Generate(generate::Generate),
    /// Check spec files, more strictly than the published schema
    Validate(validate::Validate),
    /// List the devices that engines would see
    List(list::List),
}

impl Cdi {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Generate(generate) => generate.exec(global),
            Self::Validate(validate) => validate.exec(global),
            Self::List(list) => list.exec(global),
        }
    }
}
