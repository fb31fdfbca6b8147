//! Making and opening a region's files. Never follows a link, never blocks, never replaces a file.
#![allow(
    unsafe_code,
    reason = "posix_fallocate has no counterpart in the standard library"
)]

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::RegionError;

/// Makes a file of `bytes` zeros whose blocks exist, so that a full tmpfs cannot kill a writer.
pub(crate) fn create(path: &Path, bytes: u64, mode: u32) -> Result<File, RegionError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return RegionError::Exists {
                    path: path.to_path_buf(),
                };
            }
            RegionError::io("create", path, error)
        })?;
    let length = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    // SAFETY: plain call on a descriptor that we own.
    let status = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) };
    if status != 0 {
        return Err(RegionError::io(
            "allocate",
            path,
            io::Error::from_raw_os_error(status),
        ));
    }
    // The umask of whoever calls must not decide who may open the page.
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|error| RegionError::io("set the mode of", path, error))?;
    Ok(file)
}

/// Opens a page and checks that it is a regular file of exactly the page's size.
pub(crate) fn open(path: &Path, write: bool, bytes: u64) -> Result<File, RegionError> {
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| RegionError::io("open", path, error))?;
    check(&file, path, bytes)?;
    Ok(file)
}

/// Checks that a file is regular and has the page's size.
pub(crate) fn check(file: &File, path: &Path, bytes: u64) -> Result<(), RegionError> {
    let data = file
        .metadata()
        .map_err(|error| RegionError::io("stat", path, error))?;
    if !data.is_file() || data.len() != bytes {
        return Err(RegionError::Shape {
            path: path.to_path_buf(),
            bytes: data.len(),
            expected: bytes,
        });
    }
    Ok(())
}

/// Removes files by name; what is not there is fine.
pub(crate) fn remove_all(dir: &Path, names: &[&str]) {
    for name in names {
        // A file that cannot be removed is left to whoever removes the directory.
        drop(std::fs::remove_file(dir.join(name)));
    }
}
