//! What was granted: the limits page, its writer (host side) and its reader (both sides).
//!
//! The page changes in place under a sequence counter: odd while a writer is at work. A writer that
//! is killed half-way leaves it odd; the next writer repairs that, and readers keep what they read
//! last. Device indices never move, because attached processes know devices by their index.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::error::RegionError;
use crate::file;
use crate::layout::{LIMITS_BYTES, LIMITS_FILE, LIMITS_VERSION, LimitsDevice, LimitsPage};
use crate::layout::{MAX_DEVICES, MAX_SLOTS};
use crate::map::{Access, Mapping};

/// How often a reader tries before it calls the page unsettled.
const READ_ATTEMPTS: u32 = 10_000;
/// How often a charge tries, which can do with what was read last.
const CHARGE_ATTEMPTS: u32 = 50;

/// A whole limits page as plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Layout version, 1. Filled in by the reader, ignored by the writer.
    pub version: u32,
    /// Counts the updates. Filled in by the reader, ignored by the writer.
    pub generation: u64,
    /// None defined yet: 0.
    pub flags: u32,
    /// **Shape:** at most [`MAX_DEVICES`]; the index is the device's index in the usage page too.
    pub devices: Vec<DeviceLimits>,
}

/// What was granted of one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceLimits {
    /// The GPU's UUID.
    pub uuid: [u8; 16],
    /// What the card has minus what the driver reserves. **Units:** bytes.
    pub capacity: u64,
    /// What the container may hold. **Units:** bytes.
    pub vram_limit: u64,
    /// The guaranteed part of it. **Units:** bytes.
    pub vram_request: u64,
    /// Share of the GPU's time. **Units:** percent, 0 to 100.
    pub compute_limit: u8,
    /// The guaranteed part of it. **Units:** percent, 0 to 100.
    pub compute_request: u8,
    /// 0 low, 1 medium, 2 high, 3 critical.
    pub qos: u8,
    /// What one context is charged. **Units:** bytes.
    pub context_footprint: u64,
    /// Memory in use that no charge explains; taken off the free quota. **Units:** bytes.
    pub untracked: u64,
}

impl Limits {
    fn check(&self) -> Result<(), RegionError> {
        let range = |field, value: u64, max: u64| {
            if value > max {
                Err(RegionError::Field { field, value, max })
            } else {
                Ok(())
            }
        };
        range("devices", self.devices.len() as u64, MAX_DEVICES as u64)?;
        for device in &self.devices {
            range("compute_limit", device.compute_limit.into(), 100)?;
            range("compute_request", device.compute_request.into(), 100)?;
            range("qos", device.qos.into(), 3)?;
            range("vram_request", device.vram_request, device.vram_limit)?;
        }
        Ok(())
    }
}

fn store_device(page: &LimitsDevice, device: &DeviceLimits) {
    let (low, high) = device.uuid.split_at(8);
    for (word, half) in page.uuid.iter().zip([low, high]) {
        word.store(
            u64::from_ne_bytes(half.try_into().unwrap_or_default()),
            Relaxed,
        );
    }
    page.capacity.store(device.capacity, Relaxed);
    page.vram_limit.store(device.vram_limit, Relaxed);
    page.vram_request.store(device.vram_request, Relaxed);
    page.context_footprint
        .store(device.context_footprint, Relaxed);
    page.untracked.store(device.untracked, Relaxed);
    let bytes = [
        device.compute_limit,
        device.compute_request,
        device.qos,
        0,
        0,
        0,
        0,
        0,
    ];
    page.compute.store(u64::from_le_bytes(bytes), Relaxed);
}

