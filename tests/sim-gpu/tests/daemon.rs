//! The daemon and its clients as processes: who dies gives back what it held, whenever it dies.
//!
//! The daemon runs on a thread of the test; clients are this very program, started again with `CLIENT` set.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops with the reason"
)]

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use sim_gpu::client::{ConnectError, Kind, Node};
    use sim_gpu::config::{MIB, NodeConfig};
    use sim_gpu::{daemon, page, wire};
    use tempfile::TempDir;

    /// Set in a child: the root of the node that it has to use.
    const CLIENT: &str = "SIM_GPU_TEST_CLIENT";

    /// A node on a thread of this process; the folder goes with the value, the thread with the process.
    fn node() -> TempDir {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        for minor in 0..2 {
            // Any file that opens will do for a device node.
            fs::write(root.path().join(format!("dev/nvidia{minor}")), "").unwrap();
        }
        let config = "context_footprint_mib = 10\n[gpu]\nvram_mib = 10000\nreserved_mib = 500";
        let config = NodeConfig::parse(config).unwrap();
        let served = root.path().to_owned();
        thread::spawn(move || daemon::serve(&served, &config).unwrap());
        within(Duration::from_secs(5), || {
            Node::connect(root.path(), Kind::Viewer).is_ok()
        });
        root
    }

    /// Waits for `done`; fails the test when it does not come.
    fn within(patience: Duration, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + patience;
        while !done() {
            assert!(Instant::now() < deadline, "not within {patience:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn connect(root: &Path) -> Node {
        Node::connect(root, Kind::Cuda).unwrap()
    }

    fn client(root: &Path, test: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(CLIENT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Held bytes, and clients that are connected.
    fn state(watcher: &Node) -> (u64, usize) {
        let used = (0..2).map(|gpu| watcher.memory(gpu).unwrap().used).sum();
        (used, watcher.page().live_slots().count())
    }

    #[test]
    fn a_killed_client_gives_everything_back() {
        let root = node();
        let watcher = connect(root.path());
        let survivor = connect(root.path());
        survivor.context_add(1).unwrap();
        survivor.alloc(1, 7 * MIB).unwrap();
        for round in 0..60 {
            let mut clients: Vec<Child> = (0..3)
                .map(|_| client(root.path(), "tests::churning_client"))
                .collect();
            // Some die while starting or connecting, the others in the middle of their work.
            if round % 2 == 1 {
                within(Duration::from_secs(10), || state(&watcher).0 > 17 * MIB);
            }
            thread::sleep(Duration::from_micros(500 * (round % 20)));
            for client in &mut clients {
                client.kill().unwrap();
                assert_eq!(client.wait().unwrap().signal(), Some(9));
            }
        }
        within(Duration::from_secs(5), || state(&watcher) == (17 * MIB, 2));
    }

    /// Not a test of its own: what the clients of the test above do.
    #[test]
    #[ignore = "runs as a child of another test"]
    fn churning_client() {
        let Some(root) = std::env::var_os(CLIENT) else {
            return;
        };
        let node = connect(Path::new(&root));
        for round in 0_u64.. {
            let gpu = (round % 2) as usize;
            node.context_add(gpu).unwrap();
            node.alloc(gpu, MIB + round % 4096).unwrap();
            let target = node.submit(gpu, 50_000).unwrap();
            if round % 16 == 0 {
                node.export(File::open("/dev/zero").unwrap().as_fd())
                    .unwrap();
                node.wait(gpu, target).unwrap();
            }
            if round % 64 != 63 {
                node.free(gpu, MIB + round % 4096).unwrap();
                node.context_remove(gpu).unwrap();
            }
        }
    }

    #[test]
    fn a_lock_held_by_the_dead_is_broken() {
        let root = node();
        let watcher = connect(root.path());
        let mut holder = client(root.path(), "tests::client_that_dies_in_the_lock");
        let mut line = [0; 1];
        let output = holder.stdout.as_mut().unwrap();
        // The test harness writes a line of its own first; ours is the one with the bell.
        while output.read(&mut line).unwrap() == 1 && line[0] != 7 {}
        holder.kill().unwrap();
        holder.wait().unwrap();
        within(Duration::from_secs(5), || state(&watcher) == (0, 1));
    }

    /// Not a test of its own: takes the lock and keeps it.
    #[test]
    #[ignore = "runs as a child of another test"]
    fn client_that_dies_in_the_lock() {
        let Some(root) = std::env::var_os(CLIENT) else {
            return;
        };
        let node = connect(Path::new(&root));
        node.alloc(0, MIB).unwrap();
        let _held = node.lock().unwrap();
        std::io::stdout().write_all(&[7]).unwrap();
        std::io::stdout().flush().unwrap();
        thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_forked_child_keeps_nothing_of_its_parent_s() {
        let root = node();
        let watcher = connect(root.path());
        let mut parent = client(root.path(), "tests::client_that_forks");
        within(Duration::from_secs(10), || state(&watcher) == (MIB, 2));
        let mut said = String::new();
        let mut output = parent.stdout.take().unwrap();
        parent.kill().unwrap();
        parent.wait().unwrap();
        within(Duration::from_secs(5), || state(&watcher) == (0, 1));
        // The child held the output open until now.
        drop(parent.stdin.take());
        output.read_to_string(&mut said).unwrap();
    }

    /// Not a test of its own: holds memory, and has a child that outlives it until its input ends.
    #[test]
    #[ignore = "runs as a child of another test"]
    #[allow(unsafe_code, reason = "std cannot fork without exec")]
    fn client_that_forks() {
        let Some(root) = std::env::var_os(CLIENT) else {
            return;
        };
        let node = connect(Path::new(&root));
        // SAFETY: the child only makes system calls and ends.
        if unsafe { libc::fork() } == 0 {
            let mut byte = 0_u8;
            // SAFETY: reads into one byte of this function's; returns at the end of the input.
            unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(0) };
        }
        node.alloc(0, MIB).unwrap();
        thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn exports_last_as_long_as_their_owner() {
        let root = node();
        let (owner, other) = (connect(root.path()), connect(root.path()));
        let number = owner
            .export(File::open("/dev/zero").unwrap().as_fd())
            .unwrap();
        let imported: OwnedFd = other.import(number).unwrap();
        let mut byte = [1];
        File::from(imported).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(
            other.unexport(number).is_err(),
            "only the owner may take it back"
        );
        let kept = owner
            .export(File::open("/dev/zero").unwrap().as_fd())
            .unwrap();
        owner.unexport(number).unwrap();
        assert!(other.import(number).is_err());
        drop(owner);
        within(Duration::from_secs(5), || other.import(kept).is_err());
    }

    #[test]
    fn a_gpu_without_its_node_is_not_there() {
        let root = node();
        assert_eq!(connect(root.path()).devices().len(), 2);
        fs::remove_file(root.path().join("dev/nvidia0")).unwrap();
        let node = connect(root.path());
        assert_eq!(node.devices().len(), 1);
        assert_eq!(
            (node.devices()[0].index, node.devices()[0].gpu.minor),
            (1, 1)
        );
    }

    #[test]
    fn events_include_the_slices_of_others() {
        let root = node();
        let (one, two) = (connect(root.path()), connect(root.path()));
        let start = page::now();
        let mine = one.submit(0, 20_000_000).unwrap();
        let theirs = two.submit(0, 20_000_000).unwrap();
        let both = one.wait(0, mine).unwrap().max(two.wait(0, theirs).unwrap()) - start;
        let took = Duration::from_nanos(both);
        assert!(took >= Duration::from_millis(40), "{took:?}");
    }

    #[test]
    fn a_full_node_says_so() {
        let root = node();
        let clients: Vec<Node> = (0..page::layout::SLOTS)
            .map(|_| connect(root.path()))
            .collect();
        let refused = Node::connect(root.path(), Kind::Cuda).unwrap_err();
        assert!(
            matches!(refused, ConnectError::Refused(wire::Status::Full)),
            "{refused}"
        );
        drop(clients);
        within(Duration::from_secs(5), || {
            Node::connect(root.path(), Kind::Cuda).is_ok()
        });
    }
}
