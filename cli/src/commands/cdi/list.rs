//! `vgpu cdi list`: the devices that engines would see.

use std::path::PathBuf;

use vgpu_cdi::list::{Listing, list};
use vgpu_core::{ExitCode, env, paths};

use crate::global::Global;
use crate::output::Table;

/// Flags of `vgpu cdi list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// A directory of specs, the least important first; repeatable [default: /etc/cdi, /var/run/cdi]
    #[arg(long, value_name = "DIR", env = env::CDI_SPEC_DIR, value_delimiter = ',')]
    cdi_spec_dir: Vec<PathBuf>,
}

impl List {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let directories = match self.cdi_spec_dir.is_empty() {
            true => vec![paths::CDI_STATIC.into(), paths::CDI_DYNAMIC.into()],
            false => self.cdi_spec_dir,
        };
        let listing = list(&directories);
        if !global.json {
            for problem in &listing.problems {
                tracing::warn!("{problem}");
            }
        }
        global.print(&listing, table)?;
        Ok(ExitCode::Success)
    }
}

fn table(listing: &Listing) -> Table {
    let mut table = Table::new(&["DEVICE", "CDI", "SPEC"]);
    for device in &listing.devices {
        table.row([
            device.name.clone(),
            device.cdi_version.clone(),
            device.spec.display().to_string(),
        ]);
    }
    table
}
