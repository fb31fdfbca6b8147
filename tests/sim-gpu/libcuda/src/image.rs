//! Code images: PTX text, cubins (ELF) and fat binaries, read for what they declare.
//!
//! Owns the reading only: entry points with their parameters, and global variables. Nothing is compiled or run. In
//! PTX a comment `// sim-gpu: duration_ns=<number>` says how long a kernel occupies its GPU: inside an entry it is
//! that entry's, before the first entry it is everybody's who says nothing.
//!
//! Facts: the PTX ISA's grammar for directives; ELF; `fatbinary_section.h` for the wrapper of fat binaries.

use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure_or, fail};
use crate::{elf, ptx, raw};

/// A kernel of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Offset and size of each parameter.
    pub(crate) params: Vec<(usize, usize)>,
    /// How long it occupies the GPU, if the image says.
    pub(crate) duration: Option<u64>,
    /// `.maxntid` or `.reqntid`, as a product.
    pub(crate) max_threads: Option<u32>,
    /// Bytes of static shared memory.
    pub(crate) shared: u32,
}

/// A variable of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Global {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) managed: bool,
}

/// What an image declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) entries: Vec<Entry>,
    pub(crate) globals: Vec<Global>,
}

/// What the image is loaded for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Compute capability, 90 for 9.0.
    pub(crate) capability: u32,
    /// CUDA version of the driver.
    pub(crate) cuda: u32,
}

const ELF_MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");
const FATBIN_MAGIC: u32 = 0xBA55_ED50;
/// `FATBINC_MAGIC`: the wrapper that the compiler puts around a fat binary in host code.
const WRAPPER_MAGIC: u32 = 0x4662_43B1;

/// Reads the image at an address of the program.
pub(crate) fn at(address: u64, target: Target) -> Cu<Image> {
    ensure_or(address != 0, CUDA_ERROR_INVALID_VALUE)?;
    let first: u8 = raw::read(address);
    // Text may be shorter than four bytes; what is not text is not.
    if first.is_ascii_whitespace() || matches!(first, b'.' | b'/' | 0) {
        return text(&raw::bytes_to_zero(address), target);
    }
    match raw::read::<u32>(address) {
        ELF_MAGIC => elf::read(&raw::bytes(address, elf::length(address))),
        FATBIN_MAGIC => fatbin(address, target),
        WRAPPER_MAGIC => fatbin(raw::read(address + 8), target),
        _ => fail(CUDA_ERROR_INVALID_IMAGE),
    }
}

/// Reads an image from bytes that were read from a file.
pub(crate) fn of_bytes(mut bytes: Vec<u8>, target: Target) -> Cu<Image> {
    bytes.extend([0; 8]);
    at(bytes.as_ptr() as u64, target)
}

fn text(bytes: &[u8], target: Target) -> Cu<Image> {
    let source = core::str::from_utf8(bytes).or(Err(Fail(CUDA_ERROR_INVALID_PTX)))?;
    ptx::read(source, target)
}

/// One member of a fat binary: kind, header size, payload size, architecture, flags.
struct Member {
    kind: u16,
    header: u64,
    size: u64,
    capability: u32,
    compressed: bool,
}

impl Member {
    fn at(address: u64) -> Self {
        Self {
            kind: raw::read(address),
            header: u64::from(raw::read::<u32>(address + 4)),
            size: raw::read(address + 8),
            capability: raw::read(address + 28),
            compressed: raw::read::<u64>(address + 40) & 0x2000 != 0,
        }
    }
}

/// The best member of a fat binary for the GPU: a cubin of its major version, else PTX.
fn fatbin(address: u64, target: Target) -> Cu<Image> {
    const PTX: u16 = 1;
    const CUBIN: u16 = 2;
    ensure_or(
        address != 0 && raw::read::<u32>(address) == FATBIN_MAGIC,
        CUDA_ERROR_INVALID_IMAGE,
    )?;
    let start = address + u64::from(raw::read::<u16>(address + 6));
    let end = start + raw::read::<u64>(address + 8);
    let mut best: Option<(u32, u64, Member)> = None;
    let mut at = start;
    while at < end {
        let member = Member::at(at);
        let (header, size) = (member.header, member.size);
        ensure_or(header >= 48, CUDA_ERROR_INVALID_IMAGE)?;
        let fits = match member.kind {
            CUBIN => {
                member.capability / 10 == target.capability / 10
                    && member.capability <= target.capability
            }
            PTX => member.capability <= target.capability,
            _ => false,
        };
        let rank = u32::from(member.kind) * 1000 + member.capability;
        if fits && !member.compressed && best.as_ref().is_none_or(|(other, ..)| rank > *other) {
            best = Some((rank, at + header, member));
        }
        at += header + size;
    }
    let (_, payload, member) = best.ok_or(Fail(CUDA_ERROR_NO_BINARY_FOR_GPU))?;
    let bytes = raw::bytes(payload, member.size as usize);
    if member.kind == CUBIN {
        return elf::read(&bytes);
    }
    let len = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    text(&bytes[..len], target)
}
