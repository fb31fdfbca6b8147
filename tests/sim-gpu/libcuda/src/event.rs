//! Events: records, waiting, elapsed time.
//!
//! A record is a place on a device's line of work and the moment of the call; the event's time is the later of the
//! call and the moment at which the line came to that place, so it includes other processes' slices.

use core::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::ipc::SharedEvent;
use crate::node::{Moment, now};
use crate::queue::{self, Work};
use crate::state::{State, handle, id, lock, node};

/// One event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) context: u64,
    pub(crate) flags: c_uint,
    /// How often it was recorded, and the newest of these that is no longer queued.
    pub(crate) records: u64,
    placed: u64,
    /// Where that one lies.
    pub(crate) place: Option<Place>,
    /// It was last recorded in a stream that captures: the capture, and the nodes to wait for.
    pub(crate) captured: Option<(u64, Vec<u64>)>,
    /// It is shared with other processes.
    pub(crate) shared: Option<SharedEvent>,
}

/// A place on a line of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whose line: a slot of the node page.
    pub(crate) slot: u32,
    /// The GPU, by the node's number.
    pub(crate) gpu: usize,
    pub(crate) target: u64,
    /// When it was recorded.
    pub(crate) at: u64,
}

impl Place {
    /// When work came to this place.
    pub(crate) fn moment(self) -> Cu<Moment> {
        let moment = node().moment_of(self.slot, self.gpu, self.target)?;
        Ok(match moment {
            Moment::Past(at) => Moment::Past(at.max(self.at)),
            ahead @ Moment::Ahead(_) => ahead,
        })
    }
}

impl Event {
    /// The newest recording, wherever it was made.
    fn newest(&self) -> Option<Place> {
        self.shared.as_ref().map_or(self.place, SharedEvent::place)
    }

    /// What is left to wait for: a moment, or 0 while the record is queued.
    fn rest(&self) -> Cu<Option<u64>> {
        if self.placed < self.records {
            return Ok(Some(0));
        }
        let Some(place) = self.newest() else {
            return Ok(None);
        };
        match place.moment()? {
            Moment::Past(_) => Ok(None),
            Moment::Ahead(at) => Ok(Some(at)),
        }
    }

    fn time(&self) -> Cu<u64> {
        let place = self.newest().ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
        ensure_or(self.placed >= self.records, CUDA_ERROR_NOT_READY)?;
        match place.moment()? {
            Moment::Past(at) => Ok(at),
            Moment::Ahead(_) => fail(CUDA_ERROR_NOT_READY),
        }
    }
}

impl State {
    /// The event of a handle.
    pub(crate) fn event(&mut self, event: CUevent) -> Cu<&mut Event> {
        self.events
            .get_mut(&id(event))
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }

    /// An event record has come to its turn.
    pub(crate) fn place_event(&mut self, stream: u64, event: u64, number: u64) -> Cu {
        let gpu = self.gpu(self.stream_device(stream));
        let target = self.streams.get(&stream).map_or(0, |stream| stream.last);
        let Some(event) = self.events.get_mut(&event) else {
            return Ok(());
        };
        let place = Place {
            slot: node().slot(),
            gpu,
            target,
            at: now(),
        };
        if number >= event.placed {
            event.placed = number;
            event.place = Some(place);
            if let Some(shared) = &event.shared {
                shared.set(place);
            }
        }
        Ok(())
    }

    /// Whether work of `stream` may follow the `number`th record of an event now.
    pub(crate) fn is_event_ahead(&mut self, stream: u64, event: u64, number: u64) -> Cu<bool> {
        let gpu = self.gpu(self.stream_device(stream));
        let Some(event) = self.events.get(&event) else {
            return Ok(true);
        };
        if event.placed < number {
            return Ok(false);
        }
        let Some(place) = event.newest() else {
            return Ok(true);
        };
        // On one line the order of submission is the order of work.
        if place.gpu == gpu && place.slot == node().slot() {
            return Ok(true);
        }
        Ok(matches!(place.moment()?, Moment::Past(_)))
    }