fn load_device(page: &LimitsDevice) -> DeviceLimits {
    let mut uuid = [0; 16];
    for (half, word) in uuid.chunks_exact_mut(8).zip(&page.uuid) {
        half.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    let [compute_limit, compute_request, qos, ..] = page.compute.load(Relaxed).to_le_bytes();
    DeviceLimits {
        uuid,
        capacity: page.capacity.load(Relaxed),
        vram_limit: page.vram_limit.load(Relaxed),
        vram_request: page.vram_request.load(Relaxed),
        compute_limit,
        compute_request,
        qos,
        context_footprint: page.context_footprint.load(Relaxed),
        untracked: page.untracked.load(Relaxed),
    }
}

/// The host's hand on a limits page.
#[derive(Debug)]
pub struct LimitsWriter {
    page: Mapping<LimitsPage>,
    /// Holds the writers' lock while an update runs.
    file: File,
    path: PathBuf,
}

impl LimitsWriter {
    /// Makes `dir/limits` (mode 0644) with these limits.
    ///
    /// # Errors
    /// [`RegionError::Exists`], [`RegionError::Io`], [`RegionError::Field`].
    pub fn create(dir: &Path, limits: &Limits) -> Result<Self, RegionError> {
        limits.check()?;
        let path = dir.join(LIMITS_FILE);
        let file = file::create(&path, LIMITS_BYTES, 0o644)?;
        let page = Mapping::new(file.as_fd(), Access::Write)
            .map_err(|error| RegionError::io("map", &path, error))?;
        let writer = Self { page, file, path };
        writer.write(limits);
        writer.page.version.store(LIMITS_VERSION, Release);
        Ok(writer)
    }

    /// Opens `dir/limits` to change it.
    ///
    /// # Errors
    /// [`RegionError::Io`], [`RegionError::Shape`], [`RegionError::Version`].
    pub fn open(dir: &Path) -> Result<Self, RegionError> {
        let path = dir.join(LIMITS_FILE);
        let file = file::open(&path, true, LIMITS_BYTES)?;
        let page = Mapping::new(file.as_fd(), Access::Write)
            .map_err(|error| RegionError::io("map", &path, error))?;
        check_version(&page, &path)?;
        Ok(Self { page, file, path })
    }

    /// Replaces the limits in place. Attached processes obey them from their next charge on.
    ///
    /// # Errors
    /// [`RegionError::Field`]; [`RegionError::DevicesMoved`] where a device that is in the page
    /// would get another index or vanish; [`RegionError::Io`] where the lock fails.
    pub fn update(&self, limits: &Limits) -> Result<(), RegionError> {
        self.edit(|page| *page = limits.clone())
    }

    /// Reads the limits, changes them and writes them back, all under the writers' lock, so that
    /// two hooks that run at the same time both have their say.
    ///
    /// # Errors
    /// As [`LimitsWriter::update`].
    pub fn edit(&self, change: impl FnOnce(&mut Limits)) -> Result<(), RegionError> {
        self.file
            .lock()
            .map_err(|error| RegionError::io("lock", &self.path, error))?;
        let result = self.edit_locked(change);
        self.file
            .unlock()
            .map_err(|error| RegionError::io("unlock", &self.path, error))?;
        result
    }

    fn edit_locked(&self, change: impl FnOnce(&mut Limits)) -> Result<(), RegionError> {
        // Under the lock nobody else writes, so even what a killed writer left can be read.
        let before = copy(&self.page);
        let mut limits = before.clone();
        change(&mut limits);
        limits.check()?;
        for (index, device) in before.devices.iter().enumerate() {
            if limits.devices.get(index).map(|new| new.uuid) != Some(device.uuid) {
                return Err(RegionError::DevicesMoved { index });
            }
        }
        self.write(&limits);
        Ok(())
    }

    /// Publishes that the processes of `slot` up to `generation` are dead. Slots out of range are
    /// nobody's.
    pub fn publish_dead(&self, slot: u16, generation: u64) {
        if let Some(word) = self.page.dead.get(usize::from(slot)) {
            word.fetch_max(generation, Release);
        }
    }

    /// What the page says now.
    ///
    /// # Errors
    /// [`RegionError::Unsettled`].
    pub fn read(&self) -> Result<Limits, RegionError> {
        snapshot(&self.page).ok_or_else(|| RegionError::Unsettled {
            path: self.path.clone(),
        })
    }

    fn write(&self, limits: &Limits) {
        let page = &self.page;
        let odd = page.sequence.load(Acquire) | 1;
        page.sequence.store(odd, Relaxed);
        fence(Release);
        for (slot, device) in page.devices.iter().zip(&limits.devices) {
            store_device(slot, device);
        }
        page.device_count.store(
            u32::try_from(limits.devices.len()).unwrap_or_default(),
            Relaxed,
        );
        page.flags.store(limits.flags, Relaxed);
        page.generation
            .store(page.generation.load(Relaxed).wrapping_add(1), Relaxed);
        page.sequence.store(odd.wrapping_add(1), Release);
    }
}

/// What a charge needs to know of a device. **Units:** bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    /// What the container may hold; 0 for a device that was not granted.
    pub limit: u64,
    /// Memory in use that no charge explains.
    pub untracked: u64,
    /// What one context is charged.
    pub context_footprint: u64,
}

