//! Streams: handles, priorities and flags, callbacks, queries and waiting.
//!
//! Owns [`Stream`] and what a stream handle means: 0 is the context's NULL stream (the thread's own in `_ptsz`
//! calls), 1 and 2 name the two explicitly. The order of work is [`queue`]'s business.

use core::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::collections::HashMap;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::context::PRIORITIES;
use crate::error::{Cu, Fail, ensure, ensure_or, fail, put, put_optional};
use crate::queue::{self, HostCall, Queue, Work};
use crate::state::{State, handle, id, lock, thread};
use crate::{capture, raw};

/// `CU_STREAM_LEGACY`.
const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: u64 = 2;

/// Which stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The context's NULL stream.
    Legacy,
    /// The own stream of a thread.
    PerThread,
    /// Made by the program.
    Made,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: u64,
    pub(crate) which: Which,
    pub(crate) flags: c_uint,
    priority: c_int,
    /// What `cuStreamGetId` answers.
    serial: u64,
    /// The end of its latest work on the device's line.
    pub(crate) last: u64,
    /// Work that waits for something else than the GPU.
    pub(crate) queue: Queue,
    /// The capture that it takes part in.
    pub(crate) capture: Option<u64>,
    attributes: HashMap<CUstreamAttrID, [u64; 8]>,
}

impl Stream {
    pub(crate) fn new(
        context: u64,
        which: Which,
        flags: c_uint,
        priority: c_int,
        serial: u64,
    ) -> Self {
        Self {
            context,
            which,
            flags,
            priority,
            serial,
            last: 0,
            queue: Queue::default(),
            capture: None,
            attributes: HashMap::new(),
        }
    }

    /// Whether it runs in turn with the NULL stream.
    pub(crate) fn is_blocking(&self) -> bool {
        self.flags & CU_STREAM_NON_BLOCKING == 0
    }
}

impl State {
    /// The stream that a handle names for this thread.
    pub(crate) fn stream_id(&mut self, stream: CUstream) -> Cu<u64> {
        let own = thread(|thread| thread.per_thread.get())?;
        match id(stream) {
            0 if own => self.own_stream(),
            0 | LEGACY => Ok(self.contexts[&self.current()?].legacy),
            PER_THREAD => self.own_stream(),
            made => {
                ensure_or(self.streams.contains_key(&made), CUDA_ERROR_INVALID_HANDLE)?;
                Ok(made)
            }
        }
    }

    fn own_stream(&mut self) -> Cu<u64> {
        let context = self.current()?;
        let known = thread(|thread| thread.own_streams.borrow().get(&context).copied())?;
        if let Some(stream) = known.filter(|stream| self.streams.contains_key(stream)) {
            return Ok(stream);
        }
        let stream = self.new_handle();
        let serial = self.new_serial();
        self.streams
            .insert(stream, Stream::new(context, Which::PerThread, 0, 0, serial));
        thread(|thread| thread.own_streams.borrow_mut().insert(context, stream))?;
        Ok(stream)
    }

    /// The stream that a handle names.
    pub(crate) fn stream(&mut self, stream: CUstream) -> Cu<&mut Stream> {
        let stream = self.stream_id(stream)?;
        self.streams
            .get_mut(&stream)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }

    /// The ordinal of a stream's device.
    pub(crate) fn stream_device(&self, stream: u64) -> usize {
        let context = self.streams.get(&stream).map_or(0, |stream| stream.context);
        self.contexts
            .get(&context)
            .map_or(0, |context| context.device)
    }
}

pub(crate) fn create(out: Out<CUstream>, flags: c_uint) -> Cu {
    create_with_priority(out, flags, 0)
}

pub(crate) fn create_with_priority(out: Out<CUstream>, flags: c_uint, priority: c_int) -> Cu {
    ensure(!out.is_null() && flags & !CU_STREAM_NON_BLOCKING == 0)?;
    let mut state = lock();
    let context = state.current()?;
    let stream = state.new_handle();
    let serial = state.new_serial();
    let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
    state.streams.insert(
        stream,
        Stream::new(context, Which::Made, flags, priority, serial),
    );
    put(out, handle(stream))
}

/// `cuStreamDestroy`: returns at once; work that is queued is done before the stream goes.
pub(crate) fn destroy(stream: CUstream) -> Cu {
    let mut state = lock();
    let made = state
        .streams
        .get(&id(stream))
        .is_some_and(|stream| stream.which == Which::Made);
    ensure_or(made, CUDA_ERROR_INVALID_HANDLE)?;
    state.end_capture_with(id(stream));
    let Some(ended) = state.streams.remove(&id(stream)) else {
        return Ok(());
    };
    state.keep_draining(ended);
    Ok(())
}

pub(crate) fn get_priority(stream: CUstream, out: Out<c_int>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().stream(stream)?.priority)
}

pub(crate) fn get_flags(stream: CUstream, out: Out<c_uint>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().stream(stream)?.flags)
}

pub(crate) fn get_id(stream: CUstream, out: Out<c_ulonglong>) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().stream(stream)?.serial)
}

pub(crate) fn get_context(stream: CUstream, out: Out<CUcontext>) -> Cu {
    ensure(!out.is_null())?;
    put(out, handle(lock().stream(stream)?.context))
}

