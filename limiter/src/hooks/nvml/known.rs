//! Which GPUs the limits page has, and the container's share of each: as last read, for the moments (or the rest of
//! this process's life, when a writer died) in which the page is unsettled.

use vgpu_region::Observer;

use crate::published::Published;

static LAST: Published<Vec<Gpu>> = Published::empty();

/// An entry of the limits page, without what changes while the container runs quietly: each change of these is
/// remembered for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gpu {
    pub(super) uuid: [u8; 16],
    /// Of the GPU's time. **Units:** percent; 0 where none is named.
    pub(super) share: u8,
}

/// The entries; the place of one is its index in the region.
pub(super) fn gpus(observer: &Observer) -> &'static [Gpu] {
    let now = observer.snapshot().map(|limits| {
        let gpus = limits.devices.iter().map(|device| Gpu {
            uuid: device.uuid,
            share: device.compute_limit,
        });
        gpus.collect::<Vec<_>>()
    });
    match (now, LAST.get()) {
        (Some(now), Some(last)) if *last == now => last,
        (Some(now), _) => LAST.set(now),
        (None, last) => last.map_or(&[], Vec::as_slice),
    }
}
