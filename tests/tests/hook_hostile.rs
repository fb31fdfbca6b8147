//! Images and states made to reach the host: nothing outside the root is created, changed or mounted on.
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
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;
    use vgpu_core::hook_args::Stage;
    use vgpu_tests::built;

    /// Starts a container over a hostile image and returns what the hook said; the host stays as it was.
    fn attack(world: &World, fill: impl FnOnce(&Path)) -> Result<(), String> {
        let container = world.container(fill);
        let before = (snapshot(&world.host), snapshot(&world.limiter_dir));
        let result = container.start(&[world.args("gpu0-quarter", GPU0, GIB)]);
        assert_eq!(
            (snapshot(&world.host), snapshot(&world.limiter_dir)),
            before
        );
        // What the container's namespace has mounted lies below its root, or is its region.
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", container.init.id())).unwrap();
        let ours = table
            .lines()
            .filter(|l| l.contains("vgpu-region") || l.contains("/limiter/"));
        let points = ours.filter_map(|l| l.split(' ').nth(4));
        // Worlds of tests that run beside this one were there before.
        let neighbour = |p: &&str| {
            p.starts_with("/var/tmp/vgpu-hook.")
                && !p.starts_with(world.dir.path().to_str().unwrap())
        };
        for point in points.filter(|p| !neighbour(p)) {
            let below = Path::new(point).starts_with(&container.rootfs);
            assert!(
                below || Path::new(point).starts_with(&world.run_dir),
                "mounted on {point}"
            );
        }
        if result.is_err() {
            assert!(container.mounts().is_empty(), "{:?}", container.mounts());
        }
        let outcome = container.hook(Stage::Poststop, &world.args("gpu0-quarter", GPU0, GIB));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        result
    }

    fn folders(root: &Path, list: &[&str]) {
        for folder in list {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
    }

    #[test]
    fn links_to_the_host_end_at_the_root() {
        if skip() {
            return;
        }
        let world = World::new();
        let host = world.host.clone();
        let up = "../".repeat(20);
        let below = host.strip_prefix("/").unwrap().to_owned();
        // Every folder that the hook touches, as an absolute link, a climbing link, and a link through /proc.
        for target in [
            host.clone(),
            Path::new(&up).join(&below),
            Path::new("/proc/1/root").join(&below),
        ] {
            for (folder, rest) in [
                ("etc", "etc"),
                ("usr", "usr"),
                ("usr/lib", "usr/lib"),
                ("usr/lib/vgpu", "usr/lib"),
                ("lib64", "etc"),
            ] {
                let result = attack(&world, |root| {
                    if let Some(parent) = Path::new(folder).parent() {
                        fs::create_dir_all(root.join(parent)).unwrap();
                    }
                    symlink(target.join(rest), root.join(folder)).unwrap();
                });
                if let Err(error) = result {
                    assert!(one_line(&error).contains("in the container"), "{error}");
                }
            }
        }
    }

    #[test]
    fn files_that_are_links_to_the_host_are_not_written() {
        if skip() {
            return;
        }
        let world = World::new();
        let host = world.host.clone();
        attack(&world, |root| {
            folders(
                root,
                &[
                    "etc/ld.so.conf.d",
                    "usr/lib/x86_64-linux-gnu",
                    "usr/lib/vgpu",
                ],
            );
            symlink(host.join("etc/shadow"), root.join("etc/ld.so.cache")).unwrap();
            symlink(host.join("etc/shadow"), root.join("etc/.vgpu-ld.so.cache")).unwrap();
            symlink(host.join("etc/shadow"), root.join("etc/ld.so.conf")).unwrap();
            symlink(
                host.join("etc/shadow"),
                root.join("etc/ld.so.conf.d/00-vgpu.conf"),
            )
            .unwrap();
            let driver = host.join("usr/lib/libcuda.so.1");
            symlink(&driver, root.join("usr/lib/x86_64-linux-gnu/libcuda.so.1")).unwrap();
            symlink(
                &driver,
                root.join("usr/lib/x86_64-linux-gnu/libcuda.so.550.1"),
            )
            .unwrap();
        })
        .unwrap();
        // The region's place as a link; the limiter's own place as a link.
        for place in ["usr/lib/vgpu/region", "usr/lib/vgpu/libcuda.so.1"] {
            let error = attack(&world, |root| {
                folders(root, &["usr/lib/vgpu"]);
                symlink(host.join("etc/shadow"), root.join(place)).unwrap();
            })
            .unwrap_err();
            assert!(
                one_line(&error).contains(&format!("cannot create /{place} in the container")),
                "{error}"
            );
        }
    }

    #[test]
    fn things_of_the_wrong_kind_are_refused_without_being_opened() {
        if skip() {
            return;
        }
        let world = World::new();
        let fifo = |path: &Path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        let error = attack(&world, |root| {
            folders(root, &["etc"]);
            fifo(&root.join("etc/ld.so.cache"));
        })
        .unwrap_err();
        assert_eq!(
            one_line(&error),
            "/etc/ld.so.cache in the container is a fifo, expected a regular file"
        );
        let error = attack(&world, |root| folders(root, &["etc/ld.so.cache"])).unwrap_err();
        assert_eq!(
            one_line(&error),
            "/etc/ld.so.cache in the container is a folder, expected a regular file"
        );
        let error = attack(&world, |root| {
            folders(root, &["usr/lib/vgpu"]);
            fifo(&root.join("usr/lib/vgpu/region"));
        })
        .unwrap_err();
        assert_eq!(
            one_line(&error),
            "/usr/lib/vgpu/region in the container is a fifo, expected a folder"
        );
        let error = attack(&world, |root| {
            folders(root, &["etc"]);
            fs::File::create(root.join("etc/ld.so.cache"))
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
        })
        .unwrap_err();
        assert!(
            one_line(&error).contains("holds more than 16777216 bytes"),
            "{error}"
        );
        // These the loader would not read either.
        attack(&world, |root| {
            folders(
                root,
                &["etc/ld.so.conf.d", "usr/lib/x86_64-linux-gnu/libcuda.so.1"],
            );
            fifo(&root.join("etc/ld.so.conf"));
            fifo(&root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"));
        })
        .unwrap();
    }

    #[test]
    fn an_image_cannot_make_the_hook_search_for_ever() {
        if skip() {
            return;
        }
        let world = World::new();
        let error = attack(&world, |root| {
            folders(root, &["etc"]);
            fs::write(
                root.join("etc/ld.so.conf"),
                "include /etc/*.conf\n".repeat(1000),
            )
            .unwrap();
        })
        .unwrap_err();
        assert!(
            one_line(&error).contains("more than 512 configuration files"),
            "{error}"
        );
        let error = attack(&world, |root| {
            folders(root, &["etc"]);
            let text: String = (0..5000).map(|i| format!("/f{i}\n")).collect();
            fs::write(root.join("etc/ld.so.conf"), text).unwrap();
        })
        .unwrap_err();
        assert!(
            one_line(&error).contains("more than 4096 folders"),
            "{error}"
        );
        let error = attack(&world, |root| {
            folders(root, &["usr/lib"]);
            for i in 0..600 {
                fs::write(root.join(format!("usr/lib/libcuda.so.{i}")), "").unwrap();
            }
        })
        .unwrap_err();
        assert!(
            one_line(&error).contains("more than 512 driver libraries"),
            "{error}"
        );
    }

    /// What is mounted on one peer of a shared mount appears on all.
    #[test]
    fn a_shared_volume_takes_nothing_to_the_host() {
        if skip() {
            return;
        }
        let world = World::new();
        for place in ["usr/lib64", "usr/lib/vgpu/region"] {
            let container = world.container(|root| folders(root, &[place]));
            let inside = |args: &[&std::ffi::OsStr]| {
                let mut command = Command::new("nsenter");
                command.args(["-t", &container.init.id().to_string(), "-m", "mount"]);
                assert!(command.args(args).status().unwrap().success());
            };
            let host = world.host.join("usr/lib");
            let volume = container.rootfs.join(place);
            let [bind, shared] = ["--bind", "--make-shared"].map(AsRef::as_ref);
            inside(&[bind, host.as_ref(), host.as_ref()]);
            inside(&[shared, host.as_ref()]);
            inside(&[bind, host.as_ref(), volume.as_ref()]);
            let table = || {
                let path = format!("/proc/{}/mountinfo", container.init.id());
                let table = fs::read_to_string(path).unwrap();
                let below = |p: &&str| Path::new(p).starts_with(&world.host);
                let points = table.lines().filter_map(|l| l.split(' ').nth(4));
                points.filter(below).count()
            };
            let before = (table(), snapshot(&world.host), container.mounts());
            let error = container
                .start(&[world.args("gpu0-quarter", GPU0, GIB)])
                .unwrap_err();
            let line = one_line(&error);
            assert!(line.contains("with shared mount propagation"), "{line}");
            assert_eq!((table(), snapshot(&world.host), container.mounts()), before);
            // A volume that only receives is one like any other.
            inside(&["--make-slave".as_ref(), volume.as_ref()]);
            container
                .start(&[world.args("gpu0-quarter", GPU0, GIB)])
                .unwrap();
            assert_eq!((table(), snapshot(&world.host)), (before.0, before.1));
            let covered = container.mounts().len() > before.2.len();
            assert!(covered, "{:?}", container.mounts());
        }
    }

    #[test]
    fn every_broken_state_is_one_line() {
        if skip() {
            return;
        }
        let world = World::new();
        let args = world.args("gpu0-quarter", GPU0, GIB);
        let fixtures = built::project().join("tests/fixtures/oci");
        let mut seen = 0;
        for entry in fs::read_dir(&fixtures).unwrap() {
            let folder = entry.unwrap().path();
            let state = fs::read(folder.join("state.json")).unwrap();
            let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
            for stage in [Stage::CreateRuntime, Stage::CreateContainer] {
                let mut hook = Command::new(built::file("bin/vgpu-hook"));
                hook.args(&args.to_args(stage)[1..]);
                let outcome = with_input(&mut hook, &state);
                assert_ne!(outcome.code, 0, "{}", folder.display());
                let line = one_line(&outcome.stderr);
                let fits = expected.lines().any(|e| !e.is_empty() && line.contains(e));
                assert!(fits, "{} {stage}: {line}", folder.display());
            }
            seen += 1;
        }
        assert!(seen >= 14, "only {seen} fixtures in {}", fixtures.display());
        let mut hook = Command::new(built::file("bin/vgpu-hook"));
        hook.args(&args.to_args(Stage::CreateRuntime)[1..]);
        let long = vec![b' '; 2 << 20];
        let outcome = with_input(&mut hook, &long);
        assert_eq!(
            one_line(&outcome.stderr),
            "the OCI state is longer than 1048576 bytes"
        );
        assert!(world.grants().is_empty() && world.mounts().is_empty());
    }

    /// What the specification's own types write is understood, up to the bundle that is not there.
    #[test]
    fn a_state_of_the_specification_is_understood() {
        use oci_spec::runtime::{ContainerState, StateBuilder};
        let world = World::new();
        let state = StateBuilder::default()
            .version("1.2.1")
            .id("c0ffee")
            .status(ContainerState::Created)
            .pid(4242)
            .bundle("/nonexistent/bundle")
            .build()
            .unwrap();
        let args = world.args("gpu0-quarter", GPU0, GIB);
        let mut hook = Command::new(built::file("bin/vgpu-hook"));
        hook.args(&args.to_args(Stage::CreateContainer)[1..]);
        let outcome = with_input(&mut hook, &serde_json::to_vec(&state).unwrap());
        let line = one_line(&outcome.stderr);
        assert!(
            line.starts_with("container c0ffee has no grant for gpu0-quarter"),
            "{line}"
        );
    }

    #[test]
    fn every_wrong_command_line_is_one_line() {
        let world = World::new();
        let good = world
            .args("gpu0-quarter", GPU0, GIB)
            .to_args(Stage::CreateRuntime);
        let with = |args: &[String]| {
            let outcome = with_input(Command::new(built::file("bin/vgpu-hook")).args(args), b"{}");
            assert_eq!(outcome.code, 2);
            one_line(&outcome.stderr).to_owned()
        };
        let change = |at: usize, to: &str| {
            let mut args = good[1..].to_vec();
            args[at] = to.to_owned();
            args
        };
        assert!(with(&[]).contains("expected v1"));
        assert!(with(&change(0, "v2")).contains("expected v1"));
        assert!(
            with(&change(1, "prestart")).contains("create-runtime, create-container, poststop")
        );
        assert!(with(&change(3, "--vram=1")).contains("--vram=1"));
        assert!(with(&change(3, "a\nb")).contains("a\\nb"));
        assert!(with(&good[1..good.len() - 1]).contains("--limiter-dir"));
    }

    /// CVE-2025-23266: a library of the image, preloaded into the hook by the container's environment.
    #[test]
    fn the_hook_has_no_loader_that_an_environment_could_steer() {
        let hook = fs::read(built::file("bin/vgpu-hook")).unwrap();
        assert!(hook.len() < 2 << 20, "{} bytes", hook.len());
        let interpreter = b"/lib64/ld-linux";
        assert!(
            !hook.windows(interpreter.len()).any(|w| w == interpreter),
            "linked dynamically"
        );
    }
}
