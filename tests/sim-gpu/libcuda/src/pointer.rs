//! What a pointer is: pointer attributes, ranges of managed memory, advice and prefetches.
//!
//! Answers are true to what the memory is; a pointer that no chapter made is the program's own.

use core::ffi::{c_uint, c_ulonglong, c_void};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, fail};
use crate::pool::location_id;
use crate::queue::{self, Work};
use crate::region::{Kind, Region};
use crate::state::{State, lock};
use crate::{raw, stream};

/// A value of an attribute, in the size that the attribute has.
enum Value {
    Long(u64),
    Int(i32),
    Bool(bool),
}

impl Value {
    fn write(&self, address: u64) {
        match self {
            Self::Long(value) => raw::write(address, *value),
            Self::Int(value) => raw::write(address, *value),
            Self::Bool(value) => raw::write(address, *value),
        }
    }
}

fn attribute(
    state: &State,
    region: &Region,
    attribute: CUpointer_attribute,
    pointer: u64,
) -> Cu<Value> {
    let host = region.is_host();
    let plain = matches!(region.kind, Kind::Device { .. });
    let managed = matches!(region.kind, Kind::Managed { .. });
    Ok(match attribute {
        CU_POINTER_ATTRIBUTE_CONTEXT => {
            ensure(region.context != 0)?;
            Value::Long(region.context)
        }
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE => Value::Int(if host {
            CU_MEMORYTYPE_HOST
        } else {
            CU_MEMORYTYPE_DEVICE
        } as i32),
        CU_POINTER_ATTRIBUTE_DEVICE_POINTER => Value::Long(pointer),
        CU_POINTER_ATTRIBUTE_HOST_POINTER => {
            ensure(host || managed)?;
            Value::Long(pointer)
        }
        CU_POINTER_ATTRIBUTE_SYNC_MEMOPS => Value::Bool(region.sync),
        CU_POINTER_ATTRIBUTE_BUFFER_ID | CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => {
            Value::Long(region.buffer)
        }
        CU_POINTER_ATTRIBUTE_IS_MANAGED => Value::Bool(managed),
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => Value::Int(region.device as i32),
        CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE => Value::Bool(plain),
        CU_POINTER_ATTRIBUTE_RANGE_START_ADDR | CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR => {
            Value::Long(region.base)
        }
        CU_POINTER_ATTRIBUTE_RANGE_SIZE | CU_POINTER_ATTRIBUTE_MAPPING_SIZE => {
            Value::Long(region.size)
        }
        CU_POINTER_ATTRIBUTE_MAPPED => Value::Bool(region.kind != Kind::Reserved),
        CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES => Value::Long(match region.kind {
            Kind::Mapped { physical, .. } => state
                .physical
                .get(&physical)
                .map_or(0, |known| u64::from(known.handle_types)),
            _ => 0,
        }),
        CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => Value::Bool(false),
        CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => Value::Int(match region.kind {
            Kind::Mapped { access, .. } => access as i32,
            _ => CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE as i32,
        }),
        CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE => Value::Long(match region.kind {
            Kind::Pooled { pool } => pool,
            _ => 0,
        }),
        CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL => Value::Int(-1),
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    })
}

