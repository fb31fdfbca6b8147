//! A simulated node in a temporary folder, taken down by `Drop`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Outcome, built};

/// A driver root with device nodes and a running simulated driver behind it.
#[derive(Debug)]
pub struct Node {
    folder: TempDir,
}

impl Node {
    /// Brings up the default node: two GPUs.
    #[must_use]
    pub fn up() -> Self {
        Self::described("")
    }

    /// Brings up a node by its TOML description.
    #[must_use]
    pub fn described(toml: &str) -> Self {
        // Not in /tmp, which may be mounted without device nodes.
        let folder = TempDir::with_prefix_in("vgpu-node.", "/var/tmp").expect("a temporary folder");
        let node = Self { folder };
        let description = node.folder.path().join("node.toml");
        fs::write(&description, toml).expect("the node description");
        let mut up = node.sim_gpu("up");
        up.arg("--config").arg(&description);
        Outcome::of(&mut up).good();
        node
    }

    /// The driver root, which is the device root as well.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A folder for the test's own files, removed with the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `vgpu` with the built hook and limiter, for this node.
    #[must_use]
    pub fn vgpu(&self) -> Command {
        let config = self.folder.path().join("config.toml");
        if !config.exists() {
            let text = format!(
                "[paths]\nhook = {:?}\nlimiter_dir = {:?}\ndriver_root = {:?}\ndev_root = {:?}\n",
                built::file("bin/vgpu-hook"),
                built::dist().join("lib/vgpu"),
                self.root(),
                self.root(),
            );
            fs::write(&config, text).expect("the configuration");
        }
        let mut command = Command::new(built::file("bin/vgpu"));
        command.arg("--config").arg(config);
        command
    }

    /// Writes this node's CDI spec into its folder.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        let spec = self.folder.path().join("vgpu.json");
        Outcome::of(self.vgpu().args(["cdi", "generate", "--output"]).arg(&spec)).good();
        spec
    }

    fn sim_gpu(&self, verb: &str) -> Command {
        let mut command = Command::new(built::file("sim/bin/sim-gpu"));
        command.arg(verb).arg("--root").arg(self.root());
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let outcome = Outcome::of(&mut self.sim_gpu("down"));
        if outcome.code != 0 {
            eprintln!("sim-gpu down: {}", outcome.stderr);
        }
    }
}
