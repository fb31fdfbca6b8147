//! Everything that the process has, behind one lock, and what each thread has.
//!
//! Owns the tables of objects, handles, and the thread's context stack. Handles are numbers that are never used
//! twice, so a stale one is told from a live one. It must never be locked while the library waits or calls the
//! program: callbacks may call back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use vgpu_cuda_sys::cuda::*;

use crate::array::{Array, Mipmap};
use crate::context::Context;
use crate::device::Device;
use crate::error::{Cu, fail};
use crate::event::Event;
use crate::graph::{Graph, Node};
use crate::graph_exec::Exec;
use crate::module::{Function, Module};
use crate::node::Node as SimNode;
use crate::pool::Pool;
use crate::region::Regions;
use crate::stream::Stream;
use crate::vmm::Physical;

/// A table of objects by handle.
pub(crate) type Map<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// Handles are spread by their numbering already.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }
}

/// All objects of the process.
#[derive(Debug, Default)]
pub(crate) struct State {
    last_handle: u64,
    last_serial: u64,
    /// Devices by ordinal.
    pub(crate) devices: Vec<Device>,
    pub(crate) contexts: Map<Context>,
    pub(crate) streams: Map<Stream>,
    pub(crate) events: Map<Event>,
    pub(crate) regions: Regions,
    pub(crate) physical: Map<Physical>,
    /// `cuMemAddressReserve`: start and length.
    pub(crate) reservations: std::collections::BTreeMap<u64, u64>,
    pub(crate) pools: Map<Pool>,
    pub(crate) arrays: Map<Array>,
    pub(crate) mipmaps: Map<Mipmap>,
    pub(crate) modules: Map<Module>,
    pub(crate) functions: Map<Function>,
    pub(crate) libraries: Map<crate::library::Library>,
    pub(crate) graphs: Map<Graph>,
    pub(crate) nodes: Map<Node>,
    pub(crate) execs: Map<Exec>,
    pub(crate) links: Map<crate::library::Link>,
    pub(crate) user_objects: Map<crate::graph::UserObject>,
    pub(crate) captures: Map<crate::capture::Capture>,
    /// Some pool may hold more than its threshold.
    pub(crate) pool_slack: bool,
    /// Memory of other processes that is open: address by (slot, number).
    pub(crate) imports: HashMap<(u64, u64), u64>,
    /// Streams with queued work.
    pub(crate) queued: Vec<u64>,
}

impl State {
    /// A handle that no object has had.
    pub(crate) fn new_handle(&mut self) -> u64 {
        // Looks like an address to whoever prints it, and is one of nothing.
        self.last_handle += 0x10;
        0x5_1000_0000 + self.last_handle
    }

    /// A number for objects that have ids besides handles (contexts, streams, buffers, captures).
    pub(crate) fn new_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }
}

static STATE: OnceLock<(SimNode, Mutex<State>)> = OnceLock::new();
/// Signalled when queued work has come forward.
pub(crate) static PROGRESS: Condvar = Condvar::new();

/// Installs the process's state; false when it was there already.
pub(crate) fn install(node: SimNode, state: State) -> bool {
    STATE.set((node, Mutex::new(state))).is_ok()
}

/// The objects of the process, locked.
///
/// # Panics
/// Before `cuInit`, which the boundary prevents.
pub(crate) fn lock() -> MutexGuard<'static, State> {
    let (_, state) = STATE.get().expect("cuInit was called");
    // A panic under the lock was answered with CUDA_ERROR_UNKNOWN; the tables stay usable.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection to the node.
///
/// # Panics
/// Before `cuInit`, which the boundary prevents.
pub(crate) fn node() -> &'static SimNode {
    &STATE.get().expect("cuInit was called").0
}

/// The number behind a handle.
pub(crate) fn id<T>(handle: *mut T) -> u64 {
    handle as u64
}

/// The handle of a number.
pub(crate) fn handle<T>(id: u64) -> *mut T {
    id as *mut T
}

/// What a thread has.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// Contexts, the current one last.
    pub(crate) stack: RefCell<Vec<u64>>,
    /// The running call is a `_ptsz` or `_ptds` one: stream 0 means the thread's own.
    pub(crate) per_thread: Cell<bool>,
    /// The thread's own stream in each context.
    pub(crate) own_streams: RefCell<HashMap<u64, u64>>,
    /// How the thread's calls interact with captures.
    pub(crate) capture_mode: Cell<CUstreamCaptureMode>,
    /// A host function is running on this thread.
    pub(crate) in_callback: Cell<bool>,
    /// A number for this thread.
    pub(crate) number: Cell<u64>,
}

thread_local! {
    static THREAD: Thread = Thread::default();
}

/// The calling thread's part; a thread that is being torn down has none.
pub(crate) fn thread<T>(body: impl FnOnce(&Thread) -> T) -> Cu<T> {
    THREAD
        .try_with(body)
        .or_else(|_| fail(CUDA_ERROR_DEINITIALIZED))
}

/// A number that no other thread has.
pub(crate) fn thread_number() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = thread(|thread| {
        if thread.number.get() == 0 {
            let next = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            thread.number.set(next);
        }
        thread.number.get()
    });
    number.unwrap_or(0)
}
