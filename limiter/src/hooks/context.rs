//! Contexts: their footprint, and the memory that goes with them.
//!
//! A primary context is charged at its first retain and refunded at its last release. What the
//! driver frees along with a context is refunded with it.

use std::ffi::{c_int, c_uint};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{
    CUDA_SUCCESS, CUcontext, CUctxCreateParams, CUdevice, CUexecAffinityParam, CUresult,
};
use vgpu_policy::Decision;

use super::charge::{Reservation, reserve, status};
use crate::contexts::{Created, Primary};
use crate::device;
use crate::live::Allocation;
use crate::real::cuda as real;
use crate::session::{self, Session};

/// Charges what the limits page says that a context of this device takes.
fn reserve_footprint(ordinal: CUdevice, result: Out<CUcontext>) -> Decision<Reservation> {
    let footprint = session::current()
        .ok()
        .and_then(|session| Some(session.ledger.limits().granted(session.index_of(ordinal)?)))
        .map_or(0, |granted| granted.context_footprint);
    reserve(footprint, result, |session| {
        // A device that the driver does not know is for the driver to refuse.
        session.ordinal_place(ordinal)
    })
}

fn create(ordinal: CUdevice, result: Out<CUcontext>, call: impl FnOnce() -> CUresult) -> CUresult {
    let reservation = match reserve_footprint(ordinal, result) {
        Decision::Allow(reservation) => reservation,
        Decision::Deny(deny) => return status(deny),
        Decision::Bypass(_) => return call(),
    };
    let answer = call();
    if answer == CUDA_SUCCESS
        && let (Ok(session), Some(context)) = (session::current(), result.read())
    {
        let device = reservation.device();
        let created = Created {
            device,
            bytes: reservation.keep(),
            uses: 1,
        };
        session.contexts.created().insert(context.addr(), created);
    }
    answer
}

/// `cuCtxCreate`, the form of CUDA 2.
pub fn create_v1(pctx: Out<CUcontext>, flags: c_uint, dev: CUdevice) -> CUresult {
    create(dev, pctx, || real::cuCtxCreate(pctx, flags, dev))
}

/// `cuCtxCreate_v2`.
pub fn create_v2(pctx: Out<CUcontext>, flags: c_uint, dev: CUdevice) -> CUresult {
    create(dev, pctx, || real::cuCtxCreate_v2(pctx, flags, dev))
}

/// `cuCtxCreate_v3`.
pub fn create_v3(
    pctx: Out<CUcontext>,
    affinity: Out<CUexecAffinityParam>,
    count: c_int,
    flags: c_uint,
    dev: CUdevice,
) -> CUresult {
    create(dev, pctx, || {
        real::cuCtxCreate_v3(pctx, affinity, count, flags, dev)
    })
}

/// `cuCtxCreate_v4`.
pub fn create_v4(
    pctx: Out<CUcontext>,
    params: Out<CUctxCreateParams>,
    flags: c_uint,
    dev: CUdevice,
) -> CUresult {
    create(dev, pctx, || real::cuCtxCreate_v4(pctx, params, flags, dev))
}

/// `cuCtxAttach`: one more use of the current context.
pub fn attach(pctx: Out<CUcontext>, flags: c_uint) -> CUresult {
    let answer = real::cuCtxAttach(pctx, flags);
    if answer == CUDA_SUCCESS
        && let (Ok(session), Some(context)) = (session::current(), pctx.read())
        && let Some(created) = session.contexts.created().get_mut(&context.addr())
    {
        created.uses = created.uses.saturating_add(1);
    }
    answer
}

/// `cuCtxDetach`: the last use destroys.
pub fn detach(ctx: CUcontext) -> CUresult {
    let answer = real::cuCtxDetach(ctx);
    if answer == CUDA_SUCCESS
        && let Ok(session) = session::current()
    {
        let last = match session.contexts.created().get_mut(&ctx.addr()) {
            Some(created) => {
                created.uses = created.uses.saturating_sub(1);
                created.uses == 0
            }
            None => false,
        };
        if last {
            destroyed(session, ctx);
        }
    }
    answer
}

/// `cuCtxDestroy`, the form of CUDA 2.
pub fn destroy_v1(ctx: CUcontext) -> CUresult {
    destroy_with(ctx, || real::cuCtxDestroy(ctx))
}

/// `cuCtxDestroy_v2`.
pub fn destroy(ctx: CUcontext) -> CUresult {
    destroy_with(ctx, || real::cuCtxDestroy_v2(ctx))
}