/// `cuStreamGetCtx_v2`: there are no green contexts here.
pub(crate) fn get_context_v2(stream: CUstream, out: Out<CUcontext>, green: Out<CUgreenCtx>) -> Cu {
    ensure(!out.is_null())?;
    put(out, handle(lock().stream(stream)?.context))?;
    put_optional(green, core::ptr::null_mut())
}

pub(crate) fn get_device(stream: CUstream, out: Out<CUdevice>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    put(out, state.stream_device(stream) as CUdevice)
}

pub(crate) fn get_attribute(
    stream: CUstream,
    attribute: CUstreamAttrID,
    out: Out<CUstreamAttrValue>,
) -> Cu {
    ensure(!out.is_null() && is_stream_attribute(attribute))?;
    let mut state = lock();
    let stream = state.stream(stream)?;
    if attribute == CU_LAUNCH_ATTRIBUTE_PRIORITY {
        let mut value: CUstreamAttrValue = raw::zeroed();
        value.priority = stream.priority;
        return put(out, value);
    }
    let value = stream
        .attributes
        .get(&attribute)
        .copied()
        .unwrap_or_default();
    raw::write(raw::addr_out(out), value);
    Ok(())
}

pub(crate) fn set_attribute(
    stream: CUstream,
    attribute: CUstreamAttrID,
    value: In<CUstreamAttrValue>,
) -> Cu {
    ensure(!value.is_null() && is_stream_attribute(attribute))?;
    let words: [u64; 8] = raw::read(raw::addr_in(value));
    let mut state = lock();
    let stream = state.stream(stream)?;
    if attribute == CU_LAUNCH_ATTRIBUTE_PRIORITY {
        stream.priority = (words[0] as c_int).clamp(PRIORITIES.1, PRIORITIES.0);
    }
    stream.attributes.insert(attribute, words);
    Ok(())
}

fn is_stream_attribute(attribute: CUstreamAttrID) -> bool {
    matches!(
        attribute,
        CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW
            | CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY
            | CU_LAUNCH_ATTRIBUTE_PRIORITY
            | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP
            | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN
    )
}

pub(crate) fn copy_attributes(target: CUstream, source: CUstream) -> Cu {
    let mut state = lock();
    let (attributes, priority) = {
        let source = state.stream(source)?;
        (source.attributes.clone(), source.priority)
    };
    let target = state.stream(target)?;
    target.attributes = attributes;
    target.priority = priority;
    Ok(())
}

pub(crate) fn query(stream: CUstream) -> Cu {
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    state.forbid_while_capturing(stream)?;
    ensure_or(state.is_stream_done(stream)?, CUDA_ERROR_NOT_READY)
}

pub(crate) fn synchronize(stream: CUstream) -> Cu {
    let stream = {
        let mut state = lock();
        let stream = state.stream_id(stream)?;
        state.forbid_while_capturing(stream)?;
        stream
    };
    queue::wait_stream(stream)
}

pub(crate) fn wait_event(stream: CUstream, event: CUevent, flags: c_uint) -> Cu {
    ensure(flags & !CU_EVENT_WAIT_EXTERNAL == 0)?;
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    let number = state.event(event)?.records;
    if state.join_capture(stream, id(event), flags)? {
        return Ok(());
    }
    drop(state);
    queue::submit(
        stream,
        Work::Await {
            event: id(event),
            number,
        },
    )
}

pub(crate) fn add_callback(
    stream: CUstream,
    callback: CUstreamCallback,
    data: Out<c_void>,
    flags: c_uint,
) -> Cu {
    ensure(flags == 0)?;
    let callback = callback.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let id = lock().stream_id(stream)?;
    lock().forbid_while_capturing(id)?;
    let call = HostCall::Callback {
        callback,
        stream: stream as u64,
        data: raw::addr_out(data),
    };
    queue::submit(id, Work::Host(call))
}

pub(crate) fn launch_host(stream: CUstream, function: CUhostFn, data: Out<c_void>) -> Cu {
    launch_host_v2(stream, function, data, 0)
}

/// `cuLaunchHostFunc_v2`: how the GPU waits for the function makes no difference here.
pub(crate) fn launch_host_v2(
    stream: CUstream,
    function: CUhostFn,
    data: Out<c_void>,
    mode: c_uint,
) -> Cu {
    ensure(mode <= 1)?;
    let function = function.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let stream = lock().stream_id(stream)?;
    queue::submit(
        stream,
        Work::Host(HostCall::Function {
            function,
            data: raw::addr_out(data),
        }),
    )
}

/// `cuStreamAttachMemAsync`: managed memory is visible everywhere at all times.
pub(crate) fn attach_memory(
    stream: CUstream,
    pointer: CUdeviceptr,
    length: usize,
    flags: c_uint,
) -> Cu {
    ensure(matches!(
        flags,
        CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST | CU_MEM_ATTACH_SINGLE
    ))?;
    let mut state = lock();
    let which = state.stream(stream)?.which;
    ensure(flags != CU_MEM_ATTACH_SINGLE || which == Which::Made)?;
    let region = state
        .regions
        .at(pointer)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(length == 0 || pointer - region.base + length as u64 <= region.size)?;
    match region.kind {
        crate::region::Kind::Managed { .. } => Ok(()),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

/// Checks a stream argument and answers its id; used by chapters that submit work.
pub(crate) fn resolve(stream: CUstream) -> Cu<u64> {
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    capture::forbid_implicit(&mut state, stream)?;
    Ok(stream)
}
