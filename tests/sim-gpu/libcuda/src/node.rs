//! The node behind the library: which GPUs there are, memory in use, GPU time.
//!
//! Owns the translation of `sim_gpu`'s errors into status codes, and nothing else. Numbers of GPUs are those of
//! the node, not CUDA ordinals.

use std::os::fd::{AsFd, OwnedFd};

use sim_gpu::client::{ConnectError, Kind, Node as Client};
use sim_gpu::page::{self, PageError};
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, fail};
use crate::visible::Gpu;

/// The process's connection to its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    client: &'static Client,
}

/// When a piece of GPU work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It ended then.
    Past(u64),
    /// It will end then, if nobody asks for more.
    Ahead(u64),
}

fn status(error: PageError) -> Fail {
    Fail(match error {
        PageError::OutOfMemory { .. } => CUDA_ERROR_OUT_OF_MEMORY,
        PageError::Disconnected => CUDA_ERROR_DEVICE_UNAVAILABLE,
        PageError::Stuck { .. } => CUDA_ERROR_UNKNOWN,
    })
}

/// The time base of events.
pub(crate) fn now() -> u64 {
    page::now()
}

impl Node {
    /// Connects. A machine without a node has no GPU; one whose node cannot be used has a broken driver.
    pub(crate) fn connect() -> Cu<Self> {
        match Client::get(Kind::Cuda) {
            Ok(client) => Ok(Self { client }),
            Err(ConnectError::NoNode { .. }) => fail(CUDA_ERROR_NO_DEVICE),
            Err(ConnectError::Page(_)) => fail(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
            Err(_) => fail(CUDA_ERROR_OPERATING_SYSTEM),
        }
    }

    /// CUDA version of the driver, 13000 for 13.0.
    pub(crate) fn cuda_version(&self) -> u32 {
        self.client.config().cuda_version
    }

    /// The GPUs whose device nodes open in this process.
    pub(crate) fn present(&self) -> Vec<Gpu> {
        let devices = self.client.devices().iter();
        devices
            .map(|device| Gpu {
                index: device.index,
                config: device.gpu.clone(),
            })
            .collect()
    }

    /// Takes device memory; `CUDA_ERROR_OUT_OF_MEMORY` when the GPU has less left.
    pub(crate) fn charge(&self, gpu: usize, bytes: u64) -> Cu {
        self.client.alloc(gpu, bytes).map_err(status)
    }

    /// Gives device memory back. After the daemon is gone there is nobody to give it to.
    pub(crate) fn refund(&self, gpu: usize, bytes: u64) {
        let _gone = self.client.free(gpu, bytes);
    }

    /// Takes the footprint of a context.
    pub(crate) fn context_add(&self, gpu: usize) -> Cu {
        self.client.context_add(gpu).map_err(status)
    }

    /// Gives the footprint of a context back.
    pub(crate) fn context_remove(&self, gpu: usize) {
        let _gone = self.client.context_remove(gpu);
    }

    /// Free bytes of a GPU.
    pub(crate) fn free_memory(&self, gpu: usize) -> Cu<u64> {
        Ok(self.client.memory(gpu).map_err(status)?.free)
    }

    /// Puts work at the end of this process's line on a GPU; answers the place at its end.
    pub(crate) fn submit(&self, gpu: usize, duration: u64) -> Cu<u64> {
        self.client.submit(gpu, duration).map_err(status)
    }

    /// This process's line on every GPU, for others to look at.
    pub(crate) fn slot(&self) -> u32 {
        self.client.slot()
    }

    /// When this process reaches `target` on a GPU.
    pub(crate) fn moment(&self, gpu: usize, target: u64) -> Cu<Moment> {
        self.moment_of(self.client.slot(), gpu, target)
    }

    /// When the process with `slot` reaches `target` on a GPU.
    pub(crate) fn moment_of(&self, slot: u32, gpu: usize, target: u64) -> Cu<Moment> {
        let guard = self.client.lock().map_err(status)?;
        Ok(match guard.time_of(slot, gpu, target, now()) {
            Ok(at) => Moment::Past(at),
            Err(at) => Moment::Ahead(at),
        })
    }

    /// Leaves a file with the node for other processes; answers its number there.
    pub(crate) fn export(&self, file: &OwnedFd) -> Cu<u64> {
        self.client
            .export(file.as_fd())
            .or_else(|_| fail(CUDA_ERROR_OPERATING_SYSTEM))
    }

    /// Takes a file back that this process left with the node.
    pub(crate) fn unexport(&self, number: u64) {
        let _gone = self.client.unexport(number);
    }

    /// The file that some process left with the node.
    pub(crate) fn import(&self, number: u64) -> Cu<OwnedFd> {
        self.client
            .import(number)
            .or_else(|_| fail(CUDA_ERROR_INVALID_HANDLE))
    }
}
