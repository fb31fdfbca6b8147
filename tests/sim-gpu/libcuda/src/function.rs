//! Functions and kernels: names, attributes, parameters, occupancy.
//!
//! Attributes that a compiler would have found are made up within the architecture's limits; those that a program
//! sets are remembered. Occupancy follows threads, blocks and shared memory, the limits that an image tells us.

use core::ffi::{c_char, c_int, c_uint};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put, put_optional};
use crate::module::{Function, name_pointer};
use crate::state::{State, handle, id, lock};

/// Shared memory of a block without and with opting in, and of a multiprocessor.
const SHARED: i32 = 48 << 10;
const SHARED_MOST: i32 = 227 << 10;
const SHARED_ALL: usize = 228 << 10;
/// Registers that every kernel is said to use.
const REGISTERS: i32 = 32;

impl Function {
    pub(crate) fn max_threads(&self) -> u32 {
        self.entry.max_threads.unwrap_or(1024).min(1024)
    }

    /// Dynamic shared memory that a launch may ask for.
    pub(crate) fn max_shared(&self) -> u32 {
        let set = self
            .attributes
            .get(&CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
        set.copied().unwrap_or(SHARED - self.entry.shared as i32) as u32
    }

    fn attribute(&self, attribute: CUfunction_attribute, binary: c_int) -> Cu<c_int> {
        let set = self.attributes.get(&attribute).copied();
        Ok(match attribute {
            CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK => self.max_threads() as c_int,
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES => self.entry.shared as c_int,
            CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES | CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES => 0,
            CU_FUNC_ATTRIBUTE_NUM_REGS => REGISTERS,
            CU_FUNC_ATTRIBUTE_PTX_VERSION | CU_FUNC_ATTRIBUTE_BINARY_VERSION => binary,
            CU_FUNC_ATTRIBUTE_CACHE_MODE_CA => 1,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => self.max_shared() as c_int,
            CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => set.unwrap_or(-1),
            other if other < CU_FUNC_ATTRIBUTE_MAX => set.unwrap_or(0),
            _ => return fail(CUDA_ERROR_INVALID_VALUE),
        })
    }

    fn set_attribute(&mut self, attribute: CUfunction_attribute, value: c_int) -> Cu {
        let right = match attribute {
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => {
                (0..=SHARED_MOST - self.entry.shared as i32).contains(&value)
            }
            CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => (-1..=100).contains(&value),
            CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH
            | CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT
            | CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH => value >= 0,
            CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
            | CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE
            | CU_FUNC_ATTRIBUTE_SHARED_MEMORY_MODE => (0..=2).contains(&value),
            _ => false,
        };
        ensure(right)?;
        self.attributes.insert(attribute, value);
        Ok(())
    }

    /// Blocks of so many threads and so much dynamic shared memory that one multiprocessor holds.
    pub(crate) fn blocks_per_sm(&self, threads: u32, shared: usize) -> u32 {
        if threads == 0 || threads > self.max_threads() {
            return 0;
        }
        // A block takes whole warps, and a KiB of shared memory for the system.
        let warps = threads.div_ceil(32);
        let by_threads = 64 / warps;
        let by_registers = 65536 / (warps * 32 * REGISTERS as u32);
        let per_block = shared + self.entry.shared as usize + 1024;
        let by_shared = (SHARED_ALL / per_block) as u32;
        by_threads.min(by_registers).min(by_shared).min(32)
    }
}

impl State {
    fn binary_version(&self) -> c_int {
        let device = self.current_device().unwrap_or(0);
        let (major, minor) = self.devices[device].gpu.config.compute_capability;
        (major * 10 + minor) as c_int
    }
}

pub(crate) fn get_attribute(
    out: Out<c_int>,
    attribute: CUfunction_attribute,
    function: CUfunction,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let binary = state.binary_version();
    put(
        out,
        state.function(id(function))?.attribute(attribute, binary)?,
    )
}

pub(crate) fn set_attribute(
    function: CUfunction,
    attribute: CUfunction_attribute,
    value: c_int,
) -> Cu {
    lock()
        .function(id(function))?
        .set_attribute(attribute, value)
}

pub(crate) fn kernel_get_attribute(
    out: Out<c_int>,
    attribute: CUfunction_attribute,
    kernel: CUkernel,
    dev: CUdevice,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let (major, minor) = state.device(dev)?.gpu.config.compute_capability;
    put(
        out,
        state
            .function(id(kernel))?
            .attribute(attribute, (major * 10 + minor) as c_int)?,
    )
}

/// `cuKernelSetAttribute`: one value for all devices, and for the functions loaded from the kernel.
pub(crate) fn kernel_set_attribute(
    attribute: CUfunction_attribute,
    value: c_int,
    kernel: CUkernel,
    dev: CUdevice,
) -> Cu {
    let mut state = lock();
    state.device(dev)?;
    state.function(id(kernel))?.set_attribute(attribute, value)
}

pub(crate) fn kernel_set_cache(kernel: CUkernel, config: CUfunc_cache, dev: CUdevice) -> Cu {
    lock().device(dev)?;
    set_cache(handle(id(kernel)), config)
}

pub(crate) fn set_cache(function: CUfunction, config: CUfunc_cache) -> Cu {
    ensure(config <= CU_FUNC_CACHE_PREFER_EQUAL)?;
    lock().function(id(function)).map(drop)
}

pub(crate) fn set_shared_config(function: CUfunction, config: CUsharedconfig) -> Cu {
    ensure(config <= CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE)?;
    lock().function(id(function)).map(drop)
}

pub(crate) fn get_module(out: Out<CUmodule>, function: CUfunction) -> Cu {
    ensure(!out.is_null())?;
    let module = lock().function(id(function))?.module;
    ensure_or(module != 0, CUDA_ERROR_INVALID_HANDLE)?;
    put(out, handle(module))
}

pub(crate) fn get_name(out: Out<*const c_char>, function: CUfunction) -> Cu {
    ensure(!out.is_null())?;
    put(out, name_pointer(&lock().function(id(function))?.name))
}

pub(crate) fn kernel_name(out: Out<*const c_char>, kernel: CUkernel) -> Cu {
    get_name(out, handle(id(kernel)))
}

pub(crate) fn param_info(
    function: CUfunction,
    index: usize,
    offset: Out<usize>,
    size: Out<usize>,
) -> Cu {
    ensure(!offset.is_null())?;
    let mut state = lock();
    let params = &state.function(id(function))?.entry.params;
    let &(at, len) = params.get(index).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    put(offset, at)?;
    put_optional(size, len)
}

pub(crate) fn kernel_param_info(
    kernel: CUkernel,
    index: usize,
    offset: Out<usize>,
    size: Out<usize>,
) -> Cu {
    param_info(handle(id(kernel)), index, offset, size)
}

pub(crate) fn param_count(function: CUfunction, out: Out<usize>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().function(id(function))?.entry.params.len())
}

