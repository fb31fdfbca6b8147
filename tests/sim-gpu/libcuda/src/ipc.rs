//! Sharing between processes: memory and event handles.
//!
//! A plain allocation becomes shareable when its handle is first asked for: its bytes move into a file in memory,
//! which is mapped in their place and left with the node; the handle names it there. An importer maps the same
//! file. Memory stays charged to the process that allocated it. An event shares a page with the place of its newest
//! record, which anybody can look up on the node page.

use core::ffi::c_uint;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::event::Place;
use crate::raw::{self, Protection};
use crate::region::{Kind, Region, whole_pages};
use crate::state::{State, handle, lock, node};

const MEMORY: u64 = u64::from_le_bytes(*b"sim-ipcm");
const EVENT: u64 = u64::from_le_bytes(*b"sim-ipce");

/// What is in a handle's 64 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Ticket {
    pub(crate) kind: u64,
    /// The file's number at the node.
    pub(crate) number: u64,
    pub(crate) size: u64,
    pub(crate) gpu: u64,
    /// Slot of the process that made it: opening one's own handle is an error.
    slot: u64,
    rest: [u64; 3],
}

const _: () = assert!(size_of::<Ticket>() == CU_IPC_HANDLE_SIZE as usize);

/// Fills in a handle.
pub(crate) fn ticket(kind: u64, number: u64, size: u64, gpu: usize) -> Ticket {
    Ticket {
        kind,
        number,
        size,
        gpu: gpu as u64,
        slot: u64::from(node().slot()),
        rest: [0; 3],
    }
}

impl State {
    /// Moves an allocation's bytes into a file that others can map; answers its number at the node.
    pub(crate) fn share(&mut self, base: u64) -> Cu<u64> {
        let region = self
            .regions
            .starting_at(base)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        ensure(matches!(
            region.kind,
            Kind::Device { .. } | Kind::Pooled { .. }
        ))?;
        if let Some((_, number)) = region.file {
            return Ok(number);
        }
        let len = whole_pages(region.size);
        let file = raw::memory_file(len).ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
        let number = node().export(&file)?;
        if region.written {
            let window = raw::map_file(None, &file, 0, len, Protection::ReadWrite);
            let window = window.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
            raw::copy(window, base, region.size);
            raw::unmap(window, len);
        }
        let mapped = raw::map_file(Some(base), &file, 0, len, Protection::ReadWrite);
        ensure_or(mapped.is_some(), CUDA_ERROR_MAP_FAILED)?;
        region.file = Some((file, number));
        Ok(number)
    }
}

impl State {
    /// Maps what a ticket names, or counts one more user of it.
    pub(crate) fn open(&mut self, ticket: &Ticket, context: u64, pool: u64) -> Cu<u64> {
        let mut devices = self.devices.iter();
        let device = devices.position(|device| device.gpu.index as u64 == ticket.gpu);
        let device = device.ok_or(Fail(CUDA_ERROR_INVALID_DEVICE))?;
        let key = (ticket.slot, ticket.number);
        let known = self.imports.get(&key).copied();
        let known = known.and_then(|base| self.regions.starting_at(base));
        if let Some(Region {
            base,
            kind: Kind::Imported { opened, .. },
            ..
        }) = known
        {
            *opened += 1;
            return Ok(*base);
        }
        let file = node().import(ticket.number)?;
        let len = whole_pages(ticket.size);
        let right = raw::file_len(file.as_raw_fd()) == Some(len);
        ensure_or(right, CUDA_ERROR_INVALID_HANDLE)?;
        let base = raw::map_file(None, &file, 0, len, Protection::ReadWrite);
        let base = base.ok_or(Fail(CUDA_ERROR_MAP_FAILED))?;
        let kind = Kind::Imported {
            opened: 1,
            key,
            pool,
        };
        self.add_region(Region::new(base, ticket.size, kind, device, context));
        self.imports.insert(key, base);
        Ok(base)
    }
}

/// `cuIpcGetMemHandle`: for memory of `cuMemAlloc`, by its start or any address inside.
pub(crate) fn get_memory(out: Out<CUipcMemHandle>, pointer: CUdeviceptr) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let region = state
        .regions
        .find(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(matches!(region.kind, Kind::Device { .. }))?;
    let (base, size, device) = (region.base, region.size, region.device);
    let number = state.share(base)?;
    raw::write(
        raw::addr_out(out),
        ticket(MEMORY, number, size, state.gpu(device)),
    );
    Ok(())
}

