//! Virtual memory management: address reservations, physical allocations, mappings, access.
//!
//! A physical allocation is a file in memory, charged to the GPU that its properties name for as long as a handle
//! or a mapping of it lives in the process that made it; host locations charge nobody, and neither do imports (on a
//! GPU memory lives on while an importer has it; here its bytes do, but no longer on anybody's account). A mapping is that file mapped over a reserved range, and
//! can be used when access has been set.

use core::ffi::{c_ulonglong, c_void};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::pool::location_id;
use crate::raw::{self, Protection};
use crate::region::{Kind, Region};
use crate::state::{State, lock, node};

/// Sizes, offsets and addresses are multiples of this, the large page of the GPU.
const GRANULARITY: u64 = 2 << 20;

/// One physical allocation.
#[derive(Debug)]
pub(crate) struct Physical {
    file: OwnedFd,
    size: u64,
    location: (CUmemLocationType, i32),
    pub(crate) handle_types: CUmemAllocationHandleType,
    flags: [u8; 4],
    /// Ordinal of the device that is charged; `None` for the host's memory and for other processes'.
    charged: Option<usize>,
    /// Handles given out and not released.
    references: u64,
    mappings: u64,
}

/// What an importer must know about an exported allocation; it follows the bytes in the file.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Trailer {
    magic: u64,
    size: u64,
    location_type: u32,
    gpu: i32,
}

const MAGIC: u64 = u64::from_le_bytes(*b"sim-vmm\0");
/// The trailer has a page of its own.
const TRAILER: u64 = 4096;

impl State {
    fn physical(&mut self, handle: u64) -> Cu<&mut Physical> {
        self.physical
            .get_mut(&handle)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }

    /// Ends an allocation that nothing refers to any more.
    fn reap(&mut self, handle: u64) {
        let Some(known) = self.physical.get(&handle) else {
            return;
        };
        if known.references > 0 || known.mappings > 0 {
            return;
        }
        let (charged, size) = (known.charged, known.size);
        self.physical.remove(&handle);
        if let Some(device) = charged {
            node().refund(self.gpu(device), size);
        }
    }

    /// The device that a location charges.
    fn charged_device(&mut self, location: &CUmemLocation) -> Cu<Option<usize>> {
        match location.type_ {
            CU_MEM_LOCATION_TYPE_DEVICE => {
                let ordinal = location_id(location);
                self.device(ordinal)?;
                Ok(Some(ordinal as usize))
            }
            CU_MEM_LOCATION_TYPE_HOST
            | CU_MEM_LOCATION_TYPE_HOST_NUMA
            | CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT => Ok(None),
            _ => fail(CUDA_ERROR_INVALID_VALUE),
        }
    }
}

fn check_props(props: In<CUmemAllocationProp>) -> Cu<CUmemAllocationProp> {
    let props = props.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(props.type_ == CU_MEM_ALLOCATION_TYPE_PINNED)?;
    let supported = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    ensure_or(
        props.requestedHandleTypes & !supported == 0,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    Ok(props)
}

pub(crate) fn granularity(
    out: Out<usize>,
    props: In<CUmemAllocationProp>,
    option: CUmemAllocationGranularity_flags,
) -> Cu {
    ensure(!out.is_null() && option <= CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)?;
    let props = check_props(props)?;
    lock().charged_device(&props.location)?;
    put(out, GRANULARITY as usize)
}

pub(crate) fn create(
    out: Out<CUmemGenericAllocationHandle>,
    size: usize,
    props: In<CUmemAllocationProp>,
    flags: c_ulonglong,
) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    let props = check_props(props)?;
    let size = size as u64;
    ensure(size > 0 && size.is_multiple_of(GRANULARITY))?;
    let mut state = lock();
    let charged = state.charged_device(&props.location)?;
    if let Some(device) = charged {
        node().charge(state.gpu(device), size)?;
    }
    let Some(file) = raw::memory_file(size + TRAILER) else {
        if let Some(device) = charged {
            node().refund(state.gpu(device), size);
        }
        return fail(CUDA_ERROR_OUT_OF_MEMORY);
    };
    let gpu = charged.map_or(-1, |device| state.gpu(device) as i32);
    let trailer = Trailer {
        magic: MAGIC,
        size,
        location_type: props.location.type_,
        gpu,
    };
    write_trailer(&file, size, trailer)?;
    let handle = state.new_handle();
    let usage = props.allocFlags.usage.to_ne_bytes();
    state.physical.insert(
        handle,
        Physical {
            file,
            size,
            location: (props.location.type_, location_id(&props.location)),
            handle_types: props.requestedHandleTypes,
            flags: [
                props.allocFlags.compressionType,
                props.allocFlags.gpuDirectRDMACapable,
                usage[0],
                usage[1],
            ],
            charged,
            references: 1,
            mappings: 0,
        },
    );
    put(out, handle)
}

fn write_trailer(file: &OwnedFd, size: u64, trailer: Trailer) -> Cu {
    let page = raw::map_file(None, file, size, TRAILER, Protection::ReadWrite);
    let page = page.ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    raw::write(page, trailer);
    raw::unmap(page, TRAILER);
    Ok(())
}

