//! What pools tell and can be told: attributes, access.

use core::ffi::c_void;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, fail, put};
use crate::pool::location_id;
use crate::raw;
use crate::state::{id, lock};

pub(crate) fn get_attribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    out: Out<c_void>,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let pool = state.pool(id(pool))?;
    let wide = match attribute {
        CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => pool.threshold,
        CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT => pool.reserved,
        CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH => pool.reserved_high,
        CU_MEMPOOL_ATTR_USED_MEM_CURRENT => pool.used,
        CU_MEMPOOL_ATTR_USED_MEM_HIGH => pool.used_high,
        CU_MEMPOOL_ATTR_MAX_POOL_SIZE => pool.settings.max_size,
        _ => {
            let short = match attribute {
                CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES => pool.reuse[0],
                CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC => pool.reuse[1],
                CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => pool.reuse[2],
                CU_MEMPOOL_ATTR_ALLOCATION_TYPE => CU_MEM_ALLOCATION_TYPE_PINNED as i32,
                CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES => pool.settings.handle_types as i32,
                CU_MEMPOOL_ATTR_LOCATION_ID => pool.settings.location_id,
                CU_MEMPOOL_ATTR_LOCATION_TYPE => pool.settings.location_type as i32,
                CU_MEMPOOL_ATTR_HW_DECOMPRESS_ENABLED => 0,
                CU_MEMPOOL_ATTR_LOCALITY_DOMAIN_ID => -1,
                _ => return fail(CUDA_ERROR_INVALID_VALUE),
            };
            raw::write(raw::addr_out(out), short);
            return Ok(());
        }
    };
    raw::write(raw::addr_out(out), wide);
    Ok(())
}

pub(crate) fn set_attribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: Out<c_void>,
) -> Cu {
    ensure(!value.is_null())?;
    let mut state = lock();
    let pool = state.pool(id(pool))?;
    let wide: u64 = match attribute {
        CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        | CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH
        | CU_MEMPOOL_ATTR_USED_MEM_HIGH => raw::read(raw::addr_out(value)),
        _ => 0,
    };
    match attribute {
        CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => pool.threshold = wide,
        // High marks can only be reset.
        CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH if wide == 0 => pool.reserved_high = pool.reserved,
        CU_MEMPOOL_ATTR_USED_MEM_HIGH if wide == 0 => pool.used_high = pool.used,
        CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
        | CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
        | CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
            pool.reuse[attribute as usize - 1] = raw::read(raw::addr_out(value));
        }
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    }
    Ok(())
}

pub(crate) fn set_access(pool: CUmemoryPool, map: In<CUmemAccessDesc>, count: usize) -> Cu {
    let list = raw::array::<CUmemAccessDesc>(raw::addr_in(map), count);
    let list = list.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    for access in list {
        let ordinal = location_id(&access.location);
        ensure(access.location.type_ == CU_MEM_LOCATION_TYPE_DEVICE)?;
        state.device(ordinal)?;
        let pool = state.pool(id(pool))?;
        let own = !pool.host && pool.device == ordinal as usize;
        ensure(!own || access.flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)?;
        pool.access.insert(ordinal, access.flags);
    }
    Ok(())
}

pub(crate) fn get_access(
    out: Out<CUmemAccess_flags>,
    pool: CUmemoryPool,
    location: Out<CUmemLocation>,
) -> Cu {
    ensure(!out.is_null())?;
    let location = location.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(location.type_ == CU_MEM_LOCATION_TYPE_DEVICE)?;
    let ordinal = location_id(&location);
    let mut state = lock();
    state.device(ordinal)?;
    let pool = state.pool(id(pool))?;
    let own = !pool.host && pool.device == ordinal as usize;
    let set = pool.access.get(&ordinal).copied();
    let all = if own {
        CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    } else {
        CU_MEM_ACCESS_FLAGS_PROT_NONE
    };
    put(out, set.unwrap_or(all))
}
