//! A prepared directory as `vgpu run` makes it: the limiter's libraries, the driver behind them, a region. And a
//! client program in Python that opens `libcuda.so.1` by name.

#![allow(dead_code, reason = "each suite uses its part")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use vgpu_region::{DeviceLimits, Limits};
use vgpu_tests::node::Node;
use vgpu_tests::{Outcome, built};

/// A quarter of nothing in particular.
pub(crate) const QUOTA: u64 = 64 << 20;
/// What a context is charged here.
pub(crate) const FOOTPRINT: u64 = 4 << 20;

const CLIENT: &str = include_str!("client.py");
const SCRIPTED: &str = include_str!("driver.c");

/// The directory, and the simulated node behind it, if any.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) node: Option<Node>,
}

impl World {
    /// In front of these two libraries, without a region.
    pub(crate) fn in_front_of(cuda: &Path, nvml: Option<&Path>) -> Self {
        let dir = TempDir::with_prefix_in("vgpu-limiter.", "/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("driver")).unwrap();
        let limiter = |name: &str| {
            symlink(
                built::file(&format!("lib/vgpu/{name}")),
                dir.path().join(name),
            )
            .unwrap();
        };
        limiter("libcuda.so.1");
        symlink(cuda, dir.path().join("driver/libcuda-driver.so.1")).unwrap();
        if let Some(nvml) = nvml {
            limiter("libnvidia-ml.so.1");
            symlink(nvml, dir.path().join("driver/libnvidia-ml-driver.so.1")).unwrap();
        }
        Self { dir, node: None }
    }

    /// In front of the scripted driver, whose device `i` has a UUID of bytes `i + 1`; device 0 is granted.
    pub(crate) fn scripted() -> Self {
        let build = TempDir::new().unwrap();
        let source = build.path().join("driver.c");
        std::fs::write(&source, SCRIPTED).unwrap();
        let library = build.path().join("libcuda.so.1");
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o"])
            .arg(&library)
            .arg(&source);
        Outcome::of(&mut compile).good();
        let world = Self::in_front_of(&library, None);
        let place = world.dir.path().join("driver/libcuda-driver.so.1");
        std::fs::remove_file(&place).unwrap();
        std::fs::copy(&library, place).unwrap();
        world.grant(&[Self::device([1; 16])]);
        world
    }

    /// In front of the simulated driver, with nothing granted yet.
    pub(crate) fn simulated() -> Self {
        Self::over(Node::up())
    }

    /// In front of the simulated driver of this node, with nothing granted yet.
    pub(crate) fn over(node: Node) -> Self {
        let libraries = node.root().join("usr/lib/x86_64-linux-gnu");
        let world = Self::in_front_of(
            &libraries.join("libcuda.so.1"),
            Some(&libraries.join("libnvidia-ml.so.1")),
        );
        Self {
            node: Some(node),
            ..world
        }
    }

    /// In front of NVIDIA's own libraries; nothing where they cannot be had.
    pub(crate) fn real() -> Option<Self> {
        let folder = built::real_driver()?;
        let world = Self::in_front_of(
            &folder.join("libcuda.so.1"),
            Some(&folder.join("libnvidia-ml.so.1")),
        );
        world.grant(&[Self::device([1; 16])]);
        Some(world)
    }

    /// The usual grant of a device.
    pub(crate) fn device(uuid: [u8; 16]) -> DeviceLimits {
        DeviceLimits {
            uuid,
            capacity: 1 << 37,
            vram_limit: QUOTA,
            context_footprint: FOOTPRINT,
            ..DeviceLimits::default()
        }
    }

    pub(crate) fn region(&self) -> PathBuf {
        self.dir.path().join("region")
    }

    /// Makes the region.
    pub(crate) fn grant(&self, devices: &[DeviceLimits]) {
        std::fs::create_dir(self.region()).unwrap();
        let limits = Limits {
            devices: devices.to_vec(),
            ..Limits::default()
        };
        vgpu_region::create(&self.region(), &limits).unwrap();
    }

    /// A command that finds the limiter by name.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.dir.path());
        command.env("WORLD", self.dir.path());
        command
    }

    /// The client with this program after its preamble.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = self.command(built::python());
        command.arg("-c").arg(format!("{CLIENT}\n{program}"));
        command
    }

    /// Runs the client and answers what it said last.
    pub(crate) fn run(&self, program: &str) -> Value {
        let outcome = Outcome::of(&mut self.client(program));
        assert!(
            outcome.code == 0,
            "client ended with {}: {}",
            outcome.code,
            outcome.stderr
        );
        assert_eq!(outcome.stderr, "", "nothing may be printed");
        let last = outcome.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
    }
}
