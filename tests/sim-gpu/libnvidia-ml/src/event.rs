//! Event sets: they can be made, filled and waited on; nothing ever happens on the simulated node yet.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, Failure, INVALID, put};
use crate::handle;

/// Handles of the sets that exist: numbers that point nowhere.
static SETS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
const FIRST_SET: usize = 0x5E70_0000;

/// Event types that a GPU can be watched for.
pub(crate) const SUPPORTED: c_ulonglong = (nvmlEventTypeSingleBitEccError
    | nvmlEventTypeDoubleBitEccError
    | nvmlEventTypePState
    | nvmlEventTypeXidCriticalError
    | nvmlEventTypeClock) as c_ulonglong;

fn sets() -> MutexGuard<'static, BTreeSet<usize>> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn known(set: nvmlEventSet_t) -> Answer {
    sets().contains(&set.addr()).then_some(()).ok_or(INVALID)
}

pub(crate) fn create(out: Out<nvmlEventSet_t>) -> Answer {
    handle::node()?;
    let mut sets = sets();
    let number = sets.last().map_or(FIRST_SET, |last| last + 16);
    put(out, ptr::without_provenance_mut(number))?;
    sets.insert(number);
    Ok(())
}

pub(crate) fn free(set: nvmlEventSet_t) -> Answer {
    handle::node()?;
    sets().remove(&set.addr()).then_some(()).ok_or(INVALID)
}

pub(crate) fn register(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) -> Answer {
    handle::gpu(device)?;
    known(set)?;
    let unknown = types & !SUPPORTED != 0;
    if unknown {
        Err(Failure(NVML_ERROR_NOT_SUPPORTED))
    } else {
        Ok(())
    }
}

/// Waits the whole time: no event comes.
pub(crate) fn wait(set: nvmlEventSet_t, milliseconds: c_uint) -> Answer {
    handle::node()?;
    known(set)?;
    thread::sleep(Duration::from_millis(milliseconds.into()));
    Err(Failure(NVML_ERROR_TIMEOUT))
}
