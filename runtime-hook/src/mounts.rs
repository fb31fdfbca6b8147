//! Mounts by descriptor: clone a tree, attach it to an open mount point, restrict it.
//!
//! Owns the mount calls of the hook. It must never take a path of the container: sources are host paths or clones,
//! targets are descriptors that [`crate::rootfs`] resolved. A bind mount takes no flags of its own, so the flags come
//! with a second call on the new mount; nothing runs in the container yet.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use thiserror::Error;

use crate::rootfs::own_path;
use crate::undo::Undo;

/// A mount call that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {} on {}", from.display(), to.display())]
pub struct MountError {
    /// What was tried.
    pub action: &'static str,
    /// The source.
    pub from: PathBuf,
    /// The mount point.
    pub to: PathBuf,
    /// What the system said.
    #[source]
    pub source: Errno,
}

/// The flags of a file that is only to be read or run.
pub const READ_ONLY: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV);
/// The flags of a file that is data and may be written.
pub const DATA: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Binds a host path on an open mount point, private and with `flags`; `undo` learns of it.
///
/// # Errors
/// [`MountError`] naming the step; the mount is taken back by `undo` when it was already there.
pub fn bind(
    from: &Path,
    target: BorrowedFd<'_>,
    to: &Path,
    flags: MountFlags,
    undo: &mut Undo,
) -> Result<(), MountError> {
    let fail = |action, source| MountError {
        action,
        from: from.into(),
        to: to.into(),
        source,
    };
    let tree = clone(from).map_err(|e| fail("bind", e))?;
    attach(&tree, target).map_err(|e| fail("bind", e))?;
    let root = own_path(tree.as_fd());
    let done = restrict(&tree, flags);
    undo.mount(tree);
    // Without this a mount on top of it would travel to every peer of the source, the host's included.
    rustix::mount::mount_change(&root, MountPropagationFlags::PRIVATE)
        .map_err(|e| fail("make private the bind of", e))?;
    done.map_err(|e| fail("restrict the bind of", e))
}

/// A detached copy of the mount at a host path.
///
/// # Errors
/// What the system said.
pub fn clone(from: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, from, flags)
}

/// Attaches a detached tree to an open mount point.
///
/// # Errors
/// What the system said.
pub fn attach(tree: &OwnedFd, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags)
}

/// The kernel's number of the mount that a descriptor lies on. From `fdinfo`, because `statx` tells it only since
/// Linux 5.8. Source: `proc_pid_fdinfo(5)`.
///
/// # Errors
/// What the system said; `ENODATA` where it says nothing.
pub fn id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let text = read_proc(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let number = |line: &str| line.strip_prefix("mnt_id:")?.trim().parse().ok();
    text.lines().find_map(number).ok_or(Errno::NODATA)
}

/// Whether mounts on the mount of this number travel to its peers.
///
/// # Errors
/// What the system said; `ENODATA` where it does not know the mount.
pub fn is_shared(mount: u64) -> Result<bool, Errno> {
    // The thread's, which may have entered another mount namespace than its process.
    let table = read_proc("/proc/thread-self/mountinfo")?;
    shared_in(&table, mount).ok_or(Errno::NODATA)
}

/// Source: `proc_pid_mountinfo(5)`: six fields, then optional ones up to a hyphen.
fn shared_in(table: &str, mount: u64) -> Option<bool> {
    table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let own: u64 = fields.next()?.parse().ok()?;
        let mut optional = fields.skip(5).take_while(|field| *field != "-");
        (own == mount).then(|| optional.any(|field| field.starts_with("shared:")))
    })
}

fn read_proc(path: &str) -> Result<String, Errno> {
    let text = std::fs::read(path).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    // A mount point may be of any bytes; those fields are not looked at.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Makes a read-only mount writable; answers whether it was read-only. A read-only file system stays one.
///
/// # Errors
/// What the system said.
pub fn unseal(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = current(root)?;
    if !flags.contains(MountFlags::RDONLY) {
        return Ok(false);
    }
    match remount(root, flags.difference(MountFlags::RDONLY)) {
        Ok(()) => Ok(true),
        // Not the root of a mount: whatever has to be written says so by itself.
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a mount read-only again.
///
/// # Errors
/// What the system said.
pub fn seal(root: BorrowedFd<'_>) -> Result<(), Errno> {
    remount(root, current(root)? | MountFlags::RDONLY)
}

/// Adds flags to an attached mount. Those it has stay: in a user namespace some of them are locked.
fn restrict(tree: &OwnedFd, flags: MountFlags) -> Result<(), Errno> {
    remount(tree.as_fd(), current(tree.as_fd())? | flags)
}

fn remount(root: BorrowedFd<'_>, flags: MountFlags) -> Result<(), Errno> {
    rustix::mount::mount_remount(own_path(root), flags | MountFlags::BIND, "")
}

/// The flags that a mount has.
fn current(root: BorrowedFd<'_>) -> Result<MountFlags, Errno> {
    let have = rustix::fs::fstatvfs(root)?.f_flag;
    let known = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let set = known.into_iter().filter(|(seen, _)| have.contains(*seen));
    Ok(set.fold(MountFlags::empty(), |all, (_, flag)| all | flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_is_shared() {
        let table = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 98:0 / /a\\040b rw master:1 shared:7 - ext3 /dev/root rw\n\
                     38 35 98:0 / /c rw - tmpfs shared:9 rw\n";
        let shared = [36, 37, 38, 3].map(|mount| shared_in(table, mount));
        assert_eq!(shared, [Some(false), Some(true), Some(false), None]);
    }

    #[test]
    fn the_system_knows_the_mount_of_a_descriptor() {
        let root = std::fs::File::open("/").unwrap();
        let proc = std::fs::File::open("/proc/self/stat").unwrap();
        let (root, proc) = (id(root.as_fd()).unwrap(), id(proc.as_fd()).unwrap());
        assert_ne!(root, proc);
        is_shared(root).unwrap();
        assert_eq!(is_shared(u64::MAX), Err(Errno::NODATA));
    }
}
