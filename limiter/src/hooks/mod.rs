//! The bodies of hooked functions, one file for each chapter of the API. A body has the name that
//! the row gives it, sees no raw pointer, and calls the driver through `real::`.
//!
//! **To add a hook:** give the row a body in `limiter/cuda-sys/*.entries`, run `make codegen`, write
//! the body here, and its three tests: under quota it reaches the driver, over quota it does not,
//! and a driver that fails gets the charge refunded.

#![forbid(unsafe_code)]

pub mod array;
pub mod context;
pub mod info;
pub mod init;
pub mod memory;
pub mod nvml;
pub mod pool;
pub mod proc_address;
pub mod virtual_memory;

mod charge;
