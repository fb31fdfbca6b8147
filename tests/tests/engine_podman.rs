//! Containers started by a real podman with runc: what a tenant sees, gets, and cannot get around.
//!
//! Every test has an engine and a simulated node of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::tests_outside_test_module,
    clippy::missing_panics_doc,
    reason = "test code stops with the reason"
)]

use serde_json::Value;
use vgpu_tests::engine::{BUSYBOX, CLIENTS, Podman, parse};
use vgpu_tests::wait_until;

fn bytes(line: &Value, key: &str) -> u64 {
    line[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// The promise of "stopped exactly": never above the quota, and each refused request would have gone above it.
#[track_caller]
fn assert_stopped_exactly(line: &Value, quota: u64) {
    let context = bytes(line, "context");
    assert!(context > 0, "a context takes memory: {line}");
    assert!(
        context + bytes(line, "allocated") <= quota,
        "above the quota of {quota}: {line}"
    );
    for refusal in line["refusals"].as_array().unwrap() {
        let after = context + bytes(refusal, "held") + bytes(refusal, "request");
        assert!(
            after > quota,
            "{refusal} would have fitted into {quota}: {line}"
        );
    }
}

/// Nothing of any container is left: no grant, no region, no mount.
#[track_caller]
fn assert_nothing_left(engine: &Podman) {
    wait_until("grants and regions are gone", 10, || {
        let script = "find /run/vgpu/grants /run/vgpu/containers -mindepth 1 2>/dev/null; grep /run/vgpu/ /proc/self/mounts";
        engine.inside(&["sh", "-c", script]).stdout.is_empty()
    });
}

#[test]
fn quota_is_seen_and_stops_exactly() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let quota = engine.quota("gpu0-quarter");
    let run = engine.run(
        "gpu0-quarter",
        &["--rm", CLIENTS, "python3", "/clients/cuda_client.py"],
    );
    let line = parse(&run.good());
    assert_eq!(
        bytes(&line, "devices"),
        1,
        "only the GPU that was asked for: {line}"
    );
    assert_eq!(bytes(&line, "total"), quota);
    assert_eq!(bytes(&line, "info_total"), quota);
    assert_stopped_exactly(&line, quota);
    assert_nothing_left(&engine);
}

#[test]
fn nvml_tells_the_same_story() {
    let Some(engine) = Podman::start() else {
        return;
    };
    engine.idle("c", "gpu0-half");
    let cuda = engine.holding_client("c");
    let nvml = parse(
        &engine
            .podman(&["exec", "c", "python3", "/clients/nvml_client.py"])
            .good(),
    );
    let devices = nvml["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(bytes(&devices[0], "total"), engine.quota("gpu0-half"));
    assert_eq!(
        bytes(&devices[0], "used"),
        bytes(&cuda, "context") + bytes(&cuda, "allocated")
    );
    assert_eq!(
        devices[0]["processes"].as_array().unwrap().len(),
        1,
        "{nvml}"
    );
}

#[test]
fn full_gpu_refuses_and_names_the_holders() {
    let Some(engine) = Podman::start() else {
        return;
    };
    engine.idle("first", "gpu0-quarter");
    engine.idle("second", "gpu0-half");
    let refused = engine
        .run("gpu0-half", &["--name", "third", CLIENTS, "true"])
        .bad();
    let first = engine.podman(&["inspect", "-f", "{{.Id}}", "first"]).good();
    let second = engine
        .podman(&["inspect", "-f", "{{.Id}}", "second"])
        .good();
    for holder in [first.trim(), second.trim()] {
        assert!(
            refused.contains(&holder[..12]),
            "{holder} is not named: {refused}"
        );
    }
    // What was refused took nothing: what is left still goes to one that fits, and another GPU is not affected.
    engine.idle("fourth", "gpu0-quarter");
    engine.idle("fifth", "gpu1-half");
    for name in ["first", "second", "fourth", "fifth"] {
        engine.podman(&["rm", "-f", "-t", "0", name]).good();
    }
    assert_nothing_left(&engine);
}

#[test]
fn a_command_executed_later_is_limited_too() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let quota = engine.quota("gpu0-eighth");
    engine.idle("c", "gpu0-eighth");
    let line = engine.client("c", &[]);
    assert_eq!(bytes(&line, "total"), quota);
    assert_stopped_exactly(&line, quota);
    // Neither an empty environment nor one that a tenant makes up changes what the name leads to.
    let bare = [
        "exec",
        "c",
        "env",
        "-i",
        "PYTHONPATH=/opt/clients",
        "/usr/bin/python3",
        "/clients/cuda_client.py",
        "--look",
    ];
    assert_eq!(bytes(&parse(&engine.podman(&bare).good()), "total"), quota);
    let forged = [
        "exec",
        "-e",
        "VGPU_VRAM=141Gi",
        "-e",
        "VGPU_LIMITER_DIR=/nowhere",
        "-e",
        "VGPU_RUN_DIR=/tmp",
        "-e",
        "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu:/usr/lib64",
        "c",
        "python3",
        "/clients/cuda_client.py",
        "--look",
    ];
    assert_eq!(
        bytes(&parse(&engine.podman(&forged).good()), "total"),
        quota
    );
}

#[test]
fn a_killed_client_gives_its_memory_back() {
    let Some(engine) = Podman::start() else {
        return;
    };
    engine.idle("c", "gpu0-quarter");
    let before = engine.holding_client("c");
    let second = engine.podman(&["exec", "c", "python3", "/clients/cuda_client.py"]);
    assert_ne!(second.code, 0, "the quota is used up: {}", second.stdout);
    engine
        .podman(&["exec", "c", "sh", "-c", "kill -9 $(busybox pidof python3)"])
        .good();
    let after = engine.client("c", &[]);
    assert_eq!(after["allocated"], before["allocated"]);
}

#[test]
fn a_client_killed_at_any_moment_gives_all_back() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let quota = engine.quota("gpu0-quarter");
    engine.idle("c", "gpu0-quarter");
    // From the interpreter's start over the first allocation to the full quota, and again.
    let script = "for d in 0.03 0.06 0.09 0.12 0.15 0.18 0.21 0.24 0.27 0.3; do \
                  python3 /clients/cuda_client.py --hold >/dev/null 2>&1 & sleep $d; kill -9 $!; wait; done";
    engine.podman(&["exec", "c", "sh", "-c", script]).good();
    let line = engine.client("c", &[]);
    assert_stopped_exactly(&line, quota);
    assert_eq!(
        bytes(&line, "context") + bytes(&line, "allocated"),
        quota,
        "something is still held by the dead: {line}"
    );
}

