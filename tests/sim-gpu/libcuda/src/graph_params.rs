//! Parameters of graph nodes: reading them back, changing them.

use core::ffi::{c_uint, c_void};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::copy_shapes::describe;
use crate::error::{Cu, Fail, ensure, fail, put};
use crate::graph::What;
use crate::graph_nodes::{
    UNION, any_what, copy_what, event_known, fill_what, host_what, kernel_what, kernel_what_v2,
};
use crate::launch::KernelCall;
use crate::memset::Fill;
use crate::queue::HostCall;
use crate::raw;
use crate::state::{handle, id, lock};

const WRONG: Fail = Fail(CUDA_ERROR_INVALID_VALUE);

fn what_of(node: CUgraphNode) -> Cu<What> {
    Ok(lock().node(id(node))?.what.clone())
}

fn kernel_of(call: &KernelCall) -> CUDA_KERNEL_NODE_PARAMS {
    let mut p: CUDA_KERNEL_NODE_PARAMS = raw::zeroed();
    let state = lock();
    let is_kernel = state
        .functions
        .get(&call.function)
        .is_some_and(|known| known.module == 0);
    if is_kernel {
        p.kern = handle(call.function);
    } else {
        p.func = handle(call.function);
    }
    [p.gridDimX, p.gridDimY, p.gridDimZ] = call.grid;
    [p.blockDimX, p.blockDimY, p.blockDimZ] = call.block;
    p.sharedMemBytes = call.shared;
    // The array lives as long as the node, which owns it.
    let pointers = &call.arguments.pointers;
    p.kernelParams = if pointers.is_empty() {
        core::ptr::null_mut()
    } else {
        pointers.as_ptr() as *mut *mut c_void
    };
    p
}

pub(crate) fn get_kernel(node: CUgraphNode, out: Out<CUDA_KERNEL_NODE_PARAMS>) -> Cu {
    let What::Kernel(call) = what_of(node)? else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    put(out, kernel_of(&call))
}

pub(crate) fn get_kernel_v1(node: CUgraphNode, out: Out<CUDA_KERNEL_NODE_PARAMS_v1>) -> Cu {
    let What::Kernel(call) = what_of(node)? else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    let new = kernel_of(&call);
    let mut old: CUDA_KERNEL_NODE_PARAMS_v1 = raw::read(&raw const new as u64);
    if old.func.is_null() {
        old.func = handle(id(new.kern));
    }
    put(out, old)
}

pub(crate) fn get_copy(node: CUgraphNode, out: Out<CUDA_MEMCPY3D>) -> Cu {
    let What::Copy(shape) = what_of(node)? else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    put(out, describe(&shape))
}

fn fill_of(fill: &Fill) -> CUDA_MEMSET_NODE_PARAMS {
    CUDA_MEMSET_NODE_PARAMS {
        dst: fill.to,
        pitch: fill.pitch as usize,
        value: fill.value,
        elementSize: fill.element as c_uint,
        width: fill.width as usize,
        height: fill.height as usize,
    }
}

pub(crate) fn get_fill(node: CUgraphNode, out: Out<CUDA_MEMSET_NODE_PARAMS>) -> Cu {
    let What::Fill(fill) = what_of(node)? else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    put(out, fill_of(&fill))
}

pub(crate) fn get_host(node: CUgraphNode, out: Out<CUDA_HOST_NODE_PARAMS>) -> Cu {
    let What::Host(HostCall::Function { function, data }) = what_of(node)? else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    put(
        out,
        CUDA_HOST_NODE_PARAMS {
            fn_: Some(function),
            userData: data as *mut c_void,
        },
    )
}

