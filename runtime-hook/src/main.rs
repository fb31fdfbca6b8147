//! The OCI hook binary: frees itself of what it inherited, runs one stage, says one line when that fails.
//!
//! Older runtimes start hooks of the stage `createContainer` with the container's environment and in the container's
//! root file system, so both are left behind before anything else happens (CVE-2025-23266).
#![allow(
    unsafe_code,
    reason = "clearing the environment is unsafe in a process with threads"
)]

use std::io::Write;
use std::process::ExitCode;

use nix::sys::stat::Mode;

fn main() -> ExitCode {
    // SAFETY: no other thread exists yet, and nothing has kept a pointer into the environment: this is the first
    // statement of the program, which is linked statically and has no constructors of its own.
    let cleared = unsafe { nix::env::clearenv() };
    if cleared.is_err() || nix::unistd::chdir("/").is_err() {
        return fail(
            "cannot leave the environment and working directory it was started with",
            1,
        );
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let args: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    match vgpu_hook::run(&args, std::io::stdin().lock()) {
        Ok(warnings) => {
            for warning in warnings {
                say(&format!("warning: {warning}"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&vgpu_hook::error::line(&error), error.exit_code().code()),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    say(message);
    ExitCode::from(code)
}

/// One line on stderr, in one write. Nothing more can be done when even that fails.
fn say(message: &str) {
    std::io::stderr()
        .write_all(format!("vgpu-hook: {message}\n").as_bytes())
        .ok();
}
