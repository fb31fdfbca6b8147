//! A container as a runtime leaves it for its hooks: a bundle, a root file system, an init process in a mount
//! namespace of its own. No engine takes part; real ones are in the engine suites.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "each suite uses its part, and a test that cannot go on stops with the reason"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use vgpu_core::hook_args::{HookArgs, Stage};
use vgpu_core::{Backend, Bytes, Percent, QosClass, Quota};
use vgpu_tests::{Outcome, built};

pub(crate) const GPU0: &str = "GPU-00000000-0000-0000-0000-0000000000a0";
pub(crate) const GPU1: &str = "GPU-00000000-0000-0000-0000-0000000000a1";
pub(crate) const GIB: u64 = 1 << 30;

/// Why the suites of the hook cannot run here; says so, and fails where `CI=true`.
pub(crate) fn skip() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    if root {
        return false;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI=true, and this is not root"
    );
    eprintln!("SKIPPED: hooks mount things, and this is not root");
    true
}

/// A node's run directory and limiter, and the sentinel of what must never change.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) run_dir: PathBuf,
    pub(crate) limiter_dir: PathBuf,
    /// Stands for the host's own files.
    pub(crate) host: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix_in("vgpu-hook.", "/var/tmp").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (limiter_dir, host) = (dir.path().join("limiter"), dir.path().join("host"));
        for folder in [&limiter_dir, &host.join("etc"), &host.join("usr/lib")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(limiter_dir.join("libcuda.so.1"), "limiter cuda").unwrap();
        fs::write(limiter_dir.join("libnvidia-ml.so.1"), "limiter nvml").unwrap();
        fs::write(host.join("etc/shadow"), "root:secret").unwrap();
        fs::write(host.join("usr/lib/libcuda.so.1"), "the host's").unwrap();
        let run_dir = dir.path().join("run/vgpu");
        Self {
            dir,
            run_dir,
            limiter_dir,
            host,
        }
    }

    /// A container with an empty image; `fill` puts files into its root.
    pub(crate) fn container(&self, fill: impl FnOnce(&Path)) -> Container<'_> {
        self.container_in(&["-m"], fill)
    }

    /// As [`World::container`], in these namespaces.
    pub(crate) fn container_in(
        &self,
        namespaces: &[&str],
        fill: impl FnOnce(&Path),
    ) -> Container<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number:04}{}", "c0ffee".repeat(10));
        let bundle = self.dir.path().join(format!("bundle{number}"));
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        fill(&rootfs);
        let config =
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"env":["PATH=/bin"]}}"#;
        fs::write(bundle.join("config.json"), config).unwrap();
        let init = Command::new("unshare")
            .args(namespaces)
            .args(["--propagation", "private", "sleep", "1000"])
            .spawn()
            .unwrap();
        let container = Container {
            world: self,
            id,
            bundle,
            rootfs,
            init,
            root_key: false,
            engine_apart: false,
            own_users: namespaces.contains(&"-Ur"),
        };
        container.wait_for_namespace();
        container
    }

    pub(crate) fn args(&self, device: &str, gpu: &str, vram: u64) -> HookArgs {
        HookArgs {
            gpu_uuid: gpu.parse().unwrap(),
            gpu_capacity: Bytes(100 * GIB),
            quota: Quota::new(Bytes(vram), Percent::new(25).unwrap(), QosClass::Medium),
            backend: Backend::Limiter,
            device: device.to_owned(),
            oversubscription_percent: 100,
            context_footprint: Bytes(512 << 20),
            run_dir: self.run_dir.to_str().unwrap().to_owned(),
            limiter_dir: self.limiter_dir.to_str().unwrap().to_owned(),
        }
    }

    /// File names of the grants.
    pub(crate) fn grants(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.run_dir.join("grants")) else {
            return Vec::new();
        };
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Host mounts below this world.
    pub(crate) fn mounts(&self) -> Vec<String> {
        mounts_below("self", self.dir.path())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mount in self.mounts() {
            Command::new("umount").args(["-l", &mount]).status().ok();
        }
    }
}

pub(crate) struct Container<'a> {
    pub(crate) world: &'a World,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) init: Child,
    /// Whether the state names the root, as crun's does.
    pub(crate) root_key: bool,
    /// Whether its engine runs hooks in a mount namespace other than the host's.
    pub(crate) engine_apart: bool,
    /// Whether it has a user namespace of its own.
    pub(crate) own_users: bool,
}