/// `cuIpcOpenMemHandle`: opening twice answers the same address and counts.
pub(crate) fn open_memory(out: Out<CUdeviceptr>, handle: CUipcMemHandle, flags: c_uint) -> Cu {
    ensure(!out.is_null() && flags == CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)?;
    let ticket: Ticket = raw::read(&raw const handle as u64);
    ensure(ticket.kind == MEMORY)?;
    ensure_or(
        ticket.slot != u64::from(node().slot()),
        CUDA_ERROR_INVALID_CONTEXT,
    )?;
    let mut state = lock();
    let context = state.current()?;
    let base = state.open(&ticket, context, 0)?;
    put(out, base)
}

pub(crate) fn close_memory(pointer: CUdeviceptr) -> Cu {
    let mut state = lock();
    let region = state
        .regions
        .starting_at(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let Kind::Imported {
        opened,
        key,
        pool: 0,
    } = &mut region.kind
    else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    *opened -= 1;
    if *opened > 0 {
        return Ok(());
    }
    let key = *key;
    state.imports.remove(&key);
    if let Some(region) = state.regions.remove(pointer) {
        state.free_region(region);
    }
    Ok(())
}

/// An event's page that processes share.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    /// Address of a mapping of one page, which lives as long as the process.
    page: u64,
    number: u64,
    /// This process made it.
    own: bool,
}

const PAGE: u64 = 4096;

/// What is in the page: a sequence, odd while it is written, and the place. All zeroes is "never recorded".
#[derive(Debug)]
#[repr(C)]
struct EventWords {
    sequence: AtomicU64,
    slot_and_one: AtomicU64,
    gpu: AtomicU64,
    target: AtomicU64,
    at: AtomicU64,
}

impl SharedEvent {
    /// A page of its own, left with the node.
    pub(crate) fn create() -> Cu<Self> {
        let file = raw::memory_file(PAGE).ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
        let number = node().export(&file)?;
        let page = raw::map_file(None, &file, 0, PAGE, Protection::ReadWrite);
        Ok(Self {
            page: page.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?,
            number,
            own: true,
        })
    }

    fn open(number: u64) -> Cu<Self> {
        let file = node().import(number)?;
        ensure_or(
            raw::file_len(file.as_raw_fd()) == Some(PAGE),
            CUDA_ERROR_INVALID_HANDLE,
        )?;
        let page = raw::map_file(None, &file, 0, PAGE, Protection::ReadWrite);
        Ok(Self {
            page: page.ok_or(Fail(CUDA_ERROR_MAP_FAILED))?,
            number,
            own: false,
        })
    }

    fn words(&self) -> &EventWords {
        raw::shared(self.page)
    }

    /// The newest record of any process.
    pub(crate) fn place(&self) -> Option<Place> {
        let words = self.words();
        loop {
            let before = words.sequence.load(Ordering::Acquire);
            let place = Place {
                slot: words.slot_and_one.load(Ordering::Relaxed).wrapping_sub(1) as u32,
                gpu: words.gpu.load(Ordering::Relaxed) as usize,
                target: words.target.load(Ordering::Relaxed),
                at: words.at.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && words.sequence.load(Ordering::Relaxed) == before {
                return (before > 0).then_some(place);
            }
            std::hint::spin_loop();
        }
    }

    /// A record of this process. Two processes that record at once are told apart by nothing but luck, as on a GPU.
    pub(crate) fn set(&self, place: Place) {
        let words = self.words();
        words.sequence.fetch_add(1, Ordering::AcqRel);
        words
            .slot_and_one
            .store(u64::from(place.slot) + 1, Ordering::Relaxed);
        words.gpu.store(place.gpu as u64, Ordering::Relaxed);
        words.target.store(place.target, Ordering::Relaxed);
        words.at.store(place.at, Ordering::Relaxed);
        words.sequence.fetch_add(1, Ordering::Release);
    }
}

impl Drop for SharedEvent {
    fn drop(&mut self) {
        if self.own {
            node().unexport(self.number);
        }
        raw::unmap(self.page, PAGE);
    }
}

pub(crate) fn get_event(out: Out<CUipcEventHandle>, event: CUevent) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let shared = state
        .event(event)?
        .shared
        .as_ref()
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    raw::write(raw::addr_out(out), ticket(EVENT, shared.number, 0, 0));
    Ok(())
}

pub(crate) fn open_event(out: Out<CUevent>, given: CUipcEventHandle) -> Cu {
    ensure(!out.is_null())?;
    let ticket: Ticket = raw::read(&raw const given as u64);
    ensure_or(ticket.kind == EVENT, CUDA_ERROR_INVALID_HANDLE)?;
    ensure_or(
        ticket.slot != u64::from(node().slot()),
        CUDA_ERROR_INVALID_CONTEXT,
    )?;
    let shared = SharedEvent::open(ticket.number)?;
    let flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    let event = lock().new_event(flags, Some(shared))?;
    put(out, handle(event))
}
