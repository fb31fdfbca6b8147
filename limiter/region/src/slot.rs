//! The liveness token: an open-file-description lock on a slot's byte of the usage file.
//!
//! The kernel drops it when the last descriptor of that open file is closed: at exit, at a kill, and
//! at `exec` (the descriptor is close-on-exec). A forked child shares the description, so the lock
//! alone does not tell a live owner from a live child; see [`crate::identity`] for the other half.
#![allow(
    unsafe_code,
    reason = "fcntl has no counterpart in the standard library"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

fn range(slot: u16, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: libc::off_t::from(slot),
        l_len: 1,
        l_pid: 0,
    }
}

/// The open usage file that holds or asks about locks. Applications that close every descriptor close
/// this one too, and may get its number for another file: it is looked at before it is believed.
#[derive(Debug)]
pub(crate) struct Token {
    file: File,
    device: u64,
    inode: u64,
}

impl Token {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            device: data.dev(),
            inode: data.ino(),
            file,
        })
    }

    /// Takes the lock of a slot; false when another open file has it.
    pub(crate) fn claim(&self, slot: u16) -> io::Result<bool> {
        claim(self.file.as_fd(), slot)
    }

    /// Whether another open file may have the lock of a slot: only a clear no from the right file
    /// is a no.
    pub(crate) fn is_claimed(&self, slot: u16) -> bool {
        is_claimed(self.file.as_fd(), slot) || !self.is_intact()
    }

    fn is_intact(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|data| (data.dev(), data.ino()) == (self.device, self.inode))
    }
}

/// Takes the lock of a slot; false when another open file has it.
fn claim(usage: BorrowedFd<'_>, slot: u16) -> io::Result<bool> {
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
    use super::*;

    #[test]
    fn a_descriptor_that_became_another_file_says_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::new(file.reopen().unwrap()).unwrap();
        assert!(!token.is_claimed(3));
        let other = tempfile::tempfile().unwrap();
        // SAFETY: both descriptors are open; the token's own now names the other file.
        unsafe { libc::dup2(other.as_raw_fd(), token.file.as_raw_fd()) };
        assert!(token.is_claimed(3));
    }

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
