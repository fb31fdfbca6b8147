//! The demo as a person runs it, with containers and without, and the judge of its table.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is one, and stops with the reason"
)]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use vgpu_tests::{Outcome, built};

fn demo(options: &[&str]) -> Outcome {
    let mut command = Command::new(built::project().join("tests/demo/demo.sh"));
    command.arg("--no-build").args(options);
    Outcome::of(command.env("VGPU_DIST", built::dist()))
}

#[test]
fn every_row_is_as_promised() {
    let text = demo(&[]).good();
    let containers = text.contains("4 of 4 rows as promised");
    let plain = text.contains("no containers: ") && text.contains("2 of 2 rows as promised");
    assert!(containers || plain, "{text}");
}

#[test]
fn without_containers_it_says_so() {
    let text = demo(&["--no-containers"]).good();
    assert!(
        text.contains("no containers: --no-containers was given"),
        "{text}"
    );
    assert!(text.contains("2 of 2 rows as promised"), "{text}");
}

/// Runs the judge over one slice of 10,000 units with a context of 1,000 and this client's line.
fn judge(cuda: &Value) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let hook = json!({"args": ["vgpu-hook", "--vram-limit=5120000"]});
    let spec = json!({"kind": "tensor-fusion.ai/vgpu", "devices": [{"name": "gpu0-x", "containerEdits": {"hooks": [hook]}}]});
    fs::write(folder.path().join("spec.json"), spec.to_string()).unwrap();
    fs::write(folder.path().join("gpu0-x.cuda"), cuda.to_string()).unwrap();
    let mut table = Command::new(built::python());
    table.arg(built::project().join("tests/demo/table.py"));
    table
        .arg(folder.path().join("spec.json"))
        .arg(folder.path());
    Outcome::of(table.arg("gpu0-x"))
}

fn line(total: u64, allocated: u64, refused: u64) -> Value {
    json!({"devices": 1, "total": total, "info_total": total, "context": 512_000, "allocated": allocated,
           "refusals": [{"request": refused, "held": allocated}]})
}

#[test]
fn the_judge_accepts_only_an_exact_stop() {
    assert!(
        judge(&line(5_120_000, 4_608_000, 512))
            .good()
            .contains("stopped exactly")
    );
    let refused = [
        (line(5_120_000, 4_608_512, 512), "512 bytes above the quota"),
        (
            line(5_120_000, 4_607_488, 512),
            "512 B refused with 512 B left",
        ),
        (line(150_000_000, 4_608_000, 512), "believes in 143.1 MiB"),
    ];
    for (cuda, reason) in refused {
        let outcome = judge(&cuda);
        assert_eq!(outcome.code, 1, "{}", outcome.stdout);
        assert!(outcome.stdout.contains(reason), "{}", outcome.stdout);
    }
}
