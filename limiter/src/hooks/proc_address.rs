//! `cuGetProcAddress`, routed by pointer: the driver answers the caller's exact question, and where
//! its answer is a function that we stand in front of, the caller gets ours instead.
//!
//! So versions, per-thread forms and the symbol status stay the driver's, whatever they are.

use std::ffi::{c_char, c_int, c_void};

use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUdriverProcAddressQueryResult, CUresult, cuuint64_t};
use vgpu_cuda_sys::{CUDA_COUNT, In, Out};

use crate::driver::CUDA;
use crate::published::Published;
use crate::real::cuda as real;
use crate::table::Exports;

/// The hooked functions by the driver's address, sorted: (address, slot).
static ROUTES: Published<Vec<(usize, usize)>> = Published::empty();

/// `cuGetProcAddress`, the form of CUDA 11.
pub fn v1(
    exports: &'static Exports<CUDA_COUNT>,
    symbol: In<c_char>,
    pfn: Out<*mut c_void>,
    version: c_int,
    flags: cuuint64_t,
) -> CUresult {
    let answer = real::cuGetProcAddress(symbol, pfn, version, flags);
    route(exports, answer, pfn);
    answer
}

/// `cuGetProcAddress_v2`.
pub fn v2(
    exports: &'static Exports<CUDA_COUNT>,
    symbol: In<c_char>,
    pfn: Out<*mut c_void>,
    version: c_int,
    flags: cuuint64_t,
    symbol_status: Out<CUdriverProcAddressQueryResult>,
) -> CUresult {
    let answer = real::cuGetProcAddress_v2(symbol, pfn, version, flags, symbol_status);
    route(exports, answer, pfn);
    answer
}

fn route(exports: &'static Exports<CUDA_COUNT>, answer: CUresult, pfn: Out<*mut c_void>) {
    if answer != CUDA_SUCCESS {
        return;
    }
    let Some(found) = pfn.read().filter(|found| !found.is_null()) else {
        return;
    };
    let routes = ROUTES.get().unwrap_or_else(|| ROUTES.set(routes(exports)));
    let place = routes.binary_search_by_key(&found.addr(), |(address, _)| *address);
    let slot = place
        .ok()
        .and_then(|place| routes.get(place))
        .map(|(_, slot)| *slot);
    if let Some(ours) = slot.and_then(|slot| exports.0.get(slot)) {
        pfn.write(ours.cast_mut().cast());
    }
}

/// Two threads may make the same list at the same time; the later one stays.
fn routes(exports: &'static Exports<CUDA_COUNT>) -> Vec<(usize, usize)> {
    let mut routes: Vec<_> = (0..)
        .zip(&exports.0)
        .filter(|(_, export)| !export.is_null())
        .filter_map(|(slot, _)| CUDA.function(slot).map(|address| (address, slot)))
        .collect();
    routes.sort_unstable();
    routes
}
