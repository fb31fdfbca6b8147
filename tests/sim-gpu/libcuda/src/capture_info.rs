//! What captures tell and can be told: status, dependencies, the thread's mode.

use core::ffi::c_uint;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::capture::forbid_implicit;
use crate::error::{Cu, Fail, ensure, ensure_or, put, put_optional};
use crate::raw;
use crate::state::{self, State, handle, lock};

impl State {
    fn capture_status(&mut self, stream: CUstream) -> Cu<(u64, CUstreamCaptureStatus, u64)> {
        let stream = self.stream_id(stream)?;
        forbid_implicit(self, stream)?;
        let Some(capture) = self.capture_of(stream) else {
            return Ok((stream, CU_STREAM_CAPTURE_STATUS_NONE, 0));
        };
        let invalid = self
            .captures
            .get(&capture)
            .is_none_or(|capture| capture.invalid);
        let status = if invalid {
            CU_STREAM_CAPTURE_STATUS_INVALIDATED
        } else {
            CU_STREAM_CAPTURE_STATUS_ACTIVE
        };
        Ok((stream, status, capture))
    }
}

pub(crate) fn is_capturing(stream: CUstream, out: Out<CUstreamCaptureStatus>) -> Cu {
    ensure(!out.is_null())?;
    let (_, status, _) = lock().capture_status(stream)?;
    put(out, status)
}

pub(crate) fn info(
    stream: CUstream,
    status: Out<CUstreamCaptureStatus>,
    serial: Out<cuuint64_t>,
) -> Cu {
    info_v3(
        stream,
        status,
        serial,
        Out::null(),
        Out::null(),
        Out::null(),
        Out::null(),
    )
}

pub(crate) fn info_v2(
    stream: CUstream,
    status: Out<CUstreamCaptureStatus>,
    serial: Out<cuuint64_t>,
    graph: Out<CUgraph>,
    after: Out<*const CUgraphNode>,
    count: Out<usize>,
) -> Cu {
    info_v3(stream, status, serial, graph, after, Out::null(), count)
}

/// `cuStreamGetCaptureInfo_v3`: the arrays stay the capture's, until its next change.
pub(crate) fn info_v3(
    stream: CUstream,
    status_out: Out<CUstreamCaptureStatus>,
    serial: Out<cuuint64_t>,
    graph: Out<CUgraph>,
    after: Out<*const CUgraphNode>,
    data: Out<*const CUgraphEdgeData>,
    count: Out<usize>,
) -> Cu {
    ensure(!status_out.is_null())?;
    let mut state = lock();
    let (stream, status, id) = state.capture_status(stream)?;
    status_out.write(status);
    if status != CU_STREAM_CAPTURE_STATUS_ACTIVE {
        return Ok(());
    }
    put_optional(serial, id)?;
    let capture = state
        .captures
        .get_mut(&id)
        .ok_or(Fail(CUDA_ERROR_UNKNOWN))?;
    put_optional(graph, handle(capture.graph))?;
    let frontier = capture.frontiers.entry(stream).or_default();
    put_optional(count, frontier.len())?;
    put_optional(after, frontier.as_ptr().cast())?;
    if capture.edge_data.len() < frontier.len() {
        capture.edge_data = vec![0; frontier.len()];
    }
    const _: () = assert!(size_of::<CUgraphEdgeData>() == size_of::<u64>());
    put_optional(data, capture.edge_data.as_ptr().cast())
}

pub(crate) fn set_dependencies(
    stream: CUstream,
    nodes: Out<CUgraphNode>,
    count: usize,
    flags: c_uint,
) -> Cu {
    ensure(flags <= CU_STREAM_SET_CAPTURE_DEPENDENCIES)?;
    let nodes =
        raw::array::<u64>(raw::addr_out(nodes), count).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    let (stream, status, id) = state.capture_status(stream)?;
    ensure_or(
        status == CU_STREAM_CAPTURE_STATUS_ACTIVE,
        CUDA_ERROR_ILLEGAL_STATE,
    )?;
    let graph = state.captures.get(&id).map_or(0, |capture| capture.graph);
    for node in &nodes {
        ensure(state.node(*node)?.graph == graph)?;
    }
    let capture = state
        .captures
        .get_mut(&id)
        .ok_or(Fail(CUDA_ERROR_UNKNOWN))?;
    let frontier = capture.frontiers.entry(stream).or_default();
    if flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES {
        frontier.clear();
    }
    let fresh: Vec<u64> = nodes
        .into_iter()
        .filter(|node| !frontier.contains(node))
        .collect();
    frontier.extend(fresh);
    Ok(())
}

pub(crate) fn set_dependencies_v2(
    stream: CUstream,
    nodes: Out<CUgraphNode>,
    _data: In<CUgraphEdgeData>,
    count: usize,
    flags: c_uint,
) -> Cu {
    set_dependencies(stream, nodes, count, flags)
}

pub(crate) fn exchange_mode(mode: Out<CUstreamCaptureMode>) -> Cu {
    let wanted = mode.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(wanted <= CU_STREAM_CAPTURE_MODE_RELAXED)?;
    let before = state::thread(|thread| thread.capture_mode.replace(wanted))?;
    put(mode, before)
}
