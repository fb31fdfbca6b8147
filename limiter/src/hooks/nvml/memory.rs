//! Memory of a device: the quota, from the same snapshot as CUDA's answers.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlDeviceAttributes_t, nvmlMemory_t, nvmlMemory_v2_t,
    nvmlReturn_t,
};
use vgpu_policy::MemorySnapshot;

use super::{good, observed, status};
use crate::real::nvml as real;

fn snapshot(
    device: nvmlDevice_t,
    real_total: u64,
    real_free: u64,
) -> Result<MemorySnapshot, nvmlReturn_t> {
    let (observer, index) = observed(device)?;
    let granted = observer.limits().granted(index);
    Ok(MemorySnapshot {
        limit: granted.limit,
        charged: observer.used(index),
        untracked: granted.untracked,
        real_total,
        real_free,
    })
}

/// Asks the driver with a place of ours and shows what `show` makes of its answer. What is in the caller's place
/// comes along, since structures carry their version. A null place is for the driver to refuse.
fn shown<T: Copy>(
    out: Out<T>,
    call: impl FnOnce(Out<T>) -> nvmlReturn_t,
    show: impl FnOnce(T) -> Result<T, nvmlReturn_t>,
) -> nvmlReturn_t {
    let Some(mut bare) = out.read() else {
        return call(out);
    };
    status(good(call(Out::of(&mut bare))).and_then(|()| {
        out.write(show(bare)?);
        Ok(())
    }))
}

/// `nvmlDeviceGetMemoryInfo`.
pub fn v1(device: nvmlDevice_t, memory: Out<nvmlMemory_t>) -> nvmlReturn_t {
    let call = |place| real::nvmlDeviceGetMemoryInfo(device, place);
    shown(memory, call, |bare| {
        let shown = snapshot(device, bare.total, bare.free)?;
        Ok(nvmlMemory_t {
            total: shown.total(),
            free: shown.free(),
            used: shown.used_beside_free(),
        })
    })
}

/// `nvmlDeviceGetMemoryInfo_v2`.
pub fn v2(device: nvmlDevice_t, memory: Out<nvmlMemory_v2_t>) -> nvmlReturn_t {
    let call = |place| real::nvmlDeviceGetMemoryInfo_v2(device, place);
    shown(memory, call, |bare| {
        let shown = snapshot(device, bare.total, bare.free)?;
        Ok(second_form(bare, shown))
    })
}

/// What the driver reserves was taken off before quotas were made, so it shows in a quota that reaches into it
/// only: the whole of it where there is no limit.
fn second_form(bare: nvmlMemory_v2_t, shown: MemorySnapshot) -> nvmlMemory_v2_t {
    let usable = bare.total.saturating_sub(bare.reserved);
    let taken = shown.used_beside_free();
    let reserved = shown.total().saturating_sub(usable).min(taken);
    nvmlMemory_v2_t {
        total: shown.total(),
        reserved,
        free: shown.free(),
        used: taken.saturating_sub(reserved),
        ..bare
    }
}

/// `nvmlDeviceGetBAR1MemoryInfo`: the window is as large as a card of the quota's size would have it. Who uses it
/// is not known, so all of it is free up to what the card has free.
pub fn bar1(device: nvmlDevice_t, memory: Out<nvmlBAR1Memory_t>) -> nvmlReturn_t {
    let call = |place| real::nvmlDeviceGetBAR1MemoryInfo(device, place);
    shown(memory, call, |bare| {
        let quota = snapshot(device, bare.bar1Total, bare.bar1Free)?;
        Ok(window(quota))
    })
}

/// Windows are powers of two, so that they cover the memory.
fn window(quota: MemorySnapshot) -> nvmlBAR1Memory_t {
    let shown = MemorySnapshot {
        limit: match quota.limit {
            0 => 0,
            limit => limit.checked_next_power_of_two().unwrap_or(u64::MAX),
        },
        charged: 0,
        untracked: 0,
        ..quota
    };
    nvmlBAR1Memory_t {
        bar1Total: shown.total(),
        bar1Free: shown.free(),
        bar1Used: shown.used_beside_free(),
    }
}

/// The size of a MIG device is at most the quota's.
fn attributes(device: nvmlDevice_t, bare: nvmlDeviceAttributes_t) -> nvmlDeviceAttributes_t {
    let limit = snapshot(device, u64::MAX, 0).map_or(0, |quota| quota.limit >> 20);
    nvmlDeviceAttributes_t {
        memorySizeMB: bare.memorySizeMB.min(limit),
        ..bare
    }
}

/// `nvmlDeviceGetAttributes`.
pub fn attributes_v1(device: nvmlDevice_t, out: Out<nvmlDeviceAttributes_t>) -> nvmlReturn_t {
    let call = |place| real::nvmlDeviceGetAttributes(device, place);
    shown(out, call, |bare| Ok(attributes(device, bare)))
}

/// `nvmlDeviceGetAttributes_v2`.
pub fn attributes_v2(device: nvmlDevice_t, out: Out<nvmlDeviceAttributes_t>) -> nvmlReturn_t {
    let call = |place| real::nvmlDeviceGetAttributes_v2(device, place);
    shown(out, call, |bare| Ok(attributes(device, bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn card(limit: u64) -> (nvmlMemory_v2_t, MemorySnapshot) {
        let bare = nvmlMemory_v2_t {
            version: 7,
            total: 144 * GIB,
            reserved: GIB,
            free: 100 * GIB,
            used: 43 * GIB,
        };
        let shown = MemorySnapshot {
            limit,
            charged: 8 * GIB,
            untracked: 0,
            real_total: bare.total,
            real_free: bare.free,
        };
        (bare, shown)
    }

    #[test]
    fn what_the_driver_reserves_shows_where_the_quota_reaches_into_it() {
        let (bare, quarter) = card(36 * GIB);
        let memory = second_form(bare, quarter);
        assert_eq!((memory.version, memory.total), (7, 36 * GIB));
        assert_eq!(
            (memory.reserved, memory.used, memory.free),
            (0, 8 * GIB, 28 * GIB)
        );
        let (bare, whole) = card(143 * GIB);
        assert_eq!(second_form(bare, whole).reserved, 0);
        let (bare, unlimited) = card(u64::MAX);
        let memory = second_form(bare, unlimited);
        assert_eq!(
            (memory.total, memory.reserved, memory.free, memory.used),
            (bare.total, bare.reserved, bare.free, bare.used)
        );
    }

    #[test]
    fn the_window_is_that_of_a_small_card() {
        let (_, quarter) = card(36 * GIB);
        let quarter = MemorySnapshot {
            real_total: 256 * GIB,
            real_free: 255 * GIB,
            ..quarter
        };
        let shown = window(quarter);
        assert_eq!(
            (shown.bar1Total, shown.bar1Free, shown.bar1Used),
            (64 * GIB, 64 * GIB, 0)
        );
        let unlimited = MemorySnapshot {
            limit: u64::MAX,
            ..quarter
        };
        let shown = window(unlimited);
        assert_eq!(
            (shown.bar1Total, shown.bar1Free, shown.bar1Used),
            (256 * GIB, 255 * GIB, GIB)
        );
        let nothing = window(MemorySnapshot {
            limit: 0,
            ..quarter
        });
        assert_eq!((nothing.bar1Total, nothing.bar1Used), (0, 0));
    }
}
