//! The command line: a node comes up, is looked at and goes without a trace; mistakes are told in one line.
#![allow(clippy::unwrap_used, reason = "a test stops with the reason")]

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use sim_gpu::client::{Kind, Node};
    use sim_gpu::root::{LIB_DIR, PID_FILE};
    use tempfile::TempDir;

    /// A folder with stand-ins for the two libraries, and room for a node.
    struct World(TempDir);

    impl World {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            fs::create_dir(folder.path().join("lib")).unwrap();
            for name in ["libsim_cuda.so", "libsim_nvidia_ml.so"] {
                fs::write(folder.path().join("lib").join(name), name).unwrap();
            }
            Self(folder)
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("node")
        }

        fn sim_gpu(&self, verb: &str, more: &[&OsStr]) -> Output {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sim-gpu"));
            command
                .arg(verb)
                .arg("--root")
                .arg(self.root())
                .args(more)
                .output()
                .unwrap()
        }

        fn up(&self, more: &[&OsStr]) -> Output {
            let lib = self.0.path().join("lib");
            let mut arguments = vec![OsStr::new("--lib-dir"), lib.as_os_str()];
            arguments.extend(more);
            self.sim_gpu("up", &arguments)
        }

        /// `up` with a node description.
        fn described(&self, text: &str) -> Output {
            let file = self.0.path().join("node.toml");
            fs::write(&file, text).unwrap();
            self.up(&[OsStr::new("--config"), file.as_os_str()])
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.sim_gpu("down", &[]);
        }
    }

    #[track_caller]
    fn good(output: Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line that a refused command says.
    #[track_caller]
    fn refused(output: Output) -> String {
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    #[test]
    fn a_node_comes_and_goes_without_a_trace() {
        let world = World::new();
        let said = good(world.up(&[]));
        assert!(
            said.contains("2 GPUs") && said.contains("/dev/nvidia1"),
            "{said}"
        );
        let lib = world.root().join(LIB_DIR);
        let link = |name: &str| fs::read_link(lib.join(name)).unwrap();
        assert_eq!(link("libcuda.so"), Path::new("libcuda.so.1"));
        assert_eq!(link("libcuda.so.1"), Path::new("libcuda.so.580.95.05"));
        assert_eq!(
            fs::read(lib.join("libnvidia-ml.so.1")).unwrap(),
            b"libsim_nvidia_ml.so"
        );
        let node = fs::metadata(world.root().join("dev/nvidia0")).unwrap();
        assert!(node.file_type().is_char_device() || node.file_type().is_fifo());
        assert_eq!(node.permissions().mode() & 0o777, 0o666);
        good(world.sim_gpu("down", &[]));
        assert!(!world.root().exists());
    }

    #[test]
    fn status_shows_who_holds_what() {
        let world = World::new();
        good(world.up(&[]));
        let client = Node::connect(&world.root(), Kind::Cuda).unwrap();
        client.context_add(1).unwrap();
        client.alloc(1, 1 << 30).unwrap();
        let text = good(world.sim_gpu("status", &[OsStr::new("--json")]));
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let own = &status["clients"][0];
        assert_eq!(own["pid"], std::process::id());
        assert_eq!(own["gpus"][0]["bytes"], (1_u64 << 30) + (512 << 20));
        assert_eq!(status["gpus"][1]["used_bytes"], (1_u64 << 30) + (512 << 20));
        assert_eq!(status["gpus"][0]["used_bytes"], 0);
        assert!(good(world.sim_gpu("status", &[])).contains("1536 MiB, 1 contexts"));
    }

    #[test]
    fn a_second_node_at_one_root_is_refused() {
        let world = World::new();
        good(world.up(&[]));
        let said = refused(world.up(&[]));
        assert!(
            said.contains("already (pid ") && said.contains("sim-gpu down"),
            "{said}"
        );
        good(world.sim_gpu("status", &[]));
    }

    #[test]
    fn what_a_killed_node_left_is_replaced() {
        let world = World::new();
        good(world.up(&[]));
        let pid = fs::read_to_string(world.root().join(PID_FILE)).unwrap();
        assert!(
            Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap()
                .success()
        );
        while Node::connect(&world.root(), Kind::Viewer).is_ok() {
            std::thread::yield_now();
        }
        refused(world.sim_gpu("status", &[]));
        good(world.described("count = 3"));
        assert!(good(world.sim_gpu("status", &[])).contains("GPU 2"));
    }

    #[test]
    fn files_of_others_are_neither_replaced_nor_removed() {
        let world = World::new();
        let theirs = world.root().join("usr/bin/nvidia-smi");
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "theirs").unwrap();
        let said = refused(world.up(&[]));
        assert!(said.contains("usr/bin/nvidia-smi exists already"), "{said}");
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
        let left: Vec<_> = fs::read_dir(world.root()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        let world = World::new();
        let unknown = refused(world.described("\nvram = 3"));
        assert!(
            unknown.contains("line 2, `vram = 3`: unknown field"),
            "{unknown}"
        );
        let wrong = refused(world.described("[[gpus]]\nuuid = \"7\""));
        assert!(
            wrong.contains("gpus[0].uuid = \"7\": expected GPU-"),
            "{wrong}"
        );
        let absent = refused(world.up(&[OsStr::new("--config"), OsStr::new("/nowhere")]));
        assert!(absent.contains("cannot read /nowhere"), "{absent}");
        let unbuilt = refused(world.sim_gpu("up", &["--lib-dir", "/nowhere"].map(OsStr::new)));
        assert!(
            unbuilt.contains("no libsim_cuda.so in /nowhere"),
            "{unbuilt}"
        );
        let down = refused(world.sim_gpu("status", &[]));
        assert!(down.contains("no node is up at"), "{down}");
        assert!(good(world.sim_gpu("down", &[])).contains("no node at"));
        assert!(!world.root().exists());
    }
}