/// [`Granted`] as last read, word by word: an update in progress may mix two of them for a moment.
#[derive(Debug, Default)]
struct Last([AtomicU64; 3]);

impl Last {
    fn load(&self) -> Granted {
        let [limit, untracked, context_footprint] =
            self.0.each_ref().map(|word| word.load(Relaxed));
        Granted {
            limit,
            untracked,
            context_footprint,
        }
    }

    /// An unchanged value is not written, so that the line stays shared.
    fn store(&self, granted: Granted) {
        if self.load() != granted {
            let Granted {
                limit,
                untracked,
                context_footprint,
            } = granted;
            for (word, value) in self.0.iter().zip([limit, untracked, context_footprint]) {
                word.store(value, Relaxed);
            }
        }
    }
}

/// A view of a limits page that follows the host's updates.
#[derive(Debug)]
pub struct LimitsReader {
    page: Mapping<LimitsPage>,
    /// By device, for the moments (or the rest of this process's life, when a writer died) in which
    /// the page is unsettled.
    last: [Last; MAX_DEVICES],
}

impl LimitsReader {
    /// Opens `dir/limits` for reading.
    ///
    /// # Errors
    /// [`RegionError::Io`], [`RegionError::Shape`], [`RegionError::Version`],
    /// [`RegionError::Unsettled`].
    pub fn open(dir: &Path) -> Result<Self, RegionError> {
        let path = dir.join(LIMITS_FILE);
        let file = file::open(&path, false, LIMITS_BYTES)?;
        Self::from_file(&file, &path)
    }

    fn from_file(file: &File, path: &Path) -> Result<Self, RegionError> {
        let page = Mapping::new(file.as_fd(), Access::Read)
            .map_err(|error| RegionError::io("map", path, error))?;
        check_version(&page, path)?;
        let reader = Self {
            page,
            last: Default::default(),
        };
        let limits = snapshot(&reader.page).ok_or_else(|| RegionError::Unsettled {
            path: path.to_path_buf(),
        })?;
        for (last, device) in reader.last.iter().zip(&limits.devices) {
            last.store(Granted {
                limit: device.vram_limit,
                untracked: device.untracked,
                context_footprint: device.context_footprint,
            });
        }
        Ok(reader)
    }

    /// A consistent copy of the whole page; `None` while a writer is at work or after one died
    /// half-way.
    pub fn snapshot(&self) -> Option<Limits> {
        snapshot(&self.page)
    }

    /// The index of a GPU in this region.
    pub fn find(&self, uuid: &[u8; 16]) -> Option<usize> {
        self.snapshot()?
            .devices
            .iter()
            .position(|device| device.uuid == *uuid)
    }

    /// The limits of one device; `None` for an index that was not granted.
    pub fn device(&self, index: usize) -> Option<DeviceLimits> {
        settled(&self.page, READ_ATTEMPTS, |page| {
            let count = page.device_count.load(Relaxed) as usize;
            page.devices
                .get(index)
                .filter(|_| index < count)
                .map(load_device)
        })
        .flatten()
    }

    /// What processes may charge on a device: the limit minus what is untracked. Follows updates,
    /// and holds the last value while the page is unsettled. **Units:** bytes.
    pub fn quota(&self, index: usize) -> u64 {
        let granted = self.granted(index);
        granted.limit.saturating_sub(granted.untracked)
    }