pub(crate) fn get_child(node: CUgraphNode, out: Out<CUgraph>) -> Cu {
    match what_of(node)? {
        What::Child(graph) => put(out, handle(graph)),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

pub(crate) fn get_record(node: CUgraphNode, out: Out<CUevent>) -> Cu {
    match what_of(node)? {
        What::Record(event) => put(out, handle(event)),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

pub(crate) fn get_await(node: CUgraphNode, out: Out<CUevent>) -> Cu {
    match what_of(node)? {
        What::Await(event) => put(out, handle(event)),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

fn alloc_params(address: u64, size: u64, device: usize) -> CUDA_MEM_ALLOC_NODE_PARAMS_v1 {
    let mut p: CUDA_MEM_ALLOC_NODE_PARAMS_v1 = raw::zeroed();
    p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.poolProps.location.type_ = CU_MEM_LOCATION_TYPE_DEVICE;
    p.poolProps.location.__bindgen_anon_1.id = device as i32;
    p.bytesize = size as usize;
    p.dptr = address;
    p
}

pub(crate) fn get_alloc(node: CUgraphNode, out: Out<CUDA_MEM_ALLOC_NODE_PARAMS_v1>) -> Cu {
    match what_of(node)? {
        What::Alloc {
            address,
            size,
            device,
        } => put(out, alloc_params(address, size, device)),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

pub(crate) fn get_free(node: CUgraphNode, out: Out<CUdeviceptr>) -> Cu {
    match what_of(node)? {
        What::Free(address) => put(out, address),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

/// `cuGraphNodeGetParams`: the generic structure, by kind.
pub(crate) fn get_any(node: CUgraphNode, out: Out<CUgraphNodeParams>) -> Cu {
    ensure(!out.is_null())?;
    let what = what_of(node)?;
    let at = raw::addr_out(out);
    raw::write(at, [0_u64; size_of::<CUgraphNodeParams>() / 8]);
    raw::write(at, what.kind());
    let body = at + UNION;
    match what {
        What::Kernel(call) => raw::write(body, kernel_of(&call)),
        What::Copy(shape) => {
            let mut params: CUDA_MEMCPY_NODE_PARAMS = raw::zeroed();
            params.copyParams = describe(&shape);
            raw::write(body, params);
        }
        What::Fill(fill) => raw::write(body, fill_of(&fill)),
        What::Host(HostCall::Function { function, data }) => {
            raw::write(
                body,
                CUDA_HOST_NODE_PARAMS {
                    fn_: Some(function),
                    userData: data as *mut c_void,
                },
            );
        }
        What::Child(graph) => raw::write(body, graph),
        What::Await(event) | What::Record(event) => raw::write(body, event),
        What::Alloc {
            address,
            size,
            device,
        } => raw::write(body, alloc_params(address, size, device)),
        What::Free(address) => raw::write(body, address),
        What::Host(_) | What::Empty | What::Values(_) | What::Busy(_) => {}
    }
    Ok(())
}

/// Puts new parameters into a node of the same kind.
fn set(node: CUgraphNode, what: What) -> Cu {
    let mut state = lock();
    let known = state.node(id(node))?;
    ensure(known.what.kind() == what.kind())?;
    known.what = what;
    Ok(())
}

pub(crate) fn set_kernel_v1(node: CUgraphNode, params: In<CUDA_KERNEL_NODE_PARAMS_v1>) -> Cu {
    set(node, kernel_what(&params.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_kernel(node: CUgraphNode, params: In<CUDA_KERNEL_NODE_PARAMS>) -> Cu {
    set(node, kernel_what_v2(&params.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_copy(node: CUgraphNode, params: In<CUDA_MEMCPY3D>) -> Cu {
    set(node, copy_what(&params.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_fill(node: CUgraphNode, params: In<CUDA_MEMSET_NODE_PARAMS>) -> Cu {
    set(node, fill_what(&params.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_host(node: CUgraphNode, params: In<CUDA_HOST_NODE_PARAMS>) -> Cu {
    set(node, host_what(&params.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_record(node: CUgraphNode, event: CUevent) -> Cu {
    set(node, What::Record(event_known(event)?))
}

pub(crate) fn set_await(node: CUgraphNode, event: CUevent) -> Cu {
    set(node, What::Await(event_known(event)?))
}

/// Memory nodes cannot be changed.
pub(crate) fn set_any(node: CUgraphNode, params: Out<CUgraphNodeParams>) -> Cu {
    ensure(!params.is_null())?;
    let kind: CUgraphNodeType = raw::read(raw::addr_out(params));
    ensure(!matches!(
        kind,
        CU_GRAPH_NODE_TYPE_MEM_ALLOC | CU_GRAPH_NODE_TYPE_MEM_FREE
    ))?;
    set(node, any_what(raw::addr_out(params))?)
}

pub(crate) fn get_attribute(
    node: CUgraphNode,
    which: CUkernelNodeAttrID,
    out: Out<CUkernelNodeAttrValue>,
) -> Cu {
    ensure(!out.is_null() && which < CU_LAUNCH_ATTRIBUTE_MAX)?;
    let mut state = lock();
    let known = state.node(id(node))?;
    ensure(matches!(known.what, What::Kernel(_)))?;
    let value = known
        .attributes
        .get(&u64::from(which))
        .copied()
        .unwrap_or_default();
    raw::write(raw::addr_out(out), value);
    Ok(())
}

pub(crate) fn set_attribute(
    node: CUgraphNode,
    which: CUkernelNodeAttrID,
    value: In<CUkernelNodeAttrValue>,
) -> Cu {
    ensure(!value.is_null() && which < CU_LAUNCH_ATTRIBUTE_MAX)?;
    let mut state = lock();
    let known = state.node(id(node))?;
    ensure(matches!(known.what, What::Kernel(_)))?;
    known
        .attributes
        .insert(u64::from(which), raw::read(raw::addr_in(value)));
    Ok(())
}

pub(crate) fn copy_attributes(target: CUgraphNode, source: CUgraphNode) -> Cu {
    let mut state = lock();
    let attributes = state.node(id(source))?.attributes.clone();
    state.node(id(target))?.attributes = attributes;
    Ok(())
}
