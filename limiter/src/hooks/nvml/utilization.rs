//! Utilisation: what the container's own processes use of its share.
//!
//! The driver's per-process figures are percent of the whole GPU. Those of other containers are left out, and the
//! rest is shown relative to the compute limit: a container that may have a quarter and uses a quarter shows 100.
//! Where the driver's pids cannot be matched with the container's (see [`super::own`]), nothing is shown.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_INSUFFICIENT_SIZE, NVML_ERROR_NOT_FOUND, NVML_GPU_UTILIZATION_SAMPLES,
    NVML_MEMORY_UTILIZATION_SAMPLES, NVML_SUCCESS, NVML_VALUE_TYPE_UNSIGNED_INT, nvmlDevice_t,
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t,
    nvmlProcessesUtilizationInfo_t, nvmlReturn_t, nvmlSample_t, nvmlSamplingType_t,
    nvmlUtilization_t, nvmlValueType_t,
};

use super::own::Own;
use super::{good, known, list, observed, status};
use crate::real::nvml as real;

/// How far back the rates look where the driver's own figure is not the container's.
const WINDOW: Duration = Duration::from_secs(1);
/// More samples than any driver keeps.
const MOST_SAMPLES: c_uint = 1 << 16;

/// The container's processes on a GPU, and its share of the GPU's time.
struct Part {
    own: Own,
    share: u32,
}

impl Part {
    fn of(device: nvmlDevice_t) -> Result<Self, nvmlReturn_t> {
        let (observer, index) = observed(device)?;
        let gpu = known::gpus(observer).get(index);
        Ok(Self {
            own: Own::of(device, observer, index)?,
            share: gpu.map_or(0, |gpu| gpu.share.into()),
        })
    }

    /// Percent of the GPU as percent of the share. No share named is the whole GPU.
    fn shown(&self, percent: c_uint) -> c_uint {
        relative(percent, self.share)
    }

    /// The container's own samples, with its pids and relative to its share.
    fn select<T: Sample>(&self, all: &[T]) -> Vec<T> {
        let mine = |sample: &T| {
            let pid = self.own.inside(sample.pid())?;
            Some(sample.shown(pid, |percent| self.shown(percent)))
        };
        all.iter().filter_map(mine).collect()
    }
}

fn relative(percent: c_uint, share: u32) -> c_uint {
    if !(1..100).contains(&share) {
        return percent;
    }
    let scaled = percent.saturating_mul(100).saturating_add(share / 2);
    scaled.checked_div(share).unwrap_or(percent).min(100)
}

/// What one process used, in either of NVML's forms.
trait Sample: Copy {
    fn pid(&self) -> u32;
    /// With another pid, and the figures of the SMs and of memory put through `show`.
    fn shown(&self, pid: u32, show: impl Fn(c_uint) -> c_uint) -> Self;
}

macro_rules! sample {
    ($($type:ty),*) => { $(
        impl Sample for $type {
            fn pid(&self) -> u32 {
                self.pid
            }
            fn shown(&self, pid: u32, show: impl Fn(c_uint) -> c_uint) -> Self {
                Self {
                    pid,
                    smUtil: show(self.smUtil),
                    memUtil: show(self.memUtil),
                    ..*self
                }
            }
        }
    )* };
}
sample!(
    nvmlProcessUtilizationSample_t,
    nvmlProcessUtilizationInfo_v1_t
);

/// All of the driver's samples.
fn everybody(
    device: nvmlDevice_t,
    since: c_ulonglong,
) -> Result<Vec<nvmlProcessUtilizationSample_t>, nvmlReturn_t> {
    let blank = nvmlProcessUtilizationSample_t {
        pid: 0,
        timeStamp: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    };
    list::fetch(blank, |count, out| {
        real::nvmlDeviceGetProcessUtilization(device, out, count, since)
    })
}

