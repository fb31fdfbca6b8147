//! The words of the node page and where they lie.
//!
//! Owns sizes and offsets only. Every field is an atomic, because any process may change it at any time.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// First word of every page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"sim-gpu\0");
/// Layout version; a client with another one is refused.
pub const VERSION: u32 = 1;
/// Clients that a node can have at once. A process takes one for each simulated library that it loads.
pub const SLOTS: usize = 512;
/// Corners of a slot's progress that are remembered, a GPU.
pub const BREAKPOINTS: usize = 512;
/// Intervals of GPU use that are remembered.
pub const BUCKETS: usize = 64;
/// Length of such an interval in nanoseconds: 64 of them are 3.2 seconds.
pub const BUCKET_NS: u64 = 50_000_000;
/// Where the node's description starts, and how long it may be.
pub const CONFIG_OFFSET: usize = 4096;
/// Room for the description.
pub const CONFIG_ROOM: usize = 15 * 4096;
/// Where the devices start.
pub const DEVICES_OFFSET: usize = CONFIG_OFFSET + CONFIG_ROOM;

/// The first words of the page.
#[derive(Debug)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// GPUs on the page.
    pub devices: AtomicU32,
    /// Client slots on the page.
    pub slots: AtomicU32,
    /// 0, or one more than the owner's number.
    pub lock: AtomicU32,
    /// Bytes of description after [`CONFIG_OFFSET`].
    pub config_len: AtomicU64,
}

/// What is shared about one GPU.
#[derive(Debug)]
#[repr(C)]
pub struct DeviceWords {
    /// Bytes that applications can have.
    pub capacity: AtomicU64,
    /// Bytes that one context takes.
    pub footprint: AtomicU64,
    /// Bytes that they have: the sum over the slots.
    pub used: AtomicU64,
    /// The moment up to which GPU time has been dealt out.
    pub last: AtomicU64,
    /// NVML's compute mode.
    pub compute_mode: AtomicU32,
    /// NVML's persistence mode.
    pub persistence: AtomicU32,
    /// One bit a slot: it has work left.
    pub active: [AtomicU64; SLOTS / 64],
    /// Busy time of the whole GPU.
    pub busy: Busy,
}

/// What is shared about one client.
#[derive(Debug)]
#[repr(C)]
pub struct SlotWords {
    /// Odd while the slot is given out. Grows with every change, so that a stale owner is told apart.
    pub generation: AtomicU64,
    /// Process id as the daemon sees it.
    pub pid: AtomicU32,
    /// [`crate::client::Kind`] of the client.
    pub kind: AtomicU32,
    /// When the client connected.
    pub since: AtomicU64,
}

/// What one client has on one GPU.
#[derive(Debug)]
#[repr(C)]
pub struct ShareWords {
    /// Bytes allocated.
    pub held: AtomicU64,
    /// Contexts alive.
    pub contexts: AtomicU64,
    /// Nanoseconds of GPU time asked for since the slot was given out.
    pub submitted: AtomicU64,
    /// Nanoseconds of it that the GPU has run.
    pub executed: AtomicU64,
    /// Slots that shared the GPU in the newest segment of `points`.
    pub rate: AtomicU64,
    /// Points written since the slot was given out; the newest is `points[(count - 1) % BREAKPOINTS]`.
    pub count: AtomicU64,
    /// Corners of the line (time, executed), oldest overwritten first.
    pub points: [Point; BREAKPOINTS],
    /// Busy time of this client.
    pub busy: Busy,
}

/// One corner of a client's progress.
#[derive(Debug)]
#[repr(C)]
pub struct Point {
    /// When.
    pub time: AtomicU64,
    /// How much had been executed by then.
    pub executed: AtomicU64,
}

/// GPU time used in each of the last intervals.
#[derive(Debug)]
#[repr(C)]
pub struct Busy {
    /// Interval `i` lies at `i % BUCKETS`.
    pub buckets: [Bucket; BUCKETS],
}

/// GPU time used in one interval.
#[derive(Debug)]
#[repr(C)]
pub struct Bucket {
    /// The interval's number: its start divided by [`BUCKET_NS`].
    pub interval: AtomicU64,
    /// Nanoseconds used.
    pub used: AtomicU64,
}

const _: () = assert!(size_of::<Header>() <= CONFIG_OFFSET);
const _: () = assert!(DEVICES_OFFSET.is_multiple_of(64));
const _: () = assert!(size_of::<DeviceWords>() == 40 + SLOTS / 8 + BUCKETS * 16);
const _: () = assert!(size_of::<SlotWords>() == 24);
const _: () = assert!(size_of::<ShareWords>() == 48 + BREAKPOINTS * 16 + BUCKETS * 16);

/// Where slot `slot` lies on a page with `devices` GPUs.
pub fn slot_offset(devices: usize, slot: usize) -> usize {
    DEVICES_OFFSET + devices * size_of::<DeviceWords>() + slot * size_of::<SlotWords>()
}

/// Where the share of (`slot`, `device`) lies.
pub fn share_offset(devices: usize, slot: usize, device: usize) -> usize {
    slot_offset(devices, SLOTS) + (slot * devices + device) * size_of::<ShareWords>()
}

/// Length of a page with `devices` GPUs.
pub fn page_len(devices: usize) -> usize {
    share_offset(devices, SLOTS, 0)
}
