//! Memory of a GPU as a whole, in NVML's two forms.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, expect_version, put, version};
use crate::handle::{self, Gpu};

/// The first form, in which "used" includes what the driver keeps.
pub(crate) fn info(gpu: &Gpu) -> Answer<nvmlMemory_t> {
    let memory = gpu.node.memory(gpu.page_index)?;
    let used = memory.used + memory.reserved;
    Ok(nvmlMemory_t {
        total: memory.total,
        free: memory.free,
        used,
    })
}

/// The second form, in which it does not.
pub(crate) fn info_v2(device: nvmlDevice_t, out: Out<nvmlMemory_v2_t>) -> Answer {
    let gpu = handle::gpu(device)?;
    expect_version(out, 2)?;
    let memory = gpu.node.memory(gpu.page_index)?;
    let info = nvmlMemory_v2_t {
        version: version::<nvmlMemory_v2_t>(2),
        total: memory.total,
        reserved: memory.reserved,
        free: memory.free,
        used: memory.used,
    };
    put(out, info)
}

/// The window through which the CPU sees VRAM: all of it, rounded up to a power of two.
pub(crate) fn bar1(gpu: &Gpu) -> Answer<nvmlBAR1Memory_t> {
    let bar1_total = gpu.config.vram.next_power_of_two();
    let bar1_used = (1 << 20).min(bar1_total);
    Ok(nvmlBAR1Memory_t {
        bar1Total: bar1_total,
        bar1Free: bar1_total - bar1_used,
        bar1Used: bar1_used,
    })
}
