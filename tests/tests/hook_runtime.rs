//! Who gets how much: admission, the books, release, and hooks that run at once or are killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "a test tells its story in one piece, and stops with the reason"
)]

mod hook_world;

#[cfg(test)]
mod tests {
    use super::hook_world::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::Command;
    use vgpu_core::hook_args::Stage;
    use vgpu_tests::built;

    #[test]
    fn a_full_gpu_says_who_holds_the_rest() {
        if skip() {
            return;
        }
        let world = World::new();
        let (one, two, three) = (
            world.container(|_| ()),
            world.container(|_| ()),
            world.container(|_| ()),
        );
        one.start(&[world.args("gpu0-half", GPU0, 50 * GIB)])
            .unwrap();
        two.start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
            .unwrap();
        let before = (world.grants(), world.mounts());
        let refused = three.hook(
            Stage::CreateRuntime,
            &world.args("gpu0-half", GPU0, 50 * GIB),
        );
        assert_eq!(refused.code, 5);
        assert_eq!(
            one_line(&refused.stderr),
            format!(
                "no room on {GPU0} for gpu0-half: it asks 50 GiB, 25 GiB of 100 GiB is left; \
                 held by {} (gpu0-half, 50 GiB), {} (gpu0-quarter, 25 GiB)",
                &one.id[..12],
                &two.id[..12]
            )
        );
        assert_eq!((world.grants(), world.mounts()), before);
        three
            .start(&[world.args("gpu1-half", GPU1, 50 * GIB)])
            .unwrap();
    }

