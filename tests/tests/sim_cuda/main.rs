//! The simulated `libcuda.so.1` through its exported functions, chapter by chapter, and through the official Python
//! client.
//!
//! Each test has a node of its own and a copy of the library of its own, so that state never travels between them.
#![allow(
    unsafe_code,
    non_snake_case,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::print_stderr,
    clippy::mem_forget,
    clippy::too_many_arguments,
    reason = "a test stops with the reason; C functions are called by their C names"
)]

#[cfg(test)]
mod code;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod exports;
#[cfg(test)]
mod graphs;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod order;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod world;