    /// A new event in the current context.
    pub(crate) fn new_event(&mut self, flags: c_uint, shared: Option<SharedEvent>) -> Cu<u64> {
        let context = self.current()?;
        let event = self.new_handle();
        self.events.insert(
            event,
            Event {
                context,
                flags,
                records: 0,
                placed: 0,
                place: None,
                captured: None,
                shared,
            },
        );
        Ok(event)
    }
}

pub(crate) fn create(out: Out<CUevent>, flags: c_uint) -> Cu {
    let known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    ensure(!out.is_null() && flags & !known == 0)?;
    let interprocess = flags & CU_EVENT_INTERPROCESS != 0;
    ensure(!interprocess || flags & CU_EVENT_DISABLE_TIMING != 0)?;
    let shared = if interprocess {
        Some(SharedEvent::create()?)
    } else {
        None
    };
    let event = lock().new_event(flags, shared)?;
    put(out, handle(event))
}

pub(crate) fn destroy(event: CUevent) -> Cu {
    let mut state = lock();
    state.event(event)?;
    state.events.remove(&id(event));
    Ok(())
}

pub(crate) fn record(event: CUevent, stream: CUstream) -> Cu {
    record_with_flags(event, stream, 0)
}

pub(crate) fn record_with_flags(event: CUevent, stream: CUstream, flags: c_uint) -> Cu {
    ensure(flags & !CU_EVENT_RECORD_EXTERNAL == 0)?;
    let mut state = lock();
    let stream = state.stream_id(stream)?;
    let context = state.event(event)?.context;
    let same = state
        .streams
        .get(&stream)
        .is_some_and(|stream| stream.context == context);
    ensure_or(same, CUDA_ERROR_INVALID_HANDLE)?;
    crate::capture::forbid_implicit(&mut state, stream)?;
    if state.capture_event(stream, id(event), flags)? {
        return Ok(());
    }
    let event_state = state.event(event)?;
    event_state.captured = None;
    event_state.records += 1;
    let number = event_state.records;
    drop(state);
    queue::submit(
        stream,
        Work::Record {
            event: id(event),
            number,
        },
    )
}

pub(crate) fn query(event: CUevent) -> Cu {
    let mut state = lock();
    let event = state.event(event)?;
    ensure_or(event.captured.is_none(), CUDA_ERROR_CAPTURED_EVENT)?;
    ensure_or(event.rest()?.is_none(), CUDA_ERROR_NOT_READY)
}

pub(crate) fn synchronize(event: CUevent) -> Cu {
    ensure_or(
        lock().event(event)?.captured.is_none(),
        CUDA_ERROR_CAPTURED_EVENT,
    )?;
    queue::wait_while(|state| match state.events.get(&id(event)) {
        Some(event) => event.rest(),
        None => Ok(None),
    })
}

pub(crate) fn elapsed(out: Out<f32>, start: CUevent, end: CUevent) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let mut times = [0, 0];
    let mut contexts = [0, 0];
    for (index, event) in [start, end].into_iter().enumerate() {
        let event = state.event(event)?;
        ensure_or(event.captured.is_none(), CUDA_ERROR_CAPTURED_EVENT)?;
        ensure_or(
            event.flags & CU_EVENT_DISABLE_TIMING == 0,
            CUDA_ERROR_INVALID_HANDLE,
        )?;
        ensure_or(event.records > 0, CUDA_ERROR_INVALID_HANDLE)?;
        contexts[index] = event.context;
    }
    ensure_or(contexts[0] == contexts[1], CUDA_ERROR_INVALID_HANDLE)?;
    for (time, event) in times.iter_mut().zip([start, end]) {
        *time = state.event(event)?.time()?;
    }
    let nanoseconds = times[1] as f64 - times[0] as f64;
    put(out, (nanoseconds / 1e6) as f32)
}
