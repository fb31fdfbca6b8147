//! The demo as a person runs it, in the variant that needs no container (the other one is what `make demo` is).

#![allow(
    clippy::tests_outside_test_module,
    reason = "an integration test is one"
)]

use std::process::Command;

use vgpu_tests::{Outcome, built};

#[test]
fn every_row_is_as_promised() {
    let outcome = Outcome::of(
        Command::new(built::project().join("tests/demo/demo.sh"))
            .arg("--no-build")
            .env("VGPU_DIST", built::dist()),
    );
    let text = outcome.good();
    assert!(text.contains("4 of 4 rows as promised"), "{text}");
}

#[test]
fn without_containers_it_says_so() {
    let outcome = Outcome::of(
        Command::new(built::project().join("tests/demo/demo.sh"))
            .args(["--no-build", "--no-containers"])
            .env("VGPU_DIST", built::dist()),
    );
    let text = outcome.good();
    assert!(
        text.contains("no containers: --no-containers was given"),
        "{text}"
    );
    assert!(text.contains("2 of 2 rows as promised"), "{text}");
}
