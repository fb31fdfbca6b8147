//! Launches of every kind: checks, the time that a kernel takes, and its arguments where something keeps them.
//!
//! A launch that can start at once takes two short locks, reads the clock and makes no system call. Arguments are
//! looked at for the duration only, and copied when a graph keeps the launch.

use core::ffi::{c_float, c_int, c_uint, c_void};
use std::sync::Arc;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail};
use crate::module::{Duration, Function};
use crate::queue::{self, Work};
use crate::raw;
use crate::state::{State, id, lock};

/// A launch that is kept: its shape, and its arguments by value.
#[derive(Debug, Clone)]
pub(crate) struct KernelCall {
    pub(crate) function: u64,
    pub(crate) grid: [c_uint; 3],
    pub(crate) block: [c_uint; 3],
    pub(crate) shared: c_uint,
    pub(crate) duration: u64,
    pub(crate) arguments: Arc<Arguments>,
}

/// Arguments of a kernel, each in a place of its own, and pointers to them as `kernelParams` wants them.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    values: Vec<Box<[u8]>>,
    pub(crate) pointers: Vec<u64>,
}

/// How a launch passes its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    /// Array of pointers to arguments, or 0.
    pub(crate) params: u64,
    /// Array of `CU_LAUNCH_PARAM_*` pairs, or 0.
    pub(crate) extra: u64,
}

/// Grid, block and dynamic shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    pub(crate) grid: [c_uint; 3],
    pub(crate) block: [c_uint; 3],
    pub(crate) shared: c_uint,
}

impl Passed {
    /// The packed buffer of `extra`: address and size.
    fn buffer(self) -> Cu<Option<(u64, u64)>> {
        let (mut buffer, mut size) = (0, 0);
        let mut at = self.extra;
        while at != 0 {
            match raw::read::<u64>(at) as u32 {
                CU_LAUNCH_PARAM_END_AS_INT => break,
                CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT => buffer = raw::read(at + 8),
                CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT => size = raw::read(raw::read::<u64>(at + 8)),
                _ => return fail(CUDA_ERROR_INVALID_VALUE),
            }
            at += 16;
        }
        Ok((buffer != 0).then_some((buffer, size)))
    }

    /// Where the `index`th argument lies.
    fn argument(self, function: &Function, index: usize) -> Cu<u64> {
        if self.params != 0 {
            return Ok(raw::read(self.params + 8 * index as u64));
        }
        let offset = function
            .entry
            .params
            .get(index)
            .map_or(0, |&(offset, _)| offset as u64);
        let (buffer, size) = self.buffer()?.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        ensure(offset + 4 <= size)?;
        Ok(buffer + offset)
    }

    /// Copies all arguments.
    fn copy(self, function: &Function) -> Cu<Arguments> {
        let mut arguments = Arguments::default();
        for (index, &(_, size)) in function.entry.params.iter().enumerate() {
            let address = self.argument(function, index)?;
            ensure(address != 0)?;
            let value = raw::bytes(address, size).into_boxed_slice();
            arguments.pointers.push(value.as_ptr() as u64);
            arguments.values.push(value);
        }
        Ok(arguments)
    }
}

impl Function {
    /// Whether a launch may be; answers how long it takes.
    fn check(&self, dims: &Dims, passed: Passed) -> Cu<u64> {
        let [x, y, z] = dims.block;
        let threads = x.checked_mul(y).and_then(|xy| xy.checked_mul(z));
        let threads = threads.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        ensure(threads > 0 && threads <= self.max_threads() && z <= 64)?;
        let [grid_x, grid_y, grid_z] = dims.grid;
        ensure((1..=i32::MAX as u32).contains(&grid_x))?;
        ensure((1..=65535).contains(&grid_y) && (1..=65535).contains(&grid_z))?;
        ensure(dims.shared <= self.max_shared())?;
        ensure(passed.params == 0 || passed.extra == 0)?;
        ensure(self.entry.params.is_empty() || passed.params != 0 || passed.extra != 0)?;
        self.time(passed)
    }

    fn time(&self, passed: Passed) -> Cu<u64> {
        let size = match self.duration {
            Duration::Fixed(nanoseconds) => return Ok(nanoseconds),
            Duration::FirstParameter(size) => size,
        };
        if passed.params == 0 && passed.extra == 0 {
            return Ok(0);
        }
        let address = passed.argument(self, 0)?;
        ensure(address != 0)?;
        Ok(if size == 4 {
            u64::from(raw::read::<u32>(address))
        } else {
            raw::read(address)
        })
    }
}

