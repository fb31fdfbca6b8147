//! A page of a region in this process's memory.
//!
//! # Safety
//! The invariants of this file: a [`Mapping`] is made only over a file that is at least as long as
//! its page type, and lives until it is dropped. Other processes write the bytes at any time, so
//! page types consist of atomics alone ([`Page`]). A tenant that truncates its own usage file after
//! the check makes its own processes die of SIGBUS, which is its right.
#![allow(
    unsafe_code,
    reason = "maps shared memory; the rest of the crate sees safe references"
)]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use crate::layout::{LimitsPage, UsagePage};

/// A type that may be laid over memory which others write.
///
/// # Safety
/// Every byte pattern is valid, and every field is an atomic (or an array of such).
pub(crate) unsafe trait Page {}

// SAFETY: consists of integer atomics and arrays of them.
unsafe impl Page for LimitsPage {}
// SAFETY: consists of integer atomics and arrays of them.
unsafe impl Page for UsagePage {}

/// Who may write through a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Atomic loads only: a store would fault.
    Read,
    /// Loads and stores.
    Write,
}

/// One shared page, unmapped on drop.
pub(crate) struct Mapping<T: Page> {
    page: NonNull<T>,
}

// SAFETY: the page consists of atomics, which any thread may use.
unsafe impl<T: Page> Send for Mapping<T> {}
// SAFETY: as above; the mapping itself is never changed after it was made.
unsafe impl<T: Page> Sync for Mapping<T> {}

impl<T: Page> Mapping<T> {
    /// Maps the file, which the caller has found to be as long as `T`.
    pub(crate) fn new(file: BorrowedFd<'_>, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast::<T>())
            .map(|page| Self { page })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

impl<T: Page> Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: page-aligned, mapped for the length of T until drop, and T is all atomics.
        unsafe { self.page.as_ref() }
    }
}

impl<T: Page> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no reference outlives self.
        unsafe { libc::munmap(self.page.as_ptr().cast(), size_of::<T>()) };
    }
}

impl<T: Page> fmt::Debug for Mapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("page", &self.page).finish()
    }
}
