//! `vgpu set`: running processes obey a new quota at once, and what does not fit is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on stops with the reason"
)]

mod hook_world;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
    use std::time::Duration;

    use serde_json::Value;
    use vgpu_tests::node::Node;
    use vgpu_tests::{Outcome, built};

    use super::hook_world::*;

    /// Obeys one word a line, and answers how many MiB it holds.
    const CLIENT: &str = r#"
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, held, step = ctypes.c_int(), ctypes.c_void_p(), [], 64 << 20
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
def take():
    pointer = ctypes.c_uint64()
    code = cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(step))
    assert code in (0, 2), code
    if code == 0:
        held.append(pointer)
    return code == 0
for line in sys.stdin:
    word = line.strip()
    if word == "fill":
        while take(): pass
    elif word == "take":
        take()
    elif word == "free":
        assert cuda.cuMemFree_v2(held.pop()) == 0
    print(len(held) * 64, flush=True)
"#;

    /// A process of the container, as far as the limiter can tell: it has the container's region.
    struct Client {
        child: Child,
        stdin: ChildStdin,
        stdout: BufReader<ChildStdout>,
    }

    impl Client {
        fn start(node: &Node, region: &Path) -> Self {
            let folder = node.folder().join("front");
            fs::create_dir_all(folder.join("driver")).unwrap();
            let libraries = node.root().join("usr/lib/x86_64-linux-gnu");
            for (from, to) in [
                (built::file("lib/vgpu/libcuda.so.1"), "libcuda.so.1"),
                (libraries.join("libcuda.so.1"), "driver/libcuda-driver.so.1"),
                (region.to_owned(), "region"),
            ] {
                symlink(from, folder.join(to)).unwrap();
            }
            let mut child = Command::new(built::python())
                .args(["-c", CLIENT])
                .env("LD_LIBRARY_PATH", folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            Self {
                stdin: child.stdin.take().unwrap(),
                stdout: BufReader::new(child.stdout.take().unwrap()),
                child,
            }
        }

        fn say(&mut self, word: &str) {
            writeln!(self.stdin, "{word}").unwrap();
        }

        fn hear(&mut self) -> u64 {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            line.trim()
                .parse()
                .unwrap_or_else(|_| panic!("the client said {line:?}"))
        }

        fn ask(&mut self, word: &str) -> u64 {
            self.say(word);
            self.hear()
        }
    }

    impl Drop for Client {
        fn drop(&mut self) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }

    fn set(world: &World, args: &[&str]) -> Command {
        let mut command = Command::new(built::file("bin/vgpu"));
        command
            .arg("set")
            .arg("--run-dir")
            .arg(&world.run_dir)
            .args(args);
        command
    }

    fn key_of(world: &World, id: &str) -> String {
        let grants = world.grants();
        let is = |name: &&String| grant(world, name)["container_id"] == id;
        grants.iter().find(is).unwrap().clone()
    }

    fn grant(world: &World, file: &str) -> Value {
        let text = fs::read_to_string(world.run_dir.join("grants").join(file)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn region(world: &World, id: &str) -> PathBuf {
        let key = key_of(world, id);
        let key = key.strip_suffix(".json").unwrap();
        world.run_dir.join("containers").join(key).join("region")
    }

    fn page_limit(region: &Path) -> Option<u64> {
        let limits = vgpu_region::read_limits(region).ok()?;
        Some(limits.devices[0].vram_limit)
    }

    #[test]
    fn running_processes_obey_at_once() {
        if skip() {
            return;
        }
        let node = Node::described(&format!("[[gpus]]\nuuid = \"{GPU0}\"\n"));
        let world = World::new();
        let container = world.container(|_| ());
        container
            .start(&[world.args("gpu0-small", GPU0, GIB)])
            .unwrap();
        let id = &container.id[..12];
        let mut client = Client::start(&node, &region(&world, &container.id));
        // A context is charged 512 MiB.
        assert_eq!(client.ask("fill"), 512);

        assert_eq!(client.ask("take"), 512, "refused");
        let line = Outcome::of(&mut set(&world, &[id, "--vram=2Gi", "--compute=40"])).good();
        // The very next charge obeys: no delay is allowed, so none needs to be measured.
        assert_eq!(client.ask("take"), 576);
        let what = "vram 1 GiB -> 2 GiB, compute 25% -> 40% (not enforced yet)";
        assert_eq!(line, format!("{id} gpu0-small on {GPU0}: {what}\n"));
        assert_eq!(client.ask("fill"), 1536);

        // Below what is used only by force, and nobody is disturbed by the refusal.
        let refused = Outcome::of(&mut set(&world, &[id, "--vram=1Gi"]));
        assert_eq!(refused.code, 5);
        let why = format!(
            "vgpu: container {id} uses 2 GiB on {GPU0}, more than the 1 GiB that it would have: let it free some, or give --force\n"
        );
        assert_eq!(refused.stderr, why);
        assert_eq!((client.ask("free"), client.ask("fill")), (1472, 1536));
        Outcome::of(&mut set(&world, &[id, "--vram=1Gi", "--force"])).good();
        assert_eq!((client.ask("free"), client.ask("fill")), (1472, 1472));
        for _ in 0..15 {
            client.ask("free");
        }
        assert_eq!(client.ask("fill"), 512);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        if skip() {
            return;
        }
        let world = World::new();
        let (one, two) = (world.container(|_| ()), world.container(|_| ()));
        one.start(&[
            world.args("a", GPU0, 30 * GIB),
            world.args("b", GPU1, 20 * GIB),
        ])
        .unwrap();
        two.start(&[world.args("c", GPU0, 40 * GIB)]).unwrap();
        let before: Vec<Value> = world.grants().iter().map(|f| grant(&world, f)).collect();
        let (first, second) = (&one.id[..12], &two.id[..12]);
        for (args, code, expected) in [
            (
                &[second, "--vram=71Gi"][..],
                5,
                format!(
                    "no room on {GPU0} for c: it asks 71 GiB, 70 GiB of 100 GiB is left; held by {first} (a, 30 GiB)"
                ),
            ),
            (
                &[second, "--vram=101Gi"],
                5,
                format!("c allows 101 GiB on {GPU0}, which has 100 GiB"),
            ),
            (&[second, "--vram=0"], 2, "a VRAM limit of 0 bytes".into()),
            (&[second, "--compute=101"], 2, "from 0 to 100".into()),
            (&[second], 2, "nothing to set: give --vram".into()),
            (
                &[first, "--vram=1Gi"],
                2,
                format!("container {first} has a, b: name one of them with --device"),
            ),
            (
                &[first, "--device=c", "--vram=1Gi"],
                2,
                format!("container {first} has a, b"),
            ),
            (
                &["nobody", "--vram=1Gi"],
                2,
                "no running container nobody has a vGPU: there are".into(),
            ),
        ] {
            let outcome = Outcome::of(&mut set(&world, args));
            assert_eq!(outcome.code, code, "{args:?} {}", outcome.stderr);
            assert_eq!(outcome.stderr.matches('\n').count(), 1);
            assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
        }
        let after: Vec<Value> = world.grants().iter().map(|f| grant(&world, f)).collect();
        assert_eq!(after, before);
        assert_eq!(page_limit(&region(&world, &two.id)), Some(40 * GIB));
    }

    #[test]
    fn one_vgpu_of_several_is_named_and_json_says_both_states() {
        if skip() {
            return;
        }
        let world = World::new();
        let (one, two) = (world.container(|_| ()), world.container(|_| ()));
        one.start(&[
            world.args("a", GPU0, 30 * GIB),
            world.args("b", GPU1, 20 * GIB),
        ])
        .unwrap();
        two.start(&[world.args("c", GPU0, GIB)]).unwrap();
        let first = &one.id[..12];

        let json = Outcome::of(&mut set(
            &world,
            &[first, "--device=b", "--vram=100Gi", "--qos=high", "--json"],
        ))
        .good();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["container_id"], *one.id);
        assert_eq!(json["before"]["vram_limit_bytes"], 20 * GIB);
        assert_eq!(json["after"]["vram_limit_bytes"], 100 * GIB);
        assert_eq!(json["after"]["qos"], "high");
        let outcome = Outcome::of(&mut set(&world, &["--vram=1Gi", "00"]));
        assert!(
            outcome.stderr.contains("give more of its id"),
            "{outcome:?}"
        );
    }

    #[test]
    fn two_at_once_never_get_more_than_there_is() {
        if skip() {
            return;
        }
        let world = World::new();
        let (one, two) = (world.container(|_| ()), world.container(|_| ()));
        for container in [&one, &two] {
            container.start(&[world.args("a", GPU0, 40 * GIB)]).unwrap();
        }
        for _ in 0..10 {
            let start = |id: &str| {
                let mut command = set(&world, &[id, "--vram=60Gi"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().unwrap()
            };
            let children = [start(&one.id), start(&two.id)];
            let good = children.map(|mut child| child.wait().unwrap().success());
            assert_ne!(good[0], good[1]);
            let winner = if good[0] { &one.id } else { &two.id };
            Outcome::of(&mut set(&world, &[winner, "--vram=40Gi"])).good();
        }
    }

    #[test]
    fn a_kill_while_it_records_finds_nothing_more_allowed() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        container.start(&[world.args("a", GPU0, 2 * GIB)]).unwrap();
        let file = key_of(&world, &container.id);
        let region = region(&world, &container.id);
        let recorded =
            || grant(&world, &file)["devices"][format!("a@{GPU0}")]["vram_limit_bytes"].as_u64();
        // The kernel ends it with SIGXFSZ at the first byte of the new record; the page is mapped, and not counted.
        let killed = |size: &str| {
            let vgpu = set(&world, &[&container.id, size]);
            let mut command = Command::new("prlimit");
            command.args(["--fsize=0", "--core=0", "--"]);
            command.arg(vgpu.get_program()).args(vgpu.get_args());
            let signal = command.stdout(Stdio::null()).status().unwrap().signal();
            assert_eq!(signal, Some(libc::SIGXFSZ));
        };
        killed("--vram=3Gi");
        assert_eq!(
            (page_limit(&region), recorded()),
            (Some(2 * GIB), Some(2 * GIB)),
            "what grows is recorded before it is allowed"
        );
        killed("--vram=1Gi");
        assert_eq!(
            (page_limit(&region), recorded()),
            (Some(GIB), Some(2 * GIB)),
            "what shrinks is forbidden before it is given away"
        );
        for size in [2, 3] {
            let arg = format!("--vram={size}Gi");
            Outcome::of(&mut set(&world, &[&container.id, &arg])).good();
            assert_eq!(page_limit(&region), Some(size * GIB));
            assert_eq!(recorded(), Some(size * GIB));
        }
    }

    #[test]
    fn a_kill_at_any_moment_leaves_no_more_than_is_recorded() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        container.start(&[world.args("a", GPU0, GIB)]).unwrap();
        let file = key_of(&world, &container.id);
        let region = region(&world, &container.id);
        for round in 0..80_u64 {
            let size = if round % 2 == 0 {
                "--vram=2Gi"
            } else {
                "--vram=1Gi"
            };
            let mut child = set(&world, &[&container.id, size])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(round * 150));
            child.kill().unwrap();
            child.wait().unwrap();
            let recorded =
                grant(&world, &file)["devices"][format!("a@{GPU0}")]["vram_limit_bytes"].as_u64();
            // A page that is half written is not read; the next writer mends it.
            if let Some(allowed) = page_limit(&region) {
                assert!(Some(allowed) <= recorded, "{allowed} {recorded:?}");
            }
        }
        Outcome::of(&mut set(&world, &[&container.id, "--vram=3Gi"])).good();
        assert_eq!(page_limit(&region), Some(3 * GIB));
    }
}
