//! The order of work: what a stream does, when it may, and waiting for it.
//!
//! GPU work is done the moment it is submitted (its bytes move at once) and then takes its time on the device's
//! line in the node page; everything of this process on one GPU runs one after the other, so work of one GPU needs
//! no further ordering. What waits for something else (a host function, a value in memory, an event on another GPU)
//! is queued, with all that follows in its stream, and done by one thread of this library, started when it is first
//! needed.
//!
//! It must never hold the state's lock while it moves bytes, waits or calls the program.
#![allow(unsafe_code, reason = "host functions of the program are called here")]
//!
//! # Safety
//! A host function came with its argument from the C caller, who promised that both stay valid until it has run.

use core::ffi::c_void;
use std::collections::VecDeque;
use std::sync::{Condvar, Once, PoisonError};
use std::time::Duration;

use vgpu_cuda_sys::cuda::*;

use crate::copy::Shape;
use crate::error::{Cu, Fail};
use crate::launch::KernelCall;
use crate::memset::Fill;
use crate::node::{Moment, now};
use crate::state::{PROGRESS, State, handle, lock, node, thread};
use crate::stream::{Stream, Which};
use crate::value::ValueOp;

/// A function of the program, to be called in stream order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HostCall {
    /// `cuLaunchHostFunc`.
    Function {
        function: unsafe extern "C" fn(*mut c_void),
        data: u64,
    },
    /// `cuStreamAddCallback`.
    Callback {
        callback: unsafe extern "C" fn(CUstream, CUresult, *mut c_void),
        stream: u64,
        data: u64,
    },
}

/// One piece of work of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Occupies the GPU.
    Kernel(Box<KernelCall>),
    /// Occupies the GPU for so many nanoseconds: prefetches, graph bookkeeping.
    Busy(u64),
    /// Moves bytes.
    Copy(Box<Shape>),
    /// Writes a pattern.
    Fill(Fill),
    /// Calls the program.
    Host(HostCall),
    /// Records an event, for the `number`th time.
    Record { event: u64, number: u64 },
    /// Waits for the `number`th recording of an event.
    Await { event: u64, number: u64 },
    /// Waits until other streams have finished so many queued pieces.
    After(Vec<(u64, u64)>),
    /// Waits for or writes a value in memory.
    Value(ValueOp),
    /// Frees memory in stream order.
    Free(u64),
    /// A graph's memory comes to life, or goes.
    GraphMemory { address: u64, live: bool },
}

/// Queued work of one stream.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Work>,
    running: bool,
    issued: u64,
    finished: u64,
    /// Its stream was destroyed; it goes when it is empty.
    abandoned: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.running
    }
}

static WAKE: Condvar = Condvar::new();

/// Hands work to a stream, in order. Streams that capture must have been dealt with before.
pub(crate) fn submit(stream: u64, work: Work) -> Cu {
    let mut state = lock();
    if state.capture_work(stream, &work)? {
        return Ok(());
    }
    if state.must_queue(stream) || !state.is_ready(stream, &work)? {
        state.enqueue(stream, work)?;
        drop(state);
        wake();
        return Ok(());
    }
    drop(state);
    perform(stream, work)
}

/// A kernel's way past the queue: `describe` is asked only when the kernel cannot start at once.
pub(crate) fn submit_kernel(
    stream: CUstream,
    duration: u64,
    describe: impl FnOnce(&State) -> Work,
) -> Cu {
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    let plain = state
        .streams
        .get(&stream)
        .is_some_and(|stream| stream.capture.is_none());
    if plain && state.captures.is_empty() && !state.must_queue(stream) {
        return state.advance(stream, duration);
    }
    crate::capture::forbid_implicit(&mut state, stream)?;
    let work = describe(&state);
    drop(state);
    submit(stream, work)
}

