//! The exported functions: one for each row of the table, each through one boundary.
//!
//! Owns the C surface. A row's body is the function of its name in [`crate::entries`]; where that module names
//! none, the default made here from the same row answers. The boundary keeps panics out of C, refuses calls before
//! `cuInit`, after exit has begun and in forked children, and notes whether stream 0 means the thread's own.
#![allow(
    unsafe_code,
    non_snake_case,
    clippy::too_many_arguments,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "C names and C signatures; `no_mangle` is an unsafe attribute"
)]
//!
//! # Safety
//! `no_mangle` symbols could clash within one program only with those of another CUDA driver, which this library
//! replaces. Pointers arrive wrapped, with the promise that C callers make.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vgpu_cuda_sys::cuda::CUresult;
use vgpu_cuda_sys::cuda::{CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_UNKNOWN, CUDA_SUCCESS};

use crate::error::{Cu, ensure_or};
use crate::init;
use crate::state;

/// What the boundary must know about a row.
struct Row {
    /// The function may be called before `cuInit`.
    always: bool,
    /// Stream 0 means the thread's own stream.
    per_thread: bool,
}

impl Row {
    const fn of(name: &str) -> Self {
        let name = name.as_bytes();
        Self {
            always: starts_with(name, b"cuGetError")
                || starts_with(name, b"cuGetProcAddress")
                || starts_with(name, b"cuGetExportTable")
                || starts_with(name, b"cuDriverGetVersion")
                || starts_with(name, b"cuInit"),
            per_thread: ends_with(name, b"_ptsz") || ends_with(name, b"_ptds"),
        }
    }
}

const fn starts_with(name: &[u8], start: &[u8]) -> bool {
    name.len() >= start.len() && same(name.split_at(start.len()).0, start)
}

const fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.len() >= end.len() && same(name.split_at(name.len() - end.len()).1, end)
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < right.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    left.len() == right.len()
}

/// Runs a body on behalf of a C caller.
fn boundary(row: &Row, body: impl FnOnce() -> Cu) -> CUresult {
    let run = AssertUnwindSafe(|| {
        if !row.always {
            init::check()?;
        }
        let inside = state::thread(|thread| {
            thread.per_thread.set(row.per_thread);
            thread.in_callback.get()
        })?;
        // Host functions must not call the driver, which could wait for the very function.
        ensure_or(row.always || !inside, CUDA_ERROR_NOT_PERMITTED)?;
        body()
    });
    match catch_unwind(run) {
        Ok(Ok(())) => CUDA_SUCCESS,
        Ok(Err(failure)) => failure.0,
        Err(_panic) => CUDA_ERROR_UNKNOWN,
    }
}

macro_rules! exports {
    ($({ $slot:literal $class:ident $name:ident [$($body:tt)*] ($($arg:ident : $type:ty),*) -> CUresult })*) => {
        /// What a function without a body does.
        pub(crate) mod defaults {
            #![allow(unused_imports, dead_code, reason = "one default a row, most of them replaced")]
            use core::ffi::*;
            use vgpu_cuda_sys::{In, Out};
            use vgpu_cuda_sys::cuda::*;
            use crate::error::{Cu, fail};
            $( pub(crate) fn $name($(_: $type),*) -> Cu { fail(CUDA_ERROR_NOT_SUPPORTED) } )*
        }

        /// The C symbols.
        mod symbols {
            #![allow(unused_imports, unreachable_pub, reason = "made for every row")]
            use core::ffi::*;
            use vgpu_cuda_sys::{In, Out};
            use vgpu_cuda_sys::cuda::*;
            use super::{Row, boundary};
            use crate::entries;
            $(
                #[unsafe(no_mangle)]
                pub extern "C" fn $name($($arg: $type),*) -> CUresult {
                    const ROW: Row = Row::of(stringify!($name));
                    boundary(&ROW, || entries::$name($($arg),*))
                }
            )*
        }

        /// Every exported function by name, in the table's order, which is sorted.
        pub(crate) fn table() -> Vec<(&'static str, usize)> {
            vec![$( (stringify!($name), symbols::$name as *const () as usize) ),*]
        }
    };
}
vgpu_cuda_sys::cuda_table!(exports);
