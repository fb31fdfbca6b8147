//! Copies: one shape for all of them, what it costs, and the plain ones.
//!
//! Owns [`Shape`], a box of bytes moved between two places. Every copy function of the API becomes one. Copies cost
//! their bytes over the bandwidth of the slower side: an H200's memory, the link between GPUs, the bus to the host.

use core::ffi::c_void;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail};
use crate::memory::Wide;
use crate::queue::{self, Work};
use crate::region::Kind;
use crate::state::{State, id, lock};
use crate::{raw, stream};

/// What a copy costs whatever its size, in nanoseconds.
const SETUP: u64 = 1_000;
/// Bytes a nanosecond within one GPU: reads and writes share 4.8 TB/s.
const LOCAL: u64 = 2_400;
/// Bytes a nanosecond between two GPUs.
const NVLINK: u64 = 450;
/// Bytes a nanosecond to and from the host.
const PCIE: u64 = 55;

/// Where bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Device memory, or anything with a unified address.
    Memory(u64),
    /// The program's own memory, whatever is at the address.
    Host(u64),
    /// An array.
    Array(u64),
}

/// One side of a copy: a place and how its rows and slices lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) place: Place,
    /// Offset in bytes, rows and slices.
    pub(crate) offset: [u64; 3],
    /// Bytes from one row to the next.
    pub(crate) pitch: u64,
    /// Rows from one slice to the next.
    pub(crate) rows: u64,
}

impl Side {
    /// A plain range.
    pub(crate) fn flat(place: Place) -> Self {
        Self {
            place,
            offset: [0; 3],
            pitch: 0,
            rows: 0,
        }
    }
}

/// A box of bytes to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) from: Side,
    pub(crate) to: Side,
    /// Bytes a row, rows, slices.
    pub(crate) extent: [u64; 3],
}

/// A side with addresses: the first byte, the step to the next row and the step to the next slice.
#[derive(Debug, Clone, Copy)]
struct Laid {
    start: u64,
    row: u64,
    slice: u64,
    /// Ordinal of the device; `None` for the host.
    device: Option<usize>,
}

impl Shape {
    /// `bytes` in one piece.
    pub(crate) fn flat(to: Place, from: Place, bytes: u64) -> Self {
        Self {
            from: Side::flat(from),
            to: Side::flat(to),
            extent: [bytes, 1, 1],
        }
    }

    /// Bytes in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.extent
            .iter()
            .fold(1, |bytes, &extent| bytes.saturating_mul(extent))
    }

    /// Whether both sides are there; answers the nanoseconds that the copy takes.
    pub(crate) fn check(&self, state: &mut State) -> Cu<u64> {
        let from = state.lay(&self.from, self.extent, false)?;
        let to = state.lay(&self.to, self.extent, false)?;
        Ok(cost(self.bytes(), &from, &to))
    }

    /// Moves the bytes; answers the nanoseconds that it takes the GPU.
    pub(crate) fn run(&self) -> Cu<u64> {
        let (from, to) = {
            let mut state = lock();
            (
                state.lay(&self.from, self.extent, false)?,
                state.lay(&self.to, self.extent, true)?,
            )
        };
        let [width, height, depth] = self.extent;
        let solid = |side: &Laid| {
            (height == 1 || side.row == width) && (depth == 1 || side.slice == width * height)
        };
        if solid(&from) && solid(&to) {
            raw::copy(to.start, from.start, self.bytes());
        } else {
            for slice in 0..depth {
                for row in 0..height {
                    let at = |side: &Laid| side.start + slice * side.slice + row * side.row;
                    raw::copy(at(&to), at(&from), width);
                }
            }
        }
        Ok(cost(self.bytes(), &from, &to))
    }
}

fn cost(bytes: u64, from: &Laid, to: &Laid) -> u64 {
    let speed = match (from.device, to.device) {
        (Some(from), Some(to)) if from == to => LOCAL,
        (Some(_), Some(_)) => NVLINK,
        _ => PCIE,
    };
    SETUP + bytes / speed
}

