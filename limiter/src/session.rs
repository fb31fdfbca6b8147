//! Attaching to the region: at the first hooked call, and again in a forked child.
//!
//! The region at the fixed path comes first; only if nothing is there, the one beside our own file
//! (`vgpu run`). What is there but cannot be used is an error and never a reason to look further.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use vgpu_core::paths::CONTAINER_REGION_DIR;
use vgpu_policy::Deny;
use vgpu_region::{Ledger, Observer, RegionError};

use crate::contexts::Contexts;
use crate::device::Ordinals;
use crate::live::Live;
use crate::physical::Physical;
use crate::pools::Pools;
use crate::published::Published;
use crate::{driver, log};

static SESSION: Published<Session> = Published::empty();
static OBSERVER: Published<Observer> = Published::empty();
/// The pid of the process that is attaching; 0: nobody.
static ATTACHING: AtomicU32 = AtomicU32::new(0);

/// What this process knows and holds, as the CUDA library needs it.
#[derive(Debug)]
pub struct Session {
    /// The account in the region.
    pub ledger: Ledger,
    /// Memory by address.
    pub(crate) live: Live,
    /// Arrays by handle.
    pub(crate) arrays: Live,
    pub(crate) physical: Physical,
    pub(crate) pools: Pools,
    pub(crate) contexts: Contexts,
    pub(crate) ordinals: Ordinals,
}

/// The session of this process; attaches if there is none yet.
///
/// # Errors
/// [`Deny::NoRegion`]: no limits page, or one that cannot be used.
#[inline]
pub fn current() -> Result<&'static Session, Deny> {
    match SESSION.get() {
        Some(session) if session.ledger.is_ours() => Ok(session),
        Some(_) | None => attach(),
    }
}

#[cold]
fn attach() -> Result<&'static Session, Deny> {
    let _turn = Turn::take();
    if let Some(session) = SESSION.get().filter(|session| session.ledger.is_ours()) {
        return Ok(session);
    }
    silence_panics();
    let ledger = opened(Ledger::attach)?;
    // What a forked child inherits belongs to its parent's driver and is left alone.
    Ok(SESSION.set(Session {
        ledger,
        live: Live::default(),
        arrays: Live::default(),
        physical: Physical::default(),
        pools: Pools::default(),
        contexts: Contexts::default(),
        ordinals: Ordinals::default(),
    }))
}

/// The region as the NVML library needs it: to look, not to charge.
///
/// # Errors
/// As [`current`].
pub fn observer() -> Result<&'static Observer, Deny> {
    if let Some(observer) = OBSERVER.get() {
        return Ok(observer);
    }
    let _turn = Turn::take();
    if let Some(observer) = OBSERVER.get() {
        return Ok(observer);
    }
    silence_panics();
    opened(Observer::open).map(|observer| OBSERVER.set(observer))
}

fn opened<T>(open: impl FnOnce(&Path) -> Result<T, RegionError>) -> Result<T, Deny> {
    let (dir, in_container) = region_directory();
    log::open(in_container);
    open(&dir).map_err(|error| {
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        log::line(format_args!(
            "{}: {error}: {source}",
            Deny::NoRegion.reason()
        ));
        Deny::NoRegion
    })
}

/// The region's directory, and whether it is the fixed one of a container.
fn region_directory() -> (PathBuf, bool) {
    let fixed = PathBuf::from(CONTAINER_REGION_DIR);
    let absent = matches!(
        std::fs::symlink_metadata(&fixed),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    );
    match driver::own_directory() {
        Some(own) if absent => (own.join("region"), false),
        Some(_) | None => (fixed, true),
    }
}

/// The standard library that is linked into ours is ours alone, so this silences no one else.
fn silence_panics() {
    if !cfg!(test) {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// One thread attaches at a time. Not a mutex: a child may be forked while a thread holds the turn,
/// and takes it over because the holder's pid is not its own.
struct Turn;

impl Turn {
    fn take() -> Self {
        let own = std::process::id();
        loop {
            let holder = ATTACHING.load(Acquire);
            let free = holder != own;
            if free
                && ATTACHING
                    .compare_exchange(holder, own, AcqRel, Acquire)
                    .is_ok()
            {
                return Self;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        ATTACHING.store(0, Release);
    }
}
