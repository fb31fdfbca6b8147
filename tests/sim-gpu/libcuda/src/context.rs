//! Contexts: created ones, the stack of each thread, limits and settings, waiting for all work.
//!
//! Owns [`Context`]. Each context costs its GPU the node's context footprint from creation to destruction; what was
//! made in it goes with it.

use core::ffi::{c_int, c_uint, c_ulonglong};
use std::collections::HashSet;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put, put_optional};
use crate::space::Space;
use crate::state::{State, handle, id, lock, node, thread};
use crate::stream::{Stream, Which};
use crate::{capture, queue, raw};

/// One context.
#[derive(Debug)]
pub(crate) struct Context {
    /// Ordinal of its device.
    pub(crate) device: usize,
    /// It is the device's primary context.
    pub(crate) primary: bool,
    /// `CU_CTX_*`.
    pub(crate) flags: c_uint,
    /// What `cuCtxGetApiVersion` answers.
    version: c_uint,
    /// What `cuCtxGetId` answers.
    serial: u64,
    /// Values of `CUlimit`, by number.
    limits: [usize; CU_LIMIT_MAX as usize],
    cache: CUfunc_cache,
    shared: CUsharedconfig,
    /// Its NULL stream.
    pub(crate) legacy: u64,
    /// Contexts whose memory it may reach.
    pub(crate) peers: HashSet<u64>,
    /// `cuCtxAttach` count.
    attached: u32,
}

/// What an H200's driver starts with: stack, printf buffer, heap, sync depth, pending launches, L2 granularity.
const LIMITS: [usize; CU_LIMIT_MAX as usize] =
    [1024, 0x70_0000, 8 << 20, 2, 2048, 64, 0, 0, 0, 0, 0];

impl State {
    /// Makes a context on a device; `given` is the handle that a primary context has from the start.
    pub(crate) fn new_context(
        &mut self,
        device: usize,
        flags: c_uint,
        version: c_uint,
        given: Option<u64>,
    ) -> Cu<u64> {
        let gpu = self.gpu(device);
        self.reserve_space(device)?;
        node().context_add(gpu)?;
        let context = given.unwrap_or_else(|| self.new_handle());
        let legacy = self.new_handle();
        let serial = self.new_serial();
        let stream = Stream::new(context, Which::Legacy, 0, 0, self.new_serial());
        self.streams.insert(legacy, stream);
        self.contexts.insert(
            context,
            Context {
                device,
                primary: given.is_some(),
                flags,
                version,
                serial,
                limits: LIMITS,
                cache: CU_FUNC_CACHE_PREFER_NONE,
                shared: CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE,
                legacy,
                peers: HashSet::new(),
                attached: 1,
            },
        );
        Ok(context)
    }

    /// Address space for a device's memory: eight times the card, so that fragments do not matter.
    pub(crate) fn reserve_space(&mut self, device: usize) -> Cu {
        if self.devices[device].space.is_some() {
            return Ok(());
        }
        let len = (self.devices[device].total() * 8).next_multiple_of(2 << 20);
        let align = 2 << 20;
        let base = raw::reserve(len + align, raw::Protection::ReadWrite, false)
            .ok_or(Fail(CUDA_ERROR_OUT_OF_MEMORY))?;
        self.devices[device].space = Some(Space::new(base.next_multiple_of(align), len));
        Ok(())
    }

    /// Ends a context and all that was made in it.
    pub(crate) fn end_context(&mut self, context: u64) {
        let Some(ended) = self.contexts.remove(&context) else {
            return;
        };
        self.streams.retain(|_, stream| stream.context != context);
        self.events.retain(|_, event| event.context != context);
        self.end_modules_of(context);
        self.end_arrays_of(context);
        self.end_regions_of(context);
        for other in self.contexts.values_mut() {
            other.peers.remove(&context);
        }
        if !self
            .contexts
            .values()
            .any(|other| other.device == ended.device)
        {
            self.end_pools_of(ended.device);
        }
        node().context_remove(self.gpu(ended.device));
    }

    /// The calling thread's context.
    pub(crate) fn current(&self) -> Cu<u64> {
        let context = thread(|thread| thread.stack.borrow().last().copied())?;
        let context = context.ok_or(Fail(CUDA_ERROR_INVALID_CONTEXT))?;
        ensure_or(
            self.contexts.contains_key(&context),
            CUDA_ERROR_CONTEXT_IS_DESTROYED,
        )?;
        Ok(context)
    }

    /// The ordinal of the calling thread's device.
    pub(crate) fn current_device(&self) -> Cu<usize> {
        Ok(self.contexts[&self.current()?].device)
    }

    /// The context of a handle.
    pub(crate) fn context(&mut self, context: CUcontext) -> Cu<&mut Context> {
        self.contexts
            .get_mut(&id(context))
            .ok_or(Fail(CUDA_ERROR_INVALID_CONTEXT))
    }