    /// The limits that a charge needs; all zeros for a device that was not granted. Follows updates,
    /// and holds the last values while the page is unsettled.
    pub fn granted(&self, index: usize) -> Granted {
        let (Some(device), Some(last)) = (self.page.devices.get(index), self.last.get(index))
        else {
            return Granted::default();
        };
        let now = settled(&self.page, CHARGE_ATTEMPTS, |page| {
            if index >= page.device_count.load(Relaxed) as usize {
                return Granted::default();
            }
            Granted {
                limit: device.vram_limit.load(Relaxed),
                untracked: device.untracked.load(Relaxed),
                context_footprint: device.context_footprint.load(Relaxed),
            }
        });
        if let Some(granted) = now {
            last.store(granted);
        }
        now.unwrap_or_else(|| last.load())
    }

    /// Up to which generation the processes of a slot were published as dead.
    pub(crate) fn dead_generation(&self, slot: u16) -> u64 {
        self.page
            .dead
            .get(usize::from(slot))
            .map_or(0, |word| word.load(Acquire))
    }
}

/// Reads a limits page once: `path` is the file `limits`, or the region's directory.
///
/// # Errors
/// As [`LimitsReader::open`].
pub fn read_limits(path: &Path) -> Result<Limits, RegionError> {
    let path = if path.is_dir() {
        path.join(LIMITS_FILE)
    } else {
        path.to_path_buf()
    };
    read_limits_fd(file::open(&path, false, LIMITS_BYTES)?.into(), &path)
}

/// Reads a limits page once through a descriptor; `path` serves messages only.
///
/// # Errors
/// As [`LimitsReader::open`].
pub fn read_limits_fd(fd: OwnedFd, path: &Path) -> Result<Limits, RegionError> {
    let file = File::from(fd);
    file::check(&file, path, LIMITS_BYTES)?;
    LimitsReader::from_file(&file, path)?
        .snapshot()
        .ok_or_else(|| RegionError::Unsettled {
            path: path.to_path_buf(),
        })
}

fn check_version(page: &LimitsPage, path: &Path) -> Result<(), RegionError> {
    let found = page.version.load(Acquire);
    if found == LIMITS_VERSION {
        return Ok(());
    }
    Err(RegionError::Version {
        path: path.to_path_buf(),
        found,
        expected: LIMITS_VERSION,
    })
}

fn copy(page: &LimitsPage) -> Limits {
    let count = (page.device_count.load(Relaxed) as usize).min(MAX_DEVICES);
    Limits {
        version: 1,
        generation: page.generation.load(Relaxed),
        flags: page.flags.load(Relaxed),
        devices: page.devices.iter().take(count).map(load_device).collect(),
    }
}

fn snapshot(page: &LimitsPage) -> Option<Limits> {
    settled(page, READ_ATTEMPTS, copy)
}

/// Runs `read` until no writer was at work meanwhile.
fn settled<T>(page: &LimitsPage, attempts: u32, read: impl Fn(&LimitsPage) -> T) -> Option<T> {
    for attempt in 0..attempts {
        let before = page.sequence.load(Acquire);
        if before & 1 == 0 {
            let value = read(page);
            fence(Acquire);
            if page.sequence.load(Relaxed) == before {
                return Some(value);
            }
        }
        if attempt > 100 {
            std::thread::yield_now();
        }
    }
    None
}

