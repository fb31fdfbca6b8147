//! Arrays and mipmapped arrays: descriptors, memory they need, and their bytes.
//!
//! Rows of an array lie one after the other. What an array takes of the GPU is its rows padded to 512 bytes, and no
//! less than one unit: a formula where hardware has tiles. Deferred-mapping and sparse arrays take nothing, since
//! mapping memory under them is not offered.

use core::ffi::c_uint;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::capture;
use crate::copy::Side;
use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::memory::UNIT;
use crate::raw;
use crate::state::{State, handle, id, lock, node};

/// One array, or one level of a mipmapped array.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) shape: Described,
    pub(crate) device: usize,
    context: u64,
    /// Address of its bytes; 0 for one that has none.
    base: u64,
    /// Bytes charged and addresses taken, for one that owns its memory.
    owned: u64,
}

/// A mipmapped array: its levels, the largest first.
#[derive(Debug)]
pub(crate) struct Mipmap {
    levels: Vec<u64>,
    shape: Described,
    context: u64,
}

/// Width, height and depth in elements, and what an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described {
    width: u64,
    height: u64,
    depth: u64,
    format: CUarray_format,
    channels: c_uint,
    flags: c_uint,
}

/// Where the bytes of an array lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrayPlace {
    pub(crate) base: u64,
    pub(crate) pitch: u64,
    pub(crate) rows: u64,
    pub(crate) device: usize,
}

/// Bytes of one channel of a format.
pub(crate) fn format_bytes(format: CUarray_format) -> Cu<u64> {
    Ok(match format {
        CU_AD_FORMAT_UNSIGNED_INT8 | CU_AD_FORMAT_SIGNED_INT8 => 1,
        CU_AD_FORMAT_UNSIGNED_INT16 | CU_AD_FORMAT_SIGNED_INT16 | CU_AD_FORMAT_HALF => 2,
        CU_AD_FORMAT_UNSIGNED_INT32 | CU_AD_FORMAT_SIGNED_INT32 | CU_AD_FORMAT_FLOAT => 4,
        CU_AD_FORMAT_UNORM_INT8X1 | CU_AD_FORMAT_SNORM_INT8X1 => 1,
        CU_AD_FORMAT_UNORM_INT8X2 | CU_AD_FORMAT_SNORM_INT8X2 => 1,
        CU_AD_FORMAT_UNORM_INT8X4 | CU_AD_FORMAT_SNORM_INT8X4 => 1,
        CU_AD_FORMAT_UNORM_INT16X1 | CU_AD_FORMAT_SNORM_INT16X1 => 2,
        CU_AD_FORMAT_UNORM_INT16X2 | CU_AD_FORMAT_SNORM_INT16X2 => 2,
        CU_AD_FORMAT_UNORM_INT16X4 | CU_AD_FORMAT_SNORM_INT16X4 => 2,
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    })
}

impl Described {
    fn check(&self) -> Cu {
        format_bytes(self.format)?;
        ensure(matches!(self.channels, 1 | 2 | 4) && self.width > 0)?;
        ensure(self.width <= 131_072 && self.height <= 131_072 && self.depth <= 16_384)?;
        let layered = self.flags & CUDA_ARRAY3D_LAYERED != 0;
        ensure(self.height > 0 || self.depth == 0 || layered)?;
        let cube = self.flags & CUDA_ARRAY3D_CUBEMAP != 0;
        ensure(!cube || self.width == self.height && self.depth.is_multiple_of(6))?;
        let known = CUDA_ARRAY3D_LAYERED
            | CUDA_ARRAY3D_SURFACE_LDST
            | CUDA_ARRAY3D_CUBEMAP
            | CUDA_ARRAY3D_TEXTURE_GATHER
            | CUDA_ARRAY3D_DEPTH_TEXTURE
            | CUDA_ARRAY3D_COLOR_ATTACHMENT
            | CUDA_ARRAY3D_DEFERRED_MAPPING;
        ensure_or(
            self.flags & CUDA_ARRAY3D_SPARSE == 0,
            CUDA_ERROR_NOT_SUPPORTED,
        )?;
        ensure(self.flags & !known == 0)
    }

    fn row(&self) -> u64 {
        self.width * format_bytes(self.format).unwrap_or(1) * u64::from(self.channels)
    }

    fn rows(&self) -> u64 {
        self.height.max(1)
    }

    /// Bytes that it takes of the GPU.
    fn size(&self) -> u64 {
        self.row().next_multiple_of(UNIT) * self.rows() * self.depth.max(1)
    }

    /// The next smaller level of a mipmap. Layers stay.
    fn half(&self) -> Self {
        let half = |extent: u64| if extent == 0 { 0 } else { (extent / 2).max(1) };
        let layered = self.flags & CUDA_ARRAY3D_LAYERED != 0;
        let depth = if layered {
            self.depth
        } else {
            half(self.depth)
        };
        Self {
            width: half(self.width),
            height: half(self.height),
            depth,
            ..*self
        }
    }

    fn is_deferred(&self) -> bool {
        self.flags & CUDA_ARRAY3D_DEFERRED_MAPPING != 0
    }
}

