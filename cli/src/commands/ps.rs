//! `vgpu ps`: containers with their vGPUs and use.
//!
//! Reads the hook's records and the containers' usage pages; changes nothing, also not what is stale.

use std::path::PathBuf;

use anyhow::Context;
use vgpu_core::{Bytes, ExitCode, env};
use vgpu_hook::node::{self, Row};

use crate::global::Global;
use crate::output::{self, Table};

/// Flags of `vgpu ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// Where grants and regions live; by default what the configuration says
    #[arg(long, value_name = "DIR", env = env::RUN_DIR)]
    run_dir: Option<PathBuf>,
}

impl Ps {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let run_dir = match self.run_dir {
            Some(run_dir) => run_dir,
            None => global.load_config()?.paths.run_dir,
        };
        let rows = node::rows(&run_dir)
            .context("cannot tell which containers have a vGPU (only root may read that)")?;
        if rows.is_empty() && !global.json {
            let text = format!(
                "no container has a vGPU (looked in {})\n",
                run_dir.display()
            );
            output::write(&text)?;
            return Ok(ExitCode::Success);
        }
        global.print(&rows, |rows| table(rows))?;
        Ok(ExitCode::Success)
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "CONTAINER",
        "POD",
        "DEVICE",
        "GPU",
        ">VRAM USED",
        ">VRAM LIMIT",
        "COMPUTE",
        "PIDS",
        "STATE",
    ]);
    for row in rows {
        table.row([
            row.container_id.chars().take(12).collect(),
            row.pod.clone().unwrap_or_else(|| "-".to_owned()),
            row.devices.join(","),
            row.gpu_uuid.clone(),
            row.vram_used_bytes
                .map_or_else(|| "unknown".to_owned(), |b| Bytes(b).to_string()),
            Bytes(row.vram_limit_bytes).to_string(),
            compute(row),
            pids(&row.pids),
            row.state.to_owned(),
        ]);
    }
    table
}

fn compute(row: &Row) -> String {
    let note = if row.compute_enforced {
        ""
    } else {
        " (not enforced yet)"
    };
    format!("{}%{note}", row.compute_limit_percent)
}

/// The processes by their numbers in the container; a few, because there can be hundreds.
fn pids(pids: &[u32]) -> String {
    const SHOWN: usize = 4;
    if pids.is_empty() {
        return "-".to_owned();
    }
    let shown: Vec<String> = pids.iter().take(SHOWN).map(u32::to_string).collect();
    let more = pids.len().saturating_sub(SHOWN);
    let rest = if more == 0 {
        String::new()
    } else {
        format!(",+{more}")
    };
    format!("{}{rest}", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_not_enforced() {
        let row = Row {
            container_id: "0123456789abcdef".into(),
            pod: None,
            container: None,
            devices: vec!["gpu0-quarter".into()],
            gpu_uuid: "GPU-1".into(),
            vram_limit_bytes: 4 << 30,
            vram_used_bytes: None,
            compute_limit_percent: 25,
            compute_enforced: false,
            qos: "medium".into(),
            pids: vec![1, 2, 3, 4, 5, 6],
            state: "running",
            init_pid: 1,
        };
        let text = table(&[row]).to_string();
        let line = text.lines().last().unwrap();
        let words: Vec<_> = line
            .split("  ")
            .filter(|w| !w.is_empty())
            .map(str::trim)
            .collect();
        let expected = [
            "0123456789ab",
            "-",
            "gpu0-quarter",
            "GPU-1",
            "unknown",
            "4 GiB",
            "25% (not enforced yet)",
            "1,2,3,4,+2",
            "running",
        ];
        assert_eq!(words, expected);
    }
}
