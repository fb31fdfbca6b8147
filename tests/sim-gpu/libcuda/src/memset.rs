//! Memsets of one and two dimensions, in three element sizes.
//!
//! They cost their bytes over the GPU's memory bandwidth and, like the driver's, are not waited for.

use vgpu_cuda_sys::cuda::*;

use crate::copy::{Place, Shape, Side};
use crate::error::{Cu, ensure};
use crate::memory::Wide;
use crate::queue::{self, Work};
use crate::state::lock;
use crate::{raw, stream};

/// A pattern to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) to: u64,
    /// Bytes from one row to the next.
    pub(crate) pitch: u64,
    pub(crate) value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub(crate) element: usize,
    /// Elements a row.
    pub(crate) width: u64,
    pub(crate) height: u64,
}

impl Fill {
    fn row(&self) -> u64 {
        self.width.saturating_mul(self.element as u64)
    }

    fn bytes(&self) -> u64 {
        self.row().saturating_mul(self.height)
    }

    /// The rows as one side of a copy onto itself, which has the same rules about ranges.
    fn shape(&self) -> Shape {
        let side = Side {
            place: Place::Memory(self.to),
            offset: [0; 3],
            pitch: self.pitch,
            rows: self.height,
        };
        Shape {
            from: side,
            to: side,
            extent: [self.row(), self.height, 1],
        }
    }

    /// Whether the range is there and aligned.
    pub(crate) fn check(&self) -> Cu {
        ensure(matches!(self.element, 1 | 2 | 4))?;
        ensure(self.to.is_multiple_of(self.element as u64))?;
        ensure(self.height == 1 || self.pitch.is_multiple_of(self.element as u64))?;
        let mut state = lock();
        state.expect_device(self.to)?;
        self.shape().check(&mut state).map(drop)
    }

    /// Writes; answers the nanoseconds that it takes the GPU.
    pub(crate) fn run(&self) -> Cu<u64> {
        self.check()?;
        if let Some(region) = lock().regions.at(self.to) {
            region.written = true;
        }
        for row in 0..self.height {
            raw::fill(
                self.to + row * self.pitch,
                self.value,
                self.element,
                self.width,
            );
        }
        Ok(1_000 + self.bytes() / 4_800)
    }
}

fn start(fill: Fill, stream: CUstream) -> Cu {
    let stream = stream::resolve(stream)?;
    if fill.bytes() == 0 {
        return Ok(());
    }
    fill.check()?;
    queue::submit(stream, Work::Fill(fill))
}

/// A value of 1, 2 or 4 bytes.
pub(crate) trait Element: Copy + Into<u32> {}
impl Element for u8 {}
impl Element for u16 {}
impl Element for u32 {}

pub(crate) fn flat<P: Wide, E: Element, N: Wide>(to: P, value: E, count: N) -> Cu {
    flat_async(to, value, count, core::ptr::null_mut())
}

pub(crate) fn flat_async<P: Wide, E: Element, N: Wide>(
    to: P,
    value: E,
    count: N,
    stream: CUstream,
) -> Cu {
    let (to, width) = (to.wide(), count.wide());
    start(
        Fill {
            to,
            pitch: 0,
            value: value.into(),
            element: size_of::<E>(),
            width,
            height: 1,
        },
        stream,
    )
}

pub(crate) fn rows<P: Wide, E: Element, N: Wide>(
    to: P,
    pitch: N,
    value: E,
    width: N,
    height: N,
) -> Cu {
    rows_async(to, pitch, value, width, height, core::ptr::null_mut())
}

pub(crate) fn rows_async<P: Wide, E: Element, N: Wide>(
    to: P,
    pitch: N,
    value: E,
    width: N,
    height: N,
    stream: CUstream,
) -> Cu {
    let fill = Fill {
        to: to.wide(),
        pitch: pitch.wide(),
        value: value.into(),
        element: size_of::<E>(),
        width: width.wide(),
        height: height.wide(),
    };
    ensure(fill.height <= 1 || fill.pitch >= fill.row())?;
    start(fill, stream)
}
