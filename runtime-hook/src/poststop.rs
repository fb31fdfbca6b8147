//! Stage `poststop`: host namespaces, the container is gone.
//!
//! Releases whatever there is of the container, and is content when there is nothing: engines call it more than once,
//! and for containers that never started. A call that comes so late that the container runs again must not touch what
//! the new one has: a grant whose process lives is left alone, and swept later should that ever be wrong.

use std::path::Path;

use vgpu_core::hook_args::HookArgs;

use crate::error::HookError;
use crate::grant::{Here, Liveness, key};
use crate::state::State;
use crate::store::Store;

/// Runs the stage.
///
/// # Errors
/// [`HookError`] when something could not be removed.
pub fn run(args: &HookArgs, state: &State) -> Result<(), HookError> {
    let store = Store::new(Path::new(&args.run_dir));
    let key = key(&state.id, &state.bundle);
    if !store.knows_container(&key) {
        return Ok(());
    }
    let lock = store.lock()?;
    // A record that cannot be read is removed like any other: this is the call that ends it.
    if let Ok(Some(grant)) = store.grant(&key)
        && grant.liveness(&Here::now()?) == Liveness::Alive
    {
        return Ok(());
    }
    Ok(lock.release(&key)?)
}