impl State {
    /// Checks a launch and keeps it.
    pub(crate) fn keep_launch(
        &mut self,
        function: u64,
        dims: &Dims,
        passed: Passed,
    ) -> Cu<KernelCall> {
        let known = self.function(function)?;
        let duration = known.check(dims, passed)?;
        let arguments = Arc::new(passed.copy(known)?);
        let Dims {
            grid,
            block,
            shared,
        } = *dims;
        Ok(KernelCall {
            function,
            grid,
            block,
            shared,
            duration,
            arguments,
        })
    }
}

/// Launches in a stream.
fn start(function: CUfunction, dims: &Dims, stream: CUstream, passed: Passed) -> Cu {
    let function = id(function);
    let duration = {
        let mut state = lock();
        state.current()?;
        state.function(function)?.check(dims, passed)?
    };
    queue::submit_kernel(stream, duration, |state| {
        let known = state.functions.get(&function);
        let arguments = known.map_or(Ok(Arguments::default()), |known| passed.copy(known));
        let arguments = Arc::new(arguments.unwrap_or_default());
        let Dims {
            grid,
            block,
            shared,
        } = *dims;
        Work::Kernel(Box::new(KernelCall {
            function,
            grid,
            block,
            shared,
            duration,
            arguments,
        }))
    })
}

pub(crate) fn kernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    params: Out<*mut c_void>,
    extra: Out<*mut c_void>,
) -> Cu {
    let dims = Dims {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared,
    };
    let passed = Passed {
        params: raw::addr_out(params),
        extra: raw::addr_out(extra),
    };
    start(function, &dims, stream, passed)
}

/// Blocks of a cluster, from a launch's attributes; 0 without the attribute.
pub(crate) fn cluster_blocks(config: &CUlaunchConfig) -> Cu<u32> {
    let mut blocks = 0;
    for index in 0..u64::from(config.numAttrs) {
        let attribute = config.attrs as u64 + index * size_of::<CUlaunchAttribute>() as u64;
        ensure(!config.attrs.is_null())?;
        let kind: CUlaunchAttributeID = raw::read(attribute);
        ensure(kind < CU_LAUNCH_ATTRIBUTE_MAX)?;
        if kind == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION {
            let dims: [u32; 3] = raw::read(attribute + 8);
            blocks = dims.iter().product();
        }
    }
    Ok(blocks)
}

fn is_cooperative(config: &CUlaunchConfig) -> bool {
    (0..u64::from(config.numAttrs)).any(|index| {
        let attribute = config.attrs as u64 + index * size_of::<CUlaunchAttribute>() as u64;
        let kind: CUlaunchAttributeID = raw::read(attribute);
        kind == CU_LAUNCH_ATTRIBUTE_COOPERATIVE && raw::read::<i32>(attribute + 8) != 0
    })
}

pub(crate) fn kernel_ex(
    config: In<CUlaunchConfig>,
    function: CUfunction,
    params: Out<*mut c_void>,
    extra: Out<*mut c_void>,
) -> Cu {
    let config = config.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let cluster = cluster_blocks(&config)?;
    ensure_or(cluster <= 16, CUDA_ERROR_INVALID_CLUSTER_SIZE)?;
    let dims = Dims {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        shared: config.sharedMemBytes,
    };
    let passed = Passed {
        params: raw::addr_out(params),
        extra: raw::addr_out(extra),
    };
    if is_cooperative(&config) {
        fits_at_once(function, &dims)?;
    }
    start(function, &dims, config.hStream, passed)
}

/// Whether all blocks of a grid can be resident together.
fn fits_at_once(function: CUfunction, dims: &Dims) -> Cu {
    let mut state = lock();
    let device = state.current_device()?;
    let sms = u64::from(state.devices[device].gpu.config.sm_count);
    let threads = dims
        .block
        .iter()
        .fold(1_u32, |product, &dim| product.saturating_mul(dim));
    let each = state
        .function(id(function))?
        .blocks_per_sm(threads, dims.shared as usize);
    let blocks: u64 = dims.grid.iter().map(|&dim| u64::from(dim)).product();
    ensure_or(
        each == 0 || blocks <= u64::from(each) * sms,
        CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
    )
}