/// As [`everybody`]; that nobody used the GPU is no error.
fn lately(device: nvmlDevice_t) -> Result<Vec<nvmlProcessUtilizationSample_t>, nvmlReturn_t> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = u64::try_from(now.saturating_sub(WINDOW).as_micros()).unwrap_or_default();
    match everybody(device, since) {
        Err(NVML_ERROR_NOT_FOUND) => Ok(Vec::new()),
        answer => answer,
    }
}

/// `nvmlDeviceGetUtilizationRates`.
pub fn rates(device: nvmlDevice_t, utilization: Out<nvmlUtilization_t>) -> nvmlReturn_t {
    if utilization.is_null() {
        return real::nvmlDeviceGetUtilizationRates(device, utilization);
    }
    status(own_rates(device).map(|own| {
        utilization.write(own);
    }))
}

fn own_rates(device: nvmlDevice_t) -> Result<nvmlUtilization_t, nvmlReturn_t> {
    let mut bare = nvmlUtilization_t { gpu: 0, memory: 0 };
    good(real::nvmlDeviceGetUtilizationRates(
        device,
        Out::of(&mut bare),
    ))?;
    let part = Part::of(device)?;
    let own = if part.own.alone {
        bare
    } else if part.own.is_empty() {
        nvmlUtilization_t { gpu: 0, memory: 0 }
    } else {
        sum(&part.own, &lately(device)?)
    };
    Ok(nvmlUtilization_t {
        gpu: part.shown(own.gpu),
        memory: part.shown(own.memory),
    })
}

/// What the container's processes used of the whole GPU.
fn sum(own: &Own, all: &[nvmlProcessUtilizationSample_t]) -> nvmlUtilization_t {
    let mine = all.iter().filter(|sample| own.inside(sample.pid).is_some());
    let (gpu, memory) = mine.fold((0, 0), |(gpu, memory): (u32, u32), sample| {
        (
            gpu.saturating_add(sample.smUtil).min(100),
            memory.saturating_add(sample.memUtil).min(100),
        )
    });
    nvmlUtilization_t { gpu, memory }
}

/// `nvmlDeviceGetProcessUtilization`.
pub fn processes(
    device: nvmlDevice_t,
    utilization: Out<nvmlProcessUtilizationSample_t>,
    count: Out<c_uint>,
    since: c_ulonglong,
) -> nvmlReturn_t {
    if count.is_null() {
        return real::nvmlDeviceGetProcessUtilization(device, utilization, count, since);
    }
    let own = everybody(device, since).and_then(|all| Ok(Part::of(device)?.select(&all)));
    status(own.and_then(|own| put(&own, count, utilization)))
}

/// No place for samples asks how many there are.
fn put<T: Copy>(own: &[T], count: Out<c_uint>, out: Out<T>) -> Result<(), nvmlReturn_t> {
    if own.is_empty() {
        return Err(NVML_ERROR_NOT_FOUND);
    }
    if out.is_null() {
        count.write(list::number(own));
        return Err(NVML_ERROR_INSUFFICIENT_SIZE);
    }
    list::put(own, count, out)
}

/// `nvmlDeviceGetProcessesUtilizationInfo`.
pub fn processes_info(
    device: nvmlDevice_t,
    info: Out<nvmlProcessesUtilizationInfo_t>,
) -> nvmlReturn_t {
    let Some(mut asked) = info.read() else {
        return real::nvmlDeviceGetProcessesUtilizationInfo(device, info);
    };
    let own = everybody_s_info(device, asked).and_then(|all| Ok(Part::of(device)?.select(&all)));
    status(own.and_then(|own| {
        let array = asked.samples();
        let listed = put(&own, Out::of(&mut asked.processSamplesCount), array);
        info.write(asked);
        listed
    }))
}

