//! Accounting: the driver's figures, of this container's living processes only.
//!
//! A process that has ended is no longer the container's as far as the region knows, so its figures end with it.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_NOT_FOUND, nvmlAccountingStats_t, nvmlAccountingStats_v2_t, nvmlDevice_t,
    nvmlReturn_t,
};

use super::own::Own;
use super::{good, list, observed, status};
use crate::real::nvml as real;

/// `nvmlDeviceGetAccountingPids`.
pub fn pids(device: nvmlDevice_t, count: Out<c_uint>, pids: Out<c_uint>) -> nvmlReturn_t {
    if count.is_null() {
        return real::nvmlDeviceGetAccountingPids(device, count, pids);
    }
    status(own_pids(device).and_then(|own| list::put(&own, count, pids)))
}

fn own_pids(device: nvmlDevice_t) -> Result<Vec<c_uint>, nvmlReturn_t> {
    let all = list::fetch(0, |count, pids| {
        real::nvmlDeviceGetAccountingPids(device, count, pids)
    })?;
    let own = own(device)?;
    Ok(all.into_iter().filter_map(|pid| own.inside(pid)).collect())
}

fn own(device: nvmlDevice_t) -> Result<Own, nvmlReturn_t> {
    let (observer, index) = observed(device)?;
    Own::of(device, observer, index)
}

/// `nvmlDeviceGetAccountingStats`.
pub fn stats_v1(
    device: nvmlDevice_t,
    pid: c_uint,
    stats: Out<nvmlAccountingStats_t>,
) -> nvmlReturn_t {
    let Some(mut bare) = stats.read() else {
        return real::nvmlDeviceGetAccountingStats(device, pid, stats);
    };
    let call = |pid| real::nvmlDeviceGetAccountingStats(device, pid, Out::of(&mut bare));
    status(own_stats(device, pid, call).map(|()| {
        stats.write(bare);
    }))
}

/// `nvmlDeviceGetAccountingStats_v2`.
pub fn stats_v2(device: nvmlDevice_t, stats: Out<nvmlAccountingStats_v2_t>) -> nvmlReturn_t {
    let Some(asked) = stats.read() else {
        return real::nvmlDeviceGetAccountingStats_v2(device, stats);
    };
    let mut bare = asked;
    let call = |pid| {
        bare = nvmlAccountingStats_v2_t { pid, ..asked };
        real::nvmlDeviceGetAccountingStats_v2(device, Out::of(&mut bare))
    };
    status(own_stats(device, asked.pid, call).map(|()| {
        stats.write(nvmlAccountingStats_v2_t {
            pid: asked.pid,
            ..bare
        });
    }))
}

/// Asks for one of the container's processes by the driver's pid for it.
fn own_stats(
    device: nvmlDevice_t,
    pid: c_uint,
    call: impl FnOnce(c_uint) -> nvmlReturn_t,
) -> Result<(), nvmlReturn_t> {
    // Whether figures are kept at all is the driver's to say, before whose they are.
    list::judged(|count, pids| real::nvmlDeviceGetAccountingPids(device, count, pids))?;
    let theirs = own(device)?.outside(pid).ok_or(NVML_ERROR_NOT_FOUND)?;
    good(call(theirs))
}
