//! Graph nodes: adding them.
//!
//! Each kind has functions of its own and a part in the generic ones (`cuGraphAddNode` and its siblings); both end
//! in the same conversions here. Setting parameters of a node in an instance goes through [`crate::graph_exec`].

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::copy_shapes::shape_3d;
use crate::error::{Cu, Fail, ensure, fail, put};
use crate::graph::What;
use crate::launch::{Dims, Passed};
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

pub(crate) fn event_known(event: CUevent) -> Cu<u64> {
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
pub(crate) const UNION: u64 = 16;

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
