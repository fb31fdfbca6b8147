//! Stage `create-container`: the container's mount namespace, host paths still visible, nothing runs in it yet.
//!
//! Puts limiter and region in their places, covers every other copy of the driver's two libraries, and makes the
//! loader find ours. A quota that cannot be enforced stops the container; what is only convenience is a warning.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use vgpu_core::hook_args::HookArgs;
use vgpu_core::paths::{
    CONTAINER_DRIVER_DIR, CONTAINER_LIMITER_DIR, CONTAINER_REGION_DIR, LIBCUDA_DRIVER,
    LIBNVIDIA_ML_DRIVER, REGION_LIMITS, REGION_USAGE,
};

use crate::error::HookError;
use crate::grant::{DeviceKey, key};
use crate::library::{Folders, Library, LibraryError};
use crate::loader;
use crate::mounted;
use crate::mounts::{self, DATA, READ_ONLY};
use crate::namespace::{self, Owner};
use crate::process;
use crate::rootfs::{Node, Rootfs, create_file, failed};
use crate::state::State;
use crate::store::{Plan, Store};
use crate::undo::Undo;

/// The most copies of the driver's libraries that are covered.
const COVER_LIMIT: usize = 512;

/// Runs the stage; the answer is warnings, each a line.
///
/// # Errors
/// [`HookError`]; nothing that was made stays, and the grant is given back.
pub fn run(args: &HookArgs, state: &State) -> Result<Vec<String>, HookError> {
    if !namespace::users_are_the_hosts() {
        // create-runtime has done it, from outside, or has refused: then this container is not starting. Nothing of
        // the host's records can be read here.
        return Ok(Vec::new());
    }
    let store = Store::new(Path::new(&args.run_dir));
    let key = key(&state.id, &state.bundle);
    let plan = plan(&store, &key, args, state)?;
    if plan.prepared {
        return Ok(Vec::new());
    }
    let done = prepare(&plan, args, &store.region(&key), None);
    if done.is_err()
        && let Ok(lock) = store.lock()
    {
        lock.forget(&key);
    }
    done
}

/// Does the stage's work in the current mount namespace. With an owner, which is the root of a container in a user
/// namespace, everything is made as that owner; this thread must end then.
///
/// # Errors
/// [`HookError`]; nothing that was made stays.
pub fn prepare(
    plan: &Plan,
    args: &HookArgs,
    region: &Path,
    owner: Option<Owner>,
) -> Result<Vec<String>, HookError> {
    let rootfs = Rootfs::open(&plan.rootfs)?;
    let limiter = Limiter::find(Path::new(&args.limiter_dir))?;
    let writable = rootfs.writable()?;
    if let Some(owner) = owner {
        namespace::create_as(owner);
    }
    let mut undo = Undo::new();
    let warnings = set_up(&rootfs, plan, &limiter, region, &mut undo)?;
    writable.restore()?;
    undo.keep();
    Ok(warnings)
}

/// The plan that create-runtime left, if it is for this container, this boot and this device.
fn plan(store: &Store, key: &str, args: &HookArgs, state: &State) -> Result<Plan, HookError> {
    let boot_id = process::boot_id()?;
    let plan = store.plan(key)?.filter(|plan| {
        plan.container_id == state.id
            && plan.boot_id == boot_id
            && plan.devices.contains(&DeviceKey::from(args))
    });
    plan.ok_or_else(|| HookError::NoGrant {
        container_id: state.id.clone(),
        device: args.device.clone(),
    })
}

fn set_up(
    rootfs: &Rootfs,
    plan: &Plan,
    limiter: &Limiter,
    region: &Path,
    undo: &mut Undo,
) -> Result<Vec<String>, HookError> {
    let bytes = loader::read_cache(rootfs)?;
    let cache = loader::parse_cache(&bytes);
    let mounted = mounted::missing(rootfs, &cache, &plan.libraries)?;
    let more: Vec<PathBuf> = loader::folders_of(&mounted).map(PathBuf::from).collect();
    let searched = [plan.library_path.as_slice(), &more].concat();
    let folders = Folders::collect(rootfs, &cache, &searched)?;
    place_limiter(rootfs, limiter, undo)?;
    place_region(rootfs, region, undo)?;
    cover(rootfs, limiter, &folders, undo)?;
    let mut linked = loader::link(rootfs, &mounted, undo)?;
    loader::write_cache(rootfs, cache, &mounted, &mut linked, undo)?;
    Ok(linked.warnings)
}

/// The limiter's two files on the host.
#[derive(Debug)]
struct Limiter {
    files: Vec<(Library, PathBuf, (u64, u64))>,
}

impl Limiter {
    fn find(folder: &Path) -> Result<Self, HookError> {
        let mut files = Vec::new();
        for library in Library::ALL {
            let path = folder.join(library.file());
            let stat = rustix::fs::stat(&path).map_err(|source| mounts::MountError {
                action: "find the limiter",
                from: path.clone(),
                to: Path::new(CONTAINER_LIMITER_DIR).join(library.file()),
                source,
            })?;
            files.push((library, path, (stat.st_dev, stat.st_ino)));
        }
        Ok(Self { files })
    }

