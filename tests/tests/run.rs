//! `vgpu run`: a plain process believes in its slice, is stopped at it, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on stops with the reason"
)]

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use vgpu_tests::node::Node;
    use vgpu_tests::{Outcome, built, wait_until};

    /// Opens CUDA by name, takes a context, then memory until it is refused; prints what it saw.
    const CLIENT: &str = r#"
import ctypes, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
device, total, context, pointer = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_void_p(), ctypes.c_uint64()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
step, taken = 64 << 20, 0
while (code := cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(step))) == 0:
    taken += step
print(total.value >> 20, taken >> 20, code, flush=True)
if len(sys.argv) > 1:
    time.sleep(float(sys.argv[1]))
"#;

    fn run(node: &Node, args: &[&str]) -> Command {
        let mut command = node.vgpu();
        command.arg("run").args(args);
        command
    }

    fn client(node: &Node, args: &[&str]) -> Command {
        let mut command = run(node, args);
        command.arg("--").arg(built::python()).args(["-c", CLIENT]);
        command
    }

    /// The folders of runs that name this limiter, so that tests beside this one do not count.
    fn folders(limiter: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir("/dev/shm")
            .unwrap()
            .filter_map(Result::ok);
        let paths = entries.map(|e| e.path());
        paths
            .filter(|p| {
                std::fs::read_link(p.join("libcuda.so.1")).is_ok_and(|l| l.starts_with(limiter))
            })
            .collect()
    }

    /// The limiter under a name of this test's own.
    fn own_limiter(node: &Node) -> PathBuf {
        let folder = node.folder().join("limiter");
        std::fs::create_dir(&folder).unwrap();
        for file in ["libcuda.so.1", "libnvidia-ml.so.1"] {
            std::fs::copy(built::file(&format!("lib/vgpu/{file}")), folder.join(file)).unwrap();
        }
        folder
    }

    #[test]
    fn a_process_sees_its_slice_and_is_stopped_at_it() {
        let node = Node::up();
        let limiter = own_limiter(&node);
        let flag = limiter.to_str().unwrap();
        // 4 GiB less one context of 512 MiB, in steps of 64 MiB.
        let seen = Outcome::of(&mut client(
            &node,
            &["--vram", "4Gi", "--limiter-dir", flag],
        ))
        .good();
        assert_eq!(seen.trim(), "4096 3584 2");
        let seen = Outcome::of(&mut client(&node, &["--vram", "2Gi", "--gpu", "1"])).good();
        assert_eq!(
            seen.trim(),
            "2048 1536 2",
            "the second GPU is the process's first"
        );
        assert!(folders(&limiter).is_empty());
    }

    #[test]
    fn a_share_of_compute_is_said_not_to_be_enforced_once() {
        let node = Node::up();
        let outcome = Outcome::of(run(&node, &["--vram=4Gi", "--compute=25"]).args(["--", "true"]));
        assert_eq!(
            outcome.stderr,
            "vgpu: a compute share of 25% is noted, but not enforced yet\n"
        );
        assert_eq!(outcome.code, 0);
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        let node = Node::up();
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("kill -9 $$", 137),
            ("kill -15 $$", 143),
        ] {
            let outcome = Outcome::of(run(&node, &["--vram=4Gi"]).args(["--", "sh", "-c", script]));
            assert_eq!(
                (outcome.code, outcome.stderr.as_str()),
                (code, ""),
                "{script}"
            );
        }
    }

    #[test]
    fn a_signal_goes_to_the_command_and_the_folder_goes_away() {
        let node = Node::up();
        let limiter = own_limiter(&node);
        let flag = limiter.to_str().unwrap();
        let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done";
        let mut vgpu = run(&node, &["--vram=4Gi", "--limiter-dir", flag])
            .args(["--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        vgpu.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(folders(&limiter).len(), 1);
        let pid = vgpu.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(vgpu.wait().unwrap().code(), Some(42));
        assert!(folders(&limiter).is_empty());
    }

    #[test]
    fn a_killed_command_gives_its_memory_back() {
        let node = Node::up();
        let script = r#""$@" 60 & while [ ! -s "$OUT" ]; do sleep 0.05; done; kill -9 $!; wait $! 2>/dev/null; exec "$@""#;
        let out = node.folder().join("out");
        let script = script.replace("\"$@\" 60", "\"$@\" 60 >\"$OUT\"");
        let mut command = run(&node, &["--vram", "4Gi"]);
        command
            .env("OUT", &out)
            .args(["--", "sh", "-c", &script, "sh"]);
        command.arg(built::python()).args(["-c", CLIENT]);
        let seen = Outcome::of(&mut command).good();
        assert_eq!(std::fs::read_to_string(&out).unwrap().trim(), "4096 3584 2");
        assert_eq!(seen.trim(), "4096 3584 2");
    }

    #[test]
    fn what_cannot_be_is_one_line() {
        let node = Node::up();
        let bad = |args: &[&str]| {
            let outcome = Outcome::of(run(&node, args).args(["--", "true"]));
            assert_eq!(
                outcome.stderr.matches('\n').count(),
                1,
                "{}",
                outcome.stderr
            );
            (outcome.code, outcome.stderr)
        };
        for (args, code, expected) in [
            (
                &["--vram=400Gi"][..],
                5,
                "a VRAM limit of 400 GiB is more than GPU 0 (",
            ),
            (
                &["--vram=4Gi", "--gpu=7"],
                2,
                "no GPU 7: this node has 0 (GPU-",
            ),
            (&["--vram=4Gi", "--gpu=one"], 2, "an index such as 0"),
            (&["--vram=4Q"], 2, "\"4Q\" at character 2"),
            (&["--vram=0"], 2, "a VRAM limit of 0 bytes"),
            (&["--vram=4Gi", "--compute=130"], 2, "from 0 to 100"),
            (
                &["--vram=4Gi", "--limiter-dir=/nonexistent"],
                1,
                "no limiter at /nonexistent/libcuda.so.1",
            ),
            (
                &["--vram=4Gi", "--driver-root=/nonexistent"],
                4,
                "no NVIDIA driver under /nonexistent",
            ),
            (&[], 2, "--vram <SIZE>"),
        ] {
            let (found, line) = bad(args);
            assert_eq!(found, code, "{line}");
            assert!(line.contains(expected), "{line}");
        }
        let outcome = Outcome::of(run(&node, &["--vram=4Gi"]).args(["--", "/nonexistent"]));
        assert_eq!(
            outcome.stderr,
            "vgpu: cannot start /nonexistent: No such file or directory (os error 2)\n"
        );
    }

    #[test]
    fn other_limiters_variables_are_inputs() {
        let node = Node::up();
        let hami = ("CUDA_DEVICE_MEMORY_LIMIT", "4g");
        let fusion = ("TENSOR_FUSION_CUDA_MEM_LIMIT", "4294967296");
        for set in [&[hami][..], &[fusion], &[hami, fusion]] {
            let mut command = client(&node, &[]);
            let seen = Outcome::of(command.envs(set.iter().copied())).good();
            assert_eq!(seen.trim(), "4096 3584 2", "{set:?}");
        }
        // A flag wins, also over what cannot be read.
        let mut command = client(&node, &["--vram=2Gi"]);
        command.env("CUDA_DEVICE_MEMORY_LIMIT", "lots");
        assert_eq!(Outcome::of(&mut command).good().trim(), "2048 1536 2");
        let mut command = client(&node, &["--gpu=1"]);
        command.envs([hami, ("CUDA_DEVICE_MEMORY_LIMIT_1", "2048m")]);
        assert_eq!(Outcome::of(&mut command).good().trim(), "2048 1536 2");

        // The command does not see them.
        let mut command = run(&node, &[]);
        command.envs([hami, ("CUDA_DEVICE_SM_LIMIT", "30")]);
        let outcome = Outcome::of(command.args(["--", "env"]));
        assert!(!outcome.stdout.contains("CUDA_DEVICE_"), "{outcome:?}");
        assert!(outcome.stderr.contains("share of 30% is noted"));

        for (value, expected) in [
            (
                "3g",
                "CUDA_DEVICE_MEMORY_LIMIT=3g and TENSOR_FUSION_CUDA_MEM_LIMIT=4294967296 disagree",
            ),
            (
                "lots",
                "CUDA_DEVICE_MEMORY_LIMIT is \"lots\": expected bytes, or",
            ),
        ] {
            let mut command = run(&node, &[]);
            command.envs([("CUDA_DEVICE_MEMORY_LIMIT", value), fusion]);
            let outcome = Outcome::of(command.args(["--", "true"]));
            assert_eq!(outcome.code, 2);
            assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        }
    }

    #[test]
    fn runs_beside_each_other_have_their_own_slices() {
        let node = Node::up();
        let mut first = client(&node, &["--vram", "4Gi"]);
        let mut first = first.arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = first.stdout.take().unwrap();
        let mut text = String::new();
        wait_until("the first client's line", 20, || {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
            text.ends_with('\n')
        });
        let second = Outcome::of(&mut client(&node, &["--vram", "2Gi"])).good();
        assert_eq!((text.trim(), second.trim()), ("4096 3584 2", "2048 1536 2"));
        Command::new("kill")
            .arg(first.id().to_string())
            .status()
            .unwrap();
        assert_eq!(first.wait().unwrap().code(), Some(143));
    }
}
