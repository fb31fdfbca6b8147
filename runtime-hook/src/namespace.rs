//! Work in a container's mount namespace, done by the host's root.
//!
//! Owns entering and, by ending its thread, leaving: a thread may enter another mount namespace on its own once it
//! shares no working directory. The work runs before the container's root is entered, so host paths mean what they
//! mean on the host. Never used once anything of the container runs.

use std::os::fd::{AsFd, OwnedFd};

use caps::{CapSet, Capability};
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

/// A namespace that cannot be entered or told.
#[derive(Debug, Error)]
#[error("cannot {action} of process {pid}")]
pub struct NamespaceError {
    /// What was tried.
    pub action: &'static str,
    /// The container's init process.
    pub pid: i32,
    /// What the system said.
    #[source]
    pub source: Errno,
}

/// The user and group that own what the container's root makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

/// Runs `work` in the mount namespace of `pid`; here, when that is ours.
///
/// # Errors
/// [`NamespaceError`] when it cannot be entered; nothing ran then.
pub fn within<T: Send>(pid: i32, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let enter = "enter the mount namespace";
    let fail = |source| NamespaceError {
        action: enter,
        pid,
        source,
    };
    let theirs = open(&format!("/proc/{pid}/ns/mnt")).map_err(fail)?;
    let ours = open("/proc/self/ns/mnt").map_err(fail)?;
    if inode(&theirs).map_err(fail)? == inode(&ours).map_err(fail)? {
        return Ok(work());
    }
    let thread = || {
        let errno = |error: nix::Error| Errno::from_raw_os_error(error as i32);
        nix::sched::unshare(CloneFlags::CLONE_FS).map_err(errno)?;
        nix::sched::setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS).map_err(errno)?;
        Ok(work())
    };
    let done = std::thread::scope(|scope| scope.spawn(thread).join());
    done.unwrap_or(Err(Errno::IO)).map_err(fail)
}

/// Who the container's root is on the host, for a container in a user namespace of its own; `None` for any other.
///
/// # Errors
/// [`NamespaceError`] when it cannot be told.
pub fn owner(pid: i32) -> Result<Option<Owner>, NamespaceError> {
    let fail = |source| NamespaceError {
        action: "look at the user namespace",
        pid,
        source,
    };
    let theirs = open(&format!("/proc/{pid}/ns/user")).map_err(fail)?;
    let ours = open("/proc/self/ns/user").map_err(fail)?;
    if inode(&theirs).map_err(fail)? == inode(&ours).map_err(fail)? {
        return Ok(None);
    }
    let id = |file: &str| {
        let map = std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let map = map.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        root_of(&map).ok_or(Errno::INVAL)
    };
    Ok(Some(Owner {
        uid: id("uid_map").map_err(fail)?,
        gid: id("gid_map").map_err(fail)?,
    }))
}

/// Whether user numbers here are the host's. False in a rootless engine, and in a container's own user namespace.
#[must_use]
pub fn users_are_the_hosts() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Makes this thread create files as `owner`, and still pass every permission. Only within [`within`], whose thread
/// ends with the work.
pub fn create_as(owner: Owner) {
    setfsgid(Gid::from_raw(owner.gid));
    setfsuid(Uid::from_raw(owner.uid));
    // The kernel drops it with the user. Without it an image with unwritable folders is refused, no more.
    caps::raise(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE).ok();
}

/// The host's number of the namespace's number 0.
fn root_of(map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let inside = fields.next()?;
        let outside = fields.next()?;
        (inside == "0").then(|| outside.parse().ok())?
    })
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn inode(fd: &OwnedFd) -> Result<u64, Errno> {
    rustix::fs::fstat(fd).map(|s| s.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_needs_no_thread() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let here = std::thread::current().id();
        assert_eq!(within(pid, || std::thread::current().id()).unwrap(), here);
        assert_eq!(owner(pid).unwrap(), None);
        let error = within(i32::MAX, || ()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot enter the mount namespace of process {}", i32::MAX)
        );
    }

    #[test]
    fn the_map_names_the_root() {
        assert_eq!(root_of("         0     100000      65536\n"), Some(100_000));
        assert_eq!(root_of("1 2 1\n0 7 1\n"), Some(7));
        assert_eq!(root_of("1000 0 1\n"), None);
    }
}
