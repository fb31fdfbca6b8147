//! What graphs hold besides nodes: objects of the program, and a device's memory for graphs.

use core::ffi::{c_uint, c_void};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, fail, put};
use crate::graph::{UserObject, run_all};
use crate::queue::HostCall;
use crate::raw;
use crate::state::{handle, id, lock, node};

pub(crate) fn object_create(
    out: Out<CUuserObject>,
    pointer: Out<c_void>,
    destroy: CUhostFn,
    count: c_uint,
    flags: c_uint,
) -> Cu {
    // The one flag says that the destructor may run at any time, and must be given.
    ensure(!out.is_null() && count > 0 && count <= i32::MAX as u32)?;
    ensure(flags == CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)?;
    let function = destroy.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    let object = state.new_handle();
    let destroy = HostCall::Function {
        function,
        data: raw::addr_out(pointer),
    };
    state
        .user_objects
        .insert(object, UserObject { count, destroy });
    put(out, handle(object))
}

pub(crate) fn object_retain(object: CUuserObject, count: c_uint) -> Cu {
    ensure(count > 0)?;
    let mut state = lock();
    let known = state
        .user_objects
        .get_mut(&id(object))
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    known.count = known
        .count
        .checked_add(count)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    Ok(())
}

pub(crate) fn object_release(object: CUuserObject, count: c_uint) -> Cu {
    ensure(count > 0)?;
    let call = {
        let mut state = lock();
        ensure(state.user_objects.contains_key(&id(object)))?;
        state.drop_object(id(object), count)
    };
    run_all(call.into_iter().collect());
    Ok(())
}

pub(crate) fn retain_object(
    graph: CUgraph,
    object: CUuserObject,
    count: c_uint,
    flags: c_uint,
) -> Cu {
    ensure(count > 0 && flags & !CU_GRAPH_USER_OBJECT_MOVE == 0)?;
    if flags & CU_GRAPH_USER_OBJECT_MOVE == 0 {
        object_retain(object, count)?;
    }
    let mut state = lock();
    ensure(state.user_objects.contains_key(&id(object)))?;
    *state
        .graph(id(graph))?
        .objects
        .entry(id(object))
        .or_insert(0) += count;
    Ok(())
}

pub(crate) fn release_object(graph: CUgraph, object: CUuserObject, count: c_uint) -> Cu {
    {
        let mut state = lock();
        let held = state.graph(id(graph))?.objects.get_mut(&id(object));
        let held = held
            .filter(|held| **held >= count)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        *held -= count;
    }
    object_release(object, count)
}

pub(crate) fn device_memory(dev: CUdevice, which: CUgraphMem_attribute, out: Out<c_void>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let memory = state.device(dev)?.graph_memory;
    let value = memory
        .get(which as usize)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    raw::write(raw::addr_out(out), *value);
    Ok(())
}

/// `cuDeviceSetGraphMemAttribute`: high marks can be reset to what is now.
pub(crate) fn set_device_memory(
    dev: CUdevice,
    which: CUgraphMem_attribute,
    value: Out<c_void>,
) -> Cu {
    ensure(!value.is_null() && raw::read::<u64>(raw::addr_out(value)) == 0)?;
    let mut state = lock();
    let memory = &mut state.device(dev)?.graph_memory;
    match which {
        CU_GRAPH_MEM_ATTR_USED_MEM_HIGH => memory[1] = memory[0],
        CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH => memory[3] = memory[2],
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    }
    Ok(())
}

pub(crate) fn trim_device_memory(dev: CUdevice) -> Cu {
    let mut state = lock();
    let [used, _, reserved, _] = state.device(dev)?.graph_memory;
    let keep = used.next_multiple_of(2 << 20);
    if reserved > keep {
        node().refund(state.gpu(dev as usize), reserved - keep);
        state.device(dev)?.graph_memory[2] = keep;
    }
    Ok(())
}
