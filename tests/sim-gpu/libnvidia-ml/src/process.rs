//! Processes on a GPU: who is there, how much memory each holds, how much time each gets.
//!
//! A process that has loaded several libraries has several slots on the page; here they are one process.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::time::{SystemTime, UNIX_EPOCH};

use sim_gpu::page::{self, layout};
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, Failure, INVALID, array, expect_version, put, put_list};
use crate::handle::{self, Gpu};

/// What NVML writes for "no such MIG instance".
const NO_INSTANCE: c_uint = c_uint::MAX;
/// Window of the utilisation figures where the caller names none. Real drivers average over 1/6 to 1 second.
pub(crate) const WINDOW_NS: u64 = 500_000_000;

/// The slots of one process on one GPU, added up.
#[derive(Debug, Default, Clone, Copy)]
struct Process {
    contexts: u64,
    bytes: u64,
    busy: u64,
}

/// Processes with a context on `gpu`, by process id, and their GPU time in `from..to`.
fn processes(gpu: &Gpu, from: u64, to: u64) -> Answer<Vec<(c_uint, Process)>> {
    let mut processes: BTreeMap<c_uint, Process> = BTreeMap::new();
    let guard = gpu.node.lock()?;
    guard.advance(gpu.page_index, to);
    for slot in gpu.node.page().live_slots() {
        let share = guard.process_share(slot, gpu.page_index);
        let process = processes.entry(share.pid).or_default();
        process.contexts += share.contexts;
        process.bytes += share.bytes;
        process.busy += guard.busy(slot, gpu.page_index, from, to);
    }
    Ok(processes
        .into_iter()
        .filter(|(_, process)| process.contexts > 0)
        .collect())
}

fn running(gpu: &Gpu) -> Answer<Vec<(c_uint, Process)>> {
    let now = page::now();
    processes(gpu, now, now)
}

/// Compute processes in the first form.
pub(crate) fn compute_v1(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    out: Out<nvmlProcessInfo_v1_t>,
) -> Answer {
    let running = running(&handle::gpu(device)?)?;
    let info = |(pid, process): (c_uint, Process)| nvmlProcessInfo_v1_t {
        pid,
        usedGpuMemory: process.bytes,
    };
    put_list(
        out,
        count,
        &running.into_iter().map(info).collect::<Vec<_>>(),
    )
}

/// Compute processes in the second and third form, which are alike.
pub(crate) fn compute(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    out: Out<nvmlProcessInfo_t>,
) -> Answer {
    let running = running(&handle::gpu(device)?)?;
    let info = |(pid, process): (c_uint, Process)| nvmlProcessInfo_t {
        pid,
        usedGpuMemory: process.bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    };
    put_list(
        out,
        count,
        &running.into_iter().map(info).collect::<Vec<_>>(),
    )
}

/// Graphics and MPS processes: the simulated node has none.
pub(crate) fn none<T: Copy>(device: nvmlDevice_t, count: Out<c_uint>, out: Out<T>) -> Answer {
    handle::gpu(device)?;
    put_list(out, count, &[])
}

/// The list that says which of the three kinds it wants.
pub(crate) fn details(device: nvmlDevice_t, list: Out<nvmlProcessDetailList_t>) -> Answer {
    /// Kinds: compute, graphics, MPS.
    const KINDS: c_uint = 3;
    let gpu = handle::gpu(device)?;
    expect_version(list, 1)?;
    let mut request = list.read().ok_or(INVALID)?;
    if request.mode >= KINDS {
        return Err(INVALID);
    }
    let running = if request.mode == 0 {
        running(&gpu)?
    } else {
        Vec::new()
    };
    let detail = |(pid, process): (c_uint, Process)| nvmlProcessDetail_v1_t {
        pid,
        usedGpuMemory: process.bytes,
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
        usedGpuCcProtectedMemory: 0,
    };
    let details: Vec<_> = running.into_iter().map(detail).collect();
    let entries = Out::of(&mut request.numProcArrayEntries);
    let listed = put_list(array(request.procArray), entries, &details);
    put(list, request)?;
    listed
}

