//! `vgpu ps` over containers that the hook has set up.
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
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::hook_world::*;
    use vgpu_tests::{Outcome, built};

    fn ps(world: &World, args: &[&str]) -> Command {
        let mut command = Command::new(built::file("bin/vgpu"));
        command
            .arg("ps")
            .arg("--run-dir")
            .arg(&world.run_dir)
            .args(args);
        command
    }

    #[test]
    fn containers_are_listed_with_what_they_have() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let mut ended = world.container(|_| ());
        let args = [
            world.args("a", GPU0, 30 * GIB),
            world.args("b", GPU0, 20 * GIB),
        ];
        container.start(&args).unwrap();
        ended
            .start(&[world.args("gpu1-half", GPU1, 50 * GIB)])
            .unwrap();
        ended.stop();
        let table = Outcome::of(&mut ps(&world, &[])).good();
        let line = table
            .lines()
            .find(|l| l.starts_with(&container.id[..12]))
            .unwrap();
        for part in [
            "a,b",
            GPU0,
            "0 B",
            "50 GiB",
            "50% (not enforced yet)",
            "running",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let line = table
            .lines()
            .find(|l| l.starts_with(&ended.id[..12]))
            .unwrap();
        assert!(line.contains(GPU1) && line.ends_with("ended"), "{line}");

        let json = Outcome::of(&mut ps(&world, &["--json"])).good();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let row = json
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["container_id"] == *container.id)
            .unwrap();
        assert_eq!(row["vram_limit_bytes"], 50 * GIB);
        assert_eq!(row["vram_used_bytes"], 0);
        assert_eq!(row["compute_enforced"], false);
    }

    #[test]
    fn a_page_that_the_tenant_broke_costs_its_own_line_only() {
        if skip() {
            return;
        }
        let world = World::new();
        let (broken, whole) = (world.container(|_| ()), world.container(|_| ()));
        for container in [&broken, &whole] {
            container
                .start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
                .unwrap();
        }
        let usage = broken.inside("usr/lib/vgpu/region/usage");
        std::fs::File::options()
            .write(true)
            .open(usage)
            .unwrap()
            .set_len(3)
            .unwrap();
        let table = Outcome::of(&mut ps(&world, &[])).good();
        let line = |id: &str| {
            table
                .lines()
                .find(|l| l.starts_with(&id[..12]))
                .unwrap()
                .to_owned()
        };
        assert!(line(&broken.id).contains("unknown"), "{table}");
        assert!(line(&whole.id).contains("0 B"), "{table}");
    }

    #[test]
    fn nothing_to_list_and_no_right_to_look_are_said() {
        if skip() {
            return;
        }
        let world = World::new();
        let none = Outcome::of(&mut ps(&world, &[])).good();
        assert!(
            none.starts_with("no container has a vGPU (looked in /var/tmp/"),
            "{none}"
        );
        assert_eq!(Outcome::of(&mut ps(&world, &["--json"])).good(), "[]\n");
        let container = world.container(|_| ());
        container
            .start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
            .unwrap();
        // The built program may lie where only root can go.
        let vgpu = world.dir.path().join("vgpu");
        std::fs::copy(built::file("bin/vgpu"), &vgpu).unwrap();
        let mut command = Command::new(vgpu);
        command
            .arg("ps")
            .arg("--run-dir")
            .arg(&world.run_dir)
            .uid(65534)
            .gid(65534);
        let line = Outcome::of(&mut command).bad();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains("only root may read that"), "{line}");
        assert!(line.contains("Permission denied"), "{line}");
    }
}
