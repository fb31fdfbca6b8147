//! Graphs and stream capture.

use core::ffi::c_void;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, any, array, good, input, nothing, null, zeroed};

const MS: u64 = 1_000_000;

fn kernel_params(function: CUfunction, params: &mut [*mut c_void]) -> CUDA_KERNEL_NODE_PARAMS {
    let mut kernel: CUDA_KERNEL_NODE_PARAMS = zeroed();
    kernel.func = function;
    (kernel.gridDimX, kernel.gridDimY, kernel.gridDimZ) = (2, 1, 1);
    (kernel.blockDimX, kernel.blockDimY, kernel.blockDimZ) = (32, 1, 1);
    kernel.kernelParams = params.as_mut_ptr();
    kernel
}

fn fill_params(to: CUdeviceptr, value: u32, width: usize) -> CUDA_MEMSET_NODE_PARAMS {
    CUDA_MEMSET_NODE_PARAMS {
        dst: to,
        pitch: 0,
        value,
        elementSize: 1,
        width,
        height: 1,
    }
}

fn instance(cuda: &Cuda, graph: CUgraph) -> CUgraphExec {
    let mut exec = null();
    good(cuda.cuGraphInstantiateWithFlags(Out::of(&mut exec), graph, 0));
    exec
}

fn nodes(cuda: &Cuda, graph: CUgraph) -> Vec<CUgraphNodeType> {
    let (mut list, mut count) = ([null(); 16], 16_usize);
    good(cuda.cuGraphGetNodes(graph, array(&mut list), Out::of(&mut count)));
    let kind = |&node: &CUgraphNode| {
        let mut kind = 99;
        good(cuda.cuGraphNodeGetType(node, Out::of(&mut kind)));
        kind
    };
    list[..count].iter().map(kind).collect()
}

