//! Exports, stubs and callers, made from the rows of the table. Adding a hook changes nothing here.
//!
//! A row without a body becomes a stub of four instructions that jumps to the driver's function: no
//! argument is touched, so the stub serves every signature, and the caller's return address stays
//! on top of the stack, as functions that look at their caller need it. A row with a body becomes a
//! function that passes the boundary and calls the body.
//!
//! # Safety
//! The stubs keep every register that carries an argument (rdi rsi rdx rcx r8 r9, xmm0 to xmm7, and
//! al for variadic functions) and use r10 and r11 alone, which the x86-64 System V calling
//! convention leaves to trampolines. The stack is as it was at entry when they jump.
#![allow(unsafe_code, reason = "naked functions")]

use core::arch::naked_asm;

use crate::driver;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the pass-through stubs are written for x86-64 only");

macro_rules! names {
    ($( { $slot:literal $class:ident $name:ident $($rest:tt)* } )*) => {
        [$(concat!(stringify!($name), "\0")),*]
    };
}

/// Names of the CUDA functions, by slot, each with a final zero byte.
pub(crate) static CUDA_NAMES: [&str; vgpu_cuda_sys::CUDA_COUNT] = vgpu_cuda_sys::cuda_table!(names);
/// Names of the NVML functions, by slot, each with a final zero byte.
pub(crate) static NVML_NAMES: [&str; vgpu_cuda_sys::NVML_COUNT] = vgpu_cuda_sys::nvml_table!(names);

/// Makes a function of the same name that calls the driver's.
macro_rules! callers {
    ($( {
        $slot:literal $class:ident $name:ident [$($body:tt)*]
        ($($argument:ident : $type:ty),*) -> $result:ty
    } )*) => { $(
        #[allow(missing_docs, reason = "named and documented by the driver")]
        pub fn $name($($argument: $type),*) -> $result {
            let address = LIBRARY.target($slot);
            // SAFETY: the driver's function of this row, or an answerer that reads no argument.
            let function = unsafe {
                core::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $result>(address)
            };
            // SAFETY: the arguments are what the application, or the documentation, allows.
            unsafe { function($($argument),*) }
        }
    )* };
}
pub(crate) use callers;

/// Addresses of a library's exported hooks, by slot; null for rows that pass.
#[derive(Debug)]
pub struct Exports<const N: usize>(pub [*const (); N]);

// SAFETY: addresses of functions, never written.
unsafe impl<const N: usize> Sync for Exports<N> {}

/// Defines every export of `libcuda.so.1`: hand it to `cuda_table!`.
#[macro_export]
macro_rules! cuda_exports {
    ($( { $slot:literal $class:ident $name:ident [$($body:tt)*] $($signature:tt)* } )*) => {
        $( $crate::export!(cuda CUDA_SLOTS resolve_cuda, $slot $name [$($body)*] $($signature)*); )*

        static EXPORTS: $crate::table::Exports<{ vgpu_cuda_sys::CUDA_COUNT }> =
            $crate::table::Exports([$( $crate::export_address!($name [$($body)*]) ),*]);
    };
}

/// Defines every export of `libnvidia-ml.so.1`: hand it to `nvml_table!`.
#[macro_export]
macro_rules! nvml_exports {
    ($( { $slot:literal $class:ident $name:ident [$($body:tt)*] $($signature:tt)* } )*) => {
        $( $crate::export!(nvml NVML_SLOTS resolve_nvml, $slot $name [$($body)*] $($signature)*); )*
    };
}

/// One export.
#[doc(hidden)]
#[macro_export]
macro_rules! export {
    ($api:ident $slots:ident $resolve:ident, $slot:literal $name:ident [] $($signature:tt)*) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {
            core::arch::naked_asm!(
                "mov r11, qword ptr [rip + {slots} + {offset}]",
                "test r11, r11",
                "je 2f",
                "jmp r11",
                "2: mov r10d, {slot}",
                "jmp {resolve}",
                slots = sym $crate::driver::$slots,
                offset = const $slot * 8,
                slot = const $slot,
                resolve = sym $crate::table::$resolve,
            )
        }
    };
    // The one hook that needs to know where our exports are.
    ($api:ident $slots:ident $resolve:ident, $slot:literal $name:ident [proc_address::$body:ident]
        ($($argument:ident : $type:ty),*) -> $result:ty) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> $result {
            $crate::boundary::$api(
                || $crate::hooks::proc_address::$body(&EXPORTS, $($argument),*),
                || $crate::real::$api::$name($($argument),*),
            )
        }
    };
    // One body for many signatures: it looks at no argument.
    ($api:ident $slots:ident $resolve:ident, $slot:literal $name:ident [nvml::refuse::$body:ident]
        ($($argument:ident : $type:ty),*) -> $result:ty) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> $result {
            $crate::boundary::$api(
                $crate::hooks::nvml::refuse::$body,
                || $crate::real::$api::$name($($argument),*),
            )
        }
    };
    ($api:ident $slots:ident $resolve:ident, $slot:literal $name:ident [$($body:tt)+]
        ($($argument:ident : $type:ty),*) -> $result:ty) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> $result {
            $crate::boundary::$api(
                || $crate::hooks::$($body)+($($argument),*),
                || $crate::real::$api::$name($($argument),*),
            )
        }
    };
}

/// The address of a hook's export; null for a row that passes.
#[doc(hidden)]
#[macro_export]
macro_rules! export_address {
    ($name:ident []) => {
        core::ptr::null()
    };
    ($name:ident [$($body:tt)+]) => {
        $name as *const ()
    };
}

/// Makes a naked function that finds the function of slot r10, keeping every argument, and jumps.
macro_rules! resolver {
    ($(#[$doc:meta])* $name:ident $library:ident $find:ident) => {
        extern "C" fn $find(slot: usize) -> usize {
            driver::$library.target(slot)
        }

        $(#[$doc])*
        #[doc(hidden)]
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "push rdi", "push rsi", "push rdx", "push rcx",
                "push r8", "push r9", "push rax", "push r10",
                "sub rsp, 128",
                "movups [rsp], xmm0", "movups [rsp + 16], xmm1",
                "movups [rsp + 32], xmm2", "movups [rsp + 48], xmm3",
                "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5",
                "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
                "mov edi, r10d",
                "call {find}",
                "mov r11, rax",
                "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]",
                "movups xmm2, [rsp + 32]", "movups xmm3, [rsp + 48]",
                "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]",
                "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
                "add rsp, 128",
                "pop r10", "pop rax", "pop r9", "pop r8",
                "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                "pop rbp",
                "jmp r11",
                find = sym $find,
            )
        }
    };
}

resolver! {
    /// First call of a CUDA stub.
    resolve_cuda CUDA find_cuda
}
resolver! {
    /// First call of an NVML stub.
    resolve_nvml NVML find_nvml
}