#[test]
fn a_stopped_container_leaves_nothing() {
    let Some(engine) = Podman::start() else {
        return;
    };
    engine.idle("c", "gpu0-full");
    let _held = engine.holding_client("c");
    assert!(engine.ps().contains("gpu0-full"), "{}", engine.ps());
    engine.podman(&["kill", "-s", "KILL", "c"]).good();
    engine.podman(&["wait", "c"]).good();
    assert_nothing_left(&engine);
    let rest = engine.ps();
    assert!(!rest.contains("gpu0-full"), "{rest}");
    // The GPU itself is empty again as well: the next one gets all of it.
    let run = engine.run(
        "gpu0-full",
        &["--rm", CLIENTS, "python3", "/clients/cuda_client.py"],
    );
    assert_stopped_exactly(&parse(&run.good()), engine.quota("gpu0-full"));
}

#[test]
fn unknown_devices_are_refused() {
    let Some(engine) = Podman::start() else {
        return;
    };
    for vgpu in ["gpu9", "gpu0-third"] {
        let message = engine.run(vgpu, &["--rm", BUSYBOX, "true"]).bad();
        assert!(
            message.contains("unresolvable CDI devices") && message.contains(vgpu),
            "{message}"
        );
    }
    assert_nothing_left(&engine);
}

