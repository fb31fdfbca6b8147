//! Every public function of `nvml.h`: a trait with an answer for each, and the exports that call it.
//!
//! Both come from the rows of the table, so a function is exported exactly if the header has it. Nothing is
//! written here by hand for any one function.
//!
//! # Safety
//! The signatures are the header's, with `In` and `Out` in the place of pointers, which have their layout. The names
//! are NVML's alone, so no other library of the process is meant by them.

#![allow(
    unsafe_code,
    non_snake_case,
    unused_variables,
    reason = "exported C functions with the header's names"
)]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ulonglong};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use vgpu_cuda_sys::nvml::*;
use vgpu_cuda_sys::{In, Out};

use crate::answer::status;
use crate::handle;

/// What a function answers that has no body, and after a panic.
pub(crate) trait Fallback {
    /// The function exists and does nothing.
    fn unsupported() -> Self;
    /// The body broke.
    fn broken() -> Self;
}

impl Fallback for nvmlReturn_t {
    fn unsupported() -> Self {
        status(handle::node().and(Err(NVML_ERROR_NOT_SUPPORTED.into())))
    }
    fn broken() -> Self {
        NVML_ERROR_UNKNOWN
    }
}

impl Fallback for *const c_char {
    fn unsupported() -> Self {
        ptr::null()
    }
    fn broken() -> Self {
        ptr::null()
    }
}

/// The implementation behind the exports.
pub(crate) struct Simulation;

macro_rules! simulate {
    ($({ $slot:literal $class:ident $name:ident [$($body:tt)*] ($($argument:ident : $type:ty),*) -> $return:ty })*) => {
        /// One method a function of `nvml.h`.
        pub(crate) trait Api {
            $(fn $name($($argument: $type),*) -> $return {
                Fallback::unsupported()
            })*
        }

        $(
            #[doc = concat!("`", stringify!($name), "` of `nvml.h`.")]
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> $return {
                catch_unwind(AssertUnwindSafe(|| <Simulation as Api>::$name($($argument),*)))
                    .unwrap_or_else(|_| Fallback::broken())
            }
        )*
    };
}

vgpu_cuda_sys::nvml_table!(simulate);
