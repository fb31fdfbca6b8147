//! Clocks, power, temperature: made up, but moving with the GPU's use in the direction that they should.

use std::ffi::{c_int, c_uint, c_ulonglong};

use sim_gpu::page;
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, Failure, INVALID, expect_version, put, put_list, version};
use crate::handle::{self, Gpu};
use crate::process::busy_percent;

/// SM clock of an idle H200.
const IDLE_MHZ: c_uint = 345;
/// Power of an idle H200 in milliwatts.
const IDLE_MW: c_uint = 76_000;
/// Temperature of an idle one, and how much hotter a busy one gets.
const IDLE_DEGREES: c_uint = 30;
const BUSY_DEGREES: c_uint = 35;

/// The highest clock of a kind.
fn highest(gpu: &Gpu, kind: nvmlClockType_t) -> Answer<c_uint> {
    match kind {
        NVML_CLOCK_GRAPHICS | NVML_CLOCK_SM => Ok(gpu.config.sm_clock_mhz),
        NVML_CLOCK_MEM => Ok(gpu.config.memory_clock_mhz),
        NVML_CLOCK_VIDEO => Ok(gpu.config.sm_clock_mhz * 9 / 10),
        _ => Err(INVALID),
    }
}

pub(crate) fn maximum(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) -> Answer {
    put(out, highest(&handle::gpu(device)?, kind)?)
}

pub(crate) fn current(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) -> Answer {
    let gpu = handle::gpu(device)?;
    let highest = highest(&gpu, kind)?;
    let idle = busy_percent(&gpu)? == 0 && kind != NVML_CLOCK_MEM;
    put(out, if idle { highest.min(IDLE_MHZ) } else { highest })
}

pub(crate) fn by_id(
    device: nvmlDevice_t,
    kind: nvmlClockType_t,
    id: nvmlClockId_t,
    out: Out<c_uint>,
) -> Answer {
    match id {
        NVML_CLOCK_ID_CURRENT => current(device, kind, out),
        NVML_CLOCK_ID_APP_CLOCK_TARGET
        | NVML_CLOCK_ID_APP_CLOCK_DEFAULT
        | NVML_CLOCK_ID_CUSTOMER_BOOST_MAX => maximum(device, kind, out),
        _ => Err(INVALID),
    }
}

pub(crate) fn supported_memory(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    out: Out<c_uint>,
) -> Answer {
    put_list(out, count, &[handle::gpu(device)?.config.memory_clock_mhz])
}

pub(crate) fn supported_graphics(
    device: nvmlDevice_t,
    memory_clock: c_uint,
    count: Out<c_uint>,
    out: Out<c_uint>,
) -> Answer {
    let config = handle::gpu(device)?.config;
    if memory_clock != config.memory_clock_mhz {
        return Err(Failure(NVML_ERROR_NOT_FOUND));
    }
    let steps = (IDLE_MHZ..=config.sm_clock_mhz.max(IDLE_MHZ))
        .rev()
        .step_by(15);
    put_list(out, count, &steps.collect::<Vec<_>>())
}

/// Why the clocks are not at their highest: idle, or no reason.
pub(crate) fn reasons(gpu: &Gpu) -> Answer<c_ulonglong> {
    let idle = busy_percent(gpu)? == 0;
    Ok(if idle {
        u64::from(nvmlClocksEventReasonGpuIdle)
    } else {
        0
    })
}

/// Milliwatts at this moment.
pub(crate) fn power(gpu: &Gpu) -> Answer<c_uint> {
    let limit = u64::from(gpu.config.power_limit_mw);
    let idle = u64::from(IDLE_MW).min(limit);
    Ok((idle + (limit - idle) * busy_percent(gpu)? / 100) as c_uint)
}

pub(crate) fn power_limit(gpu: &Gpu) -> Answer<c_uint> {
    Ok(gpu.config.power_limit_mw)
}

pub(crate) fn power_constraints(gpu: &Gpu) -> Answer<(c_uint, c_uint)> {
    Ok((gpu.config.power_limit_mw * 2 / 7, gpu.config.power_limit_mw))
}

/// Millijoules since the machine started, at idle power: only its growth means anything.
pub(crate) fn energy(_gpu: &Gpu) -> Answer<c_ulonglong> {
    Ok(page::now() / 1_000_000 * u64::from(IDLE_MW) / 1000)
}

/// Degrees Celsius.
pub(crate) fn degrees(gpu: &Gpu) -> Answer<c_uint> {
    Ok(IDLE_DEGREES + BUSY_DEGREES * busy_percent(gpu)? as c_uint / 100)
}

pub(crate) fn temperature(
    device: nvmlDevice_t,
    sensor: nvmlTemperatureSensors_t,
    out: Out<c_uint>,
) -> Answer {
    let gpu = handle::gpu(device)?;
    if sensor != NVML_TEMPERATURE_GPU {
        return Err(INVALID);
    }
    put(out, degrees(&gpu)?)
}

pub(crate) fn temperature_value(device: nvmlDevice_t, out: Out<nvmlTemperature_t>) -> Answer {
    let gpu = handle::gpu(device)?;
    expect_version(out, 1)?;
    let asked = out.read().ok_or(INVALID)?;
    if asked.sensorType != NVML_TEMPERATURE_GPU {
        return Err(INVALID);
    }
    let temperature = degrees(&gpu)? as c_int;
    let (version, sensor) = (version::<nvmlTemperature_t>(1), asked.sensorType);
    put(
        out,
        nvmlTemperature_t {
            version,
            sensorType: sensor,
            temperature,
        },
    )
}

pub(crate) fn threshold(
    device: nvmlDevice_t,
    kind: nvmlTemperatureThresholds_t,
    out: Out<c_uint>,
) -> Answer {
    handle::gpu(device)?;
    let degrees = match kind {
        NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => 92,
        NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => 89,
        NVML_TEMPERATURE_THRESHOLD_GPU_MAX => 85,
        NVML_TEMPERATURE_THRESHOLD_MEM_MAX => 95,
        _ => return Err(Failure(NVML_ERROR_NOT_SUPPORTED)),
    };
    put(out, degrees)
}
