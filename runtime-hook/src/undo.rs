//! What a hook has done so far, taken back unless the hook gets to its end.
//!
//! Owns mounts, files and folders that this call made, by descriptor; it must never remove anything else. Taking
//! back goes in reverse order and carries on past a failure, because each step stands alone.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::rootfs::own_path;

/// The list of steps; dropping it takes them back.
#[derive(Debug, Default)]
pub struct Undo {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Mount(OwnedFd),
    Entry {
        folder: OwnedFd,
        name: OsString,
        flags: AtFlags,
    },
}

impl Undo {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a mount by a descriptor of its root.
    pub fn mount(&mut self, root: OwnedFd) {
        self.steps.push(Step::Mount(root));
    }

    /// Remembers a folder that was made in `parent`.
    ///
    /// # Errors
    /// When no further descriptor can be had.
    pub fn folder(&mut self, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        self.entry(parent, name, AtFlags::REMOVEDIR)
    }

    /// Remembers a file or link that was made in `parent`.
    ///
    /// # Errors
    /// As [`Undo::folder`].
    pub fn file(&mut self, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        self.entry(parent, name, AtFlags::empty())
    }

    fn entry(&mut self, parent: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
        match rustix::io::fcntl_dupfd_cloexec(parent.as_fd(), 3) {
            Ok(folder) => {
                self.steps.push(Step::Entry {
                    folder,
                    name: name.to_owned(),
                    flags,
                });
                Ok(())
            }
            Err(error) => {
                rustix::fs::unlinkat(parent.as_fd(), name, flags).ok();
                Err(error)
            }
        }
    }

    /// The hook got to its end: everything stays.
    pub fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            // The error that made us take things back is the one that is reported.
            let done = match step {
                Step::Mount(root) => {
                    rustix::mount::unmount(own_path(root.as_fd()), UnmountFlags::DETACH)
                }
                Step::Entry {
                    folder,
                    name,
                    flags,
                } => rustix::fs::unlinkat(&folder, &name, flags),
            };
            done.ok();
        }
    }
}
