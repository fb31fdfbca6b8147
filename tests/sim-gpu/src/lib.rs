//! A simulated NVIDIA node: what its two driver libraries, its daemon and its command line share.
//!
//! * [`config`]: what the node has, from a TOML file.
//! * [`page`]: the node page, memory shared by the daemon and every client: GPUs, memory, GPU time.
//! * [`wire`]: the messages on the daemon's socket.
//! * [`client`]: a process's connection to its node; what the simulated libraries build on.
//! * [`daemon`]: the node itself: gives out slots, keeps exported memory, frees what the dead held.
//! * [`root`]: the driver root on disk: libraries, device nodes, proc files.
//!
//! # For the authors of a simulated library
//! ```no_run
//! use sim_gpu::client::{Kind, Node};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::get(Kind::Cuda)?; // connects once; a forked child gets a connection of its own
//! for device in node.devices() { // only those whose /dev/nvidia<minor> opens here
//!     println!("{} {}", device.index, device.gpu.name);
//! }
//! let gpu = node.devices()[0].index; // the page's number of the GPU, for everything below
//! node.context_add(gpu)?; // takes the context footprint
//! node.alloc(gpu, 1 << 20)?; // PageError::OutOfMemory when the card is full
//! let done = node.submit(gpu, 1_000_000)?; // a kernel of 1 ms behind this process's earlier work
//! node.wait(gpu, done)?; // sleeps until it has run, other processes' slices included
//! let at = node.time_of(gpu, done)?; // when it ended, in nanoseconds of `page::now`
//! # Ok(())
//! # }
//! ```
//! An event is a target: `submitted` at record time for an event behind queued work. Its wall time is the later of
//! `time_of(target)` and the moment it was recorded, since on an idle GPU the target was reached long before.
//! IPC and VMM handles are memfds: [`client::Node::export`] gives a number which any process on the node can turn
//! into the same memfd with [`client::Node::import`] until the exporter ends.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::expect_used,
    reason = "test support: an overflow or a bad index here is a bug that should stop the test at once"
)]

pub mod client;
pub mod config;
pub mod daemon;
pub mod page;
pub mod root;
pub mod wire;
