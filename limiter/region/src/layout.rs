//! The bytes of the two pages. Everything here is part of the contract between builds: a change of
//! meaning needs a new version word.
//!
//! Fixed-width atomics only, because other processes write at any time; the version word comes
//! first; the sizes are asserted at compile time. Numbers are in the machine's byte order, since a
//! region never leaves it. Room is reserved for the compute bucket in both pages.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// How many GPUs one container can have.
pub const MAX_DEVICES: usize = 16;
/// How many processes of one container can use a GPU at the same time.
pub const MAX_SLOTS: usize = 512;
/// What a charge is rounded up to. **Units:** bytes.
pub const UNIT_BYTES: u64 = 512;

/// File name of the limits page.
pub const LIMITS_FILE: &str = "limits";
/// File name of the usage page.
pub const USAGE_FILE: &str = "usage";
/// File name of the reserved trace page.
pub const TRACE_FILE: &str = "trace";

/// First word of the limits page: "vgpuL", version 1.
pub const LIMITS_VERSION: u64 = 0x7667_7075_4c00_0001;
/// First word of the usage page: "vgpuU", version 1.
pub const USAGE_VERSION: u64 = 0x7667_7075_5500_0001;

/// Size of the limits file. **Units:** bytes.
pub const LIMITS_BYTES: u64 = size_of::<LimitsPage>() as u64;
/// Size of the usage file. **Units:** bytes.
pub const USAGE_BYTES: u64 = size_of::<UsagePage>() as u64;
/// Size of the trace file. **Units:** bytes.
pub const TRACE_BYTES: u64 = 4096;
/// What a tmpfs needs to hold a whole region. **Units:** bytes.
pub const REGION_BYTES: u64 = LIMITS_BYTES + USAGE_BYTES + TRACE_BYTES;

/// The limits page. Written by the host only.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LimitsPage {
    /// [`LIMITS_VERSION`].
    pub(crate) version: AtomicU64,
    /// Even: settled. Odd: being written.
    pub(crate) sequence: AtomicU64,
    /// Counts the updates.
    pub(crate) generation: AtomicU64,
    /// How many entries of `devices` count.
    pub(crate) device_count: AtomicU32,
    /// None defined yet.
    pub(crate) flags: AtomicU32,
    reserved: [AtomicU64; 28],
    /// What was granted, by device index.
    pub(crate) devices: [LimitsDevice; MAX_DEVICES],
    reserved_tail: [AtomicU64; 224],
    /// By slot: processes of this slot up to and including this generation are dead, as the agent
    /// found out from outside their pid namespace.
    pub(crate) dead: [AtomicU64; MAX_SLOTS],
}

/// One device of the limits page. Bytes unless said otherwise.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LimitsDevice {
    /// The sixteen bytes of the UUID as two words, in memory order.
    pub(crate) uuid: [AtomicU64; 2],
    pub(crate) capacity: AtomicU64,
    pub(crate) vram_limit: AtomicU64,
    pub(crate) vram_request: AtomicU64,
    pub(crate) context_footprint: AtomicU64,
    pub(crate) untracked: AtomicU64,
    /// Bytes from low to high: compute limit (percent), compute request (percent), class.
    pub(crate) compute: AtomicU64,
    /// Reserved for the compute bucket's settings.
    pub(crate) bucket: [AtomicU64; 8],
}

/// The usage page. Written by every process of the container.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct UsagePage {
    /// [`USAGE_VERSION`].
    pub(crate) version: AtomicU64,
    reserved: [AtomicU64; 511],
    /// By device index of the limits page.
    pub(crate) devices: [UsageDevice; MAX_DEVICES],
    /// By slot.
    pub(crate) slots: [UsageSlot; MAX_SLOTS],
}

/// What all processes share of one device.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct UsageDevice {
    /// See [`crate::word::Total`].
    pub(crate) total: AtomicU64,
    reserved: [AtomicU64; 31],
    /// Reserved for the compute bucket.
    pub(crate) bucket: [AtomicU64; 32],
}

/// What belongs to the process that holds the lock on this slot's byte.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct UsageSlot {
    /// Counts the processes that had this slot; 0: never used.
    pub(crate) generation: AtomicU64,
    /// The owner's pid in its own pid namespace.
    pub(crate) pid: AtomicU64,
    /// Inode of the owner's pid namespace.
    pub(crate) pid_namespace: AtomicU64,
    /// The owner's start time, as in field 22 of `/proc/<pid>/stat`.
    pub(crate) start_time: AtomicU64,
    reserved: [AtomicU64; 12],
    /// By device index.
    pub(crate) devices: [SlotDevice; MAX_DEVICES],
    reserved_tail: [AtomicU64; 16],
}

/// What one process holds of one device.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SlotDevice {
    /// See [`crate::word::Held`].
    pub(crate) held: AtomicU64,
    /// See [`crate::word::Intent`].
    pub(crate) intent: AtomicU64,
}

const _: () = assert!(size_of::<LimitsDevice>() == 128);
const _: () = assert!(size_of::<LimitsPage>() == 8192);
const _: () = assert!(std::mem::offset_of!(LimitsPage, devices) == 256);
const _: () = assert!(std::mem::offset_of!(LimitsPage, dead) == 4096);
const _: () = assert!(size_of::<UsageDevice>() == 512);
const _: () = assert!(size_of::<UsageSlot>() == 512);
const _: () = assert!(std::mem::offset_of!(UsageSlot, devices) == SLOT_DEVICES_OFFSET);
const _: () = assert!(std::mem::offset_of!(UsagePage, slots) == SLOTS_OFFSET);
const _: () = assert!(size_of::<UsagePage>() == 274_432);

/// Where the slots start in the usage file, for readers that do not map it.
pub(crate) const SLOTS_OFFSET: usize = 12_288;
/// Size of one slot in the usage file.
pub(crate) const SLOT_BYTES: usize = 512;
/// Where a slot's devices start.
pub(crate) const SLOT_DEVICES_OFFSET: usize = 128;
