//! Where GPUs lie: all on one machine with one NUMA node, linked to each other.

use std::ffi::{c_int, c_uint, c_ulong};
use std::thread;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, INVALID, put, put_list};
use crate::handle::{self, Gpu};

/// Bits of a word of a CPU or node set.
const WORD: usize = c_ulong::BITS as usize;

fn two(first: nvmlDevice_t, second: nvmlDevice_t) -> Answer<bool> {
    Ok(handle::gpu(first)?.page_index == handle::gpu(second)?.page_index)
}

pub(crate) fn on_same_board(first: nvmlDevice_t, second: nvmlDevice_t, out: Out<c_int>) -> Answer {
    put(out, two(first, second)?.into())
}

pub(crate) fn common_ancestor(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: Out<nvmlGpuTopologyLevel_t>,
) -> Answer {
    let same = two(first, second)?;
    put(
        out,
        if same {
            NVML_TOPOLOGY_INTERNAL
        } else {
            NVML_TOPOLOGY_NODE
        },
    )
}

pub(crate) fn peer_status(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: Out<nvmlGpuP2PStatus_t>,
) -> Answer {
    two(first, second)?;
    put(out, NVML_P2P_STATUS_OK)
}

/// The other GPUs at one level of nearness.
pub(crate) fn nearest(
    device: nvmlDevice_t,
    level: nvmlGpuTopologyLevel_t,
    count: Out<c_uint>,
    out: Out<nvmlDevice_t>,
) -> Answer {
    let own = handle::gpu(device)?;
    let gpus = handle::gpus()?;
    let others = gpus.iter().filter(|gpu| gpu.page_index != own.page_index);
    let near = others.filter(|_| level == NVML_TOPOLOGY_NODE);
    put_set_of(near, count, out)
}

/// A set of GPUs. As the documentation has it, a count of zero asks for their number.
fn put_set_of<'a>(
    gpus: impl Iterator<Item = &'a Gpu>,
    count: Out<c_uint>,
    out: Out<nvmlDevice_t>,
) -> Answer {
    let handles: Vec<_> = gpus.map(handle::handle_of).collect();
    if count.read() == Some(0) {
        return put(count, handles.len() as c_uint);
    }
    put_list(out, count, &handles)
}

/// The GPUs near one CPU: all of them.
pub(crate) fn near_cpu(count: Out<c_uint>, out: Out<nvmlDevice_t>) -> Answer {
    put_set_of(handle::gpus()?.iter(), count, out)
}

/// The CPUs near a GPU: all of them.
pub(crate) fn cpus(device: nvmlDevice_t, words: c_uint, out: Out<c_ulong>) -> Answer {
    handle::gpu(device)?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    put_set(words, out, cpus)
}

/// The memory nodes near a GPU: the first.
pub(crate) fn nodes(device: nvmlDevice_t, words: c_uint, out: Out<c_ulong>) -> Answer {
    handle::gpu(device)?;
    put_set(words, out, 1)
}

/// A set of the numbers below `members`, in `words` words.
fn put_set(words: c_uint, out: Out<c_ulong>, members: usize) -> Answer {
    if words == 0 || words > 1024 {
        return Err(INVALID);
    }
    let word = |index: usize| match members.saturating_sub(index * WORD) {
        0 => 0,
        rest if rest >= WORD => c_ulong::MAX,
        rest => (1 << rest) - 1,
    };
    let set: Vec<c_ulong> = (0..words as usize).map(word).collect();
    out.write_all(&set).then_some(()).ok_or(INVALID)
}
