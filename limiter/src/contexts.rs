//! What this process's contexts were charged. A context takes memory for itself; its footprint is
//! configured in the limits page and charged when the context is made.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_region::MAX_DEVICES;

/// The primary context of one device.
#[derive(Debug, Default)]
pub(crate) struct Primary {
    /// How many retains have not been released.
    pub(crate) retains: u64,
    /// What was charged for the first of them. **Units:** bytes.
    pub(crate) bytes: u64,
    /// Its handle, as a number.
    pub(crate) context: usize,
}

/// A context that the application created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Created {
    /// Index of the device in the region.
    pub(crate) device: usize,
    /// What was charged. **Units:** bytes.
    pub(crate) bytes: u64,
    /// 1, and one more for each `cuCtxAttach`.
    pub(crate) uses: u64,
}

/// All contexts of this process.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    primary: [Mutex<Primary>; MAX_DEVICES],
    created: Mutex<HashMap<usize, Created>>,
}

impl Contexts {
    /// The primary context of a device, until the guard is dropped.
    pub(crate) fn primary(&self, device: usize) -> Option<MutexGuard<'_, Primary>> {
        let primary = self.primary.get(device)?;
        Some(primary.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The contexts that the application created, until the guard is dropped.
    pub(crate) fn created(&self) -> MutexGuard<'_, HashMap<usize, Created>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
