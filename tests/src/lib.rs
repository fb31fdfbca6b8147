//! Support of the black-box suites: where the built files are, a simulated node, a real engine.
//!
//! The suites spawn our programs, load our libraries and run real engines; nothing here may reach into a crate of
//! ours for what a user would see from outside. Everything that is started is ended by `Drop`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "a test that cannot go on stops with the reason"
)]

pub mod built;
pub mod engine;
pub mod node;

/// What a command said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit status; -1 for a command ended by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    pub fn of(command: &mut std::process::Command) -> Self {
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The standard output of a command that succeeded.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// The standard error of a command that failed.
    #[track_caller]
    pub fn bad(self) -> String {
        assert_ne!(
            self.code, 0,
            "succeeded; stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stderr
    }
}

/// Waits until `condition` holds, asking every 20 ms; stops the test after `seconds`.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !condition() {
        assert!(
            std::time::Instant::now() < end,
            "waited {seconds} s in vain: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
