//! Streams, events and what waits for what; time on the GPU.

use core::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, bytes_in, good, null};

const MS: u64 = 1_000_000;

#[test]
fn kernels_take_their_time_and_events_measure_it() {
    let cuda = Cuda::ready();
    let (spin, stream) = (cuda.spin(), cuda.stream());
    let (start, end) = (cuda.event(), cuda.event());
    good(cuda.cuEventRecord(start, stream));
    good(cuda.launch(spin, stream, 20 * MS));
    good(cuda.launch(spin, stream, 10 * MS));
    good(cuda.cuEventRecord(end, stream));
    assert_eq!(cuda.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    assert_eq!(cuda.cuEventQuery(end), CUDA_ERROR_NOT_READY);
    let mut time = 0.0;
    assert_eq!(
        cuda.cuEventElapsedTime(Out::of(&mut time), start, end),
        CUDA_ERROR_NOT_READY
    );
    good(cuda.cuEventSynchronize(end));
    good(cuda.cuStreamQuery(stream));
    let measured = cuda.elapsed(start, end);
    assert!((30.0..130.0).contains(&measured), "{measured}");
}

#[test]
fn copies_cost_their_bytes() {
    let cuda = Cuda::ready();
    let (stream, pointer) = (cuda.stream(), cuda.alloc(16 << 20));
    let (start, end) = (cuda.event(), cuda.event());
    // Long enough that the call, which moves the bytes on this machine, returns before the kernel ends.
    good(cuda.launch(cuda.spin(), stream, 400 * MS));
    good(cuda.cuEventRecord(start, stream));
    good(cuda.cuMemcpyDtoDAsync_v2(pointer, pointer + (8 << 20), 8 << 20, stream));
    good(cuda.cuMemsetD8Async(pointer, 0, 0, stream));
    good(cuda.cuEventRecord(end, stream));
    good(cuda.cuStreamSynchronize(stream));
    // 8 MiB at 2400 bytes a nanosecond, and the setup, all of it behind the kernel.
    let measured = cuda.elapsed(start, end);
    assert!((0.004..0.006).contains(&measured), "{measured}");
}

#[test]
fn events_refuse_what_they_cannot_answer() {
    let cuda = Cuda::ready();
    let (never, mut silent, mut time) = (cuda.event(), null(), 0.0);
    good(cuda.cuEventCreate(Out::of(&mut silent), CU_EVENT_DISABLE_TIMING));
    good(cuda.cuEventRecord(silent, null()));
    let elapsed = |start, end, time: &mut f32| cuda.cuEventElapsedTime(Out::of(time), start, end);
    assert_eq!(elapsed(never, never, &mut time), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(
        elapsed(silent, silent, &mut time),
        CUDA_ERROR_INVALID_HANDLE
    );
    good(cuda.cuEventQuery(never));
    good(cuda.cuEventDestroy_v2(never));
    assert_eq!(cuda.cuEventDestroy_v2(never), CUDA_ERROR_INVALID_HANDLE);
    let wrong = cuda.cuEventCreate(Out::of(&mut silent), CU_EVENT_INTERPROCESS);
    assert_eq!(wrong, CUDA_ERROR_INVALID_VALUE);
}

static SEEN: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn slow_host_function(data: *mut c_void) {
    std::thread::sleep(Duration::from_millis(30));
    // SAFETY: the test passes a byte that outlives the stream's work.
    unsafe { data.cast::<u8>().write(9) };
    SEEN.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn host_functions_hold_up_what_follows() {
    let cuda = Cuda::ready();
    let (stream, pointer) = (cuda.stream(), cuda.alloc(1));
    let mut byte = [1_u8];
    good(cuda.launch(cuda.spin(), stream, 5 * MS));
    // SAFETY: the byte outlives the synchronisation below.
    let data = unsafe { Out::from_ptr((&raw mut byte).cast::<c_void>()) };
    good(cuda.cuLaunchHostFunc(stream, Some(slow_host_function), data));
    good(cuda.cuMemcpyHtoDAsync_v2(pointer, bytes_in(&byte), 1, stream));
    let event = cuda.event();
    good(cuda.cuEventRecord(event, stream));
    assert_eq!(cuda.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    assert_eq!(cuda.cuEventQuery(event), CUDA_ERROR_NOT_READY);
    // A stream that waits for the event waits for the function as well.
    let other = cuda.stream();
    good(cuda.cuStreamWaitEvent(other, event, 0));
    good(cuda.cuStreamSynchronize(other));
    assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    assert_eq!(cuda.get(pointer, 1), [9]);
}

#[test]
fn the_null_stream_waits_for_blocking_streams_only() {
    let cuda = Cuda::ready();
    let (mut blocking, free, mut word) = (null(), cuda.stream(), 0_u32);
    good(cuda.cuStreamCreate(Out::of(&mut blocking), CU_STREAM_DEFAULT));
    let mut host = null();
    good(cuda.cuMemHostAlloc(Out::of(&mut host), 4096, 0));
    let place = host as u64;
    good(cuda.cuStreamWaitValue32_v2(blocking, place, 1, CU_STREAM_WAIT_VALUE_EQ));
    let pointer = cuda.alloc(4);
    good(cuda.cuMemsetD8Async(pointer, 5, 4, null()));
    assert_eq!(cuda.cuStreamQuery(null()), CUDA_ERROR_NOT_READY);
    good(cuda.cuStreamSynchronize(free));
    good(cuda.cuStreamWriteValue32_v2(free, place, 1, 0));
    good(cuda.cuCtxSynchronize());
    // SAFETY: the word is this test's.
    let out = unsafe { Out::from_ptr((&raw mut word).cast::<c_void>()) };
    good(cuda.cuMemcpyDtoH_v2(out, pointer, 4));
    assert_eq!(word, 0x0505_0505);
}

#[test]
fn streams_have_priorities_flags_and_ids() {
    let cuda = Cuda::ready();
    let mut stream = null();
    good(cuda.cuStreamCreateWithPriority(Out::of(&mut stream), CU_STREAM_NON_BLOCKING, -99));
    let (mut priority, mut flags, mut id, mut null_id) = (0, 0, 0, 0);
    good(cuda.cuStreamGetPriority(stream, Out::of(&mut priority)));
    good(cuda.cuStreamGetFlags(stream, Out::of(&mut flags)));
    good(cuda.cuStreamGetId(stream, Out::of(&mut id)));
    good(cuda.cuStreamGetId(null(), Out::of(&mut null_id)));
    assert_eq!((priority, flags), (-5, CU_STREAM_NON_BLOCKING));
    assert_ne!(id, null_id);
    // In a `_ptsz` call stream 0 is the thread's own, in others the legacy one.
    let (mut own, mut explicit) = (0, 0);
    good(cuda.cuStreamGetId_ptsz(null(), Out::of(&mut own)));
    good(cuda.cuStreamGetId(2 as CUstream, Out::of(&mut explicit)));
    assert_eq!(own, explicit);
    assert_ne!(own, null_id);
    good(cuda.cuStreamDestroy_v2(stream));
    assert_eq!(cuda.cuStreamDestroy_v2(stream), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cuda.cuStreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn work_of_two_gpus_runs_side_by_side() {
    let cuda = Cuda::ready();
    let first = (cuda.spin(), cuda.stream());
    let mut context = null();
    good(cuda.cuDevicePrimaryCtxRetain(Out::of(&mut context), 1));
    good(cuda.cuCtxSetCurrent(context));
    let second = (cuda.spin(), cuda.stream());
    let start = Instant::now();
    good(cuda.launch(first.0, first.1, 300 * MS));
    good(cuda.launch(second.0, second.1, 300 * MS));
    good(cuda.cuStreamSynchronize(first.1));
    good(cuda.cuStreamSynchronize(second.1));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(299) && took < Duration::from_millis(580),
        "{took:?}"
    );
}

#[test]
fn peers_are_enabled_once() {
    let cuda = Cuda::ready();
    let (mut can, mut peer) = (0, null());
    good(cuda.cuDeviceCanAccessPeer(Out::of(&mut can), 0, 1));
    assert_eq!(can, 1);
    good(cuda.cuDevicePrimaryCtxRetain(Out::of(&mut peer), 1));
    assert_eq!(
        cuda.cuCtxDisablePeerAccess(peer),
        CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
    );
    good(cuda.cuCtxEnablePeerAccess(peer, 0));
    assert_eq!(
        cuda.cuCtxEnablePeerAccess(peer, 0),
        CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
    );
    let here = cuda.alloc(8);
    cuda.put(here, b"together");
    good(cuda.cuCtxPushCurrent_v2(peer));
    let there = cuda.alloc(8);
    good(cuda.cuMemcpyPeer(there, peer, here, null(), 8));
    assert_eq!(cuda.get(there, 8), b"together");
}

unsafe extern "C" fn calls_the_driver(data: *mut c_void) {
    // SAFETY: the test passes its library and a place for the answer, which outlive the stream's work.
    let (cuda, answer) = unsafe { &*data.cast::<(&Cuda, AtomicU32)>() };
    let mut count = 0;
    answer.store(cuda.cuDeviceGetCount(Out::of(&mut count)), Ordering::SeqCst);
}

#[test]
fn host_functions_may_not_call_the_driver() {
    let cuda = Cuda::ready();
    let stream = cuda.stream();
    let mut both = (&cuda, AtomicU32::new(CUDA_ERROR_UNKNOWN));
    // SAFETY: it outlives the synchronisation below.
    let data = unsafe { Out::from_ptr((&raw mut both).cast::<c_void>()) };
    good(cuda.cuLaunchHostFunc(stream, Some(calls_the_driver), data));
    good(cuda.cuStreamSynchronize(stream));
    assert_eq!(both.1.load(Ordering::SeqCst), CUDA_ERROR_NOT_PERMITTED);
}

#[test]
fn many_threads_at_once() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut context = null();
    good(cuda.cuCtxGetCurrent(Out::of(&mut context)));
    let (spin, shared, context) = (cuda.spin() as usize, &cuda, context as usize);
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            scope.spawn(move || {
                good(shared.cuCtxSetCurrent(context as CUcontext));
                let stream = shared.stream();
                for round in 0..50_usize {
                    let pointer = shared.alloc(1000 + round * 700);
                    good(shared.cuMemsetD8Async(pointer, number, 1000, stream));
                    good(shared.launch(spin as CUfunction, stream, 1000));
                    good(shared.cuStreamSynchronize(stream));
                    assert_eq!(shared.get(pointer, 1000), [number; 1000]);
                    good(shared.cuMemFree_v2(pointer));
                }
                good(shared.cuStreamDestroy_v2(stream));
            });
        }
    });
    assert_eq!(cuda.free(), before);
}