fn read_trailer(file: &OwnedFd) -> Cu<Trailer> {
    let len =
        raw::file_len(file.as_raw_fd()).filter(|&len| len > TRAILER && len.is_multiple_of(TRAILER));
    let len = len.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let page = raw::map_file(None, file, len - TRAILER, TRAILER, Protection::Read);
    let page = page.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let trailer: Trailer = raw::read(page);
    raw::unmap(page, TRAILER);
    ensure(trailer.magic == MAGIC && trailer.size + TRAILER == len)?;
    Ok(trailer)
}

pub(crate) fn release(handle: CUmemGenericAllocationHandle) -> Cu {
    let mut state = lock();
    let known = state.physical(handle)?;
    ensure(known.references > 0)?;
    known.references -= 1;
    state.reap(handle);
    Ok(())
}

pub(crate) fn retain(out: Out<CUmemGenericAllocationHandle>, address: Out<c_void>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let region = state
        .regions
        .at(raw::addr_out(address))
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let Kind::Mapped { physical, .. } = region.kind else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    state.physical(physical)?.references += 1;
    put(out, physical)
}

pub(crate) fn properties(
    out: Out<CUmemAllocationProp>,
    handle: CUmemGenericAllocationHandle,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let known = state.physical(handle)?;
    let mut props: CUmemAllocationProp = raw::zeroed();
    props.type_ = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.requestedHandleTypes = known.handle_types;
    props.location.type_ = known.location.0;
    props.location.__bindgen_anon_1.id = known.location.1;
    props.allocFlags.compressionType = known.flags[0];
    props.allocFlags.gpuDirectRDMACapable = known.flags[1];
    props.allocFlags.usage = u16::from_ne_bytes([known.flags[2], known.flags[3]]);
    put(out, props)
}

/// `cuMemAddressReserve`: a hint that is taken is ignored, as documented.
pub(crate) fn reserve(
    out: Out<CUdeviceptr>,
    size: usize,
    alignment: usize,
    _hint: CUdeviceptr,
    flags: c_ulonglong,
) -> Cu {
    let size = size as u64;
    ensure(!out.is_null() && flags == 0 && size > 0 && size.is_multiple_of(4096))?;
    let alignment = (alignment as u64).max(GRANULARITY);
    ensure(alignment.is_power_of_two())?;
    let len = size
        .checked_add(alignment)
        .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let start = raw::reserve(len, Protection::None, false).ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
    let base = start.next_multiple_of(alignment);
    if base > start {
        raw::unmap(start, base - start);
    }
    let rest = start + len - (base + size);
    if rest > 0 {
        raw::unmap(base + size, rest);
    }
    lock().reservations.insert(base, size);
    put(out, base)
}

pub(crate) fn free_address(base: CUdeviceptr, size: usize) -> Cu {
    let mut state = lock();
    ensure(state.reservations.get(&base) == Some(&(size as u64)))?;
    ensure(state.regions.within(base, size as u64).next().is_none())?;
    state.reservations.remove(&base);
    raw::unmap(base, size as u64);
    Ok(())
}

pub(crate) fn map(
    base: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: c_ulonglong,
) -> Cu {
    let (size, offset) = (size as u64, offset as u64);
    ensure(flags == 0 && size > 0)?;
    ensure(
        [base, size, offset]
            .iter()
            .all(|value| value.is_multiple_of(GRANULARITY)),
    )?;
    let mut state = lock();
    let reserved = state.reservations.range(..=base).next_back();
    let inside = reserved.is_some_and(|(&start, &len)| base + size <= start + len);
    ensure(inside && !state.regions.overlap(base, size))?;
    let known = state.physical(handle)?;
    ensure(offset + size <= known.size)?;
    let mapped = raw::map_file(Some(base), &known.file, offset, size, Protection::None);
    ensure_or(mapped.is_some(), CUDA_ERROR_MAP_FAILED)?;
    known.mappings += 1;
    let device = known
        .charged
        .or(usize::try_from(known.location.1).ok())
        .unwrap_or(0);
    let device = device.min(state.devices.len() - 1);
    let kind = Kind::Mapped {
        physical: handle,
        offset,
        access: 0,
    };
    let mut region = Region::new(base, size, kind, device, 0);
    region.written = true;
    state.add_region(region);
    Ok(())
}

pub(crate) fn unmap(base: CUdeviceptr, size: usize) -> Cu {
    let size = size as u64;
    ensure(size > 0 && base.is_multiple_of(GRANULARITY) && size.is_multiple_of(GRANULARITY))?;
    let mut state = lock();
    let mapped = whole_mappings(&state, base, size)?;
    for (start, physical) in mapped {
        if let Some(region) = state.regions.remove(start) {
            raw::reserve_again(region.base, region.size, Protection::None);
        }
        if let Some(known) = state.physical.get_mut(&physical) {
            known.mappings -= 1;
        }
        state.reap(physical);
    }
    Ok(())
}

