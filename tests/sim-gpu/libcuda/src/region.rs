//! Every range of memory that the driver knows, by address.
//!
//! Owns the table and what a range is; the chapters that make ranges own their meaning. Lookups decide what a
//! pointer points to; a pointer that is in no range is the program's own memory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure};
use crate::raw;
use crate::state::{State, node};

/// Addresses are dealt out in whole pages, so that a range can be discarded, or moved into a file, alone.
const PAGE: u64 = 4096;

/// The addresses that `size` bytes take.
pub(crate) fn whole_pages(size: u64) -> u64 {
    size.next_multiple_of(PAGE)
}

/// What a range of memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cuMemAlloc` and its family: `charged` bytes of the GPU.
    Device { charged: u64 },
    /// `cuMemAllocManaged`, with its attach flags.
    Managed { charged: u64, flags: u32 },
    /// Host memory made by the driver (`owned`) or registered with it.
    Host { owned: bool, flags: u32 },
    /// Memory of a pool.
    Pooled { pool: u64 },
    /// A `cuMemMap` mapping of a physical allocation.
    Mapped {
        physical: u64,
        offset: u64,
        access: u32,
    },
    /// Memory of another process: how often it is open, and whose it is under which number, and the
    /// imported pool that it is of (0 for plain memory).
    Imported {
        opened: u32,
        key: (u64, u64),
        pool: u64,
    },
    /// A variable of a module; charged with it.
    Global,
    /// Memory of a graph: the address stays while the graph does.
    Graph { live: bool },
    /// `cuMemAddressReserve`, with nothing mapped.
    Reserved,
}

/// One range.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
    /// Ordinal of the device that it belongs to, or was made with.
    pub(crate) device: usize,
    /// The context that it goes with; 0 for memory without one.
    pub(crate) context: u64,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub(crate) buffer: u64,
    /// Its pages may hold something.
    pub(crate) written: bool,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
    pub(crate) sync: bool,
    /// The file behind it once it was exported, with its number at the node.
    pub(crate) file: Option<(OwnedFd, u64)>,
    /// Access of a mapping: location and flags.
    pub(crate) grants: Vec<((CUmemLocationType, i32), CUmemAccess_flags)>,
    /// `cuMemAdvise` and prefetch: what was said last.
    pub(crate) advice: Advice,
}

/// What `cuMemAdvise` and prefetches left on managed memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Advice {
    pub(crate) read_mostly: bool,
    /// Location type and id.
    pub(crate) preferred: Option<(u32, i32)>,
    pub(crate) accessed_by: Vec<i32>,
    pub(crate) prefetched: Option<(u32, i32)>,
}

impl Region {
    pub(crate) fn new(base: u64, size: u64, kind: Kind, device: usize, context: u64) -> Self {
        Self {
            base,
            size,
            kind,
            device,
            context,
            buffer: 0,
            written: false,
            sync: false,
            file: None,
            grants: Vec::new(),
            advice: Advice::default(),
        }
    }

    /// Memory of the program's side of the bus.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Host { .. })
    }
}

/// All ranges.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    by_base: BTreeMap<u64, Region>,
}

impl Regions {
    pub(crate) fn insert(&mut self, region: Region) {
        self.by_base.insert(region.base, region);
    }

    pub(crate) fn remove(&mut self, base: u64) -> Option<Region> {
        self.by_base.remove(&base)
    }

    /// The range that starts at `base`.
    pub(crate) fn starting_at(&mut self, base: u64) -> Option<&mut Region> {
        self.by_base.get_mut(&base)
    }

    /// The range that holds `address`.
    pub(crate) fn at(&mut self, address: u64) -> Option<&mut Region> {
        let (_, region) = self.by_base.range_mut(..=address).next_back()?;
        (address - region.base < region.size).then_some(region)
    }

    /// The range that holds `address`, to look at.
    pub(crate) fn find(&self, address: u64) -> Option<&Region> {
        let (_, region) = self.by_base.range(..=address).next_back()?;
        (address - region.base < region.size).then_some(region)
    }