/// As for memory, the books are cleared before the driver can give the handle to another thread.
fn destroy_with(ctx: CUcontext, call: impl FnOnce() -> CUresult) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let taken = session.contexts.created().remove(&ctx.addr());
    let answer = call();
    let Some(created) = taken else { return answer };
    if answer == CUDA_SUCCESS {
        session.ledger.refund(created.device, created.bytes);
        refund_memory(session, |allocation| {
            allocation.context == ctx.addr() && allocation.pool == 0
        });
    } else {
        session.contexts.created().insert(ctx.addr(), created);
    }
    answer
}

fn destroyed(session: &Session, ctx: CUcontext) {
    if let Some(created) = session.contexts.created().remove(&ctx.addr()) {
        session.ledger.refund(created.device, created.bytes);
        refund_memory(session, |allocation| {
            allocation.context == ctx.addr() && allocation.pool == 0
        });
    }
}

/// Refunds the memory that went with a context.
fn refund_memory(session: &Session, gone: impl Fn(&Allocation) -> bool) {
    device::forget_contexts();
    for books in [&session.live, &session.arrays] {
        for (_, allocation) in books.take_all(&gone) {
            session
                .ledger
                .refund(allocation.device, allocation.own_charge());
        }
    }
}

/// `cuDevicePrimaryCtxRetain`: the first one charges.
pub fn primary_retain(pctx: Out<CUcontext>, dev: CUdevice) -> CUresult {
    let session = match session::current() {
        Ok(session) => session,
        Err(deny) => return status(deny),
    };
    let index = session.index_of(dev);
    let Some(mut primary) = index.and_then(|index| session.contexts.primary(index)) else {
        return match reserve_footprint(dev, pctx) {
            Decision::Deny(deny) => status(deny),
            Decision::Allow(_) | Decision::Bypass(_) => real::cuDevicePrimaryCtxRetain(pctx, dev),
        };
    };
    let first = if primary.retains == 0 && primary.bytes == 0 {
        match reserve_footprint(dev, pctx) {
            Decision::Allow(reservation) => Some(reservation),
            Decision::Deny(deny) => return status(deny),
            Decision::Bypass(_) => None,
        }
    } else {
        None
    };
    let answer = real::cuDevicePrimaryCtxRetain(pctx, dev);
    if answer == CUDA_SUCCESS {
        primary.retains = primary.retains.saturating_add(1);
        primary.context = pctx.read().map_or(0, |context| context.addr());
        if let Some(reservation) = first {
            primary.bytes = reservation.keep();
        }
    }
    answer
}

/// Runs a call that may end the primary context, and refunds what went with it.
fn primary_ends(
    dev: CUdevice,
    call: impl FnOnce() -> CUresult,
    ends: impl FnOnce(&mut Primary) -> bool,
) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let Some(index) = session.index_of(dev) else {
        return call();
    };
    let Some(mut primary) = session.contexts.primary(index) else {
        return call();
    };
    let answer = call();
    if answer != CUDA_SUCCESS || !ends(&mut primary) {
        return answer;
    }
    let context = primary.context;
    refund_memory(session, |allocation| {
        allocation.device == index && allocation.context == context
    });
    session.end_pools(index);
    // A reset leaves the retains in place, and with them a context that may come back by itself.
    if primary.retains == 0 {
        session
            .ledger
            .refund(index, std::mem::take(&mut primary.bytes));
    }
    answer
}

fn release(primary: &mut Primary) -> bool {
    let retained = primary.retains;
    primary.retains = retained.saturating_sub(1);
    retained == 1
}

/// `cuDevicePrimaryCtxRelease`, the form before CUDA 11.
pub fn primary_release_v1(dev: CUdevice) -> CUresult {
    primary_ends(dev, || real::cuDevicePrimaryCtxRelease(dev), release)
}

/// `cuDevicePrimaryCtxRelease_v2`.
pub fn primary_release(dev: CUdevice) -> CUresult {
    primary_ends(dev, || real::cuDevicePrimaryCtxRelease_v2(dev), release)
}

/// `cuDevicePrimaryCtxReset`, the form before CUDA 11.
pub fn primary_reset_v1(dev: CUdevice) -> CUresult {
    primary_ends(dev, || real::cuDevicePrimaryCtxReset(dev), |_| true)
}

/// `cuDevicePrimaryCtxReset_v2`.
pub fn primary_reset(dev: CUdevice) -> CUresult {
    primary_ends(dev, || real::cuDevicePrimaryCtxReset_v2(dev), |_| true)
}