/// The mappings that fill a range exactly: start and physical allocation.
fn whole_mappings(state: &State, base: u64, size: u64) -> Cu<Vec<(u64, u64)>> {
    let mut mapped = Vec::new();
    let mut at = base;
    for region in state.regions.within(base, size) {
        let Kind::Mapped { physical, .. } = region.kind else {
            return fail(CUDA_ERROR_INVALID_VALUE);
        };
        ensure(region.base == at)?;
        at += region.size;
        mapped.push((region.base, physical));
    }
    ensure(at == base + size)?;
    Ok(mapped)
}

/// `cuMemSetAccess`: the process can use memory when any GPU, or the host, may.
pub(crate) fn set_access(
    base: CUdeviceptr,
    size: usize,
    list: In<CUmemAccessDesc>,
    count: usize,
) -> Cu {
    let list = raw::array::<CUmemAccessDesc>(raw::addr_in(list), count);
    let list = list
        .filter(|list| !list.is_empty())
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    let mapped = whole_mappings(&state, base, size as u64)?;
    let mut access = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    for desc in &list {
        state.charged_device(&desc.location)?;
        let known = matches!(
            desc.flags,
            CU_MEM_ACCESS_FLAGS_PROT_NONE
                | CU_MEM_ACCESS_FLAGS_PROT_READ
                | CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        );
        ensure(known)?;
        access |= desc.flags;
    }
    let protection = match access {
        CU_MEM_ACCESS_FLAGS_PROT_NONE => Protection::None,
        CU_MEM_ACCESS_FLAGS_PROT_READ => Protection::Read,
        _ => Protection::ReadWrite,
    };
    ensure_or(
        raw::protect(base, size as u64, protection),
        CUDA_ERROR_MAP_FAILED,
    )?;
    for (start, _) in mapped {
        let Some(region) = state.regions.starting_at(start) else {
            continue;
        };
        for desc in &list {
            region
                .grants
                .retain(|grant| grant.0 != (desc.location.type_, location_id(&desc.location)));
            region.grants.push((
                (desc.location.type_, location_id(&desc.location)),
                desc.flags,
            ));
        }
        if let Kind::Mapped { access: set, .. } = &mut region.kind {
            *set = access;
        }
    }
    Ok(())
}

pub(crate) fn get_access(
    out: Out<c_ulonglong>,
    location: In<CUmemLocation>,
    pointer: CUdeviceptr,
) -> Cu {
    ensure(!out.is_null())?;
    let location = location.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    state.charged_device(&location)?;
    let region = state
        .regions
        .at(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let wanted = (location.type_, location_id(&location));
    let flags = match region.kind {
        Kind::Mapped { .. } => {
            let grant = region.grants.iter().find(|grant| grant.0 == wanted);
            grant.map_or(CU_MEM_ACCESS_FLAGS_PROT_NONE, |grant| grant.1)
        }
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    };
    put(out, u64::from(flags))
}

/// `cuMemExportToShareableHandle`: the file itself, under a new descriptor that the program owns.
pub(crate) fn export(
    out: Out<c_void>,
    handle: CUmemGenericAllocationHandle,
    kind: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    ensure_or(
        kind == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    let mut state = lock();
    let known = state.physical(handle)?;
    ensure(known.handle_types & kind != 0)?;
    let copy = raw::duplicate(known.file.as_raw_fd()).ok_or(Fail(CUDA_ERROR_OPERATING_SYSTEM))?;
    raw::write(raw::addr_out(out), copy.into_raw_fd());
    Ok(())
}

/// `cuMemImportFromShareableHandle`: the memory stays charged to whoever made it.
pub(crate) fn import(
    out: Out<CUmemGenericAllocationHandle>,
    os_handle: Out<c_void>,
    kind: CUmemAllocationHandleType,
) -> Cu {
    ensure(!out.is_null())?;
    ensure_or(
        kind == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        CUDA_ERROR_NOT_SUPPORTED,
    )?;
    let file =
        raw::duplicate(raw::addr_out(os_handle) as i32).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let trailer = read_trailer(&file)?;
    let mut state = lock();
    let identity = raw::file_identity(file.as_raw_fd());
    let same = |known: &Physical| raw::file_identity(known.file.as_raw_fd()) == identity;
    if let Some((&known, physical)) = state.physical.iter_mut().find(|(_, known)| same(known)) {
        // Memory that is here already: one more handle of it.
        physical.references += 1;
        return put(out, known);
    }
    let ordinal = state
        .devices
        .iter()
        .position(|device| device.gpu.index as i32 == trailer.gpu);
    ensure_or(
        trailer.gpu < 0 || ordinal.is_some(),
        CUDA_ERROR_INVALID_DEVICE,
    )?;
    let handle = state.new_handle();
    state.physical.insert(
        handle,
        Physical {
            file,
            size: trailer.size,
            location: (
                trailer.location_type,
                ordinal.map_or(0, |ordinal| ordinal as i32),
            ),
            handle_types: kind,
            flags: [0; 4],
            charged: None,
            references: 1,
            mappings: 0,
        },
    );
    put(out, handle)
}