impl State {
    /// Takes GPU time for a stream.
    pub(crate) fn advance(&mut self, stream: u64, duration: u64) -> Cu {
        let gpu = self.gpu(self.stream_device(stream));
        let target = node().submit(gpu, duration)?;
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.last = target;
        }
        Ok(())
    }

    /// Whether something queued must come before new work of this stream.
    fn must_queue(&self, stream: u64) -> bool {
        if self.queued.is_empty() {
            return false;
        }
        let Some(this) = self.streams.get(&stream) else {
            return false;
        };
        !this.queue.is_empty() || !self.ahead_of(this).is_empty()
    }

    /// Streams with queued work that the NULL stream's rules put before new work of `this`.
    fn ahead_of(&self, this: &Stream) -> Vec<(u64, u64)> {
        let before = |other: &Stream| {
            let pair = this.which == Which::Legacy || other.which == Which::Legacy;
            let blocking = this.is_blocking() && other.is_blocking();
            pair && blocking && other.context == this.context && !other.queue.is_empty()
        };
        let queued = self
            .queued
            .iter()
            .filter_map(|&id| Some((id, self.streams.get(&id)?)));
        queued
            .filter(|(_, other)| !core::ptr::eq(*other, this) && before(other))
            .map(|(id, other)| (id, other.queue.issued))
            .collect()
    }

    fn enqueue(&mut self, stream: u64, work: Work) -> Cu {
        let this = self
            .streams
            .get(&stream)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
        let ahead = self.ahead_of(this);
        if !self.queued.contains(&stream) {
            self.queued.push(stream);
        }
        let Some(this) = self.streams.get_mut(&stream) else {
            return Ok(());
        };
        if !ahead.is_empty() {
            this.queue.issued += 1;
            this.queue.waiting.push_back(Work::After(ahead));
        }
        this.queue.issued += 1;
        this.queue.waiting.push_back(work);
        Ok(())
    }

    /// Whether the first piece of a stream may be done now.
    fn is_ready(&mut self, stream: u64, work: &Work) -> Cu<bool> {
        Ok(match work {
            // Calls to the program always go through the queue, so that they run on our thread.
            Work::Host(_) => false,
            Work::Value(op) => op.is_ready(),
            Work::Await { event, number } => self.is_event_ahead(stream, *event, *number)?,
            Work::After(others) => others.iter().all(|(other, issued)| {
                self.streams
                    .get(other)
                    .is_none_or(|other| other.queue.finished >= *issued)
            }),
            _ => true,
        })
    }

    /// The next piece that the queue's thread can do.
    fn next_ready(&mut self) -> Cu<Option<(u64, Work)>> {
        for stream in self.queued.clone() {
            let Some(queue) = self.streams.get(&stream).map(|stream| &stream.queue) else {
                continue;
            };
            let Some(work) = queue.waiting.front().filter(|_| !queue.running).cloned() else {
                continue;
            };
            let ready = match work {
                Work::Host(_) => self.is_gpu_done(stream)?,
                _ => self.is_ready(stream, &work)?,
            };
            if ready && let Some(this) = self.streams.get_mut(&stream) {
                this.queue.waiting.pop_front();
                this.queue.running = true;
                return Ok(Some((stream, work)));
            }
        }
        Ok(None)
    }

    fn finish(&mut self, stream: u64) {
        let Some(this) = self.streams.get_mut(&stream) else {
            return;
        };
        this.queue.running = false;
        this.queue.finished += 1;
        if this.queue.waiting.is_empty() {
            self.queued.retain(|&queued| queued != stream);
            if self
                .streams
                .get(&stream)
                .is_some_and(|stream| stream.queue.abandoned)
            {
                self.streams.remove(&stream);
            }
        }
    }

    /// Keeps a destroyed stream's queue until it is empty, under another handle.
    pub(crate) fn keep_draining(&mut self, mut stream: Stream) {
        stream.queue.abandoned = true;
        if stream.queue.waiting.is_empty() {
            return;
        }
        let id = self.new_handle();
        self.queued.push(id);
        self.streams.insert(id, stream);
    }

    /// Whether the GPU has done all that a stream has given it.
    fn is_gpu_done(&mut self, stream: u64) -> Cu<bool> {
        let gpu = self.gpu(self.stream_device(stream));
        let last = self.streams.get(&stream).map_or(0, |stream| stream.last);
        Ok(matches!(node().moment(gpu, last)?, Moment::Past(_)))
    }

    /// Whether a stream has nothing left to do.
    pub(crate) fn is_stream_done(&mut self, stream: u64) -> Cu<bool> {
        Ok(self.rest_of(stream)?.is_none())
    }

    /// What a stream still waits for: a moment, or (0) progress of the queue.
    fn rest_of(&mut self, stream: u64) -> Cu<Option<u64>> {
        let Some(this) = self.streams.get(&stream) else {
            return Ok(None);
        };
        if !this.queue.is_empty() {
            return Ok(Some(0));
        }
        // The NULL stream is done when the streams that it runs in turn with are.
        if this.which == Which::Legacy && !self.ahead_of(this).is_empty() {
            return Ok(Some(0));
        }
        let last = this.last;
        match node().moment(self.gpu(self.stream_device(stream)), last)? {
            Moment::Past(_) => Ok(None),
            Moment::Ahead(at) => Ok(Some(at)),
        }
    }
}

