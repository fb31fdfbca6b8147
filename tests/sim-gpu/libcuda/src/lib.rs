//! The simulated driver's `libcuda.so.1`: the documented CUDA driver API over a simulated node.
//!
//! Every public function of `cuda.h` is exported, made from the same table as the limiter's (`exports`); the ones
//! listed in `entries` have a body in a chapter module, the others answer `CUDA_ERROR_NOT_SUPPORTED`. Bytes are
//! real: device memory is address space of the process, copies move it. Kernels are not executed; they occupy
//! their GPU for a time (`module` says how long). What processes share (memory in use, GPU time) lives in the
//! node page of `sim_gpu`.
//!
//! | chapter | modules |
//! |---|---|
//! | start, devices | `init`, `node`, `visible`, `device`, `attributes` |
//! | contexts, order of work | `context`, `primary`, `stream`, `queue`, `event`, `engine` |
//! | memory | `space`, `region`, `memory`, `host`, `pool`, `pool_settings`, `pool_share`, `vmm`, `array`, `pointer` |
//! | work | `copy`, `copy_shapes`, `memset`, `module`, `image`, `library`, `function`, `launch` |
//! | graphs | `graph`, `graph_nodes`, `graph_params`, `graph_edges`, `graph_objects`, `graph_exec`, `capture`, `capture_info` |
//! | rest | `ipc`, `proc_address`, `error`, `raw` |
//!
//! It must never offer what the headers do not document: there are no export tables.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_arguments,
    reason = "a test double with C signatures: a fault here fails a test, and every call is caught at the boundary"
)]

mod array;
mod attributes;
mod capture;
mod capture_info;
mod context;
mod copy;
mod copy_shapes;
mod device;
mod elf;
mod entries;
mod error;
mod event;
mod exports;
mod function;
mod graph;
mod graph_edges;
mod graph_exec;
mod graph_nodes;
mod graph_objects;
mod graph_params;
mod host;
mod image;
mod init;
mod ipc;
mod launch;
mod library;
mod memory;
mod memset;
mod module;
mod node;
mod pointer;
mod pool;
mod pool_settings;
mod pool_share;
mod primary;
mod proc_address;
mod ptx;
mod queue;
mod raw;
mod region;
mod space;
mod state;
mod stream;
mod value;
mod visible;
mod vmm;
