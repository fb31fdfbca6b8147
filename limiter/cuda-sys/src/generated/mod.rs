//! What `make codegen` makes; only this file is written by hand.

#[rustfmt::skip]
mod cuda_table;
#[rustfmt::skip]
pub mod cuda_types;
#[rustfmt::skip]
mod nvml_table;
#[rustfmt::skip]
pub mod nvml_types;
#[rustfmt::skip]
pub mod versions;

pub use cuda_table::CUDA_COUNT;
pub use nvml_table::NVML_COUNT;
