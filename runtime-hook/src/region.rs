//! A container's region on the host: a small tmpfs of its own.
//!
//! Owns its mount, its size and its travel into the container's mount namespace. A tenant that can write into it can
//! fill nothing but it, and it is full from the start. Mount propagation is not relied on: an engine may have made
//! the host's mounts private. Pages and their layout are `vgpu-region`'s.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use thiserror::Error;
use vgpu_region::layout::REGION_BYTES;
use vgpu_region::{Limits, LimitsWriter, RegionError};

use crate::grant::Grant;
use crate::mounts;
use crate::namespace::{self, NamespaceError};

/// What `SELinux` lets a container use. Which container is a matter of who has it mounted.
const LABEL: &str = "system_u:object_r:container_file_t:s0";

/// What goes wrong with a region.
#[derive(Debug, Error)]
pub enum HostRegionError {
    /// The tmpfs cannot be made or moved.
    #[error("cannot {action} {}", path.display())]
    Mount {
        /// What was tried.
        action: &'static str,
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Errno,
    },
    /// The pages cannot be made or changed.
    #[error("cannot write the limits of container {container_id}")]
    Pages {
        /// The container.
        container_id: String,
        /// Which page, and why.
        #[source]
        source: RegionError,
    },
    /// The container's mount namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// Mounts the tmpfs where it is missing, and writes the grant's limits into it.
///
/// # Errors
/// [`HostRegionError`]; the mount stays for [`unmount`].
pub fn write(path: &Path, grant: &Grant) -> Result<(), HostRegionError> {
    let pages = |source| HostRegionError::Pages {
        container_id: grant.short_id(),
        source,
    };
    if is_mounted(path)? {
        let writer = LimitsWriter::open(path).map_err(pages)?;
        let known = writer.read().map_err(pages)?;
        return writer.update(&grant.limits(&known)).map_err(pages);
    }
    mount(path)?;
    vgpu_region::create(path, &grant.limits(&Limits::default())).map_err(pages)
}

/// The process whose mount namespace is the host's.
const INIT: i32 = 1;

/// Makes the region visible in the host's own mount namespace, when the engine has another one. Only for those who
/// look at it from there, so a failure costs nothing but their view.
pub fn publish(path: &Path) {
    let parent = path.parent().unwrap_or(path);
    let identity = |path: &Path| rustix::fs::lstat(path).map(|s| (s.st_dev, s.st_ino));
    let (Ok(tree), Ok(ours)) = (mounts::clone(path), identity(parent)) else {
        return;
    };
    let attach = || {
        // The same run directory, or it would be mounted on a stranger's.
        if identity(parent) == Ok(ours) {
            attach_there(path, &tree).ok();
        }
    };
    namespace::within(INIT, attach).ok();
}

/// Takes the tmpfs away, here and where it was published; none there is fine. Containers that still have it keep it
/// until they end.
///
/// # Errors
/// What the system said.
pub fn unmount(path: &Path) -> Result<(), Errno> {
    let here = unmount_here(path);
    // Nobody there, or not ours to enter: then nothing was published either.
    namespace::within(INIT, || unmount_here(path)).ok();
    here
}

fn unmount_here(path: &Path) -> Result<(), Errno> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(path, flags) {
        Err(Errno::INVAL | Errno::NOENT) | Ok(()) => Ok(()),
        other => other,
    }
}

/// Makes the region visible at the same path in a container's mount namespace, where it is not yet.
///
/// # Errors
/// [`HostRegionError`] naming the step.
pub fn enter(path: &Path, pid: i32) -> Result<(), HostRegionError> {
    let fail = |action, source| HostRegionError::Mount {
        action,
        path: path.into(),
        source,
    };
    let tree = mounts::clone(path).map_err(|e| fail("clone", e))?;
    namespace::within(pid, || attach_there(path, &tree))?
        .map_err(|e| fail("attach in the container", e))
}

fn attach_there(path: &Path, tree: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(path, flags, Mode::empty())?;
    let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| s.st_dev);
    if device(&target)? == device(tree)? {
        return Ok(());
    }
    mounts::attach(tree, target.as_fd())
}

/// A mount point has another device than its parent.
fn is_mounted(path: &Path) -> Result<bool, HostRegionError> {
    let device = |path: &Path| rustix::fs::lstat(path).map(|s| s.st_dev);
    let both = device(path).and_then(|own| Ok((own, device(path.parent().unwrap_or(path))?)));
    let fail = |source| HostRegionError::Mount {
        action: "look at",
        path: path.into(),
        source,
    };
    both.map(|(own, parent)| own != parent).map_err(fail)
}

fn tmpfs(path: &Path, options: &str) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("vgpu-region", path, "tmpfs", flags, &*options)
}

fn mount(path: &Path) -> Result<(), HostRegionError> {
    let fail = |action, source| HostRegionError::Mount {
        action,
        path: path.into(),
        source,
    };
    // Whole pages for the three files, one more for the root folder's own bookkeeping; four inodes.
    let size = REGION_BYTES.saturating_add(4096);
    let plain = format!("size={size},nr_inodes=4,mode=0711");
    let labelled = format!("{plain},context=\"{LABEL}\"");
    let mounted = if Path::new("/sys/fs/selinux/enforce").exists() {
        tmpfs(path, &labelled).or_else(|_| tmpfs(path, &plain))
    } else {
        tmpfs(path, &plain)
    };
    mounted.map_err(|e| fail("mount a tmpfs on", e))?;
    rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE)
        .map_err(|e| fail("make private the mount of", e))
}
