//! Who a process is, and whether it is still there: pid, start time and pid namespace, from `/proc`.
//!
//! Reads `/proc` only when a process attaches and when the dead are looked for. A process may see the
//! `/proc` of another pid namespace, or one that hides other users' processes: what is read there is
//! believed only where it is this namespace's, and nobody is gone unless the kernel says so too.
#![allow(
    unsafe_code,
    reason = "kill(pid, 0) has no counterpart in the standard library"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;

/// A process as it can be told from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) pid_namespace: u64,
    /// Field 22 of `/proc/<pid>/stat`; 0 when it could not be read, which makes the process one that
    /// is never judged by its pid.
    pub(crate) start_time: u64,
}

impl Identity {
    /// The calling process.
    pub(crate) fn own() -> Self {
        Self {
            pid: std::process::id(),
            pid_namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |data| data.ino()),
            start_time: stat("self")
                .filter(|_| proc_is_ours())
                .map_or(0, |stat| stat.start_time),
        }
    }

    /// Whether this process is certainly gone, seen from `own`'s pid namespace. What cannot be
    /// seen from there is not certain.
    pub(crate) fn is_gone(&self, own: &Self) -> bool {
        if self.pid_namespace != own.pid_namespace || own.pid_namespace == 0 || self.pid == 0 {
            return false;
        }
        // The `/proc` that is seen may have changed since the process attached.
        if self.start_time == 0 || own.start_time == 0 || !proc_is_ours() {
            return false;
        }
        match fs::read(format!("/proc/{}/stat", self.pid)) {
            Ok(text) => parse(&text)
                .is_some_and(|stat| stat.start_time != self.start_time || stat.is_ended()),
            Err(_) => is_absent(self.pid),
        }
    }
}

/// Whether `/proc` numbers processes as this process's pid namespace does.
fn proc_is_ours() -> bool {
    fs::read_link("/proc/self")
        .is_ok_and(|link| link.as_os_str() == std::process::id().to_string().as_str())
}

/// Whether the kernel knows no process by this pid of the caller's namespace.
fn is_absent(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    // SAFETY: signal 0 is not sent, only asked about.
    let status = unsafe { libc::kill(pid, 0) };
    status != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

struct Stat {
    state: u8,
    threads: u64,
    start_time: u64,
}

impl Stat {
    /// A leader that ended is a zombie too while other threads of the process run on.
    fn is_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

fn stat(process: &str) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// The name in field 2 may hold anything, so counting starts after the last parenthesis.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end.checked_add(1)?..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let threads = fields.nth(16)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        state,
        threads,
        start_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_after_a_hostile_name() {
        let text = b"12 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 7 18 4242 20";
        let stat = parse(text).unwrap();
        assert_eq!((stat.state, stat.threads, stat.start_time), (b'R', 7, 4242));
        assert!(parse(b"garbage").is_none());
        assert!(parse(b"1 (x)").is_none());
    }

    #[test]
    fn own_is_alive_and_an_ended_child_is_gone() {
        let own = Identity::own();
        assert!(own.start_time > 0 && own.pid_namespace > 0);
        assert!(!own.is_gone(&own));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let start_time = stat(&child.id().to_string()).unwrap().start_time;
        let other = Identity {
            pid: child.id(),
            start_time,
            ..own
        };
        assert!(!other.is_gone(&own));
        assert!(
            Identity {
                start_time: start_time.wrapping_add(1),
                ..other
            }
            .is_gone(&own)
        );
        assert!(
            !Identity {
                pid_namespace: 1,
                start_time: 1,
                ..other
            }
            .is_gone(&own)
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone(&own));
    }
}