/// All of the driver's samples for this question.
fn everybody_s_info(
    device: nvmlDevice_t,
    asked: nvmlProcessesUtilizationInfo_t,
) -> Result<Vec<nvmlProcessUtilizationInfo_v1_t>, nvmlReturn_t> {
    let blank = nvmlProcessUtilizationInfo_v1_t {
        timeStamp: 0,
        pid: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    };
    list::fetch(blank, |count, out: Out<nvmlProcessUtilizationInfo_v1_t>| {
        let mut bare = nvmlProcessesUtilizationInfo_t {
            processSamplesCount: count.read().unwrap_or_default(),
            procUtilArray: out.as_ptr(),
            ..asked
        };
        let answer = real::nvmlDeviceGetProcessesUtilizationInfo(device, Out::of(&mut bare));
        count.write(bare.processSamplesCount);
        answer
    })
}

/// `nvmlDeviceGetSamples`: the GPU's own samples of use, of which the container gets the part that its processes
/// had of everybody's. Samples of other things are the driver's.
pub fn samples(
    device: nvmlDevice_t,
    kind: nvmlSamplingType_t,
    since: c_ulonglong,
    value_type: Out<nvmlValueType_t>,
    count: Out<c_uint>,
    out: Out<nvmlSample_t>,
) -> nvmlReturn_t {
    let use_of_gpu = matches!(
        kind,
        NVML_GPU_UTILIZATION_SAMPLES | NVML_MEMORY_UTILIZATION_SAMPLES
    );
    let Some(room) = count.read().filter(|_| use_of_gpu && !out.is_null()) else {
        return real::nvmlDeviceGetSamples(device, kind, since, value_type, count, out);
    };
    let blank = nvmlSample_t {
        timeStamp: 0,
        sampleValue: vgpu_cuda_sys::nvml::nvmlValue_t { ullVal: 0 },
    };
    let mut room = room.min(MOST_SAMPLES);
    let mut bare = vec![blank; usize::try_from(room).unwrap_or_default()];
    // With no room at all, too, the driver must see a place, as it does from the caller.
    let mut nothing = blank;
    let place = Out::of(bare.first_mut().unwrap_or(&mut nothing));
    let answer =
        real::nvmlDeviceGetSamples(device, kind, since, value_type, Out::of(&mut room), place);
    if answer != NVML_SUCCESS {
        count.write(room);
        return answer;
    }
    bare.truncate(usize::try_from(room).unwrap_or_default());
    let unsigned = value_type.read() == Some(NVML_VALUE_TYPE_UNSIGNED_INT);
    status(own_samples(device, unsigned, &bare).map(|own| {
        out.write_all(&own);
        count.write(list::number(&own));
    }))
}

fn own_samples(
    device: nvmlDevice_t,
    unsigned: bool,
    bare: &[nvmlSample_t],
) -> Result<Vec<nvmlSample_t>, nvmlReturn_t> {
    let part = Part::of(device)?;
    let (own, all) = if part.own.alone {
        (1, 1)
    } else if part.own.is_empty() || !unsigned {
        (0, 1)
    } else {
        let all = lately(device)?;
        let total = all.iter().map(|sample| u64::from(sample.smUtil)).sum();
        (u64::from(sum(&part.own, &all).gpu), total)
    };
    let show = |sample: &nvmlSample_t| {
        let mine = u64::from(sample.unsigned()).saturating_mul(own);
        let mine = mine.checked_div(all).unwrap_or_default();
        sample.with_unsigned(part.shown(c_uint::try_from(mine).unwrap_or(c_uint::MAX)))
    };
    Ok(bare.iter().map(show).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_used_up_shows_as_full() {
        assert_eq!(relative(25, 25), 100);
        assert_eq!(relative(13, 25), 52);
        assert_eq!(relative(30, 25), 100, "never more than all of it");
        assert_eq!(relative(1, 3), 33);
        assert_eq!((relative(40, 100), relative(40, 0)), (40, 40));
        assert_eq!(relative(u32::MAX, 100), u32::MAX, "as the driver says");
    }
}
