//! Copies of two and three dimensions, and those with arrays.
//!
//! Owns the translation of the API's copy descriptions into [`Shape`] and back.

use core::ffi::{c_uint, c_void};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::copy::{Place, Shape, Side, start, wait};
use crate::error::{Cu, Fail, ensure, fail};
use crate::memory::Wide;
use crate::raw;
use crate::state::{handle, id};

const WRONG: Fail = Fail(CUDA_ERROR_INVALID_VALUE);

/// The place that a memory type picks out of the three that a description has.
fn place(kind: CUmemorytype, host: u64, device: u64, array: CUarray) -> Cu<Place> {
    match kind {
        CU_MEMORYTYPE_HOST => Ok(Place::Host(host)),
        CU_MEMORYTYPE_DEVICE | CU_MEMORYTYPE_UNIFIED => Ok(Place::Memory(device)),
        CU_MEMORYTYPE_ARRAY => Ok(Place::Array(id(array))),
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

/// A side, with what is left out filled in: a pitch of 0 is the width, a height of 0 the rows copied.
fn side(place: Place, offset: [usize; 3], pitch: usize, rows: usize, extent: [u64; 3]) -> Cu<Side> {
    let [width, height, _] = extent;
    let pitch = if pitch == 0 {
        width + offset[0] as u64
    } else {
        pitch as u64
    };
    let rows = if rows == 0 {
        height + offset[1] as u64
    } else {
        rows as u64
    };
    let offset = offset.map(|part| part as u64);
    let array = matches!(place, Place::Array(_));
    ensure(array || offset[0] + width <= pitch || height <= 1 && extent[2] <= 1)?;
    Ok(Side {
        place,
        offset,
        pitch,
        rows,
    })
}

/// The shape of a two-dimensional description.
pub(crate) fn shape_2d(c: &CUDA_MEMCPY2D) -> Cu<Shape> {
    let extent = [c.WidthInBytes as u64, c.Height as u64, 1];
    let from = place(c.srcMemoryType, c.srcHost as u64, c.srcDevice, c.srcArray)?;
    let to = place(c.dstMemoryType, c.dstHost as u64, c.dstDevice, c.dstArray)?;
    Ok(Shape {
        from: side(from, [c.srcXInBytes, c.srcY, 0], c.srcPitch, 0, extent)?,
        to: side(to, [c.dstXInBytes, c.dstY, 0], c.dstPitch, 0, extent)?,
        extent,
    })
}

/// The shape of a three-dimensional description.
pub(crate) fn shape_3d(c: &CUDA_MEMCPY3D) -> Cu<Shape> {
    let extent = [c.WidthInBytes as u64, c.Height as u64, c.Depth as u64];
    ensure(c.srcLOD == 0 && c.dstLOD == 0)?;
    let from = place(c.srcMemoryType, c.srcHost as u64, c.srcDevice, c.srcArray)?;
    let to = place(c.dstMemoryType, c.dstHost as u64, c.dstDevice, c.dstArray)?;
    Ok(Shape {
        from: side(
            from,
            [c.srcXInBytes, c.srcY, c.srcZ],
            c.srcPitch,
            c.srcHeight,
            extent,
        )?,
        to: side(
            to,
            [c.dstXInBytes, c.dstY, c.dstZ],
            c.dstPitch,
            c.dstHeight,
            extent,
        )?,
        extent,
    })
}

/// The description of a shape, as graph nodes tell it.
pub(crate) fn describe(shape: &Shape) -> CUDA_MEMCPY3D {
    let mut c: CUDA_MEMCPY3D = raw::zeroed();
    let [x, y, z] = shape.from.offset.map(|part| part as usize);
    (c.srcXInBytes, c.srcY, c.srcZ) = (x, y, z);
    (c.srcPitch, c.srcHeight) = (shape.from.pitch as usize, shape.from.rows as usize);
    match shape.from.place {
        Place::Host(at) => (c.srcMemoryType, c.srcHost) = (CU_MEMORYTYPE_HOST, at as *const c_void),
        Place::Memory(at) => (c.srcMemoryType, c.srcDevice) = (CU_MEMORYTYPE_DEVICE, at),
        Place::Array(array) => (c.srcMemoryType, c.srcArray) = (CU_MEMORYTYPE_ARRAY, handle(array)),
    }
    let [x, y, z] = shape.to.offset.map(|part| part as usize);
    (c.dstXInBytes, c.dstY, c.dstZ) = (x, y, z);
    (c.dstPitch, c.dstHeight) = (shape.to.pitch as usize, shape.to.rows as usize);
    match shape.to.place {
        Place::Host(at) => (c.dstMemoryType, c.dstHost) = (CU_MEMORYTYPE_HOST, at as *mut c_void),
        Place::Memory(at) => (c.dstMemoryType, c.dstDevice) = (CU_MEMORYTYPE_DEVICE, at),
        Place::Array(array) => (c.dstMemoryType, c.dstArray) = (CU_MEMORYTYPE_ARRAY, handle(array)),
    }
    let [width, height, depth] = shape.extent.map(|part| part as usize);
    (c.WidthInBytes, c.Height, c.Depth) = (width, height, depth);
    c
}

pub(crate) fn copy_2d(copy: In<CUDA_MEMCPY2D>) -> Cu {
    wait(shape_2d(&copy.read().ok_or(WRONG)?)?)
}

pub(crate) fn copy_2d_async(copy: In<CUDA_MEMCPY2D>, stream: CUstream) -> Cu {
    start(stream, shape_2d(&copy.read().ok_or(WRONG)?)?).map(drop)
}

pub(crate) fn copy_3d(copy: In<CUDA_MEMCPY3D>) -> Cu {
    wait(shape_3d(&copy.read().ok_or(WRONG)?)?)
}

pub(crate) fn copy_3d_async(copy: In<CUDA_MEMCPY3D>, stream: CUstream) -> Cu {
    start(stream, shape_3d(&copy.read().ok_or(WRONG)?)?).map(drop)
}

/// The peer description is the plain one with contexts where that has reserved pointers.
fn without_contexts(copy: In<CUDA_MEMCPY3D_PEER>) -> Cu<CUDA_MEMCPY3D> {
    const _: () = assert!(size_of::<CUDA_MEMCPY3D_PEER>() == size_of::<CUDA_MEMCPY3D>());
    ensure(!copy.is_null())?;
    Ok(raw::read(raw::addr_in(copy)))
}

pub(crate) fn copy_3d_peer(copy: In<CUDA_MEMCPY3D_PEER>) -> Cu {
    wait(shape_3d(&without_contexts(copy)?)?)
}

pub(crate) fn copy_3d_peer_async(copy: In<CUDA_MEMCPY3D_PEER>, stream: CUstream) -> Cu {
    start(stream, shape_3d(&without_contexts(copy)?)?).map(drop)
}

fn in_array<N: Wide>(array: CUarray, offset: N) -> Side {
    let mut side = Side::flat(Place::Array(id(array)));
    side.offset[0] = offset.wide();
    side
}

fn flat<N: Wide>(to: Side, from: Side, bytes: N) -> Shape {
    Shape {
        from,
        to,
        extent: [bytes.wide(), 1, 1],
    }
}

fn memory<P: Wide>(pointer: P) -> Side {
    Side::flat(Place::Memory(pointer.wide()))
}

pub(crate) fn a2a<N: Wide>(
    to: CUarray,
    to_offset: N,
    from: CUarray,
    from_offset: N,
    bytes: N,
) -> Cu {
    wait(flat(
        in_array(to, to_offset),
        in_array(from, from_offset),
        bytes,
    ))
}

pub(crate) fn a2d<P: Wide, N: Wide>(to: P, from: CUarray, offset: N, bytes: N) -> Cu {
    wait(flat(memory(to), in_array(from, offset), bytes))
}

pub(crate) fn d2a<P: Wide, N: Wide>(to: CUarray, offset: N, from: P, bytes: N) -> Cu {
    wait(flat(in_array(to, offset), memory(from), bytes))
}

pub(crate) fn a2h<N: Wide>(to: Out<c_void>, from: CUarray, offset: N, bytes: N) -> Cu {
    wait(flat(
        Side::flat(Place::Host(raw::addr_out(to))),
        in_array(from, offset),
        bytes,
    ))
}

pub(crate) fn h2a<N: Wide>(to: CUarray, offset: N, from: In<c_void>, bytes: N) -> Cu {
    wait(flat(
        in_array(to, offset),
        Side::flat(Place::Host(raw::addr_in(from))),
        bytes,
    ))
}

pub(crate) fn a2h_async<N: Wide>(
    to: Out<c_void>,
    from: CUarray,
    offset: N,
    bytes: N,
    stream: CUstream,
) -> Cu {
    let to = Side::flat(Place::Host(raw::addr_out(to)));
    start(stream, flat(to, in_array(from, offset), bytes)).map(drop)
}

pub(crate) fn h2a_async<N: Wide>(
    to: CUarray,
    offset: N,
    from: In<c_void>,
    bytes: N,
    stream: CUstream,
) -> Cu {
    let from = Side::flat(Place::Host(raw::addr_in(from)));
    start(stream, flat(in_array(to, offset), from, bytes)).map(drop)
}

/// One side of a batched copy: the union in it holds a pointer with its layout, or an array with an offset.
fn operand(operand: &CUmemcpy3DOperand, extent: [u64; 3]) -> Cu<Side> {
    let at = &raw const operand.op as u64;
    let word = |index: u64| raw::read::<u64>(at + 8 * index);
    match operand.type_ {
        CU_MEMCPY_OPERAND_TYPE_POINTER => side(
            Place::Memory(word(0)),
            [0; 3],
            word(1) as usize,
            word(2) as usize,
            extent,
        ),
        CU_MEMCPY_OPERAND_TYPE_ARRAY => {
            let offset = [1, 2, 3].map(|index| word(index) as usize);
            side(Place::Array(word(0)), offset, 0, 0, extent)
        }
        _ => fail(CUDA_ERROR_INVALID_VALUE),
    }
}

fn batch_shape(op: &CUDA_MEMCPY3D_BATCH_OP) -> Cu<Shape> {
    let extent = [
        op.extent.width as u64,
        op.extent.height as u64,
        op.extent.depth as u64,
    ];
    Ok(Shape {
        from: operand(&op.src, extent)?,
        to: operand(&op.dst, extent)?,
        extent,
    })
}

/// `cuMemcpy3DBatchAsync_v2`: a copy each, in order.
pub(crate) fn batch_3d(
    count: usize,
    list: Out<CUDA_MEMCPY3D_BATCH_OP>,
    flags: u64,
    stream: CUstream,
) -> Cu {
    ensure(flags == 0 && count > 0 && !stream.is_null())?;
    let list = raw::array::<CUDA_MEMCPY3D_BATCH_OP>(raw::addr_out(list), count).ok_or(WRONG)?;
    let shapes: Vec<Shape> = list.iter().map(batch_shape).collect::<Cu<_>>()?;
    shapes
        .into_iter()
        .try_for_each(|shape| start(stream, shape).map(drop))
}

pub(crate) fn batch_3d_v1(
    count: usize,
    list: Out<CUDA_MEMCPY3D_BATCH_OP>,
    failed: Out<usize>,
    flags: u64,
    stream: CUstream,
) -> Cu {
    let done = batch_3d(count, list, flags, stream);
    if done.is_err() {
        failed.write(usize::MAX);
    }
    done
}

pub(crate) fn with_attributes_3d(
    op: Out<CUDA_MEMCPY3D_BATCH_OP>,
    flags: u64,
    stream: CUstream,
) -> Cu {
    batch_3d(1, op, flags, stream)
}

/// A description of the first version, whose numbers have 32 bits, in today's form.
fn wide_2d(c: &CUDA_MEMCPY2D_v1) -> CUDA_MEMCPY2D {
    let w = |value: c_uint| value as usize;
    CUDA_MEMCPY2D {
        srcXInBytes: w(c.srcXInBytes),
        srcY: w(c.srcY),
        srcMemoryType: c.srcMemoryType,
        srcHost: c.srcHost,
        srcDevice: u64::from(c.srcDevice),
        srcArray: c.srcArray,
        srcPitch: w(c.srcPitch),
        dstXInBytes: w(c.dstXInBytes),
        dstY: w(c.dstY),
        dstMemoryType: c.dstMemoryType,
        dstHost: c.dstHost,
        dstDevice: u64::from(c.dstDevice),
        dstArray: c.dstArray,
        dstPitch: w(c.dstPitch),
        WidthInBytes: w(c.WidthInBytes),
        Height: w(c.Height),
    }
}

pub(crate) fn copy_2d_v1(copy: In<CUDA_MEMCPY2D_v1>) -> Cu {
    wait(shape_2d(&wide_2d(&copy.read().ok_or(WRONG)?))?)
}

pub(crate) fn copy_2d_async_v1(copy: In<CUDA_MEMCPY2D_v1>, stream: CUstream) -> Cu {
    start(stream, shape_2d(&wide_2d(&copy.read().ok_or(WRONG)?))?).map(drop)
}

fn wide_3d(c: &CUDA_MEMCPY3D_v1) -> CUDA_MEMCPY3D {
    let w = |value: c_uint| value as usize;
    CUDA_MEMCPY3D {
        srcXInBytes: w(c.srcXInBytes),
        srcY: w(c.srcY),
        srcZ: w(c.srcZ),
        srcLOD: w(c.srcLOD),
        srcMemoryType: c.srcMemoryType,
        srcHost: c.srcHost,
        srcDevice: u64::from(c.srcDevice),
        srcArray: c.srcArray,
        reserved0: c.reserved0,
        srcPitch: w(c.srcPitch),
        srcHeight: w(c.srcHeight),
        dstXInBytes: w(c.dstXInBytes),
        dstY: w(c.dstY),
        dstZ: w(c.dstZ),
        dstLOD: w(c.dstLOD),
        dstMemoryType: c.dstMemoryType,
        dstHost: c.dstHost,
        dstDevice: u64::from(c.dstDevice),
        dstArray: c.dstArray,
        reserved1: c.reserved1,
        dstPitch: w(c.dstPitch),
        dstHeight: w(c.dstHeight),
        WidthInBytes: w(c.WidthInBytes),
        Height: w(c.Height),
        Depth: w(c.Depth),
    }
}

pub(crate) fn copy_3d_v1(copy: In<CUDA_MEMCPY3D_v1>) -> Cu {
    wait(shape_3d(&wide_3d(&copy.read().ok_or(WRONG)?))?)
}

pub(crate) fn copy_3d_async_v1(copy: In<CUDA_MEMCPY3D_v1>, stream: CUstream) -> Cu {
    start(stream, shape_3d(&wide_3d(&copy.read().ok_or(WRONG)?))?).map(drop)
}
