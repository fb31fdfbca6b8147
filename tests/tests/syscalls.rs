//! No system call on a path that is not throttled: what the limiter adds to an allocation, a question or a launch stays
//! in user space. The same program runs over the bare simulated driver and over the limiter, under `strace`, and between
//! two markers the calls must be the same, name by name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use limiter_world::World;
use vgpu_core::DeviceUuid;
use vgpu_tests::Outcome;
use vgpu_tests::node::Node;

const UUID: &str = "GPU-11111111-1111-1111-1111-111111111111";
const PROGRAM: &str = include_str!("syscalls/steady.c");
/// How often each path is taken between the markers.
const TIMES: &str = "1000";
/// Calls by name.
type Calls = BTreeMap<String, usize>;

fn world() -> World {
    let world = World::over(Node::described(&format!(
        "count = 1\n[[gpus]]\nuuid = \"{UUID}\"\n"
    )));
    world.grant(&[World::device(
        UUID.parse::<DeviceUuid>().unwrap().as_bytes(),
    )]);
    world
}

fn compiled(world: &World) -> PathBuf {
    let (source, program) = (
        world.dir.path().join("steady.c"),
        world.dir.path().join("steady"),
    );
    std::fs::write(&source, PROGRAM).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-w", "-o"]).arg(&program).arg(&source);
    Outcome::of(compile.arg("-ldl")).good();
    program
}

/// Whether system calls can be traced here; a machine that should and cannot fails when `CI=true`.
fn can_trace() -> bool {
    let strace = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    let works = strace.is_ok_and(|output| output.status.success());
    assert!(
        works || std::env::var("CI").as_deref() != Ok("true"),
        "CI=true, and strace cannot trace here"
    );
    if !works {
        eprintln!("SKIPPED: strace cannot trace here");
    }
    works
}

/// The calls of all threads between the markers.
fn traced(world: &World, library: &Path, path: &str) -> Calls {
    let trace = world.dir.path().join("trace");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace);
    strace
        .arg("-E")
        .arg(format!("LD_LIBRARY_PATH={}", library.display()));
    strace.arg(compiled(world)).args([path, TIMES]);
    Outcome::of(&mut strace).good();
    let text = std::fs::read_to_string(&trace).unwrap();
    let mut calls = Calls::new();
    let mut markers = 0;
    for line in text.lines() {
        // "PID name(arguments) = result"; resumed calls were counted when they began.
        let call = line.split_once(' ').map_or("", |(_, call)| call.trim());
        let Some((name, _)) = call.split_once('(') else {
            continue;
        };
        if name == "getppid" {
            markers += 1;
        } else if markers == 1 && !name.starts_with("<...") {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(markers, 2, "{path}: the markers");
    calls
}

fn bare(world: &World) -> PathBuf {
    let root = world.node.as_ref().unwrap().root();
    root.join("usr/lib/x86_64-linux-gnu")
}

#[test]
fn unthrottled_paths_make_no_system_call_of_their_own() {
    if !can_trace() {
        return;
    }
    let world = world();
    for path in ["alloc", "info", "launch", "async"] {
        let over_driver = traced(&world, &bare(&world), path);
        let over_limiter = traced(&world, world.dir.path(), path);
        assert_eq!(over_limiter, over_driver, "{path}, {TIMES} times");
    }
}

/// The count can differ: one call more each time is seen, and nothing else.
#[test]
fn one_more_call_is_seen() {
    if !can_trace() {
        return;
    }
    let world = world();
    let calls = traced(&world, world.dir.path(), "control");
    assert_eq!(calls, Calls::from([("getuid".to_owned(), 1000)]));
}
