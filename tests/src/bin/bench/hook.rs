//! `vgpu-hook v1 create-container` on a prepared rootfs: the whole process, the loader's cache included.
//!
//! The rootfs is the clients' image with everything mounted that the CDI spec asks for, as the runtime leaves it to
//! the hook; fresh for each run, in a mount namespace of our own.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vgpu_tests::node::Node;
use vgpu_tests::{Outcome, built};

/// Asks this program to measure; it is then in its own mount namespace.
pub(crate) const INNER: &str = "_hook";

const RUNS: usize = 100;
const WARM_UP: usize = 3;

pub(crate) fn samples() -> Result<Vec<f64>> {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(env::current_exe()?)
        .arg(INNER)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "the measuring process ended with {} (it needs root)",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("the measuring process printed no samples")
}

pub(crate) fn inner() -> Result<()> {
    let node = Node::up();
    let bundle = Bundle::prepare(&node)?;
    let samples = (0..RUNS + WARM_UP)
        .map(|_| bundle.run())
        .collect::<Result<Vec<f64>>>()?;
    println!(
        "{}",
        serde_json::to_string(samples.get(WARM_UP..).unwrap_or_default())?
    );
    Ok(())
}

/// An OCI bundle whose container has passed `createRuntime`.
struct Bundle {
    folder: PathBuf,
    lower: PathBuf,
    spec: Value,
    state: String,
}

impl Bundle {
    fn prepare(node: &Node) -> Result<Self> {
        // The state of the measured hooks lies beside the node, not in /run.
        let run_dir = node.folder().join("run");
        let mut generate = node.vgpu();
        generate
            .args(["cdi", "generate", "--output", "-", "--run-dir"])
            .arg(run_dir);
        let spec: Value = serde_json::from_str(&Outcome::of(&mut generate).good())?;
        let folder = node.folder().join("bundle");
        fs::create_dir_all(folder.join("rootfs"))?;
        let root = folder.join("rootfs");
        let oci = json!({"ociVersion": "1.0.2", "root": {"path": root}, "process": {"env": ["PATH=/bin"]}});
        fs::write(folder.join("config.json"), oci.to_string())?;
        let state = json!({"ociVersion": "1.0.2", "id": "bench", "status": "creating", "pid": std::process::id(), "bundle": folder});
        let bundle = Self {
            folder,
            lower: clients()?,
            spec,
            state: state.to_string(),
        };
        bundle.hook("createRuntime")?;
        Ok(bundle)
    }

    /// Milliseconds that `createContainer` takes on a rootfs that no hook has seen.
    fn run(&self) -> Result<f64> {
        shell(&self.mount_script()?)?;
        let took = self.hook("createContainer");
        shell(&format!(
            "umount -R {0}/rootfs && rm -rf {0}/upper {0}/work",
            self.folder.display()
        ))?;
        took
    }

    /// What the engine and the runtime do before the hook: the overlay and the spec's mounts.
    fn mount_script(&self) -> Result<String> {
        let folder = self.folder.display();
        let mut script = format!(
            "set -e; mkdir {folder}/upper {folder}/work\n\
             mount -t overlay overlay -o lowerdir={},upperdir={folder}/upper,workdir={folder}/work {folder}/rootfs\n",
            self.lower.display()
        );
        let device = self.device()?;
        let global = self
            .spec
            .pointer("/containerEdits/mounts")
            .and_then(Value::as_array);
        let own = device
            .pointer("/containerEdits/mounts")
            .and_then(Value::as_array);
        for mount in global.into_iter().chain(own).flatten() {
            let (host, inside) = (text(mount, "hostPath")?, text(mount, "containerPath")?);
            let to = format!("{folder}/rootfs{inside}");
            writeln!(
                script,
                "mkdir -p \"$(dirname {to})\"; if [ -d {host} ]; then mkdir -p {to}; else [ -e {to} ] || : > {to}; fi; mount --bind {host} {to}"
            )?;
        }
        Ok(script)
    }

    fn device(&self) -> Result<&Value> {
        let devices = self.spec.get("devices").and_then(Value::as_array);
        devices
            .and_then(|all| {
                all.iter()
                    .find(|d| d.get("name").is_some_and(|n| n == "gpu0-quarter"))
            })
            .context("no gpu0-quarter in the spec")
    }

    /// Runs one hook of the device and answers its milliseconds.
    fn hook(&self, stage: &str) -> Result<f64> {
        let hooks = self
            .device()?
            .pointer("/containerEdits/hooks")
            .and_then(Value::as_array);
        let hook = hooks
            .and_then(|all| {
                all.iter()
                    .find(|h| h.get("hookName").is_some_and(|n| n == stage))
            })
            .with_context(|| format!("no {stage} hook in the spec"))?;
        let args = hook
            .get("args")
            .and_then(Value::as_array)
            .context("a hook without args")?;
        let mut command = Command::new(text(hook, "path")?);
        command
            .args(args.iter().skip(1).filter_map(Value::as_str))
            .env_clear()
            .env("VGPU_HOOK", "1")
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn()?;
        child
            .stdin
            .take()
            .context("a pipe")?
            .write_all(self.state.as_bytes())?;
        let status = child.wait()?;
        let took = start.elapsed();
        ensure!(status.success(), "the {stage} hook ended with {status}");
        Ok(took.as_secs_f64() * 1e3)
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("no {key} in {value}"))
}

/// The unpacked image of the clients.
fn clients() -> Result<PathBuf> {
    let harness = built::project().join("tests/engines/engines.sh");
    Outcome::of(Command::new(&harness).arg("images")).good();
    let folder = Outcome::of(Command::new(&harness).arg("dir")).good();
    let root = Path::new(folder.trim()).join("root/clients");
    ensure!(root.exists(), "no {}", root.display());
    Ok(root)
}

fn shell(script: &str) -> Result<()> {
    let outcome = Outcome::of(Command::new("sh").args(["-c", script]));
    ensure!(outcome.code == 0, "{script}: {}", outcome.stderr);
    Ok(())
}
