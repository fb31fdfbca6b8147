//! Where a simulated library finds its node.
//!
//! A library that lies in `<root>/usr/lib/<multiarch>/` belongs to the node at `<root>` if one listens there: that
//! is how the host uses it. Anywhere else, as in a container where single files were mounted, the root is `/`.
//! No environment variable is read: a real driver has none for this.
//!
//! # Safety
//! Each call gets pointers to locals of the type and length that it is told, and what it returns is checked first.

#![allow(
    unsafe_code,
    reason = "dladdr and a SOCK_SEQPACKET socket are not in std"
)]

use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::wire::SOCKET;

/// The driver root of the node that the file with this code belongs to.
pub(super) fn find() -> PathBuf {
    own_file()
        .and_then(|file| file.canonicalize().ok())
        .and_then(|file| root_of(&file))
        .filter(|root| root.join(SOCKET).exists())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// `<root>` of `<root>/usr/lib/<multiarch>/<file>`.
fn root_of(file: &Path) -> Option<PathBuf> {
    let lib = file.parent()?.parent()?;
    let root = lib.parent()?.parent()?;
    (lib == root.join("usr/lib")).then(|| root.to_owned())
}

/// The library (or program) that this code was linked into.
fn own_file() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here = own_file as fn() -> Option<PathBuf> as *const libc::c_void;
    // SAFETY: `info` is writable; the address is one of this very function.
    let found = unsafe { libc::dladdr(here, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so the name is a NUL-terminated string that lives as long as this object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// A connection to the socket at `path`.
pub(super) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (address, length, _directory) = socket_address(path)?;
    // SAFETY: `address` is a sockaddr_un of which `length` bytes are filled in.
    let result = unsafe { libc::connect(fd, (&raw const address).cast(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    set_patience(&socket)?;
    Ok(socket)
}

/// A daemon that hangs must not hang its clients for ever.
fn set_patience(socket: &OwnedFd) -> io::Result<()> {
    let patience = libc::timeval {
        tv_sec: 10,
        tv_usec: 0,
    };
    let length = size_of::<libc::timeval>() as libc::socklen_t;
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_SOCKET);
    // SAFETY: the option's value is a timeval of that length.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The address of a socket in the file system. A path is at most 107 bytes long there; a longer one is reached
/// through its directory's descriptor, which has to stay open until the address has been used.
fn socket_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t, Option<File>)> {
    let (short, directory) = shortened(path)?;
    // SAFETY: sockaddr_un is a C structure for which all zeroes is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, &byte) in address
        .sun_path
        .iter_mut()
        .zip(short.as_os_str().as_bytes())
    {
        *place = byte as libc::c_char;
    }
    Ok((
        address,
        size_of::<libc::sockaddr_un>() as libc::socklen_t,
        directory,
    ))
}

/// `path` in a form that fits into a socket's address while the file that comes with it is open.
pub(crate) fn shortened(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    const LONGEST: usize = 107;
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_owned(), None));
    }
    let (parent, name) = path
        .parent()
        .zip(path.file_name())
        .ok_or(io::ErrorKind::InvalidInput)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(parent)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((short, Some(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_below_usr_lib_names_its_root() {
        let root = |file: &str| root_of(Path::new(file));
        let lib = "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05";
        assert_eq!(root(&format!("/tmp/node/{lib}")), Some("/tmp/node".into()));
        assert_eq!(root(&format!("/{lib}")), Some("/".into()));
        assert_eq!(root("/usr/lib/vgpu/driver/libcuda-driver.so.1"), None);
        assert_eq!(root("/opt/x.so"), None);
    }

    #[test]
    fn this_code_knows_its_file() {
        assert!(own_file().unwrap().exists());
    }

    #[test]
    fn a_long_path_is_reached_through_its_directory() {
        let long = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("./".repeat(60))
            .join("src");
        let (short, directory) = shortened(&long).unwrap();
        assert!(
            short.exists() && short.as_os_str().len() < 40,
            "{}",
            short.display()
        );
        assert!(directory.is_some());
    }
}
