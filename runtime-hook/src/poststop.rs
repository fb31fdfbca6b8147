//! Stage `poststop`: host namespaces, the container is gone.
//!
//! Releases whatever there is of the container, and is content when there is nothing: engines call it more than once,
//! and for containers that never started.

use std::path::Path;

use vgpu_core::hook_args::HookArgs;

use crate::error::HookError;
use crate::grant::key;
use crate::state::State;
use crate::store::Store;

/// Runs the stage.
///
/// # Errors
/// [`HookError`] when something could not be removed.
pub fn run(args: &HookArgs, state: &State) -> Result<(), HookError> {
    let store = Store::new(Path::new(&args.run_dir));
    let key = key(&state.id, &state.bundle);
    if !store.exists(&key) {
        return Ok(());
    }
    store.lock()?.release(&key)?;
    Ok(())
}
