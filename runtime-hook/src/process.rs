//! Which boot, which process: the facts that tell a running container from one that is gone.
//!
//! A process id alone names nothing, because numbers come again; with the boot and the start time it names one
//! process. Reads `/proc` only. Facts: proc(5), field 22 of `/proc/<pid>/stat`.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file of `/proc` that cannot be read or understood.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It does not look as proc(5) says.
    #[error("{} has an unknown form", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
}

/// What of a process tells whether it still is the one that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// When it started. **Units:** clock ticks since boot.
    pub start_time: u64,
    /// It has ended; only its parent has not looked yet.
    pub ended: bool,
}

/// Text that differs from boot to boot.
///
/// # Errors
/// [`ProcessError::Read`] where `/proc` is not there.
pub fn boot_id() -> Result<String, ProcessError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(read(path)?.trim().to_owned())
}

/// The pid namespace that our own numbers belong to, as its inode.
///
/// # Errors
/// [`ProcessError::Read`] where `/proc` is not there.
pub fn pid_namespace() -> Result<u64, ProcessError> {
    namespace(Path::new("/proc/self/ns/pid"))
}

/// The inode of a namespace file.
///
/// # Errors
/// [`ProcessError::Read`] when the process is gone or not ours to look at.
pub fn namespace(path: &Path) -> Result<u64, ProcessError> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path);
    found.map(|m| m.ino()).map_err(|source| ProcessError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The start time of a process; `None` when there is none of that number.
///
/// # Errors
/// [`ProcessError`] when it cannot be told.
pub fn stat(pid: i32) -> Result<Option<Stat>, ProcessError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    match read(&path) {
        Ok(text) => parse_stat(&text)
            .map(Some)
            .ok_or(ProcessError::Form { path }),
        Err(ProcessError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound
                || source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The command name, in parentheses, may hold anything: count from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // State is field 3, the start time field 22.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat {
        start_time,
        ended: matches!(state, "Z" | "X" | "x"),
    })
}

fn read(path: &Path) -> Result<String, ProcessError> {
    std::fs::read_to_string(path).map_err(|source| ProcessError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_no_process_is_not() {
        let own = stat(i32::try_from(std::process::id()).unwrap())
            .unwrap()
            .unwrap();
        assert!(own.start_time > 0 && !own.ended);
        assert_eq!(stat(i32::MAX).unwrap(), None);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(pid_namespace().unwrap() > 0);
    }

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let text = "7 (a) S 1 (b)) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 0 0";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                start_time: 4711,
                ended: true
            })
        );
        assert_eq!(parse_stat("7 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }
}
