//! `cuGetProcAddress`, routed by pointer: the driver answers the caller's exact question, and where
//! its answer is a function that we stand in front of, the caller gets ours instead.
//!
//! So versions, per-thread forms and the symbol status stay the driver's, whatever they are.

use std::ffi::{c_char, c_int, c_void};

use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUdriverProcAddressQueryResult, CUresult, cuuint64_t};
use vgpu_cuda_sys::versions::CUDA_VERSIONS;
use vgpu_cuda_sys::{CUDA_COUNT, In, Out};

use crate::driver::{self, CUDA};
use crate::published::Published;
use crate::real::cuda as real;
use crate::table::{CUDA_NAMES, Exports};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD_DEFAULT_STREAM: cuuint64_t = 2;

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
    route(exports, answer, (symbol, version, flags), pfn);
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
    route(exports, answer, (symbol, version, flags), pfn);
    answer
}

fn route(
    exports: &'static Exports<CUDA_COUNT>,
    answer: CUresult,
    question: (In<c_char>, c_int, cuuint64_t),
    pfn: Out<*mut c_void>,
) {
    if answer != CUDA_SUCCESS {
        return;
    }
    let Some(found) = pfn.read().filter(|found| !found.is_null()) else {
        return;
    };
    let routes = ROUTES.get().unwrap_or_else(|| ROUTES.set(routes(exports)));
    let start = routes.partition_point(|(address, _)| *address < found.addr());
    let here = routes
        .iter()
        .skip(start)
        .take_while(|(address, _)| *address == found.addr());
    let slots: Vec<usize> = here.map(|(_, slot)| *slot).collect();
    if slots.is_empty() {
        return;
    }
    if let Some(ours) = choose(&slots, question).and_then(|slot| exports.0.get(slot)) {
        pfn.write(ours.cast_mut().cast());
    }
}

/// Which of the hooked functions at one address was asked for. A driver whose linker has folded equal
/// functions has several names at an address, and some of them are none of ours.
fn choose(slots: &[usize], question: (In<c_char>, c_int, cuuint64_t)) -> Option<usize> {
    let (symbol, version, flags) = question;
    let symbol = driver::text(symbol)?;
    let symbol = symbol.to_bytes();
    let version = u32::try_from(version).unwrap_or(u32::MAX);
    let per_thread = flags & PER_THREAD_DEFAULT_STREAM != 0;
    let mut forms = CUDA_VERSIONS
        .iter()
        .filter(|form| form.base.as_bytes() == symbol)
        .peekable();
    if forms.peek().is_none() {
        // No name that the headers know, and yet the answer is a function that we stand in for.
        return slots.first().copied();
    }
    let slot_of = |export: &str| slots.iter().copied().find(|slot| is_named(*slot, export));
    forms
        .filter_map(|form| slot_of(form.export).map(|slot| (form, slot)))
        .max_by_key(|(form, _)| {
            (
                form.since <= version,
                form.per_thread == per_thread,
                form.since,
            )
        })
        .map(|(_, slot)| slot)
}

fn is_named(slot: usize, export: &str) -> bool {
    CUDA_NAMES
        .get(slot)
        .is_some_and(|name| name.strip_suffix('\0') == Some(export))
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
