//! The command of `vgpu run`: started, sent every signal that we get, waited for.
//!
//! Nothing here may end this program before the folder is removed, so the signals that would are caught.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use vgpu_core::DeviceUuid;

use super::dialect;
use super::folder::Folder;

const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Runs the command to its end; answers its exit status, 128 and the number where a signal ended it.
pub(super) fn run(command: &[OsString], folder: &Folder, gpu: DeviceUuid) -> anyhow::Result<u8> {
    // Before the child exists, so that no signal finds us unprepared.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])
        .context("cannot catch signals")?;
    let (program, args) = command.split_first().context("no command")?;
    let before = std::env::var_os(LIBRARY_PATH);
    let mut command = Command::new(program);
    command
        .args(args)
        .env(LIBRARY_PATH, folder.library_path(before.as_deref()));
    for (name, _) in std::env::vars_os() {
        // What they ask for is in the quota; another limiter in the command would count it a second time.
        if name.to_str().is_some_and(dialect::owns) {
            command.env_remove(name);
        }
    }
    if std::env::var_os(VISIBLE).is_none() {
        // CUDA's first device is then the one with the quota. This is a convenience: the limiter goes by UUID.
        command.env(VISIBLE, gpu.to_string());
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("the command's pid")?);
    let handle = signals.handle();
    let forwarder = thread::spawn(move || {
        for signal in signals.forever() {
            forward(signal, pid);
        }
    });
    // The child stays a zombie until no signal can be sent to its number any more.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        == Err(nix::errno::Errno::EINTR)
    {}
    handle.close();
    // It cannot panic, and the status is what counts.
    forwarder.join().ok();
    let status = child.wait().context("cannot wait for the command")?;
    Ok(code(status))
}

fn forward(signal: i32, child: Pid) {
    // A terminal sends these to every process of the foreground group, the child included.
    if [SIGINT, SIGQUIT, SIGWINCH].contains(&signal) && in_foreground() {
        return;
    }
    if let Ok(signal) = Signal::try_from(signal) {
        // The child may have ended by itself.
        kill(child, signal).ok();
    }
}

fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(tty) == Ok(getpgrp()))
}

/// As shells count.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_counted_as_shells_do() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }
}