#[test]
fn a_graph_is_built_changed_and_run() {
    let cuda = Cuda::ready();
    let (spin, stream, memory) = (cuda.spin(), cuda.stream(), cuda.alloc(100));
    let (mut graph, mut kernel, mut fill) = (null(), null(), null());
    good(cuda.cuGraphCreate(Out::of(&mut graph), 0));
    let mut duration = 10 * MS;
    let mut params = [(&raw mut duration).cast::<c_void>()];
    let kernel_node = kernel_params(spin, &mut params);
    good(cuda.cuGraphAddKernelNode_v2(
        Out::of(&mut kernel),
        graph,
        nothing(),
        0,
        input(&kernel_node),
    ));
    let node = fill_params(memory, 5, 100);
    good(cuda.cuGraphAddMemsetNode(
        Out::of(&mut fill),
        graph,
        input(&kernel),
        1,
        input(&node),
        null(),
    ));
    // The arguments were copied.
    *std::hint::black_box(&mut duration) = 0;
    let exec = instance(&cuda, graph);
    let (start, end) = (cuda.event(), cuda.event());
    good(cuda.cuEventRecord(start, stream));
    good(cuda.cuGraphLaunch(exec, stream));
    good(cuda.cuEventRecord(end, stream));
    good(cuda.cuStreamSynchronize(stream));
    let measured = cuda.elapsed(start, end);
    assert!((10.0..110.0).contains(&measured), "{measured}");
    assert_eq!(cuda.get(memory, 100), [5; 100]);
    let other = fill_params(memory, 6, 50);
    good(cuda.cuGraphExecMemsetNodeSetParams(exec, fill, input(&other), null()));
    good(cuda.cuGraphNodeSetEnabled(exec, kernel, 0));
    good(cuda.cuGraphLaunch(exec, stream));
    good(cuda.cuStreamSynchronize(stream));
    assert_eq!(cuda.get(memory, 52)[48..], [6, 6, 5, 5]);
    let mut found: CUDA_KERNEL_NODE_PARAMS = zeroed();
    good(cuda.cuGraphKernelNodeGetParams_v2(kernel, Out::of(&mut found)));
    // SAFETY: the node's own array of pointers to its arguments.
    let first = unsafe { found.kernelParams.read() };
    // SAFETY: the node's copy of the argument.
    let kept = unsafe { first.cast::<u64>().read() };
    assert_eq!((found.gridDimX, kept), (2, 10 * MS));
    good(cuda.cuGraphExecDestroy(exec));
    good(cuda.cuGraphDestroy(graph));
    assert_eq!(cuda.cuGraphDestroy(graph), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn edges_are_kept_and_cycles_refused() {
    let cuda = Cuda::ready();
    let (mut graph, mut list) = (null(), [null(); 3]);
    good(cuda.cuGraphCreate(Out::of(&mut graph), 0));
    for node in &mut list {
        good(cuda.cuGraphAddEmptyNode(Out::of(node), graph, nothing(), 0));
    }
    let edge = |from: usize, to: usize| {
        cuda.cuGraphAddDependencies(graph, input(&list[from]), input(&list[to]), 1)
    };
    good(edge(0, 1));
    good(edge(1, 2));
    assert_eq!(edge(2, 0), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(edge(0, 1), CUDA_ERROR_INVALID_VALUE);
    let (mut from, mut to, mut count) = ([null(); 4], [null(); 4], 4_usize);
    good(cuda.cuGraphGetEdges(graph, array(&mut from), array(&mut to), Out::of(&mut count)));
    assert_eq!((count, from[0], to[1]), (2, list[0], list[2]));
    let mut copy = null();
    good(cuda.cuGraphClone(Out::of(&mut copy), graph));
    let mut twin = null();
    good(cuda.cuGraphNodeFindInClone(Out::of(&mut twin), list[1], copy));
    assert_ne!(twin, list[1]);
    good(cuda.cuGraphNodeGetDependencies(twin, Out::null(), Out::of(&mut count)));
    assert_eq!(count, 1);
    good(cuda.cuGraphDestroyNode(list[1]));
    good(cuda.cuGraphGetEdges(graph, Out::null(), Out::null(), Out::of(&mut count)));
    assert_eq!(count, 0);
}

#[test]
fn an_update_needs_the_same_shape() {
    let cuda = Cuda::ready();
    let memory = cuda.alloc(10);
    let build = |value, extra: bool| {
        let (mut graph, mut node) = (null(), null());
        good(cuda.cuGraphCreate(Out::of(&mut graph), 0));
        let params = fill_params(memory, value, 10);
        good(cuda.cuGraphAddMemsetNode(
            Out::of(&mut node),
            graph,
            nothing(),
            0,
            input(&params),
            null(),
        ));
        if extra {
            good(cuda.cuGraphAddEmptyNode(Out::of(&mut node), graph, nothing(), 0));
        }
        graph
    };
    let exec = instance(&cuda, build(1, false));
    let mut info: CUgraphExecUpdateResultInfo = zeroed();
    good(cuda.cuGraphExecUpdate_v2(exec, build(2, false), Out::of(&mut info)));
    good(cuda.cuGraphLaunch(exec, null()));
    assert_eq!(cuda.get(memory, 1), [2]);
    let refused = cuda.cuGraphExecUpdate_v2(exec, build(3, true), Out::of(&mut info));
    assert_eq!(refused, CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    assert_eq!(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
}

#[test]
fn memory_nodes_reserve_when_launched() {
    let cuda = Cuda::ready();
    let stream = cuda.stream();
    let before = cuda.free();
    let (mut graph, mut alloc, mut free) = (null(), null(), null());
    good(cuda.cuGraphCreate(Out::of(&mut graph), 0));
    let mut params: CUDA_MEM_ALLOC_NODE_PARAMS_v1 = zeroed();
    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location.type_ = CU_MEM_LOCATION_TYPE_DEVICE;
    params.bytesize = 3 << 20;
    good(cuda.cuGraphAddMemAllocNode(
        Out::of(&mut alloc),
        graph,
        nothing(),
        0,
        Out::of(&mut params),
    ));
    assert_ne!(params.dptr, 0);
    good(cuda.cuGraphAddMemFreeNode(Out::of(&mut free), graph, input(&alloc), 1, params.dptr));
    let exec = instance(&cuda, graph);
    assert_eq!(cuda.free(), before);
    good(cuda.cuGraphLaunch(exec, stream));
    good(cuda.cuGraphLaunch(exec, stream));
    assert_eq!(cuda.free(), before - (4 << 20));
    let mut reserved = 0_u64;
    good(cuda.cuDeviceGetGraphMemAttribute(
        0,
        CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT,
        any(&mut reserved),
    ));
    assert_eq!(reserved, 4 << 20);
    good(cuda.cuDeviceGraphMemTrim(0));
    assert_eq!(cuda.free(), before);
}

fn begin(cuda: &Cuda, stream: CUstream, mode: CUstreamCaptureMode) {
    good(cuda.cuStreamBeginCapture_v2(stream, mode));
}

#[test]
fn captured_work_is_not_done_until_launched() {
    let cuda = Cuda::ready();
    let (stream, other, memory) = (cuda.stream(), cuda.stream(), cuda.alloc(2));
    let (fork, join) = (cuda.event(), cuda.event());
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    good(cuda.cuMemsetD8Async(memory, 1, 1, stream));
    good(cuda.cuEventRecord(fork, stream));
    good(cuda.cuStreamWaitEvent(other, fork, 0));
    good(cuda.cuMemsetD8Async(memory + 1, 2, 1, other));
    let mut status = 99;
    good(cuda.cuStreamIsCapturing(other, Out::of(&mut status)));
    assert_eq!(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_eq!(cuda.cuEventQuery(fork), CUDA_ERROR_CAPTURED_EVENT);
    good(cuda.cuEventRecord(join, other));
    good(cuda.cuStreamWaitEvent(stream, join, 0));
    let mut pointer = 0;
    good(cuda.cuMemAllocAsync(Out::of(&mut pointer), 100, stream));
    good(cuda.cuMemFreeAsync(pointer, stream));
    let mut graph = null();
    good(cuda.cuStreamEndCapture(stream, Out::of(&mut graph)));
    let expected = [
        CU_GRAPH_NODE_TYPE_MEMSET,
        CU_GRAPH_NODE_TYPE_MEMSET,
        CU_GRAPH_NODE_TYPE_MEM_ALLOC,
        CU_GRAPH_NODE_TYPE_MEM_FREE,
    ];
    assert_eq!(nodes(&cuda, graph), expected);
    assert_eq!(cuda.get(memory, 2), [0, 0]);
    good(cuda.cuGraphLaunch(instance(&cuda, graph), stream));
    good(cuda.cuStreamSynchronize(stream));
    assert_eq!(cuda.get(memory, 2), [1, 2]);
}

/// Ends a capture that must have been invalidated.
fn invalidated(cuda: &Cuda, stream: CUstream) {
    let mut graph = 1 as CUgraph;
    assert_eq!(
        cuda.cuStreamEndCapture(stream, Out::of(&mut graph)),
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    );
    assert!(graph.is_null());
}

#[test]
fn what_a_capture_forbids_ends_it() {
    let cuda = Cuda::ready();
    let (stream, mut pointer) = (cuda.stream(), 0);
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_eq!(
        cuda.cuMemAlloc_v2(Out::of(&mut pointer), 1),
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    invalidated(&cuda, stream);
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    good(cuda.cuMemAlloc_v2(Out::of(&mut pointer), 1));
    assert_eq!(
        cuda.cuStreamSynchronize(stream),
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    invalidated(&cuda, stream);
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    assert_eq!(
        cuda.cuCtxSynchronize(),
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    invalidated(&cuda, stream);
    assert_eq!(
        cuda.cuStreamBeginCapture_v2(null(), 0),
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    let (mut blocking, mut graph) = (null(), null());
    good(cuda.cuStreamCreate(Out::of(&mut blocking), CU_STREAM_DEFAULT));
    begin(&cuda, blocking, CU_STREAM_CAPTURE_MODE_RELAXED);
    assert_eq!(
        cuda.cuMemsetD8Async(pointer, 0, 1, null()),
        CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    );
    invalidated(&cuda, blocking);
    assert_eq!(
        cuda.cuStreamEndCapture(stream, Out::of(&mut graph)),
        CUDA_ERROR_ILLEGAL_STATE
    );
}

#[test]
fn joined_streams_must_be_waited_for() {
    let cuda = Cuda::ready();
    let (stream, other, memory) = (cuda.stream(), cuda.stream(), cuda.alloc(1));
    let (fork, mut graph) = (cuda.event(), null());
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    good(cuda.cuEventRecord(fork, stream));
    good(cuda.cuStreamWaitEvent(other, fork, 0));
    good(cuda.cuMemsetD8Async(memory, 2, 1, other));
    assert_eq!(
        cuda.cuStreamEndCapture(stream, Out::of(&mut graph)),
        CUDA_ERROR_STREAM_CAPTURE_UNJOINED
    );
    begin(&cuda, stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    let outside = cuda.event();
    good(cuda.cuEventRecord(outside, other));
    assert_eq!(
        cuda.cuStreamWaitEvent(stream, outside, 0),
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    );
    invalidated(&cuda, stream);
}