    #[test]
    fn a_quota_larger_than_the_gpu_is_refused() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let refused = container.hook(Stage::CreateRuntime, &world.args("big", GPU0, 101 * GIB));
        let line = one_line(&refused.stderr).to_owned();
        assert_eq!(
            line,
            format!("big allows 101 GiB on {GPU0}, which has 100 GiB; expected at most that")
        );
        assert!(world.grants().is_empty() && world.mounts().is_empty());
    }

    #[test]
    fn what_is_gone_counts_no_more() {
        if skip() {
            return;
        }
        let world = World::new();
        let args = world.args("gpu0", GPU0, 100 * GIB);
        let mut first = world.container(|_| ());
        first.start(std::slice::from_ref(&args)).unwrap();
        let second = world.container(|_| ());
        assert!(second.start(std::slice::from_ref(&args)).is_err());
        // Killed, and nobody called poststop.
        first.stop();
        second.start(std::slice::from_ref(&args)).unwrap();
        assert_eq!((world.grants().len(), world.mounts().len()), (1, 1));
        // Another boot.
        let grant = world.run_dir.join("grants").join(&world.grants()[0]);
        let text = fs::read_to_string(&grant).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(
            &grant,
            text.replace(boot.trim(), "11111111-2222-3333-4444-555555555555"),
        )
        .unwrap();
        let third = world.container(|_| ());
        third.start(std::slice::from_ref(&args)).unwrap();
        assert_eq!((world.grants().len(), world.mounts().len()), (1, 1));
    }

    #[test]
    fn two_devices_add_up_and_one_device_does_not_double() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let args = [
            world.args("a", GPU0, 40 * GIB),
            world.args("a", GPU0, 40 * GIB),
            world.args("b", GPU0, 20 * GIB),
            world.args("c", GPU1, 70 * GIB),
        ];
        container.start(&args).unwrap();
        let grant =
            fs::read_to_string(world.run_dir.join("grants").join(&world.grants()[0])).unwrap();
        let grant: serde_json::Value = serde_json::from_str(&grant).unwrap();
        assert_eq!(grant["devices"].as_object().unwrap().len(), 3);
        let full = container.hook(Stage::CreateRuntime, &world.args("d", GPU0, 41 * GIB));
        assert!(
            one_line(&full.stderr).contains("40 GiB of 100 GiB is left"),
            "{}",
            full.stderr
        );
        // The container is not going to start: nothing of it stays.
        assert!(world.grants().is_empty() && world.mounts().is_empty());
    }

    #[test]
    fn a_device_of_two_gpus_is_a_slice_of_each() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let args = [
            world.args("all", GPU0, 100 * GIB),
            world.args("all", GPU1, 100 * GIB),
        ];
        container.start(&args).unwrap();
        let region = container.inside("usr/lib/vgpu/region");
        let limits = vgpu_region::read_limits(&region).unwrap();
        let vram: Vec<u64> = limits.devices.iter().map(|d| d.vram_limit / GIB).collect();
        assert_eq!(vram, [100, 100]);
        for gpu in [GPU0, GPU1] {
            let other = world.container(|_| ());
            let refused = other.hook(Stage::CreateRuntime, &world.args("half", gpu, 50 * GIB));
            assert_eq!(refused.code, 5, "{}", refused.stderr);
            assert!(
                one_line(&refused.stderr).ends_with("(all, 100 GiB)"),
                "{}",
                refused.stderr
            );
        }
    }

    #[test]
    fn what_lies_about_in_the_run_directory_is_a_warning() {
        if skip() {
            return;
        }
        let world = World::new();
        let first = world.container(|_| ());
        first.start(&[world.args("a", GPU0, GIB)]).unwrap();
        fs::write(world.run_dir.join("containers/stray"), "").unwrap();
        let second = world.container(|_| ());
        let outcome = second.hook(Stage::CreateRuntime, &world.args("b", GPU0, GIB));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let line = one_line(&outcome.stderr);
        assert!(
            line.starts_with("warning: ") && line.contains("/stray"),
            "{line}"
        );
        assert_eq!(world.grants().len(), 2);
    }

    #[test]
    fn release_is_complete_and_may_come_again() {
        if skip() {
            return;
        }
        let world = World::new();
        let mut container = world.container(|_| ());
        let args = world.args("gpu0-half", GPU0, 50 * GIB);
        assert_eq!(container.hook(Stage::Poststop, &args).code, 0, "unknown");
        container.start(std::slice::from_ref(&args)).unwrap();
        assert_eq!(world.mounts().len(), 1);
        container.stop();
        for _ in 0..2 {
            let outcome = container.hook(Stage::Poststop, &args);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        }
        assert!(world.grants().is_empty() && world.mounts().is_empty());
        assert_eq!(
            fs::read_dir(world.run_dir.join("containers"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn an_engine_apart_from_the_host_shows_its_regions_there() {
        let same = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        if skip() || same("1") != same("self") {
            return;
        }
        let world = World::new();
        let mut container = world.container(|_| ());
        container.engine_apart = true;
        let args = [world.args("a", GPU0, GIB), world.args("b", GPU0, GIB)];
        for args in &args {
            container.hook(Stage::CreateRuntime, args).good();
            assert_eq!(world.mounts().len(), 1, "{:?}", world.mounts());
        }
        container.hook(Stage::CreateContainer, &args[0]).good();
        assert!(container.inside("usr/lib/vgpu/region/usage").exists());
        container.stop();
        container.hook(Stage::Poststop, &args[0]).good();
        assert!(world.mounts().is_empty() && world.grants().is_empty());
    }

    #[test]
    fn a_release_that_comes_late_spares_the_container_that_runs_again() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let args = world.args("gpu0-half", GPU0, 50 * GIB);
        container.start(std::slice::from_ref(&args)).unwrap();
        assert_eq!(container.hook(Stage::Poststop, &args).code, 0);
        assert_eq!((world.grants().len(), world.mounts().len()), (1, 1));
    }

    #[test]
    fn the_same_container_starts_again_as_a_new_process() {
        if skip() {
            return;
        }
        let world = World::new();
        let mut container = world.container(|_| ());
        let args = world.args("gpu0", GPU0, 100 * GIB);
        container.start(std::slice::from_ref(&args)).unwrap();
        let first = container.init.id();
        let running = container.init.id();
        let other = Command::new("sleep").arg("1000").spawn().unwrap();
        let old = std::mem::replace(&mut container.init, other);
        let refused = container.hook(Stage::CreateRuntime, &args);
        assert!(one_line(&refused.stderr).contains(&format!("already runs as process {running}")));
        assert_eq!(world.grants().len(), 1, "the running one keeps its grant");
        let mut other = std::mem::replace(&mut container.init, old);
        container.stop();
        other.kill().unwrap();
        other.wait().unwrap();
        let again = Command::new("unshare")
            .args(["-m", "sleep", "1000"])
            .spawn()
            .unwrap();
        container.init = again;
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
        vgpu_tests::wait_until("a mount namespace of its own", 10, || {
            namespace(&container.init.id().to_string()) != namespace("self")
        });
        container.start(std::slice::from_ref(&args)).unwrap();
        assert_ne!(container.init.id(), first);
        assert_eq!(world.grants().len(), 1);
    }

    #[test]
    fn hooks_that_run_at_once_never_promise_too_much() {
        if skip() {
            return;
        }
        let world = World::new();
        let containers: Vec<_> = (0..12).map(|_| world.container(|_| ())).collect();
        let args = world.args("gpu0-quarter", GPU0, 25 * GIB);
        let codes: Vec<i32> = std::thread::scope(|scope| {
            let run = |c| {
                let args = &args;
                scope.spawn(move || Container::hook(c, Stage::CreateRuntime, args).code)
            };
            let threads: Vec<_> = containers.iter().map(run).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(codes.iter().filter(|c| **c == 0).count(), 4, "{codes:?}");
        assert_eq!(codes.iter().filter(|c| **c == 5).count(), 8, "{codes:?}");
        assert_eq!((world.grants().len(), world.mounts().len()), (4, 4));
    }

    #[test]
    fn a_killed_hook_blocks_nobody() {
        if skip() {
            return;
        }
        let world = World::new();
        let args = world.args("gpu0", GPU0, 100 * GIB);
        for delay in 0..40 {
            let container = world.container(|_| ());
            let mut hook = Command::new(built::file("bin/vgpu-hook"))
                .args(&args.to_args(Stage::CreateRuntime)[1..])
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            use std::io::Write;
            hook.stdin
                .take()
                .unwrap()
                .write_all(container.state(Stage::CreateRuntime).as_bytes())
                .unwrap();
            std::thread::sleep(std::time::Duration::from_micros(delay * 60));
            hook.kill().unwrap();
            hook.wait().unwrap();
        }
        let container = world.container(|_| ());
        container.start(&[args]).unwrap();
        assert_eq!((world.grants().len(), world.mounts().len()), (1, 1));
    }

    #[test]
    fn the_region_is_small_full_and_not_the_tenants_to_fill() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        container.start(&[world.args("gpu0", GPU0, GIB)]).unwrap();
        let region = std::path::PathBuf::from(&world.mounts()[0]);
        assert_eq!(fs::metadata(&region).unwrap().mode() & 0o7777, 0o711);
        for (name, mode) in [("limits", 0o644), ("usage", 0o666)] {
            let data = fs::metadata(region.join(name)).unwrap();
            assert_eq!(data.mode() & 0o777, mode, "{name}");
            assert!(data.blocks() * 512 >= data.size(), "{name} has holes");
        }
        let usage = fs::File::options()
            .write(true)
            .open(container.inside("usr/lib/vgpu/region/usage"));
        let usage = usage.unwrap();
        let size = usage.metadata().unwrap().len();
        usage.set_len(1 << 30).unwrap();
        let end = std::os::unix::fs::FileExt::write_all_at(&usage, &vec![1; 1 << 20], size);
        assert_eq!(end.unwrap_err().raw_os_error(), Some(28), "no space left");
        for (path, mode) in [("grants", 0o700), ("containers", 0o700), ("", 0o755)] {
            let data = fs::metadata(world.run_dir.join(path)).unwrap();
            assert_eq!(data.mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn a_run_directory_that_others_may_write_is_refused() {
        if skip() {
            return;
        }
        let world = World::new();
        fs::create_dir_all(&world.run_dir).unwrap();
        fs::set_permissions(&world.run_dir, PermissionsExt::from_mode(0o777)).unwrap();
        let container = world.container(|_| ());
        let outcome = container.hook(Stage::CreateRuntime, &world.args("gpu0", GPU0, GIB));
        assert!(one_line(&outcome.stderr).contains("with mode 777: expected user 0"));
    }

    #[test]
    fn a_rootless_engine_is_told_why() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|_| ());
        let args = world.args("gpu0", GPU0, GIB);
        let mut command = Command::new("unshare");
        command
            .args(["-Ur", "--"])
            .arg(built::file("bin/vgpu-hook"));
        command.args(&args.to_args(Stage::CreateRuntime)[1..]);
        let outcome = with_input(
            &mut command,
            container.state(Stage::CreateRuntime).as_bytes(),
        );
        let line = one_line(&outcome.stderr).to_owned();
        assert!(
            line.starts_with("this engine runs without root on the host (a user namespace"),
            "{line}"
        );
        assert!(!world.run_dir.exists());
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", "-sys_admin", "--"])
            .arg(built::file("bin/vgpu-hook"));
        command.args(&args.to_args(Stage::CreateRuntime)[1..]);
        let outcome = with_input(
            &mut command,
            container.state(Stage::CreateRuntime).as_bytes(),
        );
        assert!(
            one_line(&outcome.stderr).contains("(no CAP_SYS_ADMIN)"),
            "{}",
            outcome.stderr
        );
    }
}
