//! The daemon's socket: listening, and learning who has connected.
//!
//! # Safety
//! Descriptors become `OwnedFd` right where the kernel hands them out, once each.

#![allow(unsafe_code, reason = "pidfds are not in std or nix")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt,
    listen as start_listening, socket,
};

use crate::client::root::shortened;
use crate::daemon::{DaemonError, system};

/// A process at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// The connection.
    pub(super) socket: OwnedFd,
    /// Becomes readable when the process ends; absent where it is not visible from here.
    pub(super) process: Option<OwnedFd>,
    /// The process, as seen from here; 0 where it is not visible.
    pub(super) pid: u32,
}

/// A listening socket at `path`, for everybody.
pub(super) fn listen(path: &Path) -> Result<OwnedFd, DaemonError> {
    let describe = |what: &str| system::<Errno>(format!("{what} {}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(system(format!("create {}", parent.display())))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system(format!("replace {}", path.display()))(error));
        }
        _ => {}
    }
    let (short, _directory) =
        shortened(path).map_err(system(format!("reach {}", path.display())))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .map_err(describe("make the socket"))?;
    let address = UnixAddr::new(&short).map_err(describe("name the socket"))?;
    bind(listener.as_raw_fd(), &address).map_err(describe("bind"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(system(format!("open {} to everybody", path.display())))?;
    start_listening(&listener, Backlog::MAXCONN).map_err(describe("listen on"))?;
    Ok(listener)
}

/// The next process that has connected; `None` when it has ended already.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Peer>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let pid = getsockopt(&socket, PeerCredentials)?.pid();
    let process = match process_of(&socket, pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(Peer {
        socket,
        process,
        pid: pid.try_into().unwrap_or(0),
    }))
}

/// A descriptor for the process that connected.
fn process_of(socket: &OwnedFd, pid: i32) -> io::Result<Option<OwnedFd>> {
    if pid <= 0 {
        return Ok(None);
    }
    if let Some(exact) = peer_pidfd(socket) {
        return Ok(Some(exact));
    }
    // SAFETY: the call takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// As the kernel keeps it with the socket (6.5 and newer), which a reused pid cannot deceive.
fn peer_pidfd(socket: &OwnedFd) -> Option<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is one integer, and `length` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result < 0 || fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