pub(crate) fn cooperative(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    params: Out<*mut c_void>,
) -> Cu {
    let dims = Dims {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared,
    };
    fits_at_once(function, &dims)?;
    start(
        function,
        &dims,
        stream,
        Passed {
            params: raw::addr_out(params),
            extra: 0,
        },
    )
}

/// `cuLaunchCooperativeKernelMultiDevice`: one launch a device, each in a stream of its own.
pub(crate) fn cooperative_multi(list: Out<CUDA_LAUNCH_PARAMS>, count: c_uint, flags: c_uint) -> Cu {
    ensure(flags <= 3 && count > 0)?;
    let list = raw::array::<CUDA_LAUNCH_PARAMS>(raw::addr_out(list), count as usize);
    let list = list.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(list.iter().all(|launch| !launch.hStream.is_null()))?;
    for launch in list {
        let dims = Dims {
            grid: [launch.gridDimX, launch.gridDimY, launch.gridDimZ],
            block: [launch.blockDimX, launch.blockDimY, launch.blockDimZ],
            shared: launch.sharedMemBytes,
        };
        fits_at_once(launch.function, &dims)?;
        start(
            launch.function,
            &dims,
            launch.hStream,
            Passed {
                params: launch.kernelParams as u64,
                extra: 0,
            },
        )?;
    }
    Ok(())
}

pub(crate) fn set_block_shape(function: CUfunction, x: c_int, y: c_int, z: c_int) -> Cu {
    ensure(x > 0 && y > 0 && z > 0)?;
    lock().function(id(function))?.legacy.block = [x as u32, y as u32, z as u32];
    Ok(())
}

pub(crate) fn set_shared_size(function: CUfunction, bytes: c_uint) -> Cu {
    lock().function(id(function))?.legacy.shared = bytes;
    Ok(())
}

pub(crate) fn param_set_size(function: CUfunction, bytes: c_uint) -> Cu {
    ensure(bytes <= 4096)?;
    lock()
        .function(id(function))?
        .legacy
        .params
        .resize(bytes as usize, 0);
    Ok(())
}

fn param_set(function: CUfunction, offset: c_int, value: &[u8]) -> Cu {
    let mut state = lock();
    let params = &mut state.function(id(function))?.legacy.params;
    let offset = usize::try_from(offset).or(Err(Fail(CUDA_ERROR_INVALID_VALUE)))?;
    ensure(offset + value.len() <= 4096)?;
    if params.len() < offset + value.len() {
        params.resize(offset + value.len(), 0);
    }
    params[offset..offset + value.len()].copy_from_slice(value);
    Ok(())
}

pub(crate) fn param_set_int(function: CUfunction, offset: c_int, value: c_uint) -> Cu {
    param_set(function, offset, &value.to_ne_bytes())
}

pub(crate) fn param_set_float(function: CUfunction, offset: c_int, value: c_float) -> Cu {
    param_set(function, offset, &value.to_ne_bytes())
}

pub(crate) fn param_set_bytes(
    function: CUfunction,
    offset: c_int,
    value: Out<c_void>,
    bytes: c_uint,
) -> Cu {
    ensure(!value.is_null())?;
    param_set(
        function,
        offset,
        &raw::bytes(raw::addr_out(value), bytes as usize),
    )
}

pub(crate) fn legacy(function: CUfunction) -> Cu {
    legacy_grid_async(function, 1, 1, core::ptr::null_mut())
}

pub(crate) fn legacy_grid(function: CUfunction, width: c_int, height: c_int) -> Cu {
    legacy_grid_async(function, width, height, core::ptr::null_mut())
}

/// `cuLaunchGridAsync` and its siblings: shape and parameters were set on the function before.
pub(crate) fn legacy_grid_async(
    function: CUfunction,
    width: c_int,
    height: c_int,
    stream: CUstream,
) -> Cu {
    ensure(width > 0 && height > 0)?;
    let set = lock().function(id(function))?.legacy.clone();
    let dims = Dims {
        grid: [width as u32, height as u32, 1],
        block: set.block,
        shared: set.shared,
    };
    let size = set.params.len() as u64;
    let extra: [u64; 5] = [
        u64::from(CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT),
        set.params.as_ptr() as u64,
        u64::from(CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT),
        &raw const size as u64,
        u64::from(CU_LAUNCH_PARAM_END_AS_INT),
    ];
    start(
        function,
        &dims,
        stream,
        Passed {
            params: 0,
            extra: extra.as_ptr() as u64,
        },
    )
}
