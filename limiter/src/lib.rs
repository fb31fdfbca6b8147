//! What the in-container libraries do. `libcuda.so.1` and `libnvidia-ml.so.1` of the limiter are
//! two thin shared libraries over this crate; the table of entry points makes their exports.
//!
//! | module | owns |
//! |---|---|
//! | [`table`] | exports, tail-jump stubs and callers, made from the rows of the table |
//! | [`driver`] | the library behind ours: its functions, found by name, and our own place |
//! | [`boundary`] | what every hooked call passes: panics caught, re-entry sent straight on |
//! | [`session`] | attaching to the region at the first hooked call, and again after a fork |
//! | [`hooks`] | the bodies, one file for each chapter of the API, without any unsafe code |
//!
//! Must never: run anything at load time, print, install a signal handler, read the environment
//! before the first hooked call, or make a system call on a path that is neither first nor refused.

pub mod boundary;
pub mod driver;
pub mod hooks;
pub mod session;
pub mod table;

mod contexts;
mod device;
mod live;
mod log;
mod physical;
mod pools;
mod published;
#[doc(hidden)]
pub mod real;
