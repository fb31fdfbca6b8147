//! The node page: the memory that the daemon and every client of a simulated node share.
//!
//! Owns the mapping and the operations on it. A memfd holds, in this order: the [`layout::Header`], the node's
//! description as JSON, one [`layout::DeviceWords`] a GPU, one [`layout::SlotWords`] a client slot, and one
//! [`layout::ShareWords`] for each (slot, GPU). Everything is atomics; what belongs together changes under the
//! header's lock word, which names the slot of its owner so that the daemon can break it when that process died.
//! Per-GPU sums are caches of the per-slot words and are recomputed when a lock is broken.
//!
//! It must never hold a pointer, a length or an index that a client could use to leave the mapping: the layout
//! follows from the two counts in the header, which are checked once, when the page is mapped.
//!
//! Limits: a client that is stopped (not killed) inside the lock stops the node; a client that scribbles over the
//! page can break the node. Both are fine for a simulator and neither would be for a product.

pub mod layout;
mod lock;
mod map;
mod memory;
mod time;

pub use lock::Guard;
pub use map::{MapError, Page};
pub use memory::{Memory, ProcessShare};

use crate::page::layout::SLOTS;

/// The lock owner number of the daemon, which has no slot.
pub const DAEMON: u32 = SLOTS as u32;

/// Why an operation on the page did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The GPU has less free memory than asked for.
    #[error("out of device memory: {requested} bytes asked, {free} free")]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes free.
        free: u64,
    },
    /// The slot is no longer this process's: the daemon has dropped it, or this is a forked child.
    #[error("the connection to the node is gone")]
    Disconnected,
    /// The page's lock was not released for ten seconds.
    #[error("the node page is locked by slot {owner} and stays so")]
    Stuck {
        /// The owner that the lock word names.
        owner: u32,
    },
}

/// Nanoseconds of the monotonic clock, the time base of everything on the page.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[allow(
        unsafe_code,
        reason = "std's Instant hides the number that processes must agree on"
    )]
    // SAFETY: `time` is a valid timespec to write; the clock always exists on Linux.
    let _always_zero = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