    fn owns(&self, identity: (u64, u64)) -> bool {
        self.files.iter().any(|(_, _, own)| *own == identity)
    }

    fn bind(
        &self,
        rootfs: &Rootfs,
        library: Library,
        node: &Node,
        to: &Path,
        undo: &mut Undo,
    ) -> Result<(), HookError> {
        rootfs.check_target(node.fd.as_fd(), to)?;
        for (_, path, _) in self.files.iter().filter(|(l, _, _)| *l == library) {
            mounts::bind(path, node.fd.as_fd(), to, READ_ONLY, undo)?;
        }
        Ok(())
    }
}

/// The engine has mounted the limiter already where the spec says so; where not, it is done here.
fn place_limiter(rootfs: &Rootfs, limiter: &Limiter, undo: &mut Undo) -> Result<(), HookError> {
    for library in Library::ALL {
        let path = Path::new(CONTAINER_LIMITER_DIR).join(library.file());
        let node = match rootfs.lookup(&path)? {
            Some(node) if limiter.owns(node.identity()) => continue,
            Some(node) => node,
            None => make_file(rootfs, &path, undo)?,
        };
        limiter.bind(rootfs, library, &node, &path, undo)?;
    }
    Ok(())
}

/// An empty file to mount on.
fn make_file(rootfs: &Rootfs, path: &Path, undo: &mut Undo) -> Result<Node, HookError> {
    let fail = |source| failed("create", path, source);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(fail(Errno::INVAL).into());
    };
    rootfs.make_folders(folder, undo)?;
    let own = rootfs
        .own_folder(folder)?
        .ok_or_else(|| fail(Errno::NOENT))?;
    drop(create_file(own.as_fd(), name).map_err(fail)?);
    undo.file(&own, name).map_err(fail)?;
    Ok(rootfs.lookup(path)?.ok_or_else(|| fail(Errno::NOENT))?)
}

/// The whole region read-only, the usage page alone writable on top: the tenant can neither change its limits nor
/// make, rename or remove anything in there.
fn place_region(rootfs: &Rootfs, region: &Path, undo: &mut Undo) -> Result<(), HookError> {
    let to = Path::new(CONTAINER_REGION_DIR);
    let missing = |source| mounts::MountError {
        action: "find the region",
        from: region.to_owned(),
        to: to.to_owned(),
        source,
    };
    let ours = rustix::fs::lstat(region.join(REGION_LIMITS)).map_err(missing)?;
    let limits = to.join(REGION_LIMITS);
    let same = |n: Node| n.identity() == (ours.st_dev, ours.st_ino);
    if rootfs.lookup(&limits)?.is_some_and(same) {
        return Ok(());
    }
    let target = rootfs.make_folders(to, undo)?;
    rootfs.check_target(target.as_fd(), to)?;
    let flags = DATA | READ_ONLY;
    mounts::bind(region, target.as_fd(), to, flags, undo)?;
    let usage = to.join(REGION_USAGE);
    let node = rootfs
        .lookup(&usage)?
        .ok_or_else(|| missing(Errno::NOENT))?;
    let from = region.join(REGION_USAGE);
    mounts::bind(&from, node.fd.as_fd(), &usage, DATA, undo)?;
    Ok(())
}

/// Binds the limiter over every copy of the driver's libraries that a program could get by name or by path.
fn cover(
    rootfs: &Rootfs,
    limiter: &Limiter,
    folders: &BTreeSet<PathBuf>,
    undo: &mut Undo,
) -> Result<(), HookError> {
    let driver = driver_files(rootfs)?;
    let mut seen = BTreeSet::new();
    let mut covered = 0_usize;
    for folder in folders {
        let Some(node) = rootfs.lookup(folder)? else {
            continue;
        };
        if !seen.insert(node.identity()) {
            continue;
        }
        for name in &node.list(folder, |name| Library::of(name).is_some())? {
            let Some(library) = Library::of(name) else {
                continue;
            };
            let path = folder.join(name);
            let Some(node) = rootfs.lookup(&path)? else {
                continue;
            };
            let done = limiter.owns(node.identity()) || driver.contains(&node.identity());
            if done || node.kind() != FileType::RegularFile {
                continue;
            }
            covered = covered.saturating_add(1);
            if covered > COVER_LIMIT {
                let limit = COVER_LIMIT;
                return Err(LibraryError::TooMany {
                    what: "driver libraries",
                    limit,
                }
                .into());
            }
            limiter.bind(rootfs, library, &node, &path, undo)?;
        }
    }
    Ok(())
}

/// The real driver libraries behind the limiter: covering those would leave it without a driver.
fn driver_files(rootfs: &Rootfs) -> Result<Vec<(u64, u64)>, HookError> {
    let mut out = Vec::new();
    for name in [LIBCUDA_DRIVER, LIBNVIDIA_ML_DRIVER] {
        let path = Path::new(CONTAINER_DRIVER_DIR).join(name);
        out.extend(rootfs.lookup(&path)?.map(|n| n.identity()));
    }
    Ok(out)
}
