//! The limiter's log: one line, one `write`, and only to the file that `VGPU_LOG` names, outside
//! containers. Never standard output or error, which belong to the application.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::driver;
use crate::published::Published;

static FILE: Published<File> = Published::empty();

/// Opens the log. Called when a session starts; in a container the file system is the tenant's.
pub(crate) fn open(in_container: bool) {
    if in_container || FILE.get().is_some() {
        return;
    }
    let Some(path) = driver::environment(vgpu_core::env::LOG) else {
        return;
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    if let Ok(file) = file {
        FILE.set(file);
    }
}

/// Writes a line. A log that cannot be written is no reason to fail a call.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    if let Some(mut file) = FILE.get() {
        let line = format!("vgpu[{}]: {text}\n", std::process::id());
        drop(file.write(line.as_bytes()));
    }
}