pub(crate) fn get(out: Out<c_void>, which: CUpointer_attribute, pointer: CUdeviceptr) -> Cu {
    ensure(!out.is_null())?;
    let state = lock();
    let region = state
        .regions
        .find(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    attribute(&state, region, which, pointer)?.write(raw::addr_out(out));
    Ok(())
}

/// `cuPointerGetAttributes`: an attribute that does not apply is answered with a default, not an error.
pub(crate) fn get_many(
    count: c_uint,
    attributes: Out<CUpointer_attribute>,
    data: Out<*mut c_void>,
    pointer: CUdeviceptr,
) -> Cu {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    let wanted = raw::array::<CUpointer_attribute>(raw::addr_out(attributes), count as usize)
        .ok_or(wrong)?;
    let places = raw::array::<u64>(raw::addr_out(data), count as usize).ok_or(wrong)?;
    let state = lock();
    let region = state.regions.find(pointer);
    for (&which, &place) in wanted.iter().zip(&places) {
        ensure(place != 0 && (1..=CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL).contains(&which))?;
        let value = region.map(|region| attribute(&state, region, which, pointer));
        value
            .and_then(Result::ok)
            .unwrap_or_else(|| default_of(which, pointer))
            .write(place);
    }
    Ok(())
}

/// What an attribute is for a pointer that it does not apply to.
fn default_of(which: CUpointer_attribute, pointer: u64) -> Value {
    match which {
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE | CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => Value::Int(0),
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => Value::Int(-2),
        CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL => Value::Int(-1),
        CU_POINTER_ATTRIBUTE_HOST_POINTER => Value::Long(pointer),
        CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
        | CU_POINTER_ATTRIBUTE_IS_MANAGED
        | CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
        | CU_POINTER_ATTRIBUTE_MAPPED
        | CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => Value::Bool(false),
        _ => Value::Long(0),
    }
}

pub(crate) fn set(value: In<c_void>, which: CUpointer_attribute, pointer: CUdeviceptr) -> Cu {
    ensure(!value.is_null())?;
    ensure(which == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)?;
    let mut state = lock();
    let region = state
        .regions
        .at(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    region.sync = raw::read::<u8>(raw::addr_in(value)) != 0;
    Ok(())
}

/// The managed range that holds a piece of memory.
fn managed(state: &mut State, pointer: u64, count: usize) -> Cu<&mut Region> {
    ensure(count > 0)?;
    let region = state.device_range(pointer, count as u64)?;
    ensure(matches!(region.kind, Kind::Managed { .. }))?;
    Ok(region)
}

fn advise_at(pointer: u64, count: usize, advice: CUmem_advise, place: (u32, i32)) -> Cu {
    let mut state = lock();
    if place.0 == CU_MEM_LOCATION_TYPE_DEVICE {
        state.device(place.1)?;
    }
    let region = managed(&mut state, pointer, count)?;
    let said = &mut region.advice;
    match advice {
        CU_MEM_ADVISE_SET_READ_MOSTLY => said.read_mostly = true,
        CU_MEM_ADVISE_UNSET_READ_MOSTLY => said.read_mostly = false,
        CU_MEM_ADVISE_SET_PREFERRED_LOCATION => said.preferred = Some(place),
        CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION => said.preferred = None,
        CU_MEM_ADVISE_SET_ACCESSED_BY if !said.accessed_by.contains(&place.1) => {
            said.accessed_by.push(place.1)
        }
        CU_MEM_ADVISE_SET_ACCESSED_BY => {}
        CU_MEM_ADVISE_UNSET_ACCESSED_BY => said.accessed_by.retain(|&by| by != place.1),
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    }
    Ok(())
}

/// A device argument of the first versions, in which -1 is the host.
fn place_of(device: CUdevice) -> (u32, i32) {
    if device < 0 {
        (CU_MEM_LOCATION_TYPE_HOST, -1)
    } else {
        (CU_MEM_LOCATION_TYPE_DEVICE, device)
    }
}

fn place_in(location: &CUmemLocation) -> Cu<(u32, i32)> {
    match location.type_ {
        CU_MEM_LOCATION_TYPE_DEVICE => Ok((CU_MEM_LOCATION_TYPE_DEVICE, location_id(location))),
        CU_MEM_LOCATION_TYPE_HOST
        | CU_MEM_LOCATION_TYPE_HOST_NUMA
        | CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT => Ok((location.type_, -1)),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

pub(crate) fn advise(
    pointer: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> Cu {
    // Read-mostly has no location.
    let place = if advice <= CU_MEM_ADVISE_UNSET_READ_MOSTLY {
        place_of(-1)
    } else {
        place_of(device)
    };
    advise_at(pointer, count, advice, place)
}

pub(crate) fn advise_v2(
    pointer: CUdeviceptr,
    count: usize,
    advice: CUmem_advise,
    location: CUmemLocation,
) -> Cu {
    let unplaced = advice <= CU_MEM_ADVISE_UNSET_READ_MOSTLY;
    advise_at(
        pointer,
        count,
        advice,
        if unplaced {
            place_of(-1)
        } else {
            place_in(&location)?
        },
    )
}

fn prefetch_to(pointer: u64, count: usize, place: (u32, i32), stream: CUstream) -> Cu {
    let stream = stream::resolve(stream)?;
    {
        let mut state = lock();
        if place.0 == CU_MEM_LOCATION_TYPE_DEVICE {
            state.device(place.1)?;
        }
        managed(&mut state, pointer, count)?.advice.prefetched = Some(place);
    }
    // Over the host link, whichever way.
    queue::submit(stream, Work::Busy(1_000 + count as u64 / 55))
}

pub(crate) fn prefetch(
    pointer: CUdeviceptr,
    count: usize,
    device: CUdevice,
    stream: CUstream,
) -> Cu {
    prefetch_to(pointer, count, place_of(device), stream)
}

pub(crate) fn prefetch_v2(
    pointer: CUdeviceptr,
    count: usize,
    location: CUmemLocation,
    flags: c_uint,
    stream: CUstream,
) -> Cu {
    ensure(flags == 0)?;
    prefetch_to(pointer, count, place_in(&location)?, stream)
}

pub(crate) fn prefetch_batch(
    pointers: Out<CUdeviceptr>,
    sizes: Out<usize>,
    count: usize,
    locations: Out<CUmemLocation>,
    indices: Out<usize>,
    location_count: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Cu {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    ensure(flags == 0 && count > 0 && location_count > 0 && location_count <= count)?;
    let pointers = raw::array::<u64>(raw::addr_out(pointers), count).ok_or(wrong)?;
    let sizes = raw::array::<usize>(raw::addr_out(sizes), count).ok_or(wrong)?;
    let locations =
        raw::array::<CUmemLocation>(raw::addr_out(locations), location_count).ok_or(wrong)?;
    let first = raw::array::<usize>(raw::addr_out(indices), location_count).ok_or(wrong)?;
    ensure(first[0] == 0 && first.is_sorted())?;
    for index in 0..count {
        let which = first.partition_point(|&start| start <= index) - 1;
        prefetch_to(
            pointers[index],
            sizes[index],
            place_in(&locations[which])?,
            stream,
        )?;
    }
    Ok(())
}

/// `cuMemDiscardBatchAsync`: what is discarded may keep its value.
pub(crate) fn discard_batch(
    pointers: Out<CUdeviceptr>,
    sizes: Out<usize>,
    count: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Cu {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    ensure(flags == 0 && count > 0)?;
    stream::resolve(stream)?;
    let pointers = raw::array::<u64>(raw::addr_out(pointers), count).ok_or(wrong)?;
    let sizes = raw::array::<usize>(raw::addr_out(sizes), count).ok_or(wrong)?;
    let mut state = lock();
    pointers
        .iter()
        .zip(sizes)
        .try_for_each(|(&pointer, size)| managed(&mut state, pointer, size).map(drop))
}

pub(crate) fn range_attribute(
    out: Out<c_void>,
    size: usize,
    which: CUmem_range_attribute,
    pointer: CUdeviceptr,
    count: usize,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let said = managed(&mut state, pointer, count)?.advice.clone();
    let id = |place: Option<(u32, i32)>| match place {
        Some((CU_MEM_LOCATION_TYPE_DEVICE, ordinal)) => ordinal,
        // The host is -1, nowhere -2.
        Some(_) => -1,
        None => -2,
    };
    let kind = |place: Option<(u32, i32)>| {
        place.map_or(CU_MEM_LOCATION_TYPE_INVALID, |place| place.0) as i32
    };
    let value = match which {
        CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY => i32::from(said.read_mostly),
        CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION
        | CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID => id(said.preferred),
        CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION
        | CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID => id(said.prefetched),
        CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE => kind(said.preferred),
        CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE => kind(said.prefetched),
        CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY => {
            ensure(size > 0 && size.is_multiple_of(4))?;
            for index in 0..size / 4 {
                let by = said.accessed_by.get(index).copied().unwrap_or(-2);
                raw::write(raw::addr_out(out) + 4 * index as u64, by);
            }
            return Ok(());
        }
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    };
    ensure(size == 4)?;
    raw::write(raw::addr_out(out), value);
    Ok(())
}

pub(crate) fn range_attributes(
    out: Out<*mut c_void>,
    sizes: Out<usize>,
    attributes: Out<CUmem_range_attribute>,
    number: usize,
    pointer: CUdeviceptr,
    count: usize,
) -> Cu {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    ensure(number > 0)?;
    let places = raw::array::<Out<c_void>>(raw::addr_out(out), number).ok_or(wrong)?;
    let sizes = raw::array::<usize>(raw::addr_out(sizes), number).ok_or(wrong)?;
    let which =
        raw::array::<CUmem_range_attribute>(raw::addr_out(attributes), number).ok_or(wrong)?;
    for index in 0..number {
        range_attribute(places[index], sizes[index], which[index], pointer, count)?;
    }
    Ok(())
}
