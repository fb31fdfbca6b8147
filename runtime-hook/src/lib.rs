//! The OCI hook: admission, region, binds, loader, release.
//!
//! A container engine calls `vgpu-hook v1 <stage> --key=value..` three times in a container's life, once for each of
//! its vGPUs, with the container's state on standard input. The quota is on the command line, which the host wrote.
//!
//! | module | owns |
//! |---|---|
//! | [`create_runtime`], [`create_container`], [`poststop`] | the three stages |
//! | [`state`] | the OCI state and `config.json` |
//! | [`grant`], [`store`], [`admission`] | who has what, its files, and whether more fits |
//! | [`region`], [`namespace`], [`mounts`], [`undo`] | the container's tmpfs, its mount namespace, mounts by descriptor, taking back |
//! | [`rootfs`], [`library`], [`mounted`], [`loader`], [`cache`] | paths in the container, and what its loader finds |
//! | [`node`], [`set`] | the same records for `vgpu ps`, and their change by `vgpu set` |
//!
//! Nothing here runs a program, reads the environment, or uses a path of the container other than by descriptor.

pub mod admission;
pub mod cache;
pub mod create_container;
pub mod create_runtime;
pub mod error;
pub mod grant;
pub mod library;
pub mod loader;
pub mod mounted;
pub mod mounts;
pub mod namespace;
pub mod node;
pub mod poststop;
pub mod process;
pub mod region;
pub mod rootfs;
pub mod set;
pub mod state;
pub mod store;
pub mod undo;

use std::io::Read;

use vgpu_core::hook_args::{HookArgs, Stage};

pub use error::HookError;
use state::State;

/// Runs one hook call; the answer is warnings, each a line.
///
/// # Errors
/// [`HookError`]; the container must not start then.
pub fn run(args: &[String], input: impl Read) -> Result<Vec<String>, HookError> {
    let (stage, args) = HookArgs::parse(args)?;
    let state = State::read(input)?;
    match stage {
        Stage::CreateRuntime => create_runtime::run(&args, &state),
        Stage::CreateContainer => create_container::run(&args, &state),
        Stage::Poststop => poststop::run(&args, &state).map(|()| Vec::new()),
    }
}