pub(crate) fn kernel_param_count(kernel: CUkernel, out: Out<usize>) -> Cu {
    param_count(handle(id(kernel)), out)
}

pub(crate) fn is_loaded(out: Out<CUfunctionLoadingState>, function: CUfunction) -> Cu {
    ensure(!out.is_null())?;
    lock().function(id(function))?;
    put(out, CU_FUNCTION_LOADING_STATE_LOADED)
}

pub(crate) fn load(function: CUfunction) -> Cu {
    lock().function(id(function)).map(drop)
}

pub(crate) fn blocks(out: Out<c_int>, function: CUfunction, threads: c_int, shared: usize) -> Cu {
    blocks_with_flags(out, function, threads, shared, 0)
}

pub(crate) fn blocks_with_flags(
    out: Out<c_int>,
    function: CUfunction,
    threads: c_int,
    shared: usize,
    flags: c_uint,
) -> Cu {
    ensure(!out.is_null() && threads > 0 && flags <= CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)?;
    let mut state = lock();
    put(
        out,
        state
            .function(id(function))?
            .blocks_per_sm(threads as u32, shared) as c_int,
    )
}

pub(crate) fn available_shared(
    out: Out<usize>,
    function: CUfunction,
    blocks: c_int,
    threads: c_int,
) -> Cu {
    ensure(!out.is_null() && blocks > 0 && threads > 0)?;
    let mut state = lock();
    let function = state.function(id(function))?;
    let each = SHARED_ALL / blocks as usize;
    put(
        out,
        each.saturating_sub(1024 + function.entry.shared as usize)
            .min(SHARED_MOST as usize),
    )
}

pub(crate) fn potential_block(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: CUfunction,
    shared_for: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
) -> Cu {
    potential_block_with_flags(grid, block, function, shared_for, shared, limit, 0)
}

/// The block size that fills a multiprocessor best. A callback that maps sizes to shared memory is not asked: a
/// simulated kernel uses none.
pub(crate) fn potential_block_with_flags(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: CUfunction,
    _shared_for: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
    flags: c_uint,
) -> Cu {
    ensure(!grid.is_null() && !block.is_null() && limit >= 0)?;
    ensure(flags <= CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)?;
    let mut state = lock();
    let device = state.current_device()?;
    let sms = state.devices[device].gpu.config.sm_count;
    let function = state.function(id(function))?;
    let most = function.max_threads();
    let most = if limit == 0 {
        most
    } else {
        most.min(limit as u32)
    };
    let threads = |size: &u32| (function.blocks_per_sm(*size, shared) * size, *size);
    let best = (1..=most.div_ceil(32))
        .map(|warps| (warps * 32).min(most))
        .max_by_key(threads);
    let best = best.unwrap_or(1);
    put(grid, (function.blocks_per_sm(best, shared) * sms) as c_int)?;
    put(block, best as c_int)
}

/// Clusters of up to 8 blocks, the portable size, fit wherever their blocks do.
pub(crate) fn potential_cluster(
    out: Out<c_int>,
    function: CUfunction,
    config: In<CUlaunchConfig>,
) -> Cu {
    ensure(!out.is_null() && !config.is_null())?;
    lock().function(id(function))?;
    put(out, 8)
}

pub(crate) fn active_clusters(
    out: Out<c_int>,
    function: CUfunction,
    config: In<CUlaunchConfig>,
) -> Cu {
    ensure(!out.is_null())?;
    let config = config.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let cluster = crate::launch::cluster_blocks(&config)?.max(1);
    let mut state = lock();
    let device = state.current_device()?;
    let sms = state.devices[device].gpu.config.sm_count;
    let threads = config.blockDimX * config.blockDimY * config.blockDimZ;
    let blocks = state
        .function(id(function))?
        .blocks_per_sm(threads, config.sharedMemBytes as usize);
    put(out, (blocks * sms / cluster) as c_int)
}
