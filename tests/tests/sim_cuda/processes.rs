//! More than one process: the official Python client, visible devices, sharing, time slices, sudden ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vgpu_tests::node::Node;
use vgpu_tests::{Outcome, wait_until};

use crate::world::{Cuda, good};

/// The Python with `cuda-bindings`; nothing where `make setup` has not run, which fails when `CI=true`.
fn python() -> Option<PathBuf> {
    let venv = std::env::var_os("VGPU_VENV").map(PathBuf::from);
    let venv = venv.unwrap_or_else(|| vgpu_tests::built::project().join("target/tools/venv"));
    let python = venv.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI=true, and no {}",
        python.display()
    );
    eprintln!("SKIPPED: no {}: run `make setup`", python.display());
    None
}

const PRELUDE: &str = include_str!("client.py");

fn client(node: &Node, python: &Path, script: &str) -> Command {
    let mut command = Command::new(python);
    command
        .env(
            "LD_LIBRARY_PATH",
            node.root().join("usr/lib/x86_64-linux-gnu"),
        )
        .env_remove("CUDA_VISIBLE_DEVICES")
        .args(["-c", &format!("{PRELUDE}\n{script}")]);
    command
}

#[test]
fn the_official_client_works() {
    let Some(python) = python() else { return };
    let node = Node::up();
    let said = Outcome::of(&mut client(&node, &python, "everything()")).good();
    assert_eq!(said.trim(), "done");
}

#[test]
fn visible_devices_are_chosen_and_reordered() {
    let Some(python) = python() else { return };
    let node = Node::described("count = 3");
    let seen = |list: &str| {
        let mut client = client(&node, &python, "print(devices())");
        Outcome::of(client.env("CUDA_VISIBLE_DEVICES", list))
            .good()
            .trim()
            .to_owned()
    };
    assert_eq!(seen("2,0"), "['0000:52:00.0', '0000:1b:00.0']");
    assert_eq!(seen("1,nonsense,0"), "['0000:43:00.0']");
    assert_eq!(seen(""), "no device");
    let all = Outcome::of(&mut client(&node, &python, "print(uuids()[1])")).good();
    assert_eq!(
        seen(&format!("GPU-{}", all[..8].trim())),
        "['0000:43:00.0']"
    );
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_gives_its_memory_back() {
    let Some(python) = python() else { return };
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut child = start(&mut client(&cuda.node, &python, "hold(5 << 30)"));
    let gone = || before - cuda.free();
    wait_until("the other process allocates", 20, || gone() >= 5 << 30);
    // Its context as well.
    assert_eq!(gone(), (5 << 30) + (512 << 20));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the memory comes back", 5, || gone() == 0);
}

#[test]
fn two_processes_share_a_gpu_and_events_show_it() {
    let Some(python) = python() else { return };
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut child = start(&mut client(&cuda.node, &python, "busy()"));
    wait_until("the other process works", 20, || {
        cuda.free() <= before - (1 << 30) - (512 << 20)
    });
    let (spin, stream, first, second) = (cuda.spin(), cuda.stream(), cuda.event(), cuda.event());
    good(cuda.cuEventRecord(first, stream));
    good(cuda.launch(spin, stream, 100_000_000));
    good(cuda.cuEventRecord(second, stream));
    good(cuda.cuEventSynchronize(second));
    let measured = cuda.elapsed(first, second);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((190.0..300.0).contains(&measured), "{measured}");
}

#[test]
fn memory_and_events_are_shared_by_handle() {
    let Some(python) = python() else { return };
    let node = Node::up();
    let said = Outcome::of(&mut client(&node, &python, "share()")).good();
    assert_eq!(said.trim(), "b'from the child'");
}

#[test]
fn a_forked_child_is_not_initialised() {
    let Some(python) = python() else { return };
    let node = Node::up();
    let said = Outcome::of(&mut client(&node, &python, "fork()")).good();
    assert_eq!(said.trim(), "CUDA_ERROR_NOT_INITIALIZED");
}
