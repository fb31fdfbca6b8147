//! `vgpu cdi` and `vgpu devices` from outside, over a simulated node.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on stops with the reason"
)]

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::process::Command;

    use serde_json::Value;
    use vgpu_core::HookArgs;
    use vgpu_tests::node::Node;
    use vgpu_tests::{Outcome, built};

    fn run(command: &mut Command, args: &[&str]) -> Outcome {
        Outcome::of(command.args(args))
    }

    /// The output of `vgpu` with these arguments, as JSON.
    #[track_caller]
    fn json(node: &Node, args: &[&str]) -> Value {
        serde_json::from_str(&run(&mut node.vgpu(), args).good()).unwrap()
    }

    fn names(spec: &Value) -> Vec<&str> {
        spec["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["name"].as_str().unwrap())
            .collect()
    }

    #[track_caller]
    fn device<'a>(spec: &'a Value, name: &str) -> &'a Value {
        let devices = spec["devices"].as_array().unwrap();
        devices
            .iter()
            .find(|device| device["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// The hook arguments of a device, each of its hooks once.
    fn hook_args(device: &Value) -> Vec<HookArgs> {
        let hooks = device["containerEdits"]["hooks"].as_array().unwrap();
        let parse = |hook: &Value| {
            let args: Vec<String> = serde_json::from_value(hook["args"].clone()).unwrap();
            HookArgs::parse(&args).unwrap().1
        };
        hooks.iter().map(parse).collect()
    }

    const MIXED: &str = "[[gpus]]\nname = \"NVIDIA H200\"\nminor = 1\n[[gpus]]\nname = \"NVIDIA L4\"\nvram_mib = 23034\nminor = 0\n";

    #[test]
    fn a_node_is_offered_whole_and_in_parts() {
        let node = Node::described(MIXED);
        let spec = json(
            &node,
            &["cdi", "generate", "--output", "-", "--device-name", "index"],
        );
        assert_eq!(spec["kind"], "tensor-fusion.ai/vgpu");
        assert_eq!(
            names(&spec),
            [
                "gpu0",
                "gpu0-eighth",
                "gpu0-full",
                "gpu0-half",
                "gpu0-quarter",
                "gpu1",
                "gpu1-eighth",
                "gpu1-full",
                "gpu1-half",
                "gpu1-quarter",
                "all"
            ]
        );
        // The device node follows the minor number, which is not the index.
        let nodes = &device(&spec, "gpu0-quarter")["containerEdits"]["deviceNodes"];
        assert_eq!(nodes.as_array().unwrap().len(), 1);
        assert_eq!(nodes[0]["path"], "/dev/nvidia1");
        assert_eq!(
            nodes[0]["hostPath"],
            node.root().join("dev/nvidia1").to_str().unwrap()
        );
        let args = hook_args(device(&spec, "gpu1-quarter"));
        assert_eq!(args.len(), 3);
        for args in args {
            assert!(args.quota.vram_limit.get() * 4 <= args.gpu_capacity.get());
            assert_eq!(args.quota.vram_limit.get() % (1 << 20), 0);
            assert_eq!(args.quota.compute_limit.get(), 25);
        }
        assert_eq!(hook_args(device(&spec, "all")).len(), 6);
    }

    #[test]
    fn every_place_that_a_container_needs_exists() {
        let node = Node::up();
        let spec = json(&node, &["cdi", "generate", "--output", "-"]);
        let mounts = spec["containerEdits"]["mounts"].as_array().unwrap();
        let targets: BTreeSet<&str> = mounts
            .iter()
            .map(|mount| mount["containerPath"].as_str().unwrap())
            .collect();
        assert_eq!(targets.len(), mounts.len(), "a path twice");
        for mount in mounts {
            let host = mount["hostPath"].as_str().unwrap();
            assert!(Path::new(host).exists(), "{host}");
        }
        for target in [
            "/usr/lib/vgpu/libcuda.so.1",
            "/usr/lib/vgpu/libnvidia-ml.so.1",
            "/usr/lib/vgpu/driver/libcuda-driver.so.1",
            "/usr/lib/vgpu/driver/libnvidia-ml-driver.so.1",
            "/usr/lib/x86_64-linux-gnu/libnvidia-ptxjitcompiler.so.1",
            "/usr/bin/nvidia-smi",
            "/run/nvidia-persistenced/socket",
        ] {
            assert!(targets.contains(target), "{target}");
        }
        for graphics in ["libEGL_nvidia", "libnvidia-encode", "libcuda.so.5"] {
            let found = targets.iter().find(|target| target.contains(graphics));
            assert_eq!(
                found, None,
                "only on request, and the driver only behind the limiter"
            );
        }
        let all = json(
            &node,
            &[
                "cdi",
                "generate",
                "--output",
                "-",
                "--capabilities",
                "graphics",
            ],
        );
        assert!(all.to_string().contains("libEGL_nvidia.so.0"));
        assert!(!all.to_string().contains("libnvidia-encode"));
    }

    #[test]
    fn both_formats_say_the_same_and_old_engines_accept_them() {
        let node = Node::up();
        let folder = node.folder().join("specs");
        for name in ["a.json", "b.yaml"] {
            let path = folder.join(name);
            let path = path.to_str().unwrap();
            run(&mut node.vgpu(), &["cdi", "generate", "--output", path]).good();
            let engines = "podman@4.3,docker@25,containerd@1.7,crio@1.26,nerdctl@2.1";
            let said = run(
                &mut node.vgpu(),
                &["cdi", "validate", "--for", engines, path],
            )
            .good();
            assert!(said.contains("valid, CDI 0.5.0, 21 devices"), "{said}");
        }
        // Two files of one directory that name the same devices cancel each other.
        let directory = folder.to_str().unwrap();
        let listing = json(
            &node,
            &["cdi", "list", "--json", "--cdi-spec-dir", directory],
        );
        assert_eq!(listing["devices"].as_array().unwrap().len(), 0);
        assert_eq!(listing["problems"].as_array().unwrap().len(), 21);
        fs::remove_file(folder.join("a.json")).unwrap();
        let table = run(
            &mut node.vgpu(),
            &["cdi", "list", "--cdi-spec-dir", directory],
        )
        .good();
        assert_eq!(table.lines().count(), 22, "{table}");
        let last: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        let file = folder.join("b.yaml");
        assert_eq!(
            last,
            [
                "tensor-fusion.ai/vgpu=gpu1-quarter",
                "0.5.0",
                file.to_str().unwrap()
            ]
        );
    }

    #[test]
    fn a_spec_is_written_only_when_it_changes() {
        let node = Node::up();
        let directory = node.folder().join("cdi");
        let args = [
            "cdi",
            "generate",
            "--cdi-spec-dir",
            directory.to_str().unwrap(),
        ];
        run(&mut node.vgpu(), &args).good();
        let spec = directory.join("tensor-fusion.ai-vgpu.json");
        let first = fs::metadata(&spec).unwrap();
        assert_eq!(first.permissions().mode() & 0o7777, 0o644);
        run(&mut node.vgpu(), &args).good();
        let second = fs::metadata(&spec).unwrap();
        assert_eq!(
            (first.ino(), first.mtime_nsec()),
            (second.ino(), second.mtime_nsec())
        );
        run(node.vgpu().env("VGPU_DEVICE_NAME", "uuid"), &args).good();
        assert_ne!(first.ino(), fs::metadata(&spec).unwrap().ino());
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            1,
            "something was left behind"
        );
    }

    #[test]
    fn devices_shows_what_is_offered() {
        let node = Node::described(MIXED);
        let table = run(&mut node.vgpu(), &["devices"]).good();
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(
            table.contains("NVIDIA L4") && table.contains("gpu1-quarter ("),
            "{table}"
        );
        let devices = json(&node, &["devices", "--json"]);
        let gpu = &devices["gpus"][1];
        assert_eq!(gpu["vram_bytes"], 23_034_u64 << 20);
        assert_eq!(gpu["minor"], 0);
        let uuid = gpu["uuid"].as_str().unwrap();
        let quarter = &gpu["vgpus"].as_array().unwrap()[4];
        assert_eq!(quarter["name"], "gpu1-quarter");
        assert_eq!(quarter["uuid_name"], format!("{uuid}-quarter"));
        let spec = json(&node, &["cdi", "generate", "--output", "-"]);
        let args = hook_args(device(&spec, &format!("{uuid}-quarter")));
        assert_eq!(quarter["vram_limit_bytes"], args[0].quota.vram_limit.get());
    }

    #[test]
    fn eight_gpus() {
        let node = Node::described("count = 8\n");
        let spec = json(&node, &["cdi", "generate", "--output", "-"]);
        assert_eq!(names(&spec).len(), 8 * 10 + 1);
        assert_eq!(names(&spec)[70], "gpu7");
    }

    /// Runs `vgpu` without a node; the message has to be one line that contains every one of `parts`.
    #[track_caller]
    fn fails(args: &[&str], code: i32, parts: &[&str]) {
        let mut command = Command::new(built::file("bin/vgpu"));
        let outcome = run(&mut command, args);
        assert_eq!(
            outcome.code, code,
            "{args:?}: {}{}",
            outcome.stdout, outcome.stderr
        );
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{args:?}: no {part:?} in: {said}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_one_line() {
        fails(
            &["cdi", "generate", "--device-name", "nick"],
            2,
            &["vgpu: ", "nick", "index or uuid"],
        );
        fails(
            &["cdi", "generate", "--capabilities", "gfx"],
            2,
            &["gfx", "graphics, video"],
        );
        fails(
            &["cdi", "generate", "--format", "toml"],
            2,
            &["toml", "json or yaml"],
        );
        fails(
            &["cdi", "generate", "--output", "x.yml"],
            1,
            &["x.yml", ".json or .yaml"],
        );
        fails(
            &["cdi", "validate", "--for", "podman@3", "x"],
            2,
            &["podman@3", "4.1 or newer"],
        );
        fails(&["cdi", "validate"], 2, &["<FILE>"]);
        fails(&["devices", "--nothing"], 2, &["--nothing"]);
    }

    #[test]
    fn no_driver_or_half_a_driver_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let args = ["cdi", "generate", "--driver-root", root];
        fails(
            &args,
            4,
            &["vgpu: no NVIDIA driver under", root, "--driver-root"],
        );
        fails(
            &["devices", "--driver-root", root],
            4,
            &["no NVIDIA driver", root],
        );
        let lib = folder.path().join("usr/lib64");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("libcuda.so.580.95.05"), "").unwrap();
        fails(
            &args,
            4,
            &["libcuda.so.580.95.05", "no libnvidia-ml.so.1", "install"],
        );
        fs::write(lib.join("libnvidia-ml.so.580.95.05"), "not a library").unwrap();
        fails(
            &args,
            1,
            &[
                "libnvidia-ml.so.580.95.05",
                "cannot start talking to the driver",
            ],
        );
    }

    #[test]
    fn a_broken_configuration_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let file = path.to_str().unwrap();
        for (text, parts) in [
            ("[profiles", ["line 1", "config.toml"]),
            ("[profile.a]\nvram = \"1Gi\"", ["`profile`", "`profiles`"]),
            (
                "[profiles.a]\nvram = \"1Qi\"",
                ["profiles.a.vram", "a unit"],
            ),
            (
                "oversubscription = 0.1",
                ["oversubscription", "1.0 to 16.0"],
            ),
        ] {
            fs::write(&path, text).unwrap();
            fails(&["--config", file, "cdi", "generate"], 2, &parts);
        }
        fs::remove_file(&path).unwrap();
        fails(&["--config", file, "devices"], 2, &["cannot read", file]);
    }

    #[test]
    fn nothing_half_written_stays() {
        let node = Node::up();
        let folder = node.folder().to_owned();
        let says = |command: &mut Command, code: i32, parts: &[&str]| {
            let outcome = Outcome::of(command);
            assert_eq!(outcome.code, code, "{}", outcome.stderr);
            assert!(
                outcome.stderr.matches("os error").count() < 2,
                "said twice: {}",
                outcome.stderr
            );
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
            for part in parts {
                assert!(
                    outcome.stderr.contains(part),
                    "no {part:?} in: {}",
                    outcome.stderr
                );
            }
        };
        // A directory that cannot be made, for root too: a file is in its way.
        let blocked = folder.join("node.toml/cdi/vgpu.json");
        let mut generate = node.vgpu();
        generate.args(["cdi", "generate", "--output"]).arg(&blocked);
        says(&mut generate, 1, &["node.toml/cdi", "--output"]);
        let taken = folder.join("taken.json");
        fs::create_dir(&taken).unwrap();
        let mut generate = node.vgpu();
        generate.args(["cdi", "generate", "--output"]).arg(&taken);
        says(&mut generate, 1, &["taken.json"]);
        // A quota larger than the GPU.
        let config = folder.join("large.toml");
        let root = node.root();
        let text = format!(
            "[profiles.large]\nvram = \"200Gi\"\n[paths]\ndriver_root = {root:?}\ndev_root = {root:?}\n"
        );
        fs::write(&config, text).unwrap();
        let mut generate = Command::new(built::file("bin/vgpu"));
        let output = folder.join("out");
        generate
            .arg("--config")
            .arg(&config)
            .args(["cdi", "generate", "--cdi-spec-dir"])
            .arg(&output);
        says(&mut generate, 2, &["large", "200 GiB", "at most"]);
        assert!(!output.exists());
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 0);
        let leftovers = fs::read_dir(&folder).unwrap().filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .ends_with(".tmp")
        });
        assert_eq!(leftovers.count(), 0);
    }

    #[test]
    fn the_fixtures_are_judged_right() {
        let fixtures = built::project().join("tests/fixtures/cdi");
        let files = |kind: &str| {
            let entries = fs::read_dir(fixtures.join(kind)).unwrap();
            entries
                .map(|entry| entry.unwrap().path())
                .collect::<Vec<_>>()
        };
        let vgpu = || Command::new(built::file("bin/vgpu"));
        let mut good = vgpu();
        let said = Outcome::of(good.args(["cdi", "validate"]).args(files("good"))).good();
        assert_eq!(said.lines().count(), files("good").len(), "{said}");
        for file in files("bad") {
            let outcome = Outcome::of(vgpu().args(["cdi", "validate"]).arg(&file));
            assert_eq!(outcome.code, 3, "{}", file.display());
            assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
        }
        let mut both = vgpu();
        both.args(["cdi", "validate", "--json"])
            .args(files("good"))
            .args(files("bad"));
        let reports: Value = serde_json::from_str(&Outcome::of(&mut both).stdout).unwrap();
        let valid = reports
            .as_array()
            .unwrap()
            .iter()
            .filter(|report| report["valid"] == true);
        assert_eq!(valid.count(), files("good").len());
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let node = Node::up();
        let config = node.folder().join("config.toml");
        Outcome::of(&mut node.vgpu()); // writes the configuration
        let script = format!(
            "set -o pipefail; {} --config {} cdi generate --output - | head -n 1",
            built::file("bin/vgpu").display(),
            config.display()
        );
        let said = Outcome::of(Command::new("bash").args(["-c", &script])).good();
        assert_eq!(said, "{\n");
    }
}