    /// The context of a handle, or the calling thread's for null.
    fn context_or_current(&mut self, context: CUcontext) -> Cu<u64> {
        if context.is_null() {
            return self.current();
        }
        self.context(context)?;
        Ok(id(context))
    }

    fn current_context(&mut self) -> Cu<&mut Context> {
        let context = self.current()?;
        self.contexts
            .get_mut(&context)
            .ok_or(Fail(CUDA_ERROR_INVALID_CONTEXT))
    }
}

fn push(context: u64) -> Cu {
    thread(|thread| thread.stack.borrow_mut().push(context))
}

/// Flags that a context may be created with.
pub(crate) fn check_flags(flags: c_uint) -> Cu {
    let schedule = flags & CU_CTX_SCHED_MASK;
    ensure(flags & !CU_CTX_FLAGS_MASK == 0 && matches!(schedule, 0 | 1 | 2 | 4))
}

fn create_with(out: Out<CUcontext>, flags: c_uint, dev: CUdevice, version: c_uint) -> Cu {
    ensure(!out.is_null())?;
    check_flags(flags)?;
    let mut state = lock();
    state.device(dev)?;
    let context = state.new_context(dev as usize, flags, version, None)?;
    push(context)?;
    put(out, handle(context))
}

pub(crate) fn create_v1(out: Out<CUcontext>, flags: c_uint, dev: CUdevice) -> Cu {
    create_with(out, flags, dev, 3010)
}

pub(crate) fn create(out: Out<CUcontext>, flags: c_uint, dev: CUdevice) -> Cu {
    create_with(out, flags, dev, 3020)
}

/// `cuCtxCreate_v3`: execution affinity needs an MPS server, which the node does not have.
pub(crate) fn create_v3(
    out: Out<CUcontext>,
    params: Out<CUexecAffinityParam>,
    count: c_int,
    flags: c_uint,
    dev: CUdevice,
) -> Cu {
    ensure(count >= 0)?;
    ensure_or(
        params.is_null() || count == 0,
        CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY,
    )?;
    create_with(out, flags, dev, 3020)
}

pub(crate) fn create_v4(
    out: Out<CUcontext>,
    params: Out<CUctxCreateParams>,
    flags: c_uint,
    dev: CUdevice,
) -> Cu {
    if let Some(params) = params.read() {
        let affinity = !params.execAffinityParams.is_null() && params.numExecAffinityParams > 0;
        ensure_or(!affinity, CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY)?;
        ensure_or(params.cigParams.is_null(), CUDA_ERROR_NOT_SUPPORTED)?;
    }
    create_with(out, flags, dev, 3020)
}

pub(crate) fn destroy(context: CUcontext) -> Cu {
    {
        let mut state = lock();
        ensure_or(!state.context(context)?.primary, CUDA_ERROR_INVALID_CONTEXT)?;
    }
    queue::wait_context(id(context))?;
    lock().end_context(id(context));
    thread(|thread| {
        let mut stack = thread.stack.borrow_mut();
        if stack.last() == Some(&id(context)) {
            stack.pop();
        }
    })
}

pub(crate) fn attach(out: Out<CUcontext>, flags: c_uint) -> Cu {
    ensure(flags == 0 && !out.is_null())?;
    let mut state = lock();
    state.current_context()?.attached += 1;
    put(out, handle(state.current()?))
}

pub(crate) fn detach(context: CUcontext) -> Cu {
    let last = {
        let mut state = lock();
        ensure_or(state.current()? == id(context), CUDA_ERROR_INVALID_CONTEXT)?;
        let context = state.context(context)?;
        context.attached -= 1;
        context.attached == 0 && !context.primary
    };
    if last { destroy(context) } else { Ok(()) }
}

pub(crate) fn push_current(context: CUcontext) -> Cu {
    lock().context(context)?;
    push(id(context))
}

pub(crate) fn pop_current(out: Out<CUcontext>) -> Cu {
    let context = thread(|thread| thread.stack.borrow_mut().pop())?;
    put_optional(
        out,
        handle(context.ok_or(Fail(CUDA_ERROR_INVALID_CONTEXT))?),
    )
}

/// `cuCtxSetCurrent`: replaces the top of the stack; null takes it away.
pub(crate) fn set_current(context: CUcontext) -> Cu {
    if !context.is_null() {
        lock().context(context)?;
    }
    thread(|thread| {
        let mut stack = thread.stack.borrow_mut();
        stack.pop();
        if !context.is_null() {
            stack.push(id(context));
        }
    })
}

pub(crate) fn get_current(out: Out<CUcontext>) -> Cu {
    ensure(!out.is_null())?;
    let context = thread(|thread| thread.stack.borrow().last().copied())?;
    put(out, handle(context.unwrap_or(0)))
}

pub(crate) fn get_device(out: Out<CUdevice>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().current_device()? as CUdevice)
}

pub(crate) fn get_device_of(out: Out<CUdevice>, context: CUcontext) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let context = state.context_or_current(context)?;
    put(out, state.contexts[&context].device as CUdevice)
}

pub(crate) fn get_flags(out: Out<c_uint>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().current_context()?.flags)
}