#[test]
fn odd_containers_are_limited_too() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let quota = engine.quota("gpu0-quarter");
    let look = ["python3", "/clients/cuda_client.py", "--look"];
    for options in [
        &["--user=1000:1000"][..],
        &["--read-only"],
        &["--cap-drop=ALL"],
        &["--ipc=host", "--pid=host"],
    ] {
        let mut args = vec!["--rm"];
        args.extend(options);
        args.push(CLIENTS);
        args.extend(look);
        let line = parse(&engine.run("gpu0-quarter", &args).good());
        assert_eq!(bytes(&line, "total"), quota, "{options:?}");
    }
    // An image without any loader starts as well: there is nothing to limit in it.
    engine
        .run("gpu0-quarter", &["--rm", BUSYBOX, "true"])
        .good();
    assert_nothing_left(&engine);
}

#[test]
fn two_slices_of_one_gpu_add_up() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let second = "--device=tensor-fusion.ai/vgpu=gpu0-eighth";
    let run = engine.run(
        "gpu0-quarter",
        &[
            "--rm",
            second,
            CLIENTS,
            "python3",
            "/clients/cuda_client.py",
            "--look",
        ],
    );
    let sum = engine.quota("gpu0-quarter") + engine.quota("gpu0-eighth");
    assert_eq!(bytes(&parse(&run.good()), "total"), sum);
    assert_nothing_left(&engine);
}

#[test]
fn all_is_a_slice_of_every_gpu() {
    let Some(engine) = Podman::start() else {
        return;
    };
    engine.idle("c", "all");
    let client = ["exec", "c", "python3", "/clients/nvml_client.py"];
    let nvml = parse(&engine.podman(&client).good());
    let devices = nvml["devices"].as_array().unwrap();
    let totals: Vec<u64> = devices.iter().map(|d| bytes(d, "total")).collect();
    assert_eq!(totals, [engine.quota("gpu0"), engine.quota("gpu1")]);
    for vgpu in ["gpu0-half", "gpu1-half"] {
        let refused = engine.run(vgpu, &["--rm", BUSYBOX, "true"]).bad();
        assert!(refused.contains("(all, "), "{vgpu}: {refused}");
    }
    engine.podman(&["rm", "-f", "-t", "0", "c"]).good();
    assert_nothing_left(&engine);
}

#[test]
fn a_shared_volume_starts_and_one_with_the_driver_does_not() {
    let Some(engine) = Podman::start() else {
        return;
    };
    let script = "mkdir -p /tmp/shared && mount -t tmpfs none /tmp/shared && mount --make-shared /tmp/shared";
    engine.inside(&["sh", "-c", script]).good();
    let with = |to: &str| {
        let volume = format!("-v=/tmp/shared:{to}:rshared");
        let look = ["python3", "/clients/cuda_client.py", "--look"];
        let args = [&["--rm", &volume, CLIENTS][..], &look].concat();
        engine.run("gpu0-quarter", &args)
    };
    let line = parse(&with("/data").good());
    assert_eq!(bytes(&line, "total"), engine.quota("gpu0-quarter"));
    let copy = "echo host > /tmp/shared/libcuda.so.1";
    engine.inside(&["sh", "-c", copy]).good();
    let refused = with("/usr/local/nvidia/lib64").bad();
    assert!(
        refused.contains("shared mount propagation") && refused.contains("libcuda.so.1"),
        "{refused}"
    );
    let host = engine.inside(&["cat", "/tmp/shared/libcuda.so.1"]).good();
    assert_eq!(host, "host\n");
    assert_nothing_left(&engine);
}

#[test]
fn a_user_namespace_is_limited_too() {
    let Some(engine) = Podman::start() else {
        return;
    };
    // In a user namespace runc binds a device from where it will be, so the nodes have to stand there outside too.
    let nodes = format!("cp -a {}/dev/nvidia* /dev/", engine.node.root().display());
    engine.inside(&["sh", "-c", &nodes]).good();
    let map = "--uidmap=0:100000:65536";
    let client = ["--rm", map, CLIENTS, "python3", "/clients/cuda_client.py"];
    let line = parse(&engine.run("gpu0-quarter", &client).good());
    assert_stopped_exactly(&line, engine.quota("gpu0-quarter"));
    assert_eq!(bytes(&line, "total"), engine.quota("gpu0-quarter"));
    assert_nothing_left(&engine);
}
