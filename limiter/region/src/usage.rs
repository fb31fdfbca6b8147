//! Creating the usage page, and what the host reads from it.
//!
//! The page is the tenant's to scribble on. The host reads it with one bounded `pread`, never maps
//! it and never writes it; what it reads are claims to be compared with NVML.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::RegionError;
use crate::layout::{
    LIMITS_FILE, MAX_SLOTS, SLOT_BYTES, SLOT_DEVICES_OFFSET, SLOTS_OFFSET, USAGE_BYTES, USAGE_FILE,
    USAGE_VERSION,
};
use crate::limits::{Limits, read_limits};
use crate::word::{Held, bytes};
use crate::{file, slot};

/// What one process of the container claims to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUsage {
    /// The slot's number.
    pub slot: u16,
    /// How many processes had the slot so far, this one included.
    pub generation: u64,
    /// The pid in the process's own pid namespace.
    pub pid: u32,
    /// Inode of that namespace.
    pub pidns: u64,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// Whether the slot's lock is held. A dead process's memory is given back by its siblings
    /// before they are refused any, so readers leave it out.
    pub live: bool,
    /// By device index of the limits page; devices without any bytes are left out.
    pub devices: Vec<DeviceUsage>,
}

/// Bytes that one process claims to hold of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceUsage {
    /// The GPU's UUID.
    pub uuid: [u8; 16],
    /// **Units:** bytes.
    pub bytes: u64,
}

impl ProcessUsage {
    /// What the process holds of one GPU. **Units:** bytes.
    pub fn bytes_of(&self, uuid: &[u8; 16]) -> u64 {
        self.devices
            .iter()
            .filter(|device| device.uuid == *uuid)
            .fold(0, |sum, device| sum.saturating_add(device.bytes))
    }
}

/// Makes `dir/usage` (mode 0666), empty.
///
/// # Errors
/// [`RegionError::Exists`], [`RegionError::Io`].
pub fn create(dir: &Path) -> Result<(), RegionError> {
    let path = dir.join(USAGE_FILE);
    let file = file::create(&path, USAGE_BYTES, 0o666)?;
    file.write_all_at(&USAGE_VERSION.to_ne_bytes(), 0)
        .map_err(|error| RegionError::io("write", &path, error))
}

/// The processes of a region, live and dead, that hold memory or a slot. `dir` is the region's
/// directory. Never blocks and never maps the tenant's page.
///
/// # Errors
/// [`RegionError::Io`], [`RegionError::Shape`] (the tenant truncated its page),
/// [`RegionError::Version`] (or scribbled on its first word), and what [`read_limits`] answers.
pub fn read_summary(dir: &Path) -> Result<Vec<ProcessUsage>, RegionError> {
    let limits = read_limits(&dir.join(LIMITS_FILE))?;
    let path = dir.join(USAGE_FILE);
    let file = file::open(&path, false, USAGE_BYTES)?;
    read_summary_file(&file, &limits, &path)
}

/// As [`read_summary`], of a file that is open already; `path` serves messages only.
///
/// # Errors
/// As [`read_summary`].
pub fn read_summary_file(
    file: &File,
    limits: &Limits,
    path: &Path,
) -> Result<Vec<ProcessUsage>, RegionError> {
    file::check(file, path, USAGE_BYTES)?;
    let mut page = vec![0; usize::try_from(USAGE_BYTES).unwrap_or_default()];
    file.read_exact_at(&mut page, 0)
        .map_err(|error| RegionError::io("read", path, error))?;
    let found = word(&page, 0);
    if found != USAGE_VERSION {
        return Err(RegionError::Version {
            path: path.to_path_buf(),
            found,
            expected: USAGE_VERSION,
        });
    }
    let slots = page
        .get(SLOTS_OFFSET..)
        .unwrap_or_default()
        .chunks_exact(SLOT_BYTES);
    Ok((0_u16..)
        .zip(slots.take(MAX_SLOTS))
        .filter_map(|(number, bytes)| process(file, limits, number, bytes))
        .collect())
}

fn process(file: &File, limits: &Limits, number: u16, slot_bytes: &[u8]) -> Option<ProcessUsage> {
    let generation = word(slot_bytes, 0);
    if generation == 0 {
        return None;
    }
    let devices: Vec<_> = slot_bytes
        .get(SLOT_DEVICES_OFFSET..)?
        .chunks_exact(16)
        .zip(&limits.devices)
        .map(|(pair, device)| DeviceUsage {
            uuid: device.uuid,
            bytes: bytes(Held::unpack(word(pair, 0)).units),
        })
        .filter(|device| device.bytes > 0)
        .collect();
    let live = slot::is_claimed(file.as_fd(), number);
    if !live && devices.is_empty() {
        return None;
    }
    Some(ProcessUsage {
        slot: number,
        generation,
        pid: u32::try_from(word(slot_bytes, 8)).unwrap_or_default(),
        pidns: word(slot_bytes, 16),
        start_time: word(slot_bytes, 24),
        live,
        devices,
    })
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |chunk: &[u8; 8]| u64::from_ne_bytes(*chunk))
}