impl State {
    fn array(&mut self, array: u64) -> Cu<&mut Array> {
        self.arrays
            .get_mut(&array)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }

    fn new_array(&mut self, shape: Described) -> Cu<u64> {
        shape.check()?;
        let context = self.current()?;
        let device = self.contexts[&context].device;
        let owned = if shape.is_deferred() { 0 } else { shape.size() };
        let base = if owned == 0 {
            0
        } else {
            self.take_device(device, owned, UNIT, owned)?
        };
        let array = self.new_handle();
        self.arrays.insert(
            array,
            Array {
                shape,
                device,
                context,
                base,
                owned,
            },
        );
        Ok(array)
    }

    fn end_array(&mut self, array: u64) {
        if let Some(ended) = self.arrays.remove(&array)
            && ended.owned > 0
        {
            node().refund(self.gpu(ended.device), ended.owned);
            self.give_addresses(ended.device, ended.base, ended.owned, true);
        }
    }

    /// Frees the arrays that a context leaves behind.
    pub(crate) fn end_arrays_of(&mut self, context: u64) {
        self.mipmaps.retain(|_, mipmap| mipmap.context != context);
        let of = self
            .arrays
            .iter()
            .filter(|(_, array)| array.context == context);
        let arrays: Vec<u64> = of.map(|(&id, _)| id).collect();
        for array in arrays {
            self.end_array(array);
        }
    }

    /// Where an array's bytes lie, for a copy that stays inside.
    pub(crate) fn array_to_copy(
        &mut self,
        array: u64,
        side: &Side,
        extent: [u64; 3],
    ) -> Cu<ArrayPlace> {
        let known = self.array(array)?;
        let (row, rows, depth) = (
            known.shape.row(),
            known.shape.rows(),
            known.shape.depth.max(1),
        );
        let limits = [row, rows, depth];
        let inside = (0..3).all(|axis| side.offset[axis] + extent[axis] <= limits[axis]);
        // A flat copy may run on from one row into the next.
        let flat = extent[1] == 1 && extent[2] == 1 && side.offset[1] == 0 && side.offset[2] == 0;
        ensure(inside || flat && side.offset[0] + extent[0] <= row * rows * depth)?;
        ensure_or(known.base != 0, CUDA_ERROR_INVALID_HANDLE)?;
        Ok(ArrayPlace {
            base: known.base,
            pitch: row,
            rows,
            device: known.device,
        })
    }
}

fn described_2d(width: u64, height: u64, format: CUarray_format, channels: c_uint) -> Described {
    Described {
        width,
        height,
        depth: 0,
        format,
        channels,
        flags: 0,
    }
}

fn make(out: Out<CUarray>, shape: Described) -> Cu {
    ensure(!out.is_null())?;
    capture::forbid_unsafe()?;
    let array = lock().new_array(shape)?;
    put(out, handle(array))
}

pub(crate) fn create(out: Out<CUarray>, wanted: In<CUDA_ARRAY_DESCRIPTOR>) -> Cu {
    let d = wanted.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    make(
        out,
        described_2d(d.Width as u64, d.Height as u64, d.Format, d.NumChannels),
    )
}

pub(crate) fn create_v1(out: Out<CUarray>, wanted: In<CUDA_ARRAY_DESCRIPTOR_v1>) -> Cu {
    let d = wanted.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    make(
        out,
        described_2d(
            u64::from(d.Width),
            u64::from(d.Height),
            d.Format,
            d.NumChannels,
        ),
    )
}

fn described_3d(d: &CUDA_ARRAY3D_DESCRIPTOR) -> Described {
    Described {
        width: d.Width as u64,
        height: d.Height as u64,
        depth: d.Depth as u64,
        format: d.Format,
        channels: d.NumChannels,
        flags: d.Flags,
    }
}

pub(crate) fn create_3d(out: Out<CUarray>, wanted: In<CUDA_ARRAY3D_DESCRIPTOR>) -> Cu {
    make(
        out,
        described_3d(&wanted.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?),
    )
}

pub(crate) fn create_3d_v1(out: Out<CUarray>, wanted: In<CUDA_ARRAY3D_DESCRIPTOR_v1>) -> Cu {
    let d = wanted.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    make(
        out,
        Described {
            width: u64::from(d.Width),
            height: u64::from(d.Height),
            depth: u64::from(d.Depth),
            format: d.Format,
            channels: d.NumChannels,
            flags: d.Flags,
        },
    )
}

pub(crate) fn destroy(array: CUarray) -> Cu {
    let mut state = lock();
    state.array(id(array))?;
    let level = state
        .mipmaps
        .values()
        .any(|mipmap| mipmap.levels.contains(&id(array)));
    ensure_or(!level, CUDA_ERROR_INVALID_HANDLE)?;
    state.end_array(id(array));
    Ok(())
}

pub(crate) fn descriptor(out: Out<CUDA_ARRAY_DESCRIPTOR>, array: CUarray) -> Cu {
    let shape = lock().array(id(array))?.shape;
    put(
        out,
        CUDA_ARRAY_DESCRIPTOR {
            Width: shape.width as usize,
            Height: shape.height as usize,
            Format: shape.format,
            NumChannels: shape.channels,
        },
    )
}

