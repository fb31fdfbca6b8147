//! Processes that take and give back memory of every kind through the limiter are killed at any moment, many times.
//!
//! After each kill a sibling can take exactly what the dead one held; at no instant do charges exceed the quota; and
//! nothing is left at the end. `VGPU_KILLS` says how many kills (10,000). The ledger's own torture, over bare atomics,
//! is in `limiter/region`; this one runs whole processes: driver, hooks, region and kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use limiter_world::World;
use vgpu_core::DeviceUuid;
use vgpu_region::{DeviceLimits, Observer, usage};
use vgpu_tests::node::Node;
use vgpu_tests::{Outcome, wait_until};

const QUOTA: u64 = 64 << 20;
const FOOTPRINT: u64 = 1 << 20;
const KILLS: u64 = 10_000;
const UUID: &str = "GPU-11111111-1111-1111-1111-111111111111";
const WORKER: &str = include_str!("torture/worker.c");

/// A node whose one GPU is much larger than the quota, so that only the limiter refuses.
fn world() -> World {
    let node = Node::described(&format!(
        "count = 1\ncontext_footprint_mib = 1\n[[gpus]]\nuuid = \"{UUID}\"\n"
    ));
    let world = World::over(node);
    world.grant(&[DeviceLimits {
        uuid: UUID.parse::<DeviceUuid>().unwrap().as_bytes(),
        capacity: 1 << 37,
        vram_limit: QUOTA,
        context_footprint: FOOTPRINT,
        ..DeviceLimits::default()
    }]);
    world
}

/// The worker program, compiled into the world's directory.
fn worker(world: &World) -> PathBuf {
    let source = world.dir.path().join("worker.c");
    let program = world.dir.path().join("worker");
    std::fs::write(&source, WORKER).unwrap();
    let mut compile = Command::new("cc");
    compile.arg(format!("-DQUOTA={QUOTA}UL"));
    compile.arg(format!("-DFOOTPRINT={FOOTPRINT}UL"));
    compile
        .args(["-O1", "-Wall", "-Werror", "-o"])
        .arg(&program);
    Outcome::of(compile.arg(&source).args(["-ldl", "-lpthread"])).good();
    program
}

fn run(world: &World, args: &[&str]) -> Outcome {
    Outcome::of(world.command(worker(world)).args(args))
}

/// Looks at the account until told to stop; answers the most that it ever saw.
fn watch(world: &World, stop: &AtomicBool) -> u64 {
    let observer = Observer::open(&world.region()).unwrap();
    let mut most = 0;
    while !stop.load(Relaxed) {
        for _ in 0..1000 {
            most = most.max(observer.used(0));
        }
        assert!(most <= QUOTA, "{most} bytes were charged at once");
        // The processes that it watches want to run too.
        std::thread::sleep(Duration::from_micros(50));
    }
    most
}

/// Runs a command while its account is watched.
fn watched(world: &World, mut command: Command) -> (Outcome, u64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(world, &stop));
        let outcome = Outcome::of(&mut command);
        stop.store(true, Relaxed);
        (outcome, watcher.join().unwrap())
    })
}

/// Nothing is charged and nobody lives.
fn assert_empty(world: &World) {
    let said = run(world, &["whole"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let processes = usage::read_summary(&world.region()).unwrap();
    assert!(
        processes.iter().all(|process| !process.live),
        "{processes:?}"
    );
}

fn kills() -> u64 {
    std::env::var("VGPU_KILLS").map_or(KILLS, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("VGPU_KILLS={text}: a number"))
    })
}

/// Rounds of a few children at once, each killed after a random time; after every round one process takes the whole
/// quota and gives it back.
#[test]
fn ten_thousand_kills_lose_nothing() {
    let world = world();
    let kills = kills();
    let mut command = world.command(worker(&world));
    command.args(["rounds", &kills.to_string()]);
    let (outcome, most) = watched(&world, command);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let said = outcome.stdout.trim().to_owned();
    assert!(said.starts_with(&format!("{kills} kills,")), "{said}");
    assert!(most > QUOTA / 2, "only {most} bytes were ever in use");
    assert_empty(&world);
}

/// The check can fail: a process that stays keeps what it holds.
#[test]
fn what_is_still_held_is_missed() {
    let world = world();
    let mut holder = waiting(&world, "hold");
    let said = run(&world, &["whole"]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_empty(&world);
}

/// A worker that has said that it is ready, and waits.
fn waiting(world: &World, verb: &str) -> Child {
    let mut command = world.command(worker(world));
    let mut child = command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// A forked child has nothing of its parent's, cannot give it back, and takes none of it along when it is killed.
#[test]
fn fork_without_exec() {
    let world = world();
    assert_eq!(run(&world, &["fork"]).good(), "kept\n");
    assert_empty(&world);
}

/// The same for `vfork` and `exec`: the parent keeps its own while a program of its own runs and ends.
#[test]
fn vfork_and_exec() {
    let world = world();
    assert_eq!(run(&world, &["vfork"]).good(), "kept\n");
    assert_empty(&world);
}

/// `exec` of another GPU program in the same pid: what the first held is free before the second is refused.
#[test]
fn exec_in_the_same_pid() {
    let world = world();
    assert_eq!(run(&world, &["exec"]).good(), "whole\n");
    assert_empty(&world);
}

/// Threads take and give back at once, and the process is killed in the middle of it.
#[test]
fn threads_killed_together() {
    let world = world();
    let mut command = world.command(worker(&world));
    command.args(["threads", "20"]);
    let (outcome, most) = watched(&world, command);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(most > 0);
    assert_empty(&world);
}

/// The simulated driver has nothing left either: the limiter freed nothing of others and hid nothing.
#[test]
fn the_driver_agrees_after_kills() {
    let world = world();
    let mut command = world.command(worker(&world));
    command.args(["rounds", "60"]);
    Outcome::of(&mut command).good();
    let node = world.node.as_ref().unwrap();
    let mut status = Command::new(vgpu_tests::built::file("sim/bin/sim-gpu"));
    status.args(["status", "--json", "--root"]).arg(node.root());
    wait_until("an empty node", 10, || {
        let said = Outcome::of(&mut status).good();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["clients"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
}
