//! Whether the library is initialised, and what a device handle stands for.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use sim_gpu::client::{Kind, Node};
use sim_gpu::config::GpuConfig;
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, Failure, INVALID, put};

/// Calls of `nvmlInit` that no `nvmlShutdown` has answered yet.
static INITIALISED: AtomicU32 = AtomicU32::new(0);

/// Handles are numbers that point nowhere: this, and 16 for each GPU of the node.
const FIRST_HANDLE: usize = 0x5135_0000;

/// One GPU that this process may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu {
    /// The node.
    pub(crate) node: &'static Node,
    /// The GPU's number on the node page.
    pub(crate) page_index: usize,
    /// NVML's index: its place among the GPUs that this process may use.
    pub(crate) index: u32,
    /// What it is.
    pub(crate) config: &'static GpuConfig,
}

/// `nvmlInit` and its younger forms.
pub(crate) fn initialise() -> Answer {
    Node::get(Kind::Nvml).map_err(|_| Failure(NVML_ERROR_DRIVER_NOT_LOADED))?;
    INITIALISED.fetch_add(1, AcqRel);
    Ok(())
}

/// `nvmlShutdown`.
pub(crate) fn shut_down() -> Answer {
    let once_less = INITIALISED.fetch_update(AcqRel, Acquire, |count| count.checked_sub(1));
    once_less
        .map(drop)
        .map_err(|_| Failure(NVML_ERROR_UNINITIALIZED))
}

/// The node, once initialised.
pub(crate) fn node() -> Answer<&'static Node> {
    if INITIALISED.load(Acquire) == 0 {
        return Err(Failure(NVML_ERROR_UNINITIALIZED));
    }
    Node::get(Kind::Nvml).map_err(|_| Failure(NVML_ERROR_GPU_IS_LOST))
}

/// All GPUs that this process may use, in NVML's order.
pub(crate) fn gpus() -> Answer<Vec<Gpu>> {
    let node = node()?;
    let numbered = (0..).zip(node.devices());
    let gpus = numbered.map(|(index, device)| Gpu {
        node,
        page_index: device.index,
        index,
        config: &device.gpu,
    });
    Ok(gpus.collect())
}

/// The GPU behind a handle.
pub(crate) fn gpu(device: nvmlDevice_t) -> Answer<Gpu> {
    let number = device.addr().wrapping_sub(FIRST_HANDLE);
    let found = gpus()?
        .into_iter()
        .find(|gpu| gpu.page_index * 16 == number);
    found.ok_or(INVALID)
}

/// The handle of a GPU.
pub(crate) fn handle_of(gpu: &Gpu) -> nvmlDevice_t {
    ptr::without_provenance_mut(FIRST_HANDLE + gpu.page_index * 16)
}

/// Writes the handle of the first GPU that `wanted` accepts.
pub(crate) fn find(out: Out<nvmlDevice_t>, wanted: impl Fn(&Gpu) -> bool) -> Answer {
    let found = gpus()?.into_iter().find(wanted);
    put(out, handle_of(&found.ok_or(Failure(NVML_ERROR_NOT_FOUND))?))
}