impl Container<'_> {
    fn wait_for_namespace(&self) {
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let path = format!("/proc/{}/ns/mnt", self.init.id());
        let comm = format!("/proc/{}/comm", self.init.id());
        vgpu_tests::wait_until("the container's namespace", 10, || {
            fs::read_link(&path).is_ok_and(|theirs| theirs != own)
                && fs::read_to_string(&comm).is_ok_and(|c| c.trim() == "sleep")
        });
    }

    pub(crate) fn state(&self, stage: Stage) -> String {
        let (pid, status) = match stage {
            Stage::CreateRuntime => (self.init.id(), "creating"),
            Stage::CreateContainer => (1, "creating"),
            Stage::Poststop => (0, "stopped"),
        };
        let mut state = serde_json::json!({
            "ociVersion": "1.0.2", "id": self.id, "status": status, "pid": pid, "bundle": self.bundle,
        });
        if self.root_key {
            state["root"] = "rootfs".into();
        }
        state.to_string()
    }

    /// Runs one stage as the runtime would: the environment full of traps, the root as working directory.
    pub(crate) fn hook(&self, stage: Stage, args: &HookArgs) -> Outcome {
        let hook = built::file("bin/vgpu-hook");
        let mut command = if stage == Stage::CreateContainer {
            let mut command = Command::new("nsenter");
            command.arg("-t").arg(self.init.id().to_string()).arg("-m");
            if self.own_users {
                command.args(["-U", "--preserve-credentials"]);
            }
            command.arg("--").arg(hook);
            command
        } else if self.engine_apart {
            let mut command = Command::new("unshare");
            command
                .args(["-m", "--propagation", "slave", "--"])
                .arg(hook);
            command
        } else {
            Command::new(hook)
        };
        command.args(&args.to_args(stage)[1..]);
        with_input(&mut command, self.state(stage).as_bytes())
    }

    /// create-runtime and create-container for each device, in the order of a runtime.
    pub(crate) fn start(&self, devices: &[HookArgs]) -> Result<(), String> {
        for stage in [Stage::CreateRuntime, Stage::CreateContainer] {
            for args in devices {
                let outcome = self.hook(stage, args);
                if outcome.code != 0 {
                    return Err(outcome.stderr);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.init.kill().unwrap();
        self.init.wait().unwrap();
    }

    /// A path below the root as the container would see it.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        let rootfs = self.rootfs.strip_prefix("/").unwrap();
        Path::new("/proc")
            .join(self.init.id().to_string())
            .join("root")
            .join(rootfs)
            .join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.inside(path);
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Mount points of the container below its root.
    pub(crate) fn mounts(&self) -> Vec<String> {
        mounts_below(&self.init.id().to_string(), &self.rootfs)
    }

    /// Mount options of one of them.
    pub(crate) fn mount_options(&self, path: &str) -> String {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.init.id())).unwrap();
        let point: PathBuf = self.rootfs.join(path).components().collect();
        let line = table
            .lines()
            .rev()
            .find(|l| l.split(' ').nth(4) == point.to_str());
        line.unwrap_or_else(|| panic!("{} is no mount", point.display()))
            .split(' ')
            .nth(5)
            .unwrap()
            .to_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.init.kill().ok();
        self.init.wait().ok();
    }
}

fn mounts_below(process: &str, folder: &Path) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4));
    points
        .filter(|p| Path::new(p).starts_with(folder))
        .map(str::to_owned)
        .collect()
}

/// Runs a command with something on its standard input and an environment that an image could have set.
pub(crate) fn with_input(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = command
        .env_clear()
        .envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("VGPU_RUN_DIR", "/nowhere"),
            ("RUST_BACKTRACE", "full"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A hook that refuses its arguments does not read.
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Everything about a tree that a stray write would change.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let mut text = format!(
            "{:o} {} {} {}.{}",
            data.mode(),
            data.uid(),
            data.size(),
            data.mtime(),
            data.mtime_nsec()
        );
        if data.is_file() {
            text.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        } else if data.is_symlink() {
            text.push_str(&fs::read_link(&path).unwrap().to_string_lossy());
        } else if data.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        out.insert(path, text);
    }
    out
}

/// Exactly one line, from the hook.
#[track_caller]
pub(crate) fn one_line(stderr: &str) -> &str {
    assert!(
        stderr.ends_with('\n') && stderr.matches('\n').count() == 1,
        "not one line: {stderr:?}"
    );
    stderr
        .trim_end()
        .strip_prefix("vgpu-hook: ")
        .unwrap_or_else(|| panic!("not the hook's: {stderr:?}"))
}