/// Accounting, which is always on, of processes that run: what has ended is not kept.
pub(crate) fn accounting_pids(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    out: Out<c_uint>,
) -> Answer {
    let running = running(&handle::gpu(device)?)?;
    let pids: Vec<_> = running.into_iter().map(|(pid, _)| pid).collect();
    put_list(out, count, &pids)
}

/// Percent lately, and bytes, of one process.
fn account(gpu: &Gpu, pid: c_uint) -> Answer<(c_uint, u64)> {
    let now = page::now();
    let running = processes(gpu, now.saturating_sub(WINDOW_NS), now)?;
    let found = running.into_iter().find(|(other, _)| *other == pid);
    let (_, process) = found.ok_or(Failure(NVML_ERROR_NOT_FOUND))?;
    Ok((percent(process.busy, WINDOW_NS) as c_uint, process.bytes))
}

pub(crate) fn accounting(
    device: nvmlDevice_t,
    pid: c_uint,
    out: Out<nvmlAccountingStats_t>,
) -> Answer {
    let (busy, bytes) = account(&handle::gpu(device)?, pid)?;
    let stats = nvmlAccountingStats_t {
        gpuUtilization: busy,
        memoryUtilization: busy / 2,
        maxMemoryUsage: bytes,
        time: 0,
        startTime: wall_microseconds(),
        isRunning: 1,
        reserved: [0; 5],
    };
    put(out, stats)
}

pub(crate) fn accounting_v2(device: nvmlDevice_t, out: Out<nvmlAccountingStats_v2_t>) -> Answer {
    let gpu = handle::gpu(device)?;
    let pid = out.read().ok_or(INVALID)?.pid;
    let (busy, bytes) = account(&gpu, pid)?;
    let stats = nvmlAccountingStats_v2_t {
        pid,
        isRunning: 1,
        gpuUtilization: busy,
        memoryUtilization: busy / 2,
        maxMemoryUsage: bytes,
        sampleCount: 1,
        sumGpuUtil: busy.into(),
        sumFbUtil: (busy / 2).into(),
        time: 0,
        startTime: wall_microseconds(),
    };
    put(out, stats)
}

/// Percent of the GPU's time that was used lately.
pub(crate) fn busy_percent(gpu: &Gpu) -> Answer<u64> {
    let now = page::now();
    let guard = gpu.node.lock()?;
    guard.advance(gpu.page_index, now);
    Ok(percent(
        guard.device_busy(gpu.page_index, now.saturating_sub(WINDOW_NS), now),
        WINDOW_NS,
    ))
}

/// The GPU's utilisation. Memory activity is taken as half of the kernels' time, for want of a model.
pub(crate) fn rates(gpu: &Gpu) -> Answer<nvmlUtilization_t> {
    let busy = busy_percent(gpu)? as c_uint;
    Ok(nvmlUtilization_t {
        gpu: busy,
        memory: busy / 2,
    })
}

/// Utilisation of one process over a window.
struct Sample {
    pid: c_uint,
    microseconds: c_ulonglong,
    sm: c_uint,
}

/// A sample for each process, averaged since `last_seen`, a time stamp of an earlier sample.
fn samples(gpu: &Gpu, last_seen: c_ulonglong) -> Answer<Vec<Sample>> {
    let (wall, now) = (wall_microseconds(), page::now());
    let longest = layout::BUCKET_NS * (layout::BUCKETS as u64 - 1);
    let since = wall.saturating_sub(last_seen).saturating_mul(1000);
    let window = if last_seen == 0 {
        WINDOW_NS
    } else {
        since.clamp(1, longest)
    };
    let running = processes(gpu, now.saturating_sub(window), now)?;
    let sample = |(pid, process): (c_uint, Process)| Sample {
        pid,
        microseconds: wall,
        sm: percent(process.busy, window) as c_uint,
    };
    let samples: Vec<Sample> = running.into_iter().map(sample).collect();
    if samples.is_empty() || wall <= last_seen {
        return Err(Failure(NVML_ERROR_NOT_FOUND));
    }
    Ok(samples)
}