impl State {
    /// Finds one side of a copy. Device ranges must hold all of it.
    fn lay(&mut self, side: &Side, extent: [u64; 3], written: bool) -> Cu<Laid> {
        let (base, pitch, rows, device) = match side.place {
            Place::Array(array) => {
                let array = self.array_to_copy(array, side, extent)?;
                (array.base, array.pitch, array.rows, Some(array.device))
            }
            Place::Host(base) => (base, side.pitch, side.rows, None),
            Place::Memory(base) => {
                let device = self.side_device(side, base, extent, written)?;
                (base, side.pitch, side.rows, device)
            }
        };
        ensure(base != 0)?;
        let slice = pitch * rows;
        let [x, y, z] = side.offset;
        Ok(Laid {
            start: base + x + y * pitch + z * slice,
            row: pitch,
            slice,
            device,
        })
    }

    /// Checks a range with a unified address; answers its device, `None` for host memory.
    fn side_device(
        &mut self,
        side: &Side,
        base: u64,
        extent: [u64; 3],
        written: bool,
    ) -> Cu<Option<usize>> {
        let Some(region) = self.regions.at(base) else {
            return Ok(None);
        };
        // The last row of the last slice ends the range; in 128 bits, since callers may say anything.
        let wide = |[x, y, z]: [u64; 3]| {
            let row = u128::from(side.pitch);
            u128::from(x) + u128::from(y) * row + u128::from(z) * row * u128::from(side.rows)
        };
        let [width, height, depth] = extent;
        let end = wide(side.offset) + wide([width, height - 1, depth - 1]);
        ensure(u128::from(base - region.base) + end <= u128::from(region.size))?;
        match region.kind {
            Kind::Reserved => return fail(CUDA_ERROR_INVALID_VALUE),
            Kind::Mapped { access, .. } => {
                let needed = if written {
                    CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                } else {
                    CU_MEM_ACCESS_FLAGS_PROT_READ
                };
                ensure_or(access & needed == needed, CUDA_ERROR_ILLEGAL_ADDRESS)?;
            }
            Kind::Graph { live } => ensure_or(live, CUDA_ERROR_ILLEGAL_ADDRESS)?,
            _ => {}
        }
        region.written |= written;
        Ok((!region.is_host()).then_some(region.device))
    }

    /// A device pointer argument, which must be in a range that the GPU can reach.
    pub(crate) fn expect_device(&mut self, address: u64) -> Cu {
        self.regions
            .at(address)
            .map(drop)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }
}

/// Hands a copy to a stream.
pub(crate) fn start(stream: CUstream, shape: Shape) -> Cu<u64> {
    let stream = stream::resolve(stream)?;
    if shape.bytes() > 0 {
        shape.check(&mut lock())?;
        queue::submit(stream, Work::Copy(Box::new(shape)))?;
    }
    Ok(stream)
}

/// Copies in the default stream and waits.
pub(crate) fn wait(shape: Shape) -> Cu {
    let stream = start(core::ptr::null_mut(), shape)?;
    queue::wait_after(stream)
}

fn device<P: Wide>(pointer: P, bytes: u64) -> Cu<Place> {
    if bytes > 0 {
        lock().expect_device(pointer.wide())?;
    }
    Ok(Place::Memory(pointer.wide()))
}

pub(crate) fn h2d<P: Wide, N: Wide>(to: P, from: In<c_void>, bytes: N) -> Cu {
    let bytes = bytes.wide();
    wait(Shape::flat(
        device(to, bytes)?,
        Place::Host(raw::addr_in(from)),
        bytes,
    ))
}

pub(crate) fn h2d_async<P: Wide, N: Wide>(
    to: P,
    from: In<c_void>,
    bytes: N,
    stream: CUstream,
) -> Cu {
    let bytes = bytes.wide();
    start(
        stream,
        Shape::flat(device(to, bytes)?, Place::Host(raw::addr_in(from)), bytes),
    )
    .map(drop)
}

pub(crate) fn d2h<P: Wide, N: Wide>(to: Out<c_void>, from: P, bytes: N) -> Cu {
    let bytes = bytes.wide();
    wait(Shape::flat(
        Place::Host(raw::addr_out(to)),
        device(from, bytes)?,
        bytes,
    ))
}

