//! What every hooked call passes on its way in.
//!
//! A panic ends at the boundary as an error code and prints nothing. A call that arrives while this
//! thread is inside a hook already (ours to the driver, or the driver's own) goes straight on.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vgpu_cuda_sys::cuda::{CUDA_ERROR_UNKNOWN, CUresult};
use vgpu_cuda_sys::nvml::{NVML_ERROR_UNKNOWN, nvmlReturn_t};

thread_local! {
    // Constant and without a destructor: usable from the first to the last instruction of a thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as inside a hook until it is dropped, also by a panic.
struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Runs the body of a CUDA hook, or `direct` from within one. A panic answers
/// `CUDA_ERROR_UNKNOWN`.
pub fn cuda(body: impl FnOnce() -> CUresult, direct: impl FnOnce() -> CUresult) -> CUresult {
    enter(CUDA_ERROR_UNKNOWN, body, direct)
}

/// Runs the body of an NVML hook, or `direct` from within one. A panic answers
/// `NVML_ERROR_UNKNOWN`.
pub fn nvml(
    body: impl FnOnce() -> nvmlReturn_t,
    direct: impl FnOnce() -> nvmlReturn_t,
) -> nvmlReturn_t {
    enter(NVML_ERROR_UNKNOWN, body, direct)
}

#[inline]
fn enter<R>(panicked: R, body: impl FnOnce() -> R, direct: impl FnOnce() -> R) -> R {
    if INSIDE.replace(true) {
        return direct();
    }
    let _inside = Inside;
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_from_within_goes_straight_on() {
        let status = cuda(|| cuda(|| 1, || 2), || 3);
        assert_eq!(status, 2);
        assert_eq!(cuda(|| 1, || 2), 1);
    }

    #[test]
    fn a_panic_is_a_status_and_leaves_the_boundary_open() {
        assert_eq!(cuda(|| panic!("planted"), || 0), CUDA_ERROR_UNKNOWN);
        assert_eq!(nvml(|| panic!("planted"), || 0), NVML_ERROR_UNKNOWN);
        assert_eq!(cuda(|| 1, || 2), 1);
    }
}