/// Does one piece of work. The lock is not held.
fn perform(stream: u64, work: Work) -> Cu {
    match work {
        Work::Kernel(call) => lock().advance(stream, call.duration),
        Work::Busy(duration) => lock().advance(stream, duration),
        Work::Copy(shape) => {
            let duration = shape.run()?;
            lock().advance(stream, duration)
        }
        Work::Fill(fill) => {
            let duration = fill.run()?;
            lock().advance(stream, duration)
        }
        Work::Host(call) => {
            call_program(call);
            Ok(())
        }
        Work::Record { event, number } => lock().place_event(stream, event, number),
        Work::Value(op) => {
            op.run();
            Ok(())
        }
        Work::Free(address) => lock().free_async_now(address),
        Work::GraphMemory { address, live } => lock().graph_memory(address, live),
        Work::Await { .. } | Work::After(_) => Ok(()),
    }
}

/// Calls the program on this thread, marked as inside a host function.
pub(crate) fn call_program(call: HostCall) {
    let flag = |inside: bool| thread(|thread| thread.in_callback.set(inside));
    let _torn_down = flag(true);
    match call {
        // SAFETY: function and argument belong together, see the file's head.
        HostCall::Function { function, data } => unsafe { function(data as *mut c_void) },
        HostCall::Callback {
            callback,
            stream,
            data,
        } => {
            // SAFETY: function and argument belong together, see the file's head.
            unsafe { callback(handle(stream), CUDA_SUCCESS, data as *mut c_void) };
        }
    }
    let _torn_down = flag(false);
}

/// Starts the queue's thread, or tells it that there is work.
fn wake() {
    static START: Once = Once::new();
    START.call_once(|| {
        let thread = std::thread::Builder::new().name("cuda-queue".to_owned());
        let _no_thread = thread.spawn(work_through);
    });
    WAKE.notify_one();
}

fn work_through() {
    // How long to look away while what is queued waits for time to pass or memory to change.
    const NAP: Duration = Duration::from_micros(50);
    loop {
        let mut state = lock();
        match state.next_ready() {
            Ok(Some((stream, work))) => {
                drop(state);
                // A piece that fails has no caller left to tell; a driver would make the context's error sticky.
                let _failed = perform(stream, work);
                lock().finish(stream);
                PROGRESS.notify_all();
            }
            _ if state.queued.is_empty() => {
                let _guard = WAKE.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            _ => {
                let _guard = WAKE
                    .wait_timeout(state, NAP)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Waits while `rest` names a moment ahead, or 0 for progress of the queue.
pub(crate) fn wait_while(mut rest: impl FnMut(&mut State) -> Cu<Option<u64>>) -> Cu {
    loop {
        let mut state = lock();
        match rest(&mut state)? {
            None => {
                state.trim_pools();
                return Ok(());
            }
            Some(0) => {
                let pause = Duration::from_millis(1);
                let _guard = PROGRESS
                    .wait_timeout(state, pause)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            Some(at) => {
                drop(state);
                nap(at);
            }
        }
    }
}

/// Sleeps towards a moment. Others may come and go meanwhile, so a long sleep is broken up.
fn nap(at: u64) {
    const LONGEST: u64 = 5_000_000;
    const SHORTEST: u64 = 60_000;
    let ahead = at.saturating_sub(now());
    if ahead < SHORTEST {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_nanos((ahead - SHORTEST / 2).min(LONGEST)));
    }
}

/// Waits for all work of a stream.
pub(crate) fn wait_stream(stream: u64) -> Cu {
    wait_while(|state| state.rest_of(stream))
}

/// Waits for all work of a context.
pub(crate) fn wait_context(context: u64) -> Cu {
    wait_while(|state| {
        let streams = state
            .streams
            .iter()
            .filter(|(_, stream)| stream.context == context);
        let ids: Vec<u64> = streams.map(|(&id, _)| id).collect();
        let mut latest = None;
        for id in ids {
            latest = latest.max(state.rest_of(id)?);
        }
        Ok(latest)
    })
}

/// Waits for all work of a stream, unless it captures.
pub(crate) fn wait_after(stream: u64) -> Cu {
    let capturing = lock()
        .streams
        .get(&stream)
        .is_some_and(|stream| stream.capture.is_some());
    if capturing {
        Ok(())
    } else {
        wait_stream(stream)
    }
}
