//! What a container finds after its hooks ran, and what is left when one of them fails.
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
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;
    use vgpu_core::hook_args::Stage;

    fn debian(root: &Path) {
        for folder in [
            "etc/ld.so.conf.d",
            "usr/lib/x86_64-linux-gnu",
            "usr/bin",
            "lib64",
            "usr/lib/vgpu/driver",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink("usr/lib", root.join("lib")).unwrap();
        fs::copy("/etc/ld.so.cache", root.join("etc/ld.so.cache")).unwrap();
        fs::write(
            root.join("etc/ld.so.conf"),
            "include /etc/ld.so.conf.d/*.conf\n",
        )
        .unwrap();
        fs::write(
            root.join("usr/lib/vgpu/driver/libcuda-driver.so.1"),
            "driver",
        )
        .unwrap();
    }

    fn link(container: &Container<'_>, path: &str) -> String {
        let path = container.inside(path);
        let to = fs::read_link(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        to.to_str().unwrap().to_owned()
    }

    #[test]
    fn limiter_region_and_loader_are_in_place() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(debian);
        let before = snapshot(&world.host);
        container
            .start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
            .unwrap();
        assert_eq!(container.read("usr/lib/vgpu/libcuda.so.1"), "limiter cuda");
        assert_eq!(
            link(&container, "usr/lib/x86_64-linux-gnu/libcuda.so"),
            "/usr/lib/vgpu/libcuda.so.1"
        );
        let nvml = link(&container, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        assert_eq!(nvml, "/usr/lib/vgpu/libnvidia-ml.so.1");
        assert_eq!(
            container.read("etc/ld.so.conf.d/00-vgpu.conf"),
            "/usr/lib/vgpu\n"
        );
        let region = container.mount_options("usr/lib/vgpu/region");
        assert!(region.starts_with("ro,nosuid,nodev,noexec"), "{region}");
        let usage = container.mount_options("usr/lib/vgpu/region/usage");
        assert!(usage.starts_with("rw,nosuid,nodev,noexec"), "{usage}");
        let limits = fs::metadata(container.inside("usr/lib/vgpu/region/limits")).unwrap();
        assert_eq!(limits.mode() & 0o777, 0o644);
        let error = fs::File::options()
            .write(true)
            .open(container.inside("usr/lib/vgpu/region/limits"));
        assert_eq!(
            error.unwrap_err().raw_os_error(),
            Some(30),
            "read-only file system"
        );
        fs::File::options()
            .write(true)
            .open(container.inside("usr/lib/vgpu/region/usage"))
            .unwrap();
        fs::write(container.inside("usr/lib/vgpu/region/new"), "").unwrap_err();
        assert_eq!(snapshot(&world.host), before);
        assert!(
            container
                .mount_options("usr/lib/vgpu/libcuda.so.1")
                .starts_with("ro,nosuid,nodev")
        );
    }

    #[test]
    fn ldconfig_lists_the_limiter_first_and_keeps_the_rest() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(debian);
        container
            .start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
            .unwrap();
        let print = |file: &str| {
            let output = std::process::Command::new("/sbin/ldconfig")
                .args(["-p", "-C", file])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let cache = container.inside("etc/ld.so.cache");
        let (before, after) = (print("/etc/ld.so.cache"), print(cache.to_str().unwrap()));
        assert_eq!(after.lines().count(), before.lines().count() + 4, "{after}");
        for line in before.lines().skip(1) {
            assert!(after.contains(line), "{line}");
        }
        let first = after.lines().find(|l| l.contains("libcuda.so.1 ")).unwrap();
        assert!(first.ends_with("=> /usr/lib/vgpu/libcuda.so.1"), "{first}");
    }

    #[test]
    fn mounted_libraries_are_found_where_the_image_does_not_look() {
        if skip() {
            return;
        }
        let world = World::new();
        let names = |n: &[&str]| {
            n.iter()
                .map(|n| format!("/usr/lib64/{n}"))
                .collect::<Vec<_>>()
        };
        let mounted = [
            "libnvidia-ptxjitcompiler.so.1",
            "libnvidia-gpucomp.so.580.95.05",
            "libc.so.6",
            "libnvidia-here.so.1",
            "libcuda.so.1",
            "libnvidia-absent.so.1",
        ];
        let container = world.container(|root| {
            debian(root);
            fs::create_dir_all(root.join("usr/lib64")).unwrap();
            for name in &mounted[..5] {
                fs::write(root.join("usr/lib64").join(name), "the host's").unwrap();
            }
            // The image has this one itself, where its loader looks without a cache.
            let own = root.join("usr/lib/x86_64-linux-gnu/libnvidia-here.so.1");
            fs::write(own, "image's").unwrap();
        });
        let mounts: Vec<_> = names(&mounted)
            .iter()
            .map(|path| serde_json::json!({"destination": path, "source": "/x", "options": ["ro", "bind"]}))
            .collect();
        let config = serde_json::json!({"root": {"path": "rootfs"}, "mounts": mounts});
        fs::write(container.bundle.join("config.json"), config.to_string()).unwrap();
        let args = [world.args("gpu0-quarter", GPU0, GIB)];
        container.start(&args).unwrap();
        let output = std::process::Command::new("/sbin/ldconfig")
            .arg("-p")
            .arg("-C")
            .arg(container.inside("etc/ld.so.cache"))
            .output()
            .unwrap();
        let cache = String::from_utf8(output.stdout).unwrap();
        let first = |name: &str| {
            let line = cache.lines().find(|l| l.contains(&format!("{name} ")));
            line.and_then(|l| l.split(" => ").nth(1)).map(str::to_owned)
        };
        for name in &mounted[..2] {
            assert_eq!(first(name), Some(format!("/usr/lib64/{name}")));
        }
        assert_ne!(first("libc.so.6").unwrap(), "/usr/lib64/libc.so.6");
        assert_eq!(first("libcuda.so.1").unwrap(), "/usr/lib/vgpu/libcuda.so.1");
        assert_eq!(first("libnvidia-here.so.1"), None);
        assert_eq!(first("libnvidia-absent.so.1"), None);
        let conf = "/usr/lib/vgpu\n/usr/lib64\n";
        assert_eq!(container.read("etc/ld.so.conf.d/00-vgpu.conf"), conf);
        let tree = snapshot(&container.rootfs);
        container.start(&args).unwrap();
        assert_eq!(snapshot(&container.rootfs), tree);
    }

    #[test]
    fn every_copy_of_the_driver_is_covered() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(|root| {
            debian(root);
            for folder in [
                "usr/local/cuda-13.0/compat",
                "opt/nvidia",
                "usr/lib64",
                "opt/env",
            ] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            fs::write(root.join("etc/ld.so.conf.d/nvidia.conf"), "/opt/nvidia\n").unwrap();
            fs::write(
                root.join("usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15"),
                "image's",
            )
            .unwrap();
            symlink(
                "libcuda.so.550.54.15",
                root.join("usr/lib/x86_64-linux-gnu/libcuda.so.1"),
            )
            .unwrap();
            symlink(
                "/gone",
                root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"),
            )
            .unwrap();
            fs::write(
                root.join("usr/local/cuda-13.0/compat/libcuda.so.580.65.06"),
                "compat",
            )
            .unwrap();
            fs::write(root.join("opt/nvidia/libnvidia-ml.so.550.54.15"), "").unwrap();
            fs::write(root.join("opt/env/libcuda.so"), "env").unwrap();
            fs::write(root.join("usr/lib64/libcudart.so.12"), "not the driver").unwrap();
        });
        let config =
            r#"{"root":{"path":"rootfs"},"process":{"env":["LD_LIBRARY_PATH=/opt/env:/x"]}}"#;
        fs::write(container.bundle.join("config.json"), config).unwrap();
        container
            .start(&[world.args("gpu0-quarter", GPU0, 25 * GIB)])
            .unwrap();
        for (path, text) in [
            (
                "usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15",
                "limiter cuda",
            ),
            ("usr/lib/x86_64-linux-gnu/libcuda.so.1", "limiter cuda"),
            (
                "usr/local/cuda-13.0/compat/libcuda.so.580.65.06",
                "limiter cuda",
            ),
            ("opt/nvidia/libnvidia-ml.so.550.54.15", "limiter nvml"),
            ("opt/env/libcuda.so", "limiter cuda"),
            ("usr/lib64/libcudart.so.12", "not the driver"),
            ("usr/lib/vgpu/driver/libcuda-driver.so.1", "driver"),
        ] {
            assert_eq!(container.read(path), text, "{path}");
        }
        let nvml = link(&container, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        assert_eq!(
            nvml, "/usr/lib/vgpu/libnvidia-ml.so.1",
            "a dangling link is replaced"
        );
    }

    #[test]
    fn images_of_any_kind_are_served() {
        if skip() {
            return;
        }
        let world = World::new();
        let args = [world.args("gpu0-quarter", GPU0, GIB)];
        // An empty image, and one with musl's loader.
        let container = world.container(|_| ());
        container.start(&args).unwrap();
        assert!(container.inside("etc/ld.so.cache").exists());
        assert_eq!(
            link(&container, "usr/lib/libcuda.so.1"),
            "/usr/lib/vgpu/libcuda.so.1"
        );
        let container = world.container(|root| {
            fs::create_dir_all(root.join("lib")).unwrap();
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("opt/musl")).unwrap();
            fs::write(root.join("lib/ld-musl-x86_64.so.1"), "").unwrap();
            fs::write(root.join("etc/ld-musl-x86_64.path"), "/opt/musl:/lib\n").unwrap();
        });
        container.start(&args).unwrap();
        assert!(!container.inside("etc/ld.so.cache").exists());
        assert_eq!(
            link(&container, "opt/musl/libcuda.so.1"),
            "/usr/lib/vgpu/libcuda.so.1"
        );
        // A cache that the loader would not take either.
        let container = world.container(|root| {
            debian(root);
            fs::write(root.join("etc/ld.so.cache"), "garbage").unwrap();
        });
        container.start(&args).unwrap();
        assert!(
            container
                .read("etc/ld.so.cache")
                .starts_with("glibc-ld.so.cache1.1")
        );
    }

    #[test]
    fn a_second_start_changes_nothing_more() {
        if skip() {
            return;
        }
        let world = World::new();
        let mut container = world.container(debian);
        container.root_key = true;
        let args = [
            world.args("a", GPU0, GIB),
            world.args("b", GPU0, GIB),
            world.args("c", GPU1, GIB),
        ];
        container.start(&args).unwrap();
        let (mounts, tree) = (container.mounts(), snapshot(&container.rootfs));
        container.start(&args).unwrap();
        assert_eq!(container.mounts(), mounts);
        assert_eq!(snapshot(&container.rootfs), tree);
        assert_eq!(mounts.len(), 4, "region, usage, two libraries: {mounts:?}");
    }

    #[test]
    fn a_user_namespace_is_served_from_outside() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container_in(&["-Ur", "-m"], debian);
        let args = world.args("gpu0-quarter", GPU0, GIB);
        container.hook(Stage::CreateRuntime, &args).good();
        assert_eq!(container.mounts().len(), 4, "{:?}", container.mounts());
        assert_eq!(container.read("usr/lib/vgpu/libcuda.so.1"), "limiter cuda");
        let tree = snapshot(&container.rootfs);
        assert_eq!(container.hook(Stage::CreateContainer, &args).good(), "");
        assert_eq!(snapshot(&container.rootfs), tree);

        let container = world.container_in(&["-Ur", "-m"], |root| {
            debian(root);
            fs::create_dir_all(root.join("etc/.vgpu-ld.so.cache")).unwrap();
        });
        let grants = world.grants();
        container.hook(Stage::CreateRuntime, &args).bad();
        assert_eq!((container.mounts().len(), world.grants()), (0, grants));
    }

    #[test]
    fn an_image_that_takes_long_to_read_keeps_nobody_waiting() {
        if skip() {
            return;
        }
        let world = World::new();
        let slow = world.container_in(&["-Ur", "-m"], |root| {
            debian(root);
            fs::create_dir_all(root.join("d")).unwrap();
            for file in 0..2000 {
                fs::write(root.join(format!("d/{file}")), "").unwrap();
            }
            let text = "include /d/*.none\n".repeat(1000);
            fs::write(root.join("etc/ld.so.conf"), text).unwrap();
        });
        let args = world.args("gpu0-quarter", GPU0, GIB);
        let quick = world.container(|_| ());
        let signal = |pid: u32, name: &str| {
            let mut kill = std::process::Command::new("kill");
            assert!(
                kill.args([name, &pid.to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let mut hook = std::process::Command::new(vgpu_tests::built::file("bin/vgpu-hook"))
            .args(&args.to_args(Stage::CreateRuntime)[1..])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let state = slow.state(Stage::CreateRuntime);
        std::io::Write::write_all(&mut hook.stdin.take().unwrap(), state.as_bytes()).unwrap();
        vgpu_tests::wait_until("the grant", 10, || {
            world.grants().iter().any(|name| !name.starts_with('.'))
        });
        // Stopped while it holds the lock, it would stop everybody else as well.
        let lock = fs::File::open(world.run_dir.join("lock")).unwrap();
        vgpu_tests::wait_until("the lock", 10, || lock.try_lock().is_ok());
        lock.unlock().unwrap();
        signal(hook.id(), "-STOP");
        let placed = slow.inside("usr/lib/vgpu/libcuda.so.1").exists();
        let other = quick.hook(Stage::CreateRuntime, &args);
        signal(hook.id(), "-CONT");
        assert!(hook.wait().unwrap().success());
        assert!(!placed, "granted before the image is read");
        other.good();
        assert_eq!(slow.read("usr/lib/vgpu/libcuda.so.1"), "limiter cuda");
    }

    #[test]
    fn a_root_that_is_read_only_already_stays_so() {
        if skip() {
            return;
        }
        let world = World::new();
        let container = world.container(debian);
        let pid = container.init.id().to_string();
        for options in [&["--bind"][..], &["-o", "remount,bind,ro"]] {
            let mut mount = std::process::Command::new("nsenter");
            mount.args(["-t", &pid, "-m", "mount"]).args(options);
            if options.len() == 1 {
                mount.arg(&container.rootfs);
            }
            assert!(mount.arg(&container.rootfs).status().unwrap().success());
        }
        container
            .start(&[world.args("gpu0-quarter", GPU0, GIB)])
            .unwrap();
        assert!(
            container.mount_options("").starts_with("ro,"),
            "{}",
            container.mount_options("")
        );
        assert_eq!(container.read("usr/lib/vgpu/libcuda.so.1"), "limiter cuda");
        assert_eq!(
            container.read("etc/ld.so.conf.d/00-vgpu.conf"),
            "/usr/lib/vgpu\n"
        );

        fs::remove_file(world.limiter_dir.join("libcuda.so.1")).unwrap();
        container
            .start(&[world.args("gpu0-eighth", GPU0, GIB)])
            .unwrap_err();
        assert!(container.mount_options("").starts_with("ro,"));
        assert!(
            world.grants().is_empty(),
            "a failed create-container gives the grant back"
        );
    }

    #[test]
    fn nothing_is_written_to_a_volume() {
        if skip() {
            return;
        }
        let world = World::new();
        let bind = |container: &Container<'_>, from: &Path, to: &str| {
            fs::create_dir_all(container.rootfs.join(to)).unwrap();
            let pid = container.init.id().to_string();
            let status = std::process::Command::new("nsenter")
                .args(["-t", &pid, "-m", "mount", "--bind"])
                .args([from, &container.rootfs.join(to)])
                .status();
            assert!(status.unwrap().success());
        };
        let args = [world.args("gpu0-quarter", GPU0, GIB)];
        let before = snapshot(&world.host);
        let container = world.container(debian);
        bind(&container, &world.host.join("etc"), "etc");
        container.start(&args).unwrap();
        assert_eq!(snapshot(&world.host), before);
        let cuda = link(&container, "usr/lib/x86_64-linux-gnu/libcuda.so.1");
        assert_eq!(cuda, "/usr/lib/vgpu/libcuda.so.1");

        let container = world.container(|_| ());
        bind(&container, &world.host.join("usr"), "usr");
        let error = container.start(&args).unwrap_err();
        let line = one_line(&error);
        assert_eq!(
            line,
            "/usr/lib in the container lies on a volume, where nothing may be created"
        );
        assert_eq!(snapshot(&world.host), before);
        assert_eq!(container.mounts().len(), 1, "only the volume");
    }

    #[test]
    fn a_failed_hook_leaves_the_container_as_it_was() {
        if skip() {
            return;
        }
        let world = World::new();
        let args = world.args("gpu0-quarter", GPU0, GIB);
        // The last step fails: a folder has the cache's name once everything else is in place.
        let container = world.container(|root| {
            debian(root);
            fs::create_dir_all(root.join("etc/.vgpu-ld.so.cache")).unwrap();
            fs::write(
                root.join("usr/lib/x86_64-linux-gnu/libcuda.so.1"),
                "image's",
            )
            .unwrap();
        });
        let tree = names(&container.rootfs);
        let error = container.start(std::slice::from_ref(&args)).unwrap_err();
        assert!(
            one_line(&error).starts_with("cannot replace /etc/ld.so.cache in the container: "),
            "{error}"
        );
        assert_eq!(container.mounts(), [""; 0]);
        assert_eq!(names(&container.rootfs), tree);
        assert_eq!(
            container.read("usr/lib/x86_64-linux-gnu/libcuda.so.1"),
            "image's"
        );

        // No limiter on the host.
        fs::remove_file(world.limiter_dir.join("libnvidia-ml.so.1")).unwrap();
        let container = world.container(debian);
        let error = container.start(std::slice::from_ref(&args)).unwrap_err();
        assert!(
            one_line(&error).contains("cannot find the limiter"),
            "{error}"
        );
        assert_eq!(container.mounts(), [""; 0]);

        // create-container alone.
        let container = world.container(debian);
        let outcome = container.hook(Stage::CreateContainer, &args);
        let line = one_line(&outcome.stderr).to_owned();
        assert!(
            line.contains("has no grant for gpu0-quarter: create-runtime did not run"),
            "{line}"
        );
    }

    fn names(folder: &Path) -> Vec<std::path::PathBuf> {
        snapshot(folder).into_keys().collect()
    }
}
