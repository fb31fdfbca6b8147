//! Stage `create-runtime`: host namespaces, the container's process exists and waits.
//!
//! Takes the lock, drops what is gone, admits, makes the region, records the grant. On failure nothing of this
//! container stays: not even what its earlier devices were granted, because it is not going to start.
//!
//! For a container in a user namespace it does create-container's work too, from outside: that stage would run as the
//! container's root, which on many hosts cannot even reach the root file system (storage folders of mode 0700).

use std::path::Path;

use caps::{CapSet, Capability};
use vgpu_core::hook_args::HookArgs;

use crate::admission;
use crate::create_container;
use crate::error::{HookError, line};
use crate::grant::{DeviceKey, Grant, GrantedDevice, Here, VERSION, key};
use crate::namespace::{self, Owner};
use crate::process;
use crate::region;
use crate::state::{Container, State};
use crate::store::{Locked, Plan, Store, StoreError, Swept};

/// Runs the stage; the answer is warnings, each a line.
///
/// # Errors
/// [`HookError`] for the first thing that is not right.
pub fn run(args: &HookArgs, state: &State) -> Result<Vec<String>, HookError> {
    check_power()?;
    let container = state.container()?;
    let new = new_grant(state)?;
    let store = Store::new(Path::new(&args.run_dir));
    store.prepare()?;
    let lock = store.lock()?;
    let here = Here {
        boot_id: new.boot_id.clone(),
        pid_namespace: new.pid_namespace,
    };
    let Swept { held, warnings } = lock.sweep(&here)?;
    let mut grant = merge(new, &held)?;
    if grant.devices.is_empty() && store.knows_container(&grant.key) {
        // What the sweep could not remove is this container's own, of an earlier start: it must not be used again.
        lock.release(&grant.key)?;
    }
    let (plan, owner) = grant_device(args, &mut grant, &held, &container, &store, &lock)
        .map_err(|error| take_back(&lock, &grant.key, error))?;
    // What follows reads the image, and a tenant's image must not keep the others of the node waiting.
    drop(lock);
    let more = match owner {
        None => Vec::new(),
        Some(owner) => {
            let region = store.region(&grant.key);
            let work = || create_container::prepare(&plan, args, &region, Some(owner));
            let done = namespace::within(grant.pid, work).map_err(HookError::from);
            let done = done.and_then(|done| done);
            done.map_err(|error| match store.lock() {
                Ok(lock) => take_back(&lock, &grant.key, error),
                Err(busy) => leftover(error, &busy),
            })?
        }
    };
    Ok([warnings, more].concat())
}

/// What is done under the lock, all of it quick; the answer is the plan, and the owner for whom create-container's
/// work remains to be done.
fn grant_device(
    args: &HookArgs,
    grant: &mut Grant,
    held: &[Grant],
    container: &Container,
    store: &Store,
    lock: &Locked<'_>,
) -> Result<(Plan, Option<Owner>), HookError> {
    admission::admit(args, held, &grant.key)?;
    grant
        .devices
        .insert(DeviceKey::from(args), GrantedDevice::from(args));
    lock.make_container(&grant.key)?;
    let region = store.region(&grant.key);
    region::write(&region, grant)?;
    region::enter(&region, grant.pid)?;
    region::publish(&region);
    let owner = namespace::owner(grant.pid)?;
    let plan = Plan {
        container_id: grant.container_id.clone(),
        boot_id: grant.boot_id.clone(),
        rootfs: container.rootfs.clone(),
        library_path: container.library_path.clone(),
        libraries: container.libraries.clone(),
        devices: grant.devices.keys().cloned().collect(),
        prepared: owner.is_some(),
    };
    lock.save(grant, &plan)?;
    Ok((plan, owner))
}

/// Removes region and grant after `error`, and says so when that fails too.
fn take_back(lock: &Locked<'_>, key: &str, error: HookError) -> HookError {
    match lock.release(key) {
        Ok(()) => error,
        Err(why) => leftover(error, &why),
    }
}

fn leftover(error: HookError, why: &StoreError) -> HookError {
    HookError::Leftover {
        error: Box::new(error),
        leftover: line(why),
    }
}

/// The container's record without any device.
fn new_grant(state: &State) -> Result<Grant, HookError> {
    let here = Here::now()?;
    let no_process = || HookError::NoProcess {
        container_id: state.id.clone(),
        pid: state.pid,
    };
    if state.pid <= 0 {
        return Err(no_process());
    }
    let init = process::stat(state.pid)?
        .filter(|s| !s.ended)
        .ok_or_else(no_process)?;
    Ok(Grant {
        version: VERSION,
        hook_version: env!("CARGO_PKG_VERSION").to_owned(),
        key: key(&state.id, &state.bundle),
        container_id: state.id.clone(),
        bundle: state.bundle.clone(),
        boot_id: here.boot_id,
        pid: state.pid,
        start_time: init.start_time,
        pid_namespace: here.pid_namespace,
        labels: state.labels.clone(),
        devices: Default::default(),
    })
}

/// Adds what earlier calls for this very container were granted.
fn merge(new: Grant, held: &[Grant]) -> Result<Grant, HookError> {
    let Some(old) = held.iter().find(|g| g.key == new.key) else {
        return Ok(new);
    };
    if !old.is_of(&new.container_id, &new.bundle) {
        let other = old.container_id.clone();
        return Err(HookError::Collision {
            container_id: new.container_id,
            other,
        });
    }
    let same = old.pid == new.pid
        && old.start_time == new.start_time
        && old.pid_namespace == new.pid_namespace;
    if !same {
        return Err(HookError::Running {
            container_id: new.container_id,
            pid: old.pid,
        });
    }
    Ok(Grant {
        devices: old.devices.clone(),
        ..new
    })
}

/// A rootless engine's hooks run in a user namespace: what they record, nobody else could read or trust.
fn check_power() -> Result<(), HookError> {
    if !namespace::users_are_the_hosts() {
        return Err(HookError::Rootless {
            why: "a user namespace of its own",
        });
    }
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(HookError::Rootless {
            why: "no CAP_SYS_ADMIN",
        }),
    }
}
