//! The simulated driver's NVML library: `libnvidia-ml.so.1` over the node page.
//!
//! * [`api`]: every function of `nvml.h`, made from the table; what nobody overrides answers "not supported".
//! * [`overrides`]: the one list of functions that do something, each a line that names its body.
//! * The other modules hold the bodies, a chapter of the API each. They see no C: values in, values out.
//!
//! It implements the documented API only and must never know who asks: what a container sees is what its device
//! nodes let through. Process ids are those that the node's daemon sees, as a real driver's are the host's.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::too_many_arguments,
    clippy::doc_markdown,
    reason = "test support over C integers: an overflow here is a bug that should stop the test at once"
)]

mod answer;
mod api;
mod clock;
mod device;
mod event;
mod field;
mod handle;
mod memory;
mod overrides;
mod process;
mod system;
mod topology;