pub(crate) fn utilisation(
    device: nvmlDevice_t,
    out: Out<nvmlProcessUtilizationSample_t>,
    count: Out<c_uint>,
    last_seen: c_ulonglong,
) -> Answer {
    let samples = samples(&handle::gpu(device)?, last_seen)?;
    let sample = |sample: &Sample| nvmlProcessUtilizationSample_t {
        pid: sample.pid,
        timeStamp: sample.microseconds,
        smUtil: sample.sm,
        memUtil: sample.sm / 2,
        encUtil: 0,
        decUtil: 0,
    };
    put_list(out, count, &samples.iter().map(sample).collect::<Vec<_>>())
}

pub(crate) fn utilisation_info(
    device: nvmlDevice_t,
    info: Out<nvmlProcessesUtilizationInfo_t>,
) -> Answer {
    let gpu = handle::gpu(device)?;
    expect_version(info, 1)?;
    let mut request = info.read().ok_or(INVALID)?;
    let samples = samples(&gpu, request.lastSeenTimeStamp)?;
    let sample = |sample: &Sample| nvmlProcessUtilizationInfo_v1_t {
        timeStamp: sample.microseconds,
        pid: sample.pid,
        smUtil: sample.sm,
        memUtil: sample.sm / 2,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    };
    let values: Vec<_> = samples.iter().map(sample).collect();
    let count = Out::of(&mut request.processSamplesCount);
    let listed = put_list(array(request.procUtilArray), count, &values);
    put(info, request)?;
    listed
}

/// The last intervals of the GPU's use, each as a sample. Without room for samples: how much room to make.
pub(crate) fn gpu_samples(
    device: nvmlDevice_t,
    kind: nvmlSamplingType_t,
    last_seen: c_ulonglong,
    value_type: Out<nvmlValueType_t>,
    count: Out<c_uint>,
    out: Out<nvmlSample_t>,
) -> Answer {
    let gpu = handle::gpu(device)?;
    let halved = match kind {
        NVML_GPU_UTILIZATION_SAMPLES => 1,
        NVML_MEMORY_UTILIZATION_SAMPLES => 2,
        _ => return Err(Failure(NVML_ERROR_NOT_SUPPORTED)),
    };
    put(value_type, NVML_VALUE_TYPE_UNSIGNED_INT)?;
    if out.is_null() {
        return put(count, layout::BUCKETS as c_uint);
    }
    let (wall, now) = (wall_microseconds(), page::now());
    let guard = gpu.node.lock()?;
    guard.advance(gpu.page_index, now);
    let sample = |age: u64| {
        let end = now / layout::BUCKET_NS * layout::BUCKET_NS - age * layout::BUCKET_NS;
        let busy = guard.device_busy(gpu.page_index, end - layout::BUCKET_NS, end);
        let value = percent(busy, layout::BUCKET_NS) as c_uint / halved;
        let time = wall - (now - end) / 1000;
        nvmlSample_t {
            timeStamp: time,
            sampleValue: nvmlValue_t {
                ullVal: value.into(),
            },
        }
    };
    let oldest_first = (0..layout::BUCKETS as u64 - 1).rev().map(sample);
    let newer: Vec<_> = oldest_first
        .filter(|sample| sample.timeStamp > last_seen)
        .collect();
    let room = count.read().ok_or(INVALID)? as usize;
    if newer.is_empty() {
        return Err(Failure(NVML_ERROR_NOT_FOUND));
    }
    let fitting = &newer[newer.len().saturating_sub(room)..];
    put_list(out, count, fitting)
}

/// To the nearest whole percent.
fn percent(part: u64, whole: u64) -> u64 {
    let whole = whole.max(1);
    ((part * 100 + whole / 2) / whole).min(100)
}

/// NVML's time stamps are the wall clock's, in microseconds.
pub(crate) fn wall_microseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros() as u64
}
