//! Start and end: `cuInit`, the driver's version, and which calls may run when.
//!
//! Owns the phase of the process. It must never undo initialisation: a driver stays until the process ends.

use core::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::device::Device;
use crate::error::{Cu, ensure, ensure_or, fail, put};
use crate::node::Node;
use crate::state::{self, State};
use crate::{raw, visible};

const BEFORE: u8 = 0;
const READY: u8 = 1;
const EXITING: u8 = 2;
/// A forked child of a process that had called `cuInit`: its parent's objects are not its own.
const FORKED: u8 = 3;

static PHASE: AtomicU8 = AtomicU8::new(BEFORE);
static STARTING: Mutex<()> = Mutex::new(());
/// Holds 1 in the process that initialised, 0 in its forked children.
static MARK: OnceLock<&'static AtomicU64> = OnceLock::new();

fn phase() -> u8 {
    let phase = PHASE.load(Ordering::Acquire);
    let ours = || {
        MARK.get()
            .is_none_or(|mark| mark.load(Ordering::Relaxed) == 1)
    };
    if phase == READY && !ours() {
        FORKED
    } else {
        phase
    }
}

/// Whether calls that need `cuInit` may run.
pub(crate) fn check() -> Cu {
    match phase() {
        READY => Ok(()),
        EXITING => fail(CUDA_ERROR_DEINITIALIZED),
        _ => fail(CUDA_ERROR_NOT_INITIALIZED),
    }
}

extern "C" fn exiting() {
    PHASE.store(EXITING, Ordering::Release);
}

/// `cuInit`. Without a GPU of its own the process gets `CUDA_ERROR_NO_DEVICE`, each time it asks.
pub(crate) fn init(flags: c_uint) -> Cu {
    ensure(flags == 0)?;
    let _starting = STARTING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match phase() {
        READY => return Ok(()),
        EXITING => return fail(CUDA_ERROR_DEINITIALIZED),
        FORKED => return fail(CUDA_ERROR_NOT_INITIALIZED),
        _ => {}
    }
    let node = Node::connect()?;
    let present = node.present();
    ensure_or(!present.is_empty(), CUDA_ERROR_NO_DEVICE)?;
    let chosen = visible::choose(
        &present,
        std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(),
    );
    ensure_or(!chosen.is_empty(), CUDA_ERROR_NO_DEVICE)?;
    let mut state = State::default();
    for gpu in chosen {
        let primary = state.new_handle();
        state.devices.push(Device::new(gpu, primary));
    }
    if state::install(node, state) {
        raw::on_exit(exiting);
        if let Some(mark) = raw::mark_process() {
            MARK.get_or_init(|| mark);
        }
    }
    PHASE.store(READY, Ordering::Release);
    Ok(())
}

/// `cuDriverGetVersion`: the CUDA version of the node's description, also before `cuInit`.
pub(crate) fn driver_version(out: Out<c_int>) -> Cu {
    ensure(!out.is_null())?;
    put(out, version() as c_int)
}

/// The driver's CUDA version; the headers' own where no node is found.
pub(crate) fn version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    if check().is_ok() {
        return state::node().cuda_version();
    }
    *VERSION.get_or_init(|| Node::connect().map_or(CUDA_VERSION, |node| node.cuda_version()))
}