pub(crate) fn set_flags(flags: c_uint) -> Cu {
    check_flags(flags)?;
    lock().current_context()?.flags = flags;
    Ok(())
}

pub(crate) fn get_id(context: CUcontext, out: Out<c_ulonglong>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let context = state.context_or_current(context)?;
    put(out, state.contexts[&context].serial)
}

pub(crate) fn get_api_version(context: CUcontext, out: Out<c_uint>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let context = state.context_or_current(context)?;
    put(out, state.contexts[&context].version)
}

pub(crate) fn get_limit(out: Out<usize>, limit: CUlimit) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let limits = state.current_context()?.limits;
    put(
        out,
        *limits
            .get(limit as usize)
            .ok_or(Fail(CUDA_ERROR_UNSUPPORTED_LIMIT))?,
    )
}

pub(crate) fn set_limit(limit: CUlimit, value: usize) -> Cu {
    let mut state = lock();
    let device = state.current_device()?;
    let persisting = state.devices[device].gpu.config.l2_bytes as usize / 8 * 5;
    let slot = state.current_context()?.limits.get_mut(limit as usize);
    let slot = slot.ok_or(Fail(CUDA_ERROR_UNSUPPORTED_LIMIT))?;
    // The driver rounds and clamps as it needs.
    *slot = match limit {
        CU_LIMIT_STACK_SIZE if value > 512 << 10 => return fail(CUDA_ERROR_INVALID_VALUE),
        CU_LIMIT_STACK_SIZE => value.next_multiple_of(16),
        CU_LIMIT_PERSISTING_L2_CACHE_SIZE => value.min(persisting),
        CU_LIMIT_MAX_L2_FETCH_GRANULARITY => value.min(128),
        CU_LIMIT_SHMEM_SIZE | CU_LIMIT_CIG_ENABLED | CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED => {
            return fail(CUDA_ERROR_UNSUPPORTED_LIMIT);
        }
        _ => value,
    };
    Ok(())
}

pub(crate) fn get_cache_config(out: Out<CUfunc_cache>) -> Cu {
    put(out, lock().current_context()?.cache)
}

pub(crate) fn set_cache_config(config: CUfunc_cache) -> Cu {
    ensure(config <= CU_FUNC_CACHE_PREFER_EQUAL)?;
    lock().current_context()?.cache = config;
    Ok(())
}

pub(crate) fn get_shared_config(out: Out<CUsharedconfig>) -> Cu {
    put(out, lock().current_context()?.shared)
}

pub(crate) fn set_shared_config(config: CUsharedconfig) -> Cu {
    ensure(config <= CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE)?;
    lock().current_context()?.shared = config;
    Ok(())
}

/// Lowest and highest priority of streams, as on every GPU since Volta.
pub(crate) const PRIORITIES: (c_int, c_int) = (0, -5);

pub(crate) fn priority_range(least: Out<c_int>, greatest: Out<c_int>) -> Cu {
    lock().current()?;
    put_optional(least, PRIORITIES.0)?;
    put_optional(greatest, PRIORITIES.1)
}

pub(crate) fn exec_affinity(_out: Out<CUexecAffinityParam>, _kind: CUexecAffinityType) -> Cu {
    lock().current()?;
    fail(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY)
}

pub(crate) fn reset_persisting() -> Cu {
    lock().current().map(drop)
}

pub(crate) fn synchronize() -> Cu {
    let context = lock().current()?;
    capture::forbid_sync(context)?;
    queue::wait_context(context)
}

pub(crate) fn synchronize_of(context: CUcontext) -> Cu {
    let context = lock().context_or_current(context)?;
    capture::forbid_sync(context)?;
    queue::wait_context(context)
}

/// `cuFlushGPUDirectRDMAWrites`: nothing is ever on its way here.
pub(crate) fn flush_remote_writes(
    target: CUflushGPUDirectRDMAWritesTarget,
    scope: CUflushGPUDirectRDMAWritesScope,
) -> Cu {
    ensure(target == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX)?;
    ensure(matches!(
        scope,
        CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER | CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES
    ))?;
    lock().current().map(drop)
}

pub(crate) fn enable_peer(peer: CUcontext, flags: c_uint) -> Cu {
    ensure(flags == 0)?;
    let mut state = lock();
    let current = state.current()?;
    let device = state.contexts[&current].device;
    let other = state.context(peer)?.device;
    ensure_or(id(peer) != current, CUDA_ERROR_INVALID_CONTEXT)?;
    ensure_or(device != other, CUDA_ERROR_PEER_ACCESS_UNSUPPORTED)?;
    let fresh = state.current_context()?.peers.insert(id(peer));
    ensure_or(fresh, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)
}

pub(crate) fn disable_peer(peer: CUcontext) -> Cu {
    let mut state = lock();
    state.context(peer)?;
    let known = state.current_context()?.peers.remove(&id(peer));
    ensure_or(known, CUDA_ERROR_PEER_ACCESS_NOT_ENABLED)
}
