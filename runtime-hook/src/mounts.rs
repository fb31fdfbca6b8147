//! Mounts by descriptor: clone a tree, attach it to an open mount point, restrict it.
//!
//! Owns the mount calls of the hook. It must never take a path of the container: sources are host paths or clones,
//! targets are descriptors that [`crate::rootfs`] resolved. A bind mount takes no flags of its own, so the flags come
//! with a second call on the new mount; nothing runs in the container yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