const _: () = assert!(MAX_SLOTS <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(uuid: u8, vram_limit: u64) -> DeviceLimits {
        DeviceLimits {
            uuid: [uuid; 16],
            capacity: 1 << 37,
            vram_limit,
            vram_request: vram_limit / 2,
            compute_limit: 25,
            compute_request: 10,
            qos: 2,
            context_footprint: 512 << 20,
            untracked: 0,
        }
    }

    fn limits(devices: &[DeviceLimits]) -> Limits {
        Limits {
            devices: devices.to_vec(),
            ..Limits::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let granted = limits(&[grant(1, 4 << 30), grant(2, 8 << 30)]);
        LimitsWriter::create(dir.path(), &granted).unwrap();
        let read = read_limits(dir.path()).unwrap();
        assert_eq!(read.devices, granted.devices);
        assert_eq!((read.version, read.generation), (1, 1));
        let reader = LimitsReader::open(dir.path()).unwrap();
        assert_eq!(reader.find(&[2; 16]), Some(1));
        assert_eq!(reader.find(&[9; 16]), None);
        assert_eq!(reader.quota(1), 8 << 30);
        assert_eq!(reader.quota(2), 0);
        assert_eq!(reader.quota(99), 0);
    }

    #[test]
    fn an_update_is_seen_and_may_append_but_not_move() {
        let dir = tempfile::tempdir().unwrap();
        let writer = LimitsWriter::create(dir.path(), &limits(&[grant(1, 1 << 30)])).unwrap();
        let reader = LimitsReader::open(dir.path()).unwrap();
        let mut bigger = grant(1, 2 << 30);
        bigger.untracked = 1 << 29;
        LimitsWriter::open(dir.path())
            .unwrap()
            .update(&limits(&[bigger, grant(3, 1 << 20)]))
            .unwrap();
        assert_eq!(reader.quota(0), (2 << 30) - (1 << 29));
        assert_eq!(reader.quota(1), 1 << 20);
        let moved = writer.update(&limits(&[grant(3, 1 << 20), grant(1, 1 << 20)]));
        assert!(matches!(moved, Err(RegionError::DevicesMoved { index: 0 })));
        let gone = writer.update(&limits(&[bigger]));
        assert!(matches!(gone, Err(RegionError::DevicesMoved { index: 1 })));
    }

    #[test]
    fn out_of_range_fields_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut wrong = grant(1, 1 << 30);
        wrong.compute_limit = 101;
        let error = LimitsWriter::create(dir.path(), &limits(&[wrong])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "limits field compute_limit is 101, at most 100 is allowed"
        );
        assert!(!dir.path().join(LIMITS_FILE).exists());
        let many = vec![grant(1, 1); MAX_DEVICES + 1];
        assert!(LimitsWriter::create(dir.path(), &limits(&many)).is_err());
    }

    #[test]
    fn truncated_foreign_and_missing_pages_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LIMITS_FILE);
        assert!(matches!(
            read_limits(dir.path()),
            Err(RegionError::Io { .. })
        ));
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(matches!(
            read_limits(dir.path()),
            Err(RegionError::Shape { bytes: 100, .. })
        ));
        std::fs::write(&path, vec![7; 8192]).unwrap();
        assert!(matches!(
            read_limits(dir.path()),
            Err(RegionError::Version { .. })
        ));
    }

    #[test]
    fn a_writer_that_died_half_way_loosens_nothing_and_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let granted = limits(&[grant(1, 1 << 30)]);
        let writer = LimitsWriter::create(dir.path(), &granted).unwrap();
        let reader = LimitsReader::open(dir.path()).unwrap();
        writer.page.sequence.fetch_or(1, Relaxed);
        writer.page.devices[0].vram_limit.store(u64::MAX, Relaxed);
        assert_eq!(reader.quota(0), 1 << 30);
        assert!(matches!(
            read_limits(dir.path()),
            Err(RegionError::Unsettled { .. })
        ));
        LimitsWriter::open(dir.path())
            .unwrap()
            .update(&granted)
            .unwrap();
        assert_eq!(read_limits(dir.path()).unwrap().devices, granted.devices);
    }

    #[test]
    fn readers_never_see_half_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let writer = LimitsWriter::create(dir.path(), &limits(&[grant(1, 1 << 30)])).unwrap();
        let reader = LimitsReader::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..2000_u64 {
                    let mut device = grant(1, round << 20);
                    device.capacity = round << 20;
                    writer.update(&limits(&[device])).unwrap();
                }
            });
            for _ in 0..2000 {
                let device = reader.device(0).unwrap();
                assert!(device.capacity == 1 << 37 || device.capacity == device.vram_limit);
            }
        });
    }
}
