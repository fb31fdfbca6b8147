//! Encoder and frame-capture sessions: those of this container's processes.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    nvmlDevice_t, nvmlEncoderSessionInfo_t, nvmlFBCSessionInfo_t, nvmlReturn_t,
};

use super::own::Own;
use super::{list, observed, status};
use crate::real::nvml as real;

/// A session of either kind, with the pid that the container knows.
trait Session: Copy {
    const BLANK: Self;
    fn of_own(self, own: &Own) -> Option<Self>;
}

macro_rules! session {
    ($type:ident { $($field:ident: $blank:expr),* }) => {
        impl Session for $type {
            const BLANK: Self = Self { $($field: $blank),* };
            fn of_own(self, own: &Own) -> Option<Self> {
                let pid = own.inside(self.pid)?;
                Some(Self { pid, ..self })
            }
        }
    };
}

session!(nvmlEncoderSessionInfo_t {
    sessionId: 0,
    pid: 0,
    vgpuInstance: 0,
    codecType: 0,
    hResolution: 0,
    vResolution: 0,
    averageFps: 0,
    averageLatency: 0
});
session!(nvmlFBCSessionInfo_t {
    sessionId: 0,
    pid: 0,
    vgpuInstance: 0,
    displayOrdinal: 0,
    sessionType: 0,
    sessionFlags: 0,
    hMaxResolution: 0,
    vMaxResolution: 0,
    hResolution: 0,
    vResolution: 0,
    averageFPS: 0,
    averageLatency: 0
});

fn own<T: Session>(
    device: nvmlDevice_t,
    call: impl Fn(Out<c_uint>, Out<T>) -> nvmlReturn_t,
) -> Result<Vec<T>, nvmlReturn_t> {
    let (observer, index) = observed(device)?;
    let all = list::fetch(T::BLANK, call)?;
    if all.is_empty() {
        // Nobody has any, whoever is who.
        return Ok(all);
    }
    let own = Own::of(device, observer, index)?;
    Ok(all.into_iter().filter_map(|one| one.of_own(&own)).collect())
}

/// `nvmlDeviceGetEncoderSessions`.
pub fn encoder(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlEncoderSessionInfo_t>,
) -> nvmlReturn_t {
    if count.is_null() {
        return real::nvmlDeviceGetEncoderSessions(device, count, infos);
    }
    let call = |count, infos| real::nvmlDeviceGetEncoderSessions(device, count, infos);
    status(own(device, call).and_then(|own| list::put(&own, count, infos)))
}

/// `nvmlDeviceGetFBCSessions`.
pub fn frame_capture(
    device: nvmlDevice_t,
    count: Out<c_uint>,
    infos: Out<nvmlFBCSessionInfo_t>,
) -> nvmlReturn_t {
    if count.is_null() {
        return real::nvmlDeviceGetFBCSessions(device, count, infos);
    }
    let call = |count, infos| real::nvmlDeviceGetFBCSessions(device, count, infos);
    status(own(device, call).and_then(|own| list::put(&own, count, infos)))
}
