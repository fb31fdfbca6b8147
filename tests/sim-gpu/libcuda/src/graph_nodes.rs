//! Graph nodes: adding them, and their parameters.
//!
//! Each kind has functions of its own and a part in the generic ones (`cuGraphAddNode` and its siblings); both end
//! in the same conversions here. Setting parameters of a node in an instance goes through [`crate::graph_exec`].

use core::ffi::{c_uint, c_void};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::copy_shapes::{describe, shape_3d};
use crate::error::{Cu, Fail, ensure, fail, put};
use crate::graph::What;
use crate::launch::{Dims, KernelCall, Passed};
use crate::memory::units;
use crate::memset::Fill;
use crate::pool::location_id;
use crate::queue::HostCall;
use crate::raw;
use crate::region::{Kind, Region};
use crate::state::{State, handle, id, lock};

const WRONG: Fail = Fail(CUDA_ERROR_INVALID_VALUE);

/// Makes a node of converted parameters.
fn add(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    what: What,
) -> Cu {
    ensure(!out.is_null())?;
    let after = raw::array::<u64>(raw::addr_in(after), count).ok_or(WRONG)?;
    let node = lock().add_node(id(graph), after, what)?;
    put(out, handle(node))
}

/// What a kernel's parameters make. The three versions of the structure share their first fields.
pub(crate) fn kernel_what(p: &CUDA_KERNEL_NODE_PARAMS_v1) -> Cu<What> {
    let dims = Dims {
        grid: [p.gridDimX, p.gridDimY, p.gridDimZ],
        block: [p.blockDimX, p.blockDimY, p.blockDimZ],
        shared: p.sharedMemBytes,
    };
    let passed = Passed {
        params: p.kernelParams as u64,
        extra: p.extra as u64,
    };
    let call = lock().keep_launch(id(p.func), &dims, passed)?;
    Ok(What::Kernel(Box::new(call)))
}

/// The newer structures name a kernel where there is no function.
pub(crate) fn kernel_what_v2(p: &CUDA_KERNEL_NODE_PARAMS) -> Cu<What> {
    let mut old: CUDA_KERNEL_NODE_PARAMS_v1 = raw::read(core::ptr::from_ref(p) as u64);
    if old.func.is_null() {
        old.func = handle(id(p.kern));
    }
    kernel_what(&old)
}

pub(crate) fn copy_what(p: &CUDA_MEMCPY3D) -> Cu<What> {
    let shape = shape_3d(p)?;
    ensure(shape.bytes() > 0)?;
    shape.check(&mut lock())?;
    Ok(What::Copy(Box::new(shape)))
}

pub(crate) fn fill_what(p: &CUDA_MEMSET_NODE_PARAMS) -> Cu<What> {
    let fill = Fill {
        to: p.dst,
        pitch: p.pitch as u64,
        value: p.value,
        element: p.elementSize as usize,
        width: p.width as u64,
        height: p.height as u64,
    };
    ensure(fill.width > 0 && fill.height > 0)?;
    fill.check()?;
    Ok(What::Fill(fill))
}

pub(crate) fn host_what(p: &CUDA_HOST_NODE_PARAMS) -> Cu<What> {
    let function = p.fn_.ok_or(WRONG)?;
    Ok(What::Host(HostCall::Function {
        function,
        data: p.userData as u64,
    }))
}

fn event_known(event: CUevent) -> Cu<u64> {
    lock().event(event)?;
    Ok(id(event))
}

/// Reserves the address that a memory node will have, for as long as the process lives.
pub(crate) fn alloc_what(state: &mut State, size: u64, device: usize) -> Cu<What> {
    ensure(size > 0)?;
    let size = units(size)?;
    ensure(size <= state.devices[device].total())?;
    let address = state.take_addresses(device, size, 2 << 20)?;
    let mut region = Region::new(address, size, Kind::Graph { live: false }, device, 0);
    region.written = true;
    state.add_region(region);
    Ok(What::Alloc {
        address,
        size,
        device,
    })
}

fn alloc_of(p: &CUDA_MEM_ALLOC_NODE_PARAMS_v1) -> Cu<What> {
    ensure(p.poolProps.location.type_ == CU_MEM_LOCATION_TYPE_DEVICE)?;
    ensure(p.poolProps.allocType == CU_MEM_ALLOCATION_TYPE_PINNED)?;
    let mut state = lock();
    let ordinal = location_id(&p.poolProps.location);
    state.device(ordinal)?;
    alloc_what(&mut state, p.bytesize as u64, ordinal as usize)
}

pub(crate) fn free_what(state: &mut State, address: u64) -> Cu<What> {
    let region = state.regions.starting_at(address).ok_or(WRONG)?;
    ensure(matches!(region.kind, Kind::Graph { .. }))?;
    Ok(What::Free(address))
}

pub(crate) fn add_kernel_v1(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: In<CUDA_KERNEL_NODE_PARAMS_v1>,
) -> Cu {
    add(
        out,
        graph,
        after,
        count,
        kernel_what(&params.read().ok_or(WRONG)?)?,
    )
}

