//! Stream-ordered memory: the request is charged, the driver called, and the charge settled to what the
//! pool has reserved by then.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUdevice, CUdeviceptr, CUmemoryPool, CUresult, CUstream};
use vgpu_policy::{Bypass, Decision, Deny};

use super::charge::{Reservation, reserve, status, uncharged};
use crate::live::{Allocation, UNKNOWN_POOL};
use crate::pools::{self, Account};
use crate::real::cuda as real;
use crate::session::{self, Session};

/// One of the four forms of an allocation.
struct Request {
    result: Out<CUdeviceptr>,
    bytes: usize,
    stream: CUstream,
    /// Null: the current pool of the stream's device.
    pool: CUmemoryPool,
    free: fn(CUdeviceptr, CUstream) -> CUresult,
}

impl Request {
    fn run(self, call: impl FnOnce() -> CUresult) -> CUresult {
        let Self {
            result,
            bytes,
            stream,
            pool,
            free,
        } = self;
        if pools::is_host(pool) {
            return call();
        }
        let place = |session: &'static Session| session.place_of_pool(pool, stream);
        let decision = match reserve(bytes as u64, result, place) {
            Decision::Deny(Deny::OverQuota) | Decision::Bypass(Bypass::BeyondTheGpu)
                if has_room(pool, stream, bytes as u64) =>
            {
                // The pool can serve it from what was charged already.
                reserve(0, result, place)
            }
            decision @ (Decision::Allow(_) | Decision::Deny(_) | Decision::Bypass(_)) => decision,
        };
        let reservation = match decision {
            Decision::Allow(reservation) => reservation,
            Decision::Deny(deny) => return status(deny),
            Decision::Bypass(_) => {
                return uncharged(result, call(), |given| free(given, stream));
            }
        };
        let answer = call();
        let Some(address) = result.read().filter(|_| answer == CUDA_SUCCESS) else {
            return answer;
        };
        let pool = pool_of(pool, reservation.ordinal());
        let free = || free(address, stream);
        match keep(reservation, (address, bytes as u64), pool, free) {
            Ok(()) => answer,
            Err(deny) => status(deny),
        }
    }
}

/// Whether the pool has as much reserved and unused.
#[cold]
fn has_room(pool: CUmemoryPool, stream: CUstream, bytes: u64) -> bool {
    let Ok(session) = session::current() else {
        return false;
    };
    let Some(place) = session.place_of_pool(pool, stream) else {
        return false;
    };
    pool_of(pool, place.ordinal).is_some_and(|pool| pools::unused(pool) >= bytes)
}

/// The pool that serves; `None`: the driver does not say.
fn pool_of(pool: CUmemoryPool, ordinal: CUdevice) -> Option<usize> {
    if !pool.is_null() {
        return Some(pool.addr());
    }
    let mut current: CUmemoryPool = std::ptr::null_mut();
    let answer = real::cuDeviceGetMemPool(Out::of(&mut current), ordinal);
    (answer == CUDA_SUCCESS).then(|| current.addr())
}

/// Settles the pool's account, and notes the allocation, or frees it where the pool took more than the quota
/// allows. Without a pool that can be asked, the request itself stays charged.
fn keep(
    mut reservation: Reservation,
    (address, requested): (u64, u64),
    pool: Option<usize>,
    free: impl FnOnce() -> CUresult,
) -> Result<(), Deny> {
    let (session, device) = (reservation.session(), reservation.device());
    let mut accounts = session.pools.accounts();
    let known = pool.and_then(|pool| pools::reserved(pool).map(|reserved| (pool, reserved)));
    let Some((pool, reserved)) = known else {
        reservation.keep_for(address, UNKNOWN_POOL);
        return Ok(());
    };
    let account = accounts
        .entry(pool)
        .or_insert(Account { device, charged: 0 });
    if account.device != device {
        // A pool of another device than the stream's.
        reservation.keep_for(address, UNKNOWN_POOL);
        return Ok(());
    }
    if let Err(deny) = reservation.settle(reserved.saturating_sub(account.charged)) {
        // The chunk that the pool took for it goes back as well: nobody is charged for it.
        free();
        drop(reservation);
        account.trim(session, pool, account.charged);
        return Err(deny);
    }
    let surplus = account.charged.saturating_sub(reserved);
    session.ledger.refund(device, surplus);
    account.charged = account.charged.saturating_sub(surplus);
    let context = reservation.context();
    account.charged = account.charged.saturating_add(reservation.keep());
    session.note_pooled(
        address,
        Allocation {
            device,
            bytes: requested,
            context,
            pool,
        },
    );
    Ok(())
}

/// `cuMemAllocAsync`.
pub fn alloc(result: Out<CUdeviceptr>, bytes: usize, stream: CUstream) -> CUresult {
    let pool = std::ptr::null_mut();
    Request {
        result,
        bytes,
        stream,
        pool,
        free: real::cuMemFreeAsync,
    }
    .run(|| real::cuMemAllocAsync(result, bytes, stream))
}

/// `cuMemAllocAsync_ptsz`: the null stream is the thread's own.
pub fn alloc_ptsz(result: Out<CUdeviceptr>, bytes: usize, stream: CUstream) -> CUresult {
    let pool = std::ptr::null_mut();
    Request {
        result,
        bytes,
        stream,
        pool,
        free: real::cuMemFreeAsync_ptsz,
    }
    .run(|| real::cuMemAllocAsync_ptsz(result, bytes, stream))
}

/// `cuMemAllocFromPoolAsync`.
pub fn alloc_from(
    result: Out<CUdeviceptr>,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    Request {
        result,
        bytes,
        stream,
        pool,
        free: real::cuMemFreeAsync,
    }
    .run(|| real::cuMemAllocFromPoolAsync(result, bytes, pool, stream))
}

/// `cuMemAllocFromPoolAsync_ptsz`.
pub fn alloc_from_ptsz(
    result: Out<CUdeviceptr>,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    Request {
        result,
        bytes,
        stream,
        pool,
        free: real::cuMemFreeAsync_ptsz,
    }
    .run(|| real::cuMemAllocFromPoolAsync_ptsz(result, bytes, pool, stream))
}

/// `cuMemPoolTrimTo`: gives back at once.
pub fn trim(pool: CUmemoryPool, keep: usize) -> CUresult {
    let answer = real::cuMemPoolTrimTo(pool, keep);
    if answer == CUDA_SUCCESS
        && let Ok(session) = session::current()
    {
        session.settle_pool(pool.addr());
    }
    answer
}

/// `cuMemPoolDestroy`: what is still allocated from it lives on, each allocation on its own.
pub fn destroy(pool: CUmemoryPool) -> CUresult {
    let Ok(session) = session::current() else {
        return real::cuMemPoolDestroy(pool);
    };
    let mut accounts = session.pools.accounts();
    // Nothing reserved: what the books still have of it went with a context.
    let empty = pools::reserved(pool.addr()) == Some(0);
    let answer = real::cuMemPoolDestroy(pool);
    if answer == CUDA_SUCCESS
        && let Some(mut account) = accounts.remove(&pool.addr())
    {
        let mut charged = 0_u64;
        for (address, mut allocation) in session.live.take_all(|a| a.pool == pool.addr()) {
            if empty {
                continue;
            }
            charged = charged.saturating_add(allocation.bytes);
            allocation.pool = UNKNOWN_POOL;
            session.live.insert(address, allocation);
        }
        account.settle(session, charged);
    }
    answer
}