pub(crate) fn descriptor_v1(out: Out<CUDA_ARRAY_DESCRIPTOR_v1>, array: CUarray) -> Cu {
    let shape = lock().array(id(array))?.shape;
    put(
        out,
        CUDA_ARRAY_DESCRIPTOR_v1 {
            Width: shape.width as c_uint,
            Height: shape.height as c_uint,
            Format: shape.format,
            NumChannels: shape.channels,
        },
    )
}

pub(crate) fn descriptor_3d(out: Out<CUDA_ARRAY3D_DESCRIPTOR>, array: CUarray) -> Cu {
    let shape = lock().array(id(array))?.shape;
    put(
        out,
        CUDA_ARRAY3D_DESCRIPTOR {
            Width: shape.width as usize,
            Height: shape.height as usize,
            Depth: shape.depth as usize,
            Format: shape.format,
            NumChannels: shape.channels,
            Flags: shape.flags,
        },
    )
}

pub(crate) fn descriptor_3d_v1(out: Out<CUDA_ARRAY3D_DESCRIPTOR_v1>, array: CUarray) -> Cu {
    let shape = lock().array(id(array))?.shape;
    put(
        out,
        CUDA_ARRAY3D_DESCRIPTOR_v1 {
            Width: shape.width as c_uint,
            Height: shape.height as c_uint,
            Depth: shape.depth as c_uint,
            Format: shape.format,
            NumChannels: shape.channels,
            Flags: shape.flags,
        },
    )
}

fn put_requirements(out: Out<CUDA_ARRAY_MEMORY_REQUIREMENTS>, deferred: bool, size: u64) -> Cu {
    // Asked for what will be mapped later; other arrays have their memory already.
    ensure(deferred)?;
    let mut requirements: CUDA_ARRAY_MEMORY_REQUIREMENTS = raw::zeroed();
    requirements.size = size as usize;
    requirements.alignment = UNIT as usize;
    put(out, requirements)
}

pub(crate) fn requirements(
    out: Out<CUDA_ARRAY_MEMORY_REQUIREMENTS>,
    array: CUarray,
    dev: CUdevice,
) -> Cu {
    let mut state = lock();
    state.device(dev)?;
    let shape = state.array(id(array))?.shape;
    put_requirements(out, shape.is_deferred(), shape.size())
}

/// `cuArrayGetPlane`: no format here has planes.
pub(crate) fn plane(_out: Out<CUarray>, array: CUarray, _plane: c_uint) -> Cu {
    lock().array(id(array))?;
    fail(CUDA_ERROR_INVALID_VALUE)
}

pub(crate) fn mipmap_create(
    out: Out<CUmipmappedArray>,
    wanted: In<CUDA_ARRAY3D_DESCRIPTOR>,
    levels: c_uint,
) -> Cu {
    ensure(!out.is_null() && levels > 0)?;
    let shape = described_3d(&wanted.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?);
    shape.check()?;
    capture::forbid_unsafe()?;
    let mut state = lock();
    let context = state.current()?;
    let largest = shape.width.max(shape.height).max(shape.depth);
    // More levels than halvings are cut to that many, as documented.
    let levels = levels.min(1 + largest.ilog2());
    let mut made: Vec<u64> = Vec::new();
    let mut level = shape;
    for _ in 0..levels {
        match state.new_array(level) {
            Ok(array) => made.push(array),
            Err(failure) => {
                made.into_iter().for_each(|array| state.end_array(array));
                return Err(failure);
            }
        }
        level = level.half();
    }
    let mipmap = state.new_handle();
    state.mipmaps.insert(
        mipmap,
        Mipmap {
            levels: made,
            shape,
            context,
        },
    );
    put(out, handle(mipmap))
}

pub(crate) fn mipmap_destroy(mipmap: CUmipmappedArray) -> Cu {
    let mut state = lock();
    let ended = state
        .mipmaps
        .remove(&id(mipmap))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    ended
        .levels
        .into_iter()
        .for_each(|array| state.end_array(array));
    Ok(())
}

pub(crate) fn mipmap_level(out: Out<CUarray>, mipmap: CUmipmappedArray, level: c_uint) -> Cu {
    ensure(!out.is_null())?;
    let state = lock();
    let known = state
        .mipmaps
        .get(&id(mipmap))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    let array = known
        .levels
        .get(level as usize)
        .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    put(out, handle(*array))
}

pub(crate) fn mipmap_requirements(
    out: Out<CUDA_ARRAY_MEMORY_REQUIREMENTS>,
    mipmap: CUmipmappedArray,
    dev: CUdevice,
) -> Cu {
    let mut state = lock();
    state.device(dev)?;
    let known = state
        .mipmaps
        .get(&id(mipmap))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    let sizes = known
        .levels
        .iter()
        .filter_map(|level| state.arrays.get(level));
    put_requirements(
        out,
        known.shape.is_deferred(),
        sizes.map(|array| array.shape.size()).sum(),
    )
}
