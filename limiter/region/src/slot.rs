//! The liveness token: an open-file-description lock on a slot's byte of the usage file.
//!
//! The kernel drops it when the last descriptor of that open file is closed: at exit, at a kill, and
//! at `exec` (the descriptor is close-on-exec). A forked child shares the description, so the lock
//! alone does not tell a live owner from a live child; see [`crate::identity`] for the other half.
#![allow(
    unsafe_code,
    reason = "fcntl has no counterpart in the standard library"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn range(slot: u16, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: libc::off_t::from(slot),
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes the lock of a slot; false when another open file has it.
pub(crate) fn claim(usage: BorrowedFd<'_>, slot: u16) -> io::Result<bool> {
    let wanted = range(slot, libc::F_WRLCK);
    // SAFETY: the descriptor is open, and the structure outlives the call that reads it.
    let status = unsafe {
        libc::fcntl(
            usage.as_raw_fd(),
            libc::F_OFD_SETLK,
            std::ptr::from_ref(&wanted),
        )
    };
    if status == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file has the lock of a slot. An error counts as yes: nothing is taken from
/// a process that cannot be seen to be dead.
pub(crate) fn is_claimed(usage: BorrowedFd<'_>, slot: u16) -> bool {
    let mut found = range(slot, libc::F_WRLCK);
    // SAFETY: the descriptor is open, and the structure outlives the call that fills it.
    let status = unsafe {
        libc::fcntl(
            usage.as_raw_fd(),
            libc::F_OFD_GETLK,
            std::ptr::from_mut(&mut found),
        )
    };
    status != 0 || libc::c_int::from(found.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn one_open_file_has_a_slot_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = file.reopen().unwrap();
        let second = std::fs::File::open(file.path()).unwrap();
        assert!(claim(first.as_fd(), 3).unwrap());
        assert!(!claim(file.as_file().as_fd(), 3).unwrap());
        assert!(claim(file.as_file().as_fd(), 4).unwrap());
        assert!(is_claimed(second.as_fd(), 3));
        assert!(!is_claimed(second.as_fd(), 5));
        drop(first);
        assert!(!is_claimed(second.as_fd(), 3));
    }
}
