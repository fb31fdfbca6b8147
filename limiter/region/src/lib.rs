//! The shared-memory pages through which limiter, hook and agent talk, and the ledger on them.
//!
//! A region is a directory with three files. `limits` is written by the host and read-only in the
//! container; it changes in place under a sequence counter, never by rename. `usage` is writable in
//! the container and therefore never trusted on the host, which reads it with bounded `pread` and
//! never maps it. `trace` is reserved.
//!
//! | module | owns |
//! |---|---|
//! | [`layout`] | the bytes of both pages, their versions and sizes |
//! | [`limits`] | what was granted: data, writer, reader |
//! | [`usage`] | creating the usage page, and the host's summary of it |
//! | [`ledger`] | charges and refunds: lock-free, exact, and safe against a kill at any instruction |
//!
//! Limitations: 16 GPUs and 512 GPU processes to a container; a charge is a multiple of 512 bytes.

pub mod layout;
pub mod ledger;
pub mod limits;
pub mod usage;

mod error;
mod file;
mod identity;
mod map;
mod private;
mod slot;
mod step;
mod word;

pub use error::RegionError;
pub use layout::{MAX_DEVICES, MAX_SLOTS};
pub use ledger::{Ledger, Observer, Refused};
pub use limits::{DeviceLimits, Granted, Limits, LimitsReader, LimitsWriter, read_limits};
pub use usage::{DeviceUsage, ProcessUsage};

use std::path::Path;

/// Creates all three files of a region in `dir`, which must exist: its own small tmpfs in a
/// container, a temporary directory for `vgpu run`.
///
/// # Errors
/// A file that exists already or cannot be made, and limits that the page cannot hold; what this
/// call made is removed again.
pub fn create(dir: &Path, limits: &Limits) -> Result<(), RegionError> {
    let made = LimitsWriter::create(dir, limits)
        .and_then(|_| usage::create(dir))
        .and_then(|()| file::create(&dir.join(layout::TRACE_FILE), layout::TRACE_BYTES, 0o666))
        .map(|_| ());
    if let Err(error) = made {
        if !matches!(&error, RegionError::Exists { .. }) {
            file::remove_all(
                dir,
                &[layout::LIMITS_FILE, layout::USAGE_FILE, layout::TRACE_FILE],
            );
        }
        return Err(error);
    }
    Ok(())
}
