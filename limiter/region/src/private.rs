//! What a process keeps to itself: memory that a forked child finds zeroed.
//!
//! It holds the marker by which a child notices that the ledger it sees is its parent's, the locks
//! between the threads of this process (a child must not inherit a held one), and the private
//! account: a tenant that scribbles on the shared page still has each process bound by its own.
//!
//! # Safety
//! The page is anonymous, private memory that lives as long as the process; it consists of atomics,
//! for which all zeros is valid, so the kernel's wiping is just another writer.
#![allow(
    unsafe_code,
    reason = "mmap and madvise have no counterpart in the standard library"
)]

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::layout::MAX_DEVICES;

#[derive(Debug)]
#[repr(C)]
struct Page {
    /// 1 in the process that made the page, 0 in its forked children.
    ours: AtomicU64,
    devices: [Device; MAX_DEVICES],
}

/// The private side of one device.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Device {
    /// 0 free, 1 held, 2 held and somebody sleeps.
    lock: AtomicU32,
    /// What this process holds, in units, as only this process can write it.
    pub(crate) units: AtomicU64,
}

/// Memory that a forked child finds zeroed. Never unmapped: another thread may be looking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Private {
    page: &'static Page,
}

impl Private {
    /// Maps the page. Fails on kernels before 4.14, where a child could not be told from its
    /// parent without a system call for every charge.
    pub(crate) fn new() -> io::Result<Self> {
        let bytes = size_of::<Page>();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made, at its full length.
        if unsafe { libc::madvise(address, bytes, libc::MADV_WIPEONFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: page-aligned, zeroed (valid for atomics), long enough, never unmapped.
        let page = unsafe { &*address.cast::<Page>() };
        page.ours.store(1, Release);
        Ok(Self { page })
    }

    /// Whether this process made the page: false in a forked child.
    pub(crate) fn is_ours(self) -> bool {
        self.page.ours.load(Relaxed) == 1
    }

    /// The private side of a device.
    pub(crate) fn device(self, index: usize) -> Option<&'static Device> {
        self.page.devices.get(index)
    }
}

impl Device {
    /// Serialises this process's threads on the device until the guard is dropped.
    pub(crate) fn lock(&self) -> Guard<'_> {
        if self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            self.lock_slowly();
        }
        Guard { device: self }
    }

    #[cold]
    fn lock_slowly(&self) {
        for _ in 0..100 {
            if self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
                return;
            }
            std::hint::spin_loop();
        }
        while self.lock.swap(2, Acquire) != 0 {
            // SAFETY: the word outlives the call; a null timeout means for ever.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.lock.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    2,
                    std::ptr::null::<libc::timespec>(),
                )
            };
        }
    }
}

/// Releases the lock on drop.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    device: &'a Device,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.device.lock.swap(0, Release) == 2 {
            // SAFETY: the word outlives the call.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.device.lock.as_ptr(),
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    1,
                )
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let private = Private::new().unwrap();
        let device = private.device(0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let _guard = device.lock();
                        let units = device.units.load(Relaxed);
                        device.units.store(units + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(device.units.load(Relaxed), 80_000);
        assert!(private.device(MAX_DEVICES).is_none());
    }

    #[test]
    fn a_forked_child_knows() {
        let private = Private::new().unwrap();
        assert!(private.is_ours());
        // SAFETY: the child does nothing but look and leave.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(private.is_ours());
            // SAFETY: ends the child without running the test harness's exit handlers.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 0);
        assert!(private.is_ours());
    }
}