pub(crate) fn add_kernel(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: In<CUDA_KERNEL_NODE_PARAMS>,
) -> Cu {
    add(
        out,
        graph,
        after,
        count,
        kernel_what_v2(&params.read().ok_or(WRONG)?)?,
    )
}

pub(crate) fn add_copy(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: In<CUDA_MEMCPY3D>,
    _context: CUcontext,
) -> Cu {
    add(
        out,
        graph,
        after,
        count,
        copy_what(&params.read().ok_or(WRONG)?)?,
    )
}

pub(crate) fn add_fill(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: In<CUDA_MEMSET_NODE_PARAMS>,
    _context: CUcontext,
) -> Cu {
    add(
        out,
        graph,
        after,
        count,
        fill_what(&params.read().ok_or(WRONG)?)?,
    )
}

pub(crate) fn add_host(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: In<CUDA_HOST_NODE_PARAMS>,
) -> Cu {
    add(
        out,
        graph,
        after,
        count,
        host_what(&params.read().ok_or(WRONG)?)?,
    )
}

/// A child graph is copied: later changes to the original do not show.
pub(crate) fn child_what(graph: CUgraph) -> Cu<What> {
    Ok(What::Child(lock().clone_graph(id(graph))?))
}

pub(crate) fn add_child(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    child: CUgraph,
) -> Cu {
    add(out, graph, after, count, child_what(child)?)
}

pub(crate) fn add_empty(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
) -> Cu {
    add(out, graph, after, count, What::Empty)
}

pub(crate) fn add_record(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    event: CUevent,
) -> Cu {
    add(out, graph, after, count, What::Record(event_known(event)?))
}

pub(crate) fn add_await(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    event: CUevent,
) -> Cu {
    add(out, graph, after, count, What::Await(event_known(event)?))
}

pub(crate) fn add_alloc(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: Out<CUDA_MEM_ALLOC_NODE_PARAMS_v1>,
) -> Cu {
    let mut p = params.read().ok_or(WRONG)?;
    let what = alloc_of(&p)?;
    if let What::Alloc { address, .. } = what {
        p.dptr = address;
    }
    add(out, graph, after, count, what)?;
    put(params, p)
}

pub(crate) fn add_free(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    address: CUdeviceptr,
) -> Cu {
    let what = free_what(&mut lock(), address)?;
    add(out, graph, after, count, what)
}

/// Bytes before the union in `CUgraphNodeParams`.
const UNION: u64 = 16;

/// What the generic structure makes.
pub(crate) fn any_what(at: u64) -> Cu<What> {
    let kind: CUgraphNodeType = raw::read(at);
    let body = at + UNION;
    match kind {
        CU_GRAPH_NODE_TYPE_KERNEL => kernel_what_v2(&raw::read(body)),
        CU_GRAPH_NODE_TYPE_MEMCPY => {
            let params: CUDA_MEMCPY_NODE_PARAMS = raw::read(body);
            copy_what(&params.copyParams)
        }
        CU_GRAPH_NODE_TYPE_MEMSET => fill_what(&raw::read(body)),
        CU_GRAPH_NODE_TYPE_HOST => host_what(&raw::read(body)),
        CU_GRAPH_NODE_TYPE_GRAPH => child_what(raw::read(body)),
        CU_GRAPH_NODE_TYPE_EMPTY => Ok(What::Empty),
        CU_GRAPH_NODE_TYPE_WAIT_EVENT => Ok(What::Await(event_known(raw::read(body))?)),
        CU_GRAPH_NODE_TYPE_EVENT_RECORD => Ok(What::Record(event_known(raw::read(body))?)),
        CU_GRAPH_NODE_TYPE_MEM_ALLOC => alloc_of(&raw::read(body)),
        CU_GRAPH_NODE_TYPE_MEM_FREE => free_what(&mut lock(), raw::read(body)),
        CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL
        | CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT
        | CU_GRAPH_NODE_TYPE_BATCH_MEM_OP
        | CU_GRAPH_NODE_TYPE_CONDITIONAL => fail(CUDA_ERROR_NOT_SUPPORTED),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

/// `cuGraphAddNode` without edge data.
pub(crate) fn add_any_v1(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    count: usize,
    params: Out<CUgraphNodeParams>,
) -> Cu {
    ensure(!params.is_null())?;
    let at = raw::addr_out(params);
    let what = any_what(at)?;
    if let What::Alloc { address, .. } = what {
        let field = core::mem::offset_of!(CUDA_MEM_ALLOC_NODE_PARAMS_v2, dptr) as u64;
        raw::write(at + UNION + field, address);
    }
    if let What::Child(child) = what {
        // The caller learns the handle of the copy.
        raw::write(at + UNION, child);
    }
    add(out, graph, after, count, what)
}

pub(crate) fn add_any(
    out: Out<CUgraphNode>,
    graph: CUgraph,
    after: In<CUgraphNode>,
    _data: In<CUgraphEdgeData>,
    count: usize,
    params: Out<CUgraphNodeParams>,
) -> Cu {
    add_any_v1(out, graph, after, count, params)
}

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
