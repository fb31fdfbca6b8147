//! Stream capture: work that becomes nodes of a graph instead of being done.
//!
//! Owns [`Capture`] and the rules of the header's chapter on stream capture: which streams take part, what each node
//! follows, which calls are refused meanwhile. A refused call invalidates the capture, as documented.

use core::ffi::c_uint;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::graph::What;
use crate::graph_nodes::{alloc_what, free_what};
use crate::queue::Work;
use crate::raw;
use crate::state::{Map, State, handle, id, lock, thread, thread_number};
use crate::stream::Which;

/// One capture.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) mode: CUstreamCaptureMode,
    /// The thread and the stream that began it.
    pub(crate) thread: u64,
    pub(crate) origin: u64,
    pub(crate) graph: u64,
    /// It adds to a graph of the program.
    pub(crate) into: bool,
    /// Per stream that takes part: the nodes that its next node follows.
    pub(crate) frontiers: Map<Vec<u64>>,
    pub(crate) invalid: bool,
    /// Default edge data for as many edges as anybody was told of.
    pub(crate) edge_data: Vec<u64>,
}

impl State {
    /// The capture that a stream takes part in.
    pub(crate) fn capture_of(&self, stream: u64) -> Option<u64> {
        self.streams.get(&stream).and_then(|stream| stream.capture)
    }

    fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    /// Adds a node for a stream that captures; false for one that does not.
    fn capture_node(&mut self, stream: u64, what: What) -> Cu<Option<u64>> {
        let Some(id) = self.capture_of(stream) else {
            return Ok(None);
        };
        let capture = self
            .captures
            .get(&id)
            .ok_or(Fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))?;
        ensure_or(!capture.invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)?;
        let (graph, after) = (
            capture.graph,
            capture.frontiers.get(&stream).cloned().unwrap_or_default(),
        );
        let node = self.add_node(graph, after, what)?;
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.frontiers.insert(stream, vec![node]);
        }
        Ok(Some(node))
    }

    /// Makes a node of work; false when the stream does not capture.
    pub(crate) fn capture_work(&mut self, stream: u64, work: &Work) -> Cu<bool> {
        if self.captures.is_empty() || self.capture_of(stream).is_none() {
            return Ok(false);
        }
        let what = match work {
            Work::Kernel(call) => What::Kernel(call.clone()),
            Work::Busy(duration) => What::Busy(*duration),
            Work::Copy(shape) => What::Copy(shape.clone()),
            Work::Fill(fill) => What::Fill(*fill),
            Work::Host(call) => What::Host(*call),
            Work::Value(op) => What::Values(vec![*op]),
            Work::Free(address)
            | Work::GraphMemory {
                address,
                live: false,
            } => free_what(self, *address)?,
            Work::GraphMemory { .. } => What::Empty,
            Work::Record { event, .. } => What::Record(*event),
            Work::Await { event, .. } => What::Await(*event),
            Work::After(_) => return Ok(true),
        };
        Ok(self.capture_node(stream, what)?.is_some())
    }

    /// An allocation in stream order becomes a memory node; answers its address.
    pub(crate) fn capture_alloc(&mut self, stream: u64, size: u64) -> Cu<Option<u64>> {
        if self.captures.is_empty() || self.capture_of(stream).is_none() {
            return Ok(None);
        }
        let device = self.stream_device(stream);
        let what = alloc_what(self, size, device)?;
        let What::Alloc { address, .. } = what else {
            return Ok(None);
        };
        self.capture_node(stream, what)?;
        Ok(Some(address))
    }

    /// A record in a capturing stream: the event stands for what the stream has captured so far.
    pub(crate) fn capture_event(&mut self, stream: u64, event: u64, flags: c_uint) -> Cu<bool> {
        let Some(capture) = self.capture_of(stream) else {
            return Ok(false);
        };
        if flags & CU_EVENT_RECORD_EXTERNAL != 0 {
            return Ok(self.capture_node(stream, What::Record(event))?.is_some());
        }
        let known = self
            .captures
            .get(&capture)
            .filter(|capture| !capture.invalid);
        let known = known.ok_or(Fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))?;
        let frontier = known.frontiers.get(&stream).cloned().unwrap_or_default();
        self.event(handle(event))?.captured = Some((capture, frontier));
        Ok(true)
    }

    /// A wait for an event: joins the stream to the event's capture, or adds to what the stream follows.
    pub(crate) fn join_capture(&mut self, stream: u64, event: u64, flags: c_uint) -> Cu<bool> {
        let own = self.capture_of(stream);
        let Some((capture, nodes)) = self.event(handle(event))?.captured.clone() else {
            return self.wait_outside(stream, own, event, flags);
        };
        ensure_or(
            self.captures.contains_key(&capture),
            CUDA_ERROR_CAPTURED_EVENT,
        )?;
        if own.is_some_and(|own| own != capture) {
            self.invalidate(capture);
            own.into_iter().for_each(|own| self.invalidate(own));
            return fail(CUDA_ERROR_STREAM_CAPTURE_MERGE);
        }
        let legacy = self
            .streams
            .get(&stream)
            .is_some_and(|stream| stream.which == Which::Legacy);
        if legacy {
            self.invalidate(capture);
            return fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
        }
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(capture);
        }
        if let Some(known) = self.captures.get_mut(&capture) {
            ensure_or(!known.invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)?;
            let frontier = known.frontiers.entry(stream).or_default();
            let fresh: Vec<u64> = nodes
                .into_iter()
                .filter(|node| !frontier.contains(node))
                .collect();
            frontier.extend(fresh);
        }
        Ok(true)
    }

    /// A wait for an event that was recorded outside of any capture.
    fn wait_outside(
        &mut self,
        stream: u64,
        own: Option<u64>,
        event: u64,
        flags: c_uint,
    ) -> Cu<bool> {
        let Some(capture) = own else {
            return Ok(false);
        };
        if flags & CU_EVENT_WAIT_EXTERNAL != 0 {
            return Ok(self.capture_node(stream, What::Await(event))?.is_some());
        }
        if self.event(handle(event))?.records == 0 {
            return Ok(true);
        }
        self.invalidate(capture);
        fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
    }

    /// Refuses a call that would look at a stream which captures.
    pub(crate) fn forbid_while_capturing(&mut self, stream: u64) -> Cu {
        if self.captures.is_empty() {
            return Ok(());
        }
        if let Some(capture) = self.capture_of(stream) {
            self.invalidate(capture);
            return fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        forbid_implicit(self, stream)
    }

    /// A stream that takes part in a capture is destroyed.
    pub(crate) fn end_capture_with(&mut self, stream: u64) {
        if let Some(capture) = self.capture_of(stream) {
            self.invalidate(capture);
        }
    }

    fn begin(
        &mut self,
        stream: u64,
        mode: CUstreamCaptureMode,
        into: Option<(u64, Vec<u64>)>,
    ) -> Cu {
        ensure(mode <= CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let known = self
            .streams
            .get(&stream)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
        ensure_or(
            known.which != Which::Legacy,
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
        )?;
        ensure_or(known.capture.is_none(), CUDA_ERROR_ILLEGAL_STATE)?;
        let adds = into.is_some();
        let (graph, frontier) = into.unwrap_or_else(|| (self.new_graph(), Vec::new()));
        let capture = self.new_serial();
        let mut frontiers = Map::default();
        frontiers.insert(stream, frontier);
        self.captures.insert(
            capture,
            Capture {
                mode,
                thread: thread_number(),
                origin: stream,
                graph,
                into: adds,
                frontiers,
                invalid: false,
                edge_data: Vec::new(),
            },
        );
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(capture);
        }
        Ok(())
    }

    /// Whether all streams that joined have been waited for by the one that began.
    fn is_joined(&self, capture: &Capture) -> bool {
        let ends = capture
            .frontiers
            .get(&capture.origin)
            .cloned()
            .unwrap_or_default();
        let joined = |node: u64| ends.iter().any(|&end| self.leads_to(node, end));
        capture
            .frontiers
            .values()
            .flatten()
            .all(|&node| joined(node))
    }

    /// Takes a capture away from all of its streams.
    fn finish_capture(&mut self, id: u64) -> Option<Capture> {
        for stream in self.streams.values_mut() {
            if stream.capture == Some(id) {
                stream.capture = None;
            }
        }
        self.captures.remove(&id)
    }

    fn end(&mut self, stream: u64) -> Cu<u64> {
        let id = self
            .capture_of(stream)
            .ok_or(Fail(CUDA_ERROR_ILLEGAL_STATE))?;
        let capture = self
            .captures
            .get(&id)
            .ok_or(Fail(CUDA_ERROR_ILLEGAL_STATE))?;
        if capture.origin != stream {
            self.invalidate(id);
            return fail(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        let own =
            capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED || capture.thread == thread_number();
        ensure_or(own, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)?;
        let verdict = match (capture.invalid, self.is_joined(capture)) {
            (true, _) => fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
            (false, false) => fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
            (false, true) => Ok(capture.graph),
        };
        let (graph, into) = (capture.graph, capture.into);
        self.finish_capture(id);
        if verdict.is_err() && !into {
            self.end_graph(graph);
        }
        verdict
    }
}

/// Refuses calls that are unsafe while somebody captures (allocations and the like), by the thread's mode.
pub(crate) fn forbid_unsafe() -> Cu {
    let mut state = lock();
    if state.captures.is_empty() {
        return Ok(());
    }
    let mode = thread(|thread| thread.capture_mode.get())?;
    let number = thread_number();
    let hit = state.captures.iter().find(|(_, capture)| {
        let local = capture.thread == number && capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED;
        let global = capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        match mode {
            CU_STREAM_CAPTURE_MODE_GLOBAL => local || global,
            CU_STREAM_CAPTURE_MODE_THREAD_LOCAL => local,
            _ => false,
        }
    });
    let Some((&capture, _)) = hit else {
        return Ok(());
    };
    state.invalidate(capture);
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
}

/// Refuses to wait for a context in which a stream captures.
pub(crate) fn forbid_sync(context: u64) -> Cu {
    let mut state = lock();
    if state.captures.is_empty() {
        return Ok(());
    }
    let mut streams = state
        .streams
        .values()
        .filter(|stream| stream.context == context);
    let Some(capture) = streams.find_map(|stream| stream.capture) else {
        return Ok(());
    };
    state.invalidate(capture);
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
}

/// Refuses the NULL stream while a stream that it runs in turn with captures.
pub(crate) fn forbid_implicit(state: &mut State, stream: u64) -> Cu {
    if state.captures.is_empty() {
        return Ok(());
    }
    let Some(this) = state
        .streams
        .get(&stream)
        .filter(|this| this.which == Which::Legacy)
    else {
        return Ok(());
    };
    let context = this.context;
    let others = state
        .streams
        .values()
        .filter(|other| other.context == context && other.is_blocking());
    let Some(capture) = others.filter_map(|other| other.capture).next() else {
        return Ok(());
    };
    state.invalidate(capture);
    fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
}

pub(crate) fn begin(stream: CUstream, mode: CUstreamCaptureMode) -> Cu {
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    state.begin(stream, mode, None)
}

/// `cuStreamBeginCapture` of old had no mode.
pub(crate) fn begin_v1(stream: CUstream) -> Cu {
    begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL)
}

pub(crate) fn begin_to_graph(
    stream: CUstream,
    graph: CUgraph,
    after: In<CUgraphNode>,
    _data: In<CUgraphEdgeData>,
    count: usize,
    mode: CUstreamCaptureMode,
) -> Cu {
    let after =
        raw::array::<u64>(raw::addr_in(after), count).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    state.graph(id(graph))?;
    for node in &after {
        ensure(state.node(*node)?.graph == id(graph))?;
    }
    state.begin(stream, mode, Some((id(graph), after)))
}

pub(crate) fn end(stream: CUstream, out: Out<CUgraph>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    match state.end(stream) {
        Ok(graph) => put(out, handle(graph)),
        Err(failure) => {
            out.write(core::ptr::null_mut());
            Err(failure)
        }
    }
}
