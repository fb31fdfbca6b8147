//! Primary contexts: one a device, shared by whoever retains it.
//!
//! Owns the count. The handle stays the same for the life of the process, as with the driver.

use core::ffi::{c_int, c_uint};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::context::check_flags;
use crate::error::{Cu, ensure, ensure_or, put};
use crate::queue;
use crate::state::{handle, lock};

/// The primary context of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Primary {
    /// Its handle, also while it is not active.
    pub(crate) context: u64,
    users: u32,
    flags: c_uint,
}

impl Primary {
    pub(crate) fn new(context: u64) -> Self {
        Self {
            context,
            users: 0,
            flags: 0,
        }
    }
}

pub(crate) fn retain(out: Out<CUcontext>, dev: CUdevice) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let Primary { context, flags, .. } = state.device(dev)?.primary;
    if !state.contexts.contains_key(&context) {
        state.new_context(dev as usize, flags, 3020, Some(context))?;
    }
    state.device(dev)?.primary.users += 1;
    put(out, handle(context))
}

pub(crate) fn release(dev: CUdevice) -> Cu {
    let (context, last) = {
        let mut state = lock();
        let primary = &mut state.device(dev)?.primary;
        ensure_or(primary.users > 0, CUDA_ERROR_INVALID_CONTEXT)?;
        primary.users -= 1;
        (primary.context, primary.users == 0)
    };
    if last {
        end(context)?;
    }
    Ok(())
}

/// `cuDevicePrimaryCtxReset`: ends the context under its users' feet; they still release it.
pub(crate) fn reset(dev: CUdevice) -> Cu {
    let context = lock().device(dev)?.primary.context;
    end(context)
}

fn end(context: u64) -> Cu {
    if lock().contexts.contains_key(&context) {
        queue::wait_context(context)?;
        lock().end_context(context);
    }
    Ok(())
}

pub(crate) fn get_state(dev: CUdevice, flags: Out<c_uint>, active: Out<c_int>) -> Cu {
    let mut state = lock();
    let Primary {
        context,
        flags: set,
        ..
    } = state.device(dev)?.primary;
    let live = state.contexts.get(&context).map(|context| context.flags);
    put(flags, live.unwrap_or(set))?;
    put(active, c_int::from(live.is_some()))
}

pub(crate) fn set_flags(dev: CUdevice, flags: c_uint) -> Cu {
    check_flags(flags)?;
    let mut state = lock();
    let primary = &mut state.device(dev)?.primary;
    primary.flags = flags;
    let context = primary.context;
    if let Some(context) = state.contexts.get_mut(&context) {
        context.flags = flags;
    }
    Ok(())
}
