//! Waiting for and writing values in memory, in stream order.
//!
//! A wait holds up its stream until the word in memory fits; the queue's thread looks at it now and then.

use core::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure, fail};
use crate::queue::{self, Work};
use crate::state::lock;
use crate::{raw, stream};

/// One operation on a word in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueOp {
    address: u64,
    value: u64,
    wide: bool,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Write,
    AtLeast,
    Equal,
    AnyBit,
    Nor,
}

impl ValueOp {
    fn word(&self) -> u64 {
        if self.wide {
            raw::read(self.address)
        } else {
            u64::from(raw::read::<u32>(self.address))
        }
    }

    /// Whether a wait is over; writes are always ready.
    pub(crate) fn is_ready(&self) -> bool {
        let word = || self.word();
        match self.what {
            What::Write => true,
            // Cyclic, as documented: the signed difference counts.
            What::AtLeast if self.wide => (word().wrapping_sub(self.value) as i64) >= 0,
            What::AtLeast => ((word() as u32).wrapping_sub(self.value as u32) as i32) >= 0,
            What::Equal => word() == self.value,
            What::AnyBit => word() & self.value != 0,
            What::Nor if self.wide => !(word() | self.value) != 0,
            What::Nor => !((word() | self.value) as u32) != 0,
        }
    }

    /// Does a write.
    pub(crate) fn run(&self) {
        match (self.what, self.wide) {
            (What::Write, true) => raw::write(self.address, self.value),
            (What::Write, false) => raw::write(self.address, self.value as u32),
            _ => {}
        }
    }

    fn start(self, stream: u64) -> Cu {
        let size = if self.wide { 8 } else { 4 };
        ensure(self.address.is_multiple_of(size))?;
        let mut state = lock();
        state.device_range(self.address, size)?.written = true;
        drop(state);
        queue::submit(stream, Work::Value(self))
    }
}

fn waiting(address: u64, value: u64, wide: bool, flags: c_uint) -> Cu<ValueOp> {
    let what = match flags & !CU_STREAM_WAIT_VALUE_FLUSH {
        CU_STREAM_WAIT_VALUE_GEQ => What::AtLeast,
        CU_STREAM_WAIT_VALUE_EQ => What::Equal,
        CU_STREAM_WAIT_VALUE_AND => What::AnyBit,
        CU_STREAM_WAIT_VALUE_NOR => What::Nor,
        _ => return fail(CUDA_ERROR_INVALID_VALUE),
    };
    Ok(ValueOp {
        address,
        value,
        wide,
        what,
    })
}

fn writing(address: u64, value: u64, wide: bool, flags: c_uint) -> Cu<ValueOp> {
    ensure(flags & !CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER == 0)?;
    Ok(ValueOp {
        address,
        value,
        wide,
        what: What::Write,
    })
}

pub(crate) fn wait_32(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint) -> Cu {
    waiting(address, u64::from(value), false, flags)?.start(stream::resolve(stream)?)
}

pub(crate) fn wait_64(stream: CUstream, address: CUdeviceptr, value: u64, flags: c_uint) -> Cu {
    waiting(address, value, true, flags)?.start(stream::resolve(stream)?)
}

pub(crate) fn write_32(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint) -> Cu {
    writing(address, u64::from(value), false, flags)?.start(stream::resolve(stream)?)
}

pub(crate) fn write_64(stream: CUstream, address: CUdeviceptr, value: u64, flags: c_uint) -> Cu {
    writing(address, value, true, flags)?.start(stream::resolve(stream)?)
}

/// Layout of the wait and write forms of `CUstreamBatchMemOpParams`, which agree.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct BatchOp {
    operation: CUstreamBatchMemOpType,
    address: u64,
    value: u64,
    flags: c_uint,
    alias: u64,
}

/// `cuStreamBatchMemOp`: each operation in turn; all are checked before the first is started.
pub(crate) fn batch(
    stream: CUstream,
    count: c_uint,
    list: Out<CUstreamBatchMemOpParams>,
    flags: c_uint,
) -> Cu {
    ensure(flags == 0 && count <= 256)?;
    let stream = stream::resolve(stream)?;
    let stride = size_of::<CUstreamBatchMemOpParams>() as u64;
    ensure(count == 0 || !list.is_null())?;
    let mut operations = Vec::new();
    for index in 0..u64::from(count) {
        let op: BatchOp = raw::read(raw::addr_out(list) + index * stride);
        let short = op.value & u64::from(u32::MAX);
        operations.push(match op.operation {
            CU_STREAM_MEM_OP_WAIT_VALUE_32 => waiting(op.address, short, false, op.flags)?,
            CU_STREAM_MEM_OP_WAIT_VALUE_64 => waiting(op.address, op.value, true, op.flags)?,
            CU_STREAM_MEM_OP_WRITE_VALUE_32 => writing(op.address, short, false, op.flags)?,
            CU_STREAM_MEM_OP_WRITE_VALUE_64 => writing(op.address, op.value, true, op.flags)?,
            CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES | CU_STREAM_MEM_OP_BARRIER => continue,
            CU_STREAM_MEM_OP_ATOMIC_REDUCTION => return fail(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(Fail(CUDA_ERROR_INVALID_VALUE)),
        });
    }
    operations.into_iter().try_for_each(|op| op.start(stream))
}
