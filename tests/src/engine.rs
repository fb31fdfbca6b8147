//! A real engine with a simulated node: `tests/engines/engines.sh` from Rust, stopped by `Drop`.
//!
//! Each instance has its own namespaces, storage, `/etc/cdi` and `/run/vgpu`, so tests run side by side.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::node::Node;
use crate::{Outcome, built, wait_until};

/// The image with Python and the unmodified clients.
pub const CLIENTS: &str = "localhost/clients:1";
/// The image with a static shell and no loader.
pub const BUSYBOX: &str = "localhost/busybox:1";

static INSTANCES: AtomicU32 = AtomicU32::new(0);

/// A running podman whose `/etc/cdi` offers the vGPUs of a node.
#[derive(Debug)]
pub struct Podman {
    name: String,
    images: String,
    /// The node behind it.
    pub node: Node,
}

impl Podman {
    /// Starts podman over the default node; nothing where this machine cannot run containers, which fails the test
    /// when `CI=true`.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::over(Node::up)
    }

    /// Starts podman over the node that `node` brings up.
    #[must_use]
    pub fn over(node: impl FnOnce() -> Node) -> Option<Self> {
        if let Some(reason) = cannot_run() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI=true, and {reason}"
            );
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        harness("", &["install", "podman"]).good();
        harness("", &["images"]).good();
        let name = format!(
            "t{}-{}",
            std::process::id(),
            INSTANCES.fetch_add(1, Ordering::Relaxed)
        );
        let engines = harness("", &["dir"]).good();
        let images = format!("{}/img", engines.trim());
        let engine = Self {
            name,
            images,
            node: node(),
        };
        engine.bring_up();
        Some(engine)
    }

    fn bring_up(&self) {
        let spec = self.node.spec();
        let bind = format!(
            "{}:{}:{}",
            built::dist().display(),
            self.node.folder().display(),
            built::project().join("tests/demo/clients").display()
        );
        let mut start = harness_command(&self.name, &["start", "podman"]);
        Outcome::of(start.env("ENGINES_BIND", bind)).good();
        self.inside(&["cp", &spec.to_string_lossy(), "/etc/cdi/vgpu.json"])
            .good();
        for image in ["clients", "busybox"] {
            self.podman(&["load", "-q", "-i", &format!("{}/{image}.tar", self.images)])
                .good();
        }
    }

    /// A command in the engine's namespaces, where `/run/vgpu` and `/etc/cdi` are those that the engine sees.
    #[must_use]
    pub fn inside(&self, command: &[&str]) -> Outcome {
        let mut args = vec!["exec", "podman"];
        args.extend(command);
        harness(&self.name, &args)
    }

    /// A podman command.
    #[must_use]
    pub fn podman(&self, args: &[&str]) -> Outcome {
        let mut command = vec!["podman", "--log-level=error"];
        command.extend(args);
        self.inside(&command)
    }

    /// `podman run` with a vGPU; `args` are further options, the image and its command.
    #[must_use]
    pub fn run(&self, vgpu: &str, args: &[&str]) -> Outcome {
        let device = format!("--device=tensor-fusion.ai/vgpu={vgpu}");
        let clients = format!(
            "-v={}:/clients:ro",
            built::project().join("tests/demo/clients").display()
        );
        let mut command = vec!["run", &device, &clients];
        command.extend(args);
        self.podman(&command)
    }

    /// Starts a container that only waits, and answers once it runs.
    #[track_caller]
    pub fn idle(&self, name: &str, vgpu: &str) {
        self.run(vgpu, &["-d", "--name", name, CLIENTS, "sleep", "3600"])
            .good();
    }

    /// Runs the CUDA client in a running container and reads its line.
    #[track_caller]
    #[must_use]
    pub fn client(&self, container: &str, args: &[&str]) -> Value {
        let mut command = vec!["exec", container, "python3", "/clients/cuda_client.py"];
        command.extend(args);
        parse(&self.podman(&command).good())
    }

    /// Starts the CUDA client in a running container, waits until it holds all it gets, and reads its line.
    #[track_caller]
    #[must_use]
    pub fn holding_client(&self, container: &str) -> Value {
        let script = "python3 /clients/cuda_client.py --hold > /tmp/line 2> /tmp/errors";
        self.podman(&["exec", "-d", container, "sh", "-c", script])
            .good();
        let mut line = String::new();
        wait_until("the client's line", 120, || {
            line = self
                .podman(&["exec", container, "cat", "/tmp/line", "/tmp/errors"])
                .stdout;
            line.ends_with('\n')
        });
        parse(&line)
    }

    /// `vgpu ps` as root of the engine's machine would type it.
    #[must_use]
    pub fn ps(&self) -> String {
        self.inside(&[&built::file("bin/vgpu").to_string_lossy(), "ps"])
            .good()
    }

    /// The quota of a vGPU as the spec's hook arguments carry it.
    #[track_caller]
    #[must_use]
    pub fn quota(&self, vgpu: &str) -> u64 {
        let text = fs::read_to_string(self.node.folder().join("vgpu.json")).expect("the spec");
        let spec: Value = serde_json::from_str(&text).expect("the spec is JSON");
        let devices = spec["devices"].as_array().expect("devices");
        let device = devices
            .iter()
            .find(|d| d["name"] == vgpu)
            .unwrap_or_else(|| panic!("no {vgpu} in the spec"));
        let args = device["containerEdits"]["hooks"][0]["args"]
            .as_array()
            .expect("arguments");
        args.iter()
            .find_map(|a| a.as_str()?.strip_prefix("--vram-limit=")?.parse().ok())
            .unwrap_or_else(|| panic!("no --vram-limit among {args:?}"))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let outcome = harness(&self.name, &["stop", "podman"]);
        if outcome.code != 0 {
            eprintln!("engine {} did not stop: {}", self.name, outcome.stderr);
        }
    }
}

/// Reads a client's line.
#[track_caller]
#[must_use]
pub fn parse(text: &str) -> Value {
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn cannot_run() -> Option<&'static str> {
    let root = Outcome::of(Command::new("id").arg("-u")).stdout.trim() == "0";
    let unshare = || {
        Outcome::of(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])).code == 0
    };
    match root {
        false => Some("containers need root here"),
        true if !unshare() => Some("this machine refuses namespaces"),
        true => None,
    }
}

fn harness_command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(built::project().join("tests/engines/engines.sh"));
    command.args(args);
    if !name.is_empty() {
        command.env("ENGINES_NAME", name);
    }
    command
}

fn harness(name: &str, args: &[&str]) -> Outcome {
    Outcome::of(&mut harness_command(name, args))
}
