//! Pure decisions of the limiter: what to show, what to charge, and, later, the compute bucket.
//!
//! No clock, no memory but its arguments, no dependency: everything here can be tested by value.

#![forbid(unsafe_code)]

pub mod decision;
pub mod memory;

pub use decision::{Bypass, Decision, Deny};
pub use memory::MemorySnapshot;
