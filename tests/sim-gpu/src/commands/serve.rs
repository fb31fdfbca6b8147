//! `sim-gpu serve`: the daemon's process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::setsid;
use sim_gpu::config::NodeConfig;
use sim_gpu::daemon;
use sim_gpu::root::CONFIG_FILE;

/// Runs the node laid out at `root` until it is killed.
pub(crate) fn run(root: &Path) -> Result<()> {
    // In the foreground of a shell this process leads its group already, and needs no session of its own.
    let _already_leader = setsid();
    let path = root.join(CONFIG_FILE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: run sim-gpu up first", path.display()))?;
    let config: NodeConfig = serde_json::from_str(&text)
        .with_context(|| format!("{} is no node description", path.display()))?;
    Ok(daemon::serve(root, &config)?)
}