    /// Whether a range overlaps `[base, base + size)`.
    pub(crate) fn overlap(&self, base: u64, size: u64) -> bool {
        let before = self.by_base.range(..base + size).next_back();
        before.is_some_and(|(_, region)| region.base + region.size > base)
    }

    /// Ranges inside `[base, base + size)`.
    pub(crate) fn within(&self, base: u64, size: u64) -> impl Iterator<Item = &Region> {
        self.by_base
            .range(base..base + size)
            .map(|(_, region)| region)
    }

    fn of_context(&self, context: u64) -> Vec<u64> {
        let of = self
            .by_base
            .values()
            .filter(|region| region.context == context);
        of.map(|region| region.base).collect()
    }
}

impl State {
    /// Takes `charged` bytes of a device and addresses for `size`.
    pub(crate) fn take_device(
        &mut self,
        device: usize,
        size: u64,
        align: u64,
        charged: u64,
    ) -> Cu<u64> {
        let gpu = self.gpu(device);
        node().charge(gpu, charged)?;
        let base = self.take_addresses(device, size, align);
        if base.is_err() {
            node().refund(gpu, charged);
        }
        base
    }

    /// Takes `charged` bytes of a device and addresses below 4 GiB, a mapping of their own.
    pub(crate) fn take_low(&mut self, device: usize, charged: u64) -> Cu<u64> {
        let gpu = self.gpu(device);
        node().charge(gpu, charged)?;
        let base = raw::reserve(whole_pages(charged), raw::Protection::ReadWrite, true);
        if base.is_none() {
            node().refund(gpu, charged);
        }
        base.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))
    }

    /// Takes addresses for `size` bytes of a device.
    pub(crate) fn take_addresses(&mut self, device: usize, size: u64, align: u64) -> Cu<u64> {
        self.reserve_space(device)?;
        let space = self.devices[device].space.as_mut();
        let space = space.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
        space
            .take(whole_pages(size), align.max(PAGE))
            .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))
    }

    /// Gives addresses back, their bytes discarded if there were any.
    pub(crate) fn give_addresses(&mut self, device: usize, base: u64, size: u64, written: bool) {
        if base <= u64::from(u32::MAX) {
            return raw::unmap(base, whole_pages(size));
        }
        if written {
            raw::discard(base, size);
        }
        if let Some(space) = self.devices[device].space.as_mut() {
            space.give(base, whole_pages(size));
        }
    }

    /// Adds a range and gives it its number.
    pub(crate) fn add_region(&mut self, mut region: Region) {
        region.buffer = self.new_serial();
        self.regions.insert(region);
    }

    /// The range of device memory that holds `size` bytes at `address`, or what `else_code` says.
    pub(crate) fn device_range(&mut self, address: u64, size: u64) -> Cu<&mut Region> {
        let region = self
            .regions
            .at(address)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        ensure(size <= region.size - (address - region.base))?;
        Ok(region)
    }

    /// Frees what a context leaves behind.
    pub(crate) fn end_regions_of(&mut self, context: u64) {
        for base in self.regions.of_context(context) {
            let Some(region) = self.regions.remove(base) else {
                continue;
            };
            self.free_region(region);
        }
    }

    /// Gives back what a range that has left the table holds.
    pub(crate) fn free_region(&mut self, region: Region) {
        let gpu = self.gpu(region.device);
        let held = whole_pages(region.size);
        if let Some((_, number)) = region.file {
            // Who has it open keeps it; nobody else can open it any more.
            node().unexport(number);
            raw::reserve_again(region.base, held, raw::Protection::ReadWrite);
        }
        match region.kind {
            Kind::Device { charged } | Kind::Managed { charged, .. } => {
                node().refund(gpu, charged);
                self.give_addresses(region.device, region.base, held, region.written);
            }
            Kind::Host { owned: true, .. } => raw::unmap(region.base, held),
            Kind::Pooled { pool } => self.free_pooled(pool, region.base, region.written),
            Kind::Imported { key, .. } => {
                self.imports.remove(&key);
                raw::unmap(region.base, held);
            }
            Kind::Graph { .. } => {
                self.give_addresses(region.device, region.base, held, region.written)
            }
            Kind::Host { .. } | Kind::Mapped { .. } | Kind::Global | Kind::Reserved => {}
        }
    }
}
