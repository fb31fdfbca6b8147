//! `sim-gpu down`: ends a node and removes what was made for it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sim_gpu::root::{Manifest, PID_FILE};

use crate::commands::{absolute, daemon_pid, say};

/// Takes the node at `root` down; says so when there is none.
pub(crate) fn run(root: &Path) -> Result<()> {
    let root = absolute(root)?;
    match take_down(&root)? {
        Some(count) => say(&format!(
            "node at {} ended, {count} files removed",
            root.display()
        )),
        None => say(&format!("no node at {}", root.display())),
    }
    Ok(())
}

/// Ends the daemon of `root` and removes the files; returns how many, or `None` where no node was.
pub(crate) fn take_down(root: &Path) -> Result<Option<usize>> {
    let listening = daemon_pid(root);
    if let Some(pid) = listening.or_else(|| recorded(root)) {
        end(pid)?;
    }
    Ok(Manifest::remove_all(root)?)
}

/// The process that the pid file names, if it is a daemon of this very root: pids are reused.
fn recorded(root: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(root.join(PID_FILE))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
    let own = root.as_os_str().as_encoded_bytes();
    (words.get(1) == Some(&&b"serve"[..]) && words.contains(&own)).then_some(pid)
}

fn end(pid: i32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut signal = Signal::SIGTERM;
    loop {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot end the daemon {pid}"));
            }
        }
        if is_zombie(pid) {
            return Ok(());
        }
        if Instant::now() > deadline {
            if signal == Signal::SIGKILL {
                bail!("the daemon {pid} does not end");
            }
            signal = Signal::SIGKILL;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ended, and only not yet waited for by whoever started it.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    state.starts_with('Z') || state.starts_with('X')
}
