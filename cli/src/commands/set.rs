//! `vgpu set`: changes the quota of a running container.
//!
//! Owns the command line and what is printed; whether it fits, and the writes, are [`vgpu_hook::set`]'s.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use vgpu_core::{Bytes, ExitCode, Percent, QosClass, env};
use vgpu_hook::grant::GrantedDevice;
use vgpu_hook::set::{self, Changed, Request};

use crate::global::Global;
use crate::output;

/// Flags of `vgpu set`.
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The container: its id, the beginning of it, or the name of its pod
    container: String,
    /// The vGPU, where the container has several: its name, or name@uuid
    #[arg(long, value_name = "NAME", env = env::SET_DEVICE)]
    device: Option<String>,
    /// The most VRAM it may hold, such as 8Gi
    #[arg(long, value_name = "SIZE", env = env::SET_VRAM)]
    vram: Option<Bytes>,
    /// The largest share of the GPU's time; carried and shown, not enforced yet
    #[arg(long, value_name = "PERCENT", env = env::SET_COMPUTE)]
    compute: Option<Percent>,
    /// Who is served first: low, medium, high or critical
    #[arg(long, value_name = "CLASS", env = env::SET_QOS)]
    qos: Option<QosClass>,
    /// Also set a VRAM limit below what the container uses
    #[arg(long, env = env::SET_FORCE, value_parser = FalseyValueParser::new())]
    force: bool,
    /// Where grants and regions live; by default what the configuration says
    #[arg(long, value_name = "DIR", env = env::RUN_DIR)]
    run_dir: Option<PathBuf>,
}

impl Set {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        if self.vram.is_none() && self.compute.is_none() && self.qos.is_none() {
            return Err(NothingToSet.into());
        }
        let config = global.load_config()?;
        let request = Request {
            container: &self.container,
            device: self.device.as_deref(),
            vram: self.vram,
            compute: self.compute,
            qos: self.qos,
            force: self.force,
            oversubscription_percent: config.oversubscription_percent,
        };
        let run_dir = self.run_dir.unwrap_or(config.paths.run_dir);
        let changed = set::set(&run_dir, &request)?;
        if global.json {
            output::json(&changed)?;
        } else {
            output::write(&text(&changed))?;
        }
        Ok(ExitCode::Success)
    }
}

/// Neither `--vram` nor `--compute` nor `--qos`.
#[derive(Debug)]
pub(crate) struct NothingToSet;

impl std::fmt::Display for NothingToSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing to set: give --vram, --compute or --qos")
    }
}

impl std::error::Error for NothingToSet {}

/// One line: what it was, what it is.
fn text(changed: &Changed) -> String {
    let (before, after) = (&changed.before, &changed.after);
    let vram = |d: &GrantedDevice| Bytes(d.vram_limit_bytes).to_string();
    // Two sizes that people would read as one are told apart.
    let exact = vram(before) == vram(after) && before.vram_limit_bytes != after.vram_limit_bytes;
    let vram = |d: &GrantedDevice| {
        if exact {
            format!("{} bytes", d.vram_limit_bytes)
        } else {
            vram(d)
        }
    };
    let compute = |d: &GrantedDevice| format!("{}%", d.compute_limit_percent);
    let pairs = [
        ("vram", vram(before), vram(after), ""),
        (
            "compute",
            compute(before),
            compute(after),
            " (not enforced yet)",
        ),
        ("qos", before.qos.clone(), after.qos.clone(), ""),
    ];
    let parts: Vec<String> = pairs
        .into_iter()
        .filter(|(_, old, new, _)| old != new)
        .map(|(what, old, new, note)| format!("{what} {old} -> {new}{note}"))
        .collect();
    let what = if parts.is_empty() {
        "as it was".to_owned()
    } else {
        parts.join(", ")
    };
    let id: String = changed.container_id.chars().take(12).collect();
    format!("{id} {} on {}: {what}\n", changed.device, after.gpu_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(vram: u64, compute: u8) -> GrantedDevice {
        GrantedDevice {
            gpu_uuid: "GPU-1".to_owned(),
            gpu_capacity_bytes: 1 << 40,
            vram_limit_bytes: vram,
            vram_request_bytes: vram,
            compute_limit_percent: compute,
            compute_request_percent: compute,
            qos: "medium".to_owned(),
            back_end: "limiter".to_owned(),
            context_footprint_bytes: 0,
        }
    }

    #[test]
    fn the_line_says_what_changed() {
        let line = |before, after| {
            text(&Changed {
                container_id: "0123456789abcdef".to_owned(),
                device: "gpu0-half".to_owned(),
                before,
                after,
            })
        };
        assert_eq!(
            line(device(4 << 30, 25), device(8 << 30, 40)),
            "0123456789ab gpu0-half on GPU-1: vram 4 GiB -> 8 GiB, compute 25% -> 40% (not enforced yet)\n"
        );
        let close = line(device(4 << 30, 25), device((4 << 30) + 1, 25));
        assert!(
            close.ends_with(": vram 4294967296 bytes -> 4294967297 bytes\n"),
            "{close}"
        );
        assert!(line(device(1, 2), device(1, 2)).ends_with("on GPU-1: as it was\n"));
    }
}
