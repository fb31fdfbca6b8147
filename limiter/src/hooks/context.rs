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

use super::charge::{Reservation, reserve, status, uncharged};
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
        Decision::Bypass(_) => return uncharged(result, call(), real::cuCtxDestroy_v2),
    };
    let answer = call();
    // Before anybody has the new handle.
    device::forget_contexts();
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
    let call = || real::cuCtxDetach(ctx);
    let Ok(session) = session::current() else {
        return call();
    };
    let others = match session.contexts.created().get_mut(&ctx.addr()) {
        Some(created) if created.uses > 1 => {
            created.uses = created.uses.saturating_sub(1);
            true
        }
        Some(_) | None => false,
    };
    if !others {
        return destroy_with(ctx, call);
    }
    let answer = call();
    if answer != CUDA_SUCCESS
        && let Some(created) = session.contexts.created().get_mut(&ctx.addr())
    {
        created.uses = created.uses.saturating_add(1);
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

fn destroy_with(ctx: CUcontext, call: impl FnOnce() -> CUresult) -> CUresult {
    let Ok(session) = session::current() else {
        return call();
    };
    let taken = session.contexts.created().remove(&ctx.addr());
    let Some(created) = taken else { return call() };
    let gone = |it: &Allocation| it.context == ctx.addr() && it.pool == 0;
    let answer = with_memory(session, gone, call);
    if answer == CUDA_SUCCESS {
        session.ledger.refund(created.device, created.bytes);
    } else {
        session.contexts.created().insert(ctx.addr(), created);
    }
    answer
}

/// Makes a call by which memory goes with a context. As for memory itself, it is out of the books before the
/// driver can give the handle or an address to another thread, and back where the driver refuses.
fn with_memory(
    session: &Session,
    gone: impl Fn(&Allocation) -> bool,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let books = [&session.live, &session.arrays];
    let taken = books.map(|books| books.take_all(&gone));
    let answer = call();
    device::forget_contexts();
    for (books, taken) in books.into_iter().zip(taken) {
        for (address, allocation) in taken {
            if answer == CUDA_SUCCESS {
                let bytes = allocation.own_charge();
                session.ledger.refund(allocation.device, bytes);
            } else {
                books.insert(address, allocation);
            }
        }
    }
    answer
}

/// `cuDevicePrimaryCtxRetain`: the first one charges.
pub fn primary_retain(pctx: Out<CUcontext>, dev: CUdevice) -> CUresult {
    let session = match session::current() {
        Ok(session) => session,
        Err(deny) => return status(deny),
    };
    let call = || real::cuDevicePrimaryCtxRetain(pctx, dev);
    let give_back = |_| real::cuDevicePrimaryCtxRelease_v2(dev);
    let index = session.index_of(dev);
    let Some(mut primary) = index.and_then(|index| session.contexts.primary(index)) else {
        return match reserve_footprint(dev, pctx) {
            Decision::Deny(deny) => status(deny),
            Decision::Allow(_) | Decision::Bypass(_) => uncharged(pctx, call(), give_back),
        };
    };
    let first = if primary.retains == 0 && primary.bytes == 0 {
        match reserve_footprint(dev, pctx) {
            Decision::Allow(reservation) => Some(reservation),
            Decision::Deny(deny) => return status(deny),
            Decision::Bypass(_) => return uncharged(pctx, call(), give_back),
        }
    } else {
        None
    };
    let answer = call();
    if answer == CUDA_SUCCESS {
        primary.retains = primary.retains.saturating_add(1);
        primary.context = pctx.read().map_or(0, |context| context.addr());
        if let Some(reservation) = first {
            device::forget_contexts();
            primary.bytes = reservation.keep();
        }
    }
    answer
}

/// Runs a call that ends the primary context where `ends` says so, and refunds what went with it.
fn primary_ends(
    dev: CUdevice,
    call: impl FnOnce() -> CUresult,
    ends: fn(&Primary) -> bool,
    note: fn(&mut Primary),
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
    let ended = ends(&primary);
    let context = primary.context;
    let gone = |it: &Allocation| it.device == index && it.context == context;
    let answer = if ended {
        with_memory(session, gone, call)
    } else {
        call()
    };
    if answer != CUDA_SUCCESS {
        return answer;
    }
    note(&mut primary);
    if ended {
        session.end_pools(index);
    }
    // A reset leaves the retains in place, and with them a context that may come back by itself.
    if ended && primary.retains == 0 {
        session
            .ledger
            .refund(index, std::mem::take(&mut primary.bytes));
    }
    answer
}

fn release(dev: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    primary_ends(
        dev,
        call,
        |primary| primary.retains == 1,
        |primary| primary.retains = primary.retains.saturating_sub(1),
    )
}

fn reset(dev: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    primary_ends(dev, call, |_| true, |_| {})
}

/// `cuDevicePrimaryCtxRelease`, the form before CUDA 11.
pub fn primary_release_v1(dev: CUdevice) -> CUresult {
    release(dev, || real::cuDevicePrimaryCtxRelease(dev))
}

/// `cuDevicePrimaryCtxRelease_v2`.
pub fn primary_release(dev: CUdevice) -> CUresult {
    release(dev, || real::cuDevicePrimaryCtxRelease_v2(dev))
}

/// `cuDevicePrimaryCtxReset`, the form before CUDA 11.
pub fn primary_reset_v1(dev: CUdevice) -> CUresult {
    reset(dev, || real::cuDevicePrimaryCtxReset(dev))
}

/// `cuDevicePrimaryCtxReset_v2`.
pub fn primary_reset(dev: CUdevice) -> CUresult {
    reset(dev, || real::cuDevicePrimaryCtxReset_v2(dev))
}