pub(crate) fn d2h_async<P: Wide, N: Wide>(
    to: Out<c_void>,
    from: P,
    bytes: N,
    stream: CUstream,
) -> Cu {
    let bytes = bytes.wide();
    start(
        stream,
        Shape::flat(Place::Host(raw::addr_out(to)), device(from, bytes)?, bytes),
    )
    .map(drop)
}

/// `cuMemcpyDtoD`: the driver does not wait for it either.
pub(crate) fn d2d<P: Wide, N: Wide>(to: P, from: P, bytes: N) -> Cu {
    d2d_async(to, from, bytes, core::ptr::null_mut())
}

pub(crate) fn d2d_async<P: Wide, N: Wide>(to: P, from: P, bytes: N, stream: CUstream) -> Cu {
    let bytes = bytes.wide();
    start(
        stream,
        Shape::flat(device(to, bytes)?, device(from, bytes)?, bytes),
    )
    .map(drop)
}

/// `cuMemcpy`: both addresses say for themselves where they are.
pub(crate) fn any(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> Cu {
    wait(Shape::flat(
        Place::Memory(to),
        Place::Memory(from),
        bytes as u64,
    ))
}

pub(crate) fn any_async(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) -> Cu {
    start(
        stream,
        Shape::flat(Place::Memory(to), Place::Memory(from), bytes as u64),
    )
    .map(drop)
}

fn contexts(to: CUcontext, from: CUcontext) -> Cu {
    let state = lock();
    let known = |context: CUcontext| context.is_null() || state.contexts.contains_key(&id(context));
    ensure_or(known(to) && known(from), CUDA_ERROR_INVALID_CONTEXT)
}

pub(crate) fn peer(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    bytes: usize,
) -> Cu {
    peer_async(
        to,
        to_context,
        from,
        from_context,
        bytes,
        core::ptr::null_mut(),
    )
}

pub(crate) fn peer_async(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    bytes: usize,
    stream: CUstream,
) -> Cu {
    contexts(to_context, from_context)?;
    d2d_async(to, from, bytes, stream)
}

/// `cuMemcpyBatchAsync_v2`: a copy each, in order; hints about order and place make no difference here.
pub(crate) fn batch(
    to: Out<CUdeviceptr>,
    from: Out<CUdeviceptr>,
    sizes: Out<usize>,
    count: usize,
    attributes: Out<CUmemcpyAttributes>,
    indices: Out<usize>,
    attribute_count: usize,
    stream: CUstream,
) -> Cu {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    ensure(count > 0 && attribute_count > 0 && attribute_count <= count)?;
    ensure(!attributes.is_null() && !stream.is_null())?;
    let first = raw::array::<usize>(raw::addr_out(indices), attribute_count).ok_or(wrong)?;
    ensure(first[0] == 0)?;
    let to = raw::array::<u64>(raw::addr_out(to), count).ok_or(wrong)?;
    let from = raw::array::<u64>(raw::addr_out(from), count).ok_or(wrong)?;
    let sizes = raw::array::<usize>(raw::addr_out(sizes), count).ok_or(wrong)?;
    for index in 0..count {
        any_async(to[index], from[index], sizes[index], stream)?;
    }
    Ok(())
}

/// `cuMemcpyBatchAsync`: as the second version, with a place for the index of the copy that failed.
pub(crate) fn batch_v1(
    to: Out<CUdeviceptr>,
    from: Out<CUdeviceptr>,
    sizes: Out<usize>,
    count: usize,
    attributes: Out<CUmemcpyAttributes>,
    indices: Out<usize>,
    attribute_count: usize,
    failed: Out<usize>,
    stream: CUstream,
) -> Cu {
    let done = batch(
        to,
        from,
        sizes,
        count,
        attributes,
        indices,
        attribute_count,
        stream,
    );
    if done.is_err() {
        failed.write(usize::MAX);
    }
    done
}

pub(crate) fn with_attributes(
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    attributes: Out<CUmemcpyAttributes>,
    stream: CUstream,
) -> Cu {
    ensure(!attributes.is_null())?;
    any_async(to, from, bytes, stream)
}
