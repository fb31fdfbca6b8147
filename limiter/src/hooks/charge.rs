//! Charge first, call, and keep or refund: the one way in which hooks take memory.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{
    CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_OUT_OF_MEMORY, CUDA_SUCCESS, CUdevice, CUresult,
};
use vgpu_policy::{Bypass, Decision, Deny};
use vgpu_region::layout::UNIT_BYTES;

use crate::device::Place;
use crate::live::{Allocation, Live};
use crate::log;
use crate::session::{self, Session};

/// A charge that is given back when dropped, unless the driver's success makes it stay.
#[derive(Debug)]
pub(super) struct Reservation {
    session: &'static Session,
    device: usize,
    ordinal: CUdevice,
    context: usize,
    bytes: u64,
}

impl Reservation {
    /// Charges more, or gives a part back, when the driver took another amount than was asked for.
    pub(super) fn settle(&mut self, bytes: u64) -> Result<(), Deny> {
        let bytes = whole_units(bytes);
        if let Some(more) = bytes.checked_sub(self.bytes) {
            take(self.session, self.device, more)?;
        } else {
            self.session
                .ledger
                .refund(self.device, self.bytes.saturating_sub(bytes));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Keeps the charge for as long as the allocation at this address lives.
    pub(super) fn keep_for(self, address: u64, pool: usize) {
        let session = self.session;
        self.keep_in(&session.live, address, pool);
    }

    /// Keeps the charge for as long as the array with this handle lives.
    pub(super) fn keep_for_array(self, handle: u64) {
        let session = self.session;
        self.keep_in(&session.arrays, handle, 0);
    }

    fn keep_in(self, live: &Live, address: u64, pool: usize) {
        let allocation = Allocation {
            device: self.device,
            bytes: self.bytes,
            context: self.context,
            pool,
        };
        let session = self.session;
        self.keep();
        if let Some(stale) = live.insert(address, allocation) {
            session.ledger.refund(stale.device, stale.own_charge());
        }
    }

    /// The session that it was charged in.
    pub(super) fn session(&self) -> &'static Session {
        self.session
    }

    /// Index of the device in the region.
    pub(super) fn device(&self) -> usize {
        self.device
    }

    /// CUDA's number of the device.
    pub(super) fn ordinal(&self) -> CUdevice {
        self.ordinal
    }

    /// The context, as a number.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Keeps the charge; answers how much it is.
    pub(super) fn keep(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.session.ledger.refund(self.device, self.bytes);
        }
    }
}

impl Session {
    /// Notes an allocation whose charge its pool bears.
    pub(super) fn note_pooled(&self, address: u64, allocation: Allocation) {
        if let Some(stale) = self.live.insert(address, allocation) {
            self.ledger.refund(stale.device, stale.own_charge());
        }
    }
}

/// Charges `bytes` where `place` says. Where there is no room for the result, the driver is the one to
/// refuse, whatever the quota.
pub(super) fn reserve<T>(
    bytes: u64,
    result: Out<T>,
    place: impl FnOnce(&'static Session) -> Option<Place>,
) -> Decision<Reservation> {
    let bytes = whole_units(bytes);
    let session = match session::current() {
        Ok(session) => session,
        Err(deny) => return Decision::Deny(deny),
    };
    if result.is_null() {
        return Decision::Bypass(Bypass::NoResult);
    }
    let Some(Place {
        device,
        ordinal,
        context,
    }) = place(session)
    else {
        return Decision::Bypass(Bypass::NoDevice);
    };
    let Some(device) = device else {
        return Decision::Deny(Deny::NotGranted);
    };
    let again = |relieved: bool, deny| match relieved {
        true => take(session, device, bytes),
        false => Err(deny),
    };
    // A synchronisation may have shrunk this process's pools. What they still keep without need goes
    // before anybody is refused, but not where the driver would not do so either.
    let taken = take(session, device, bytes)
        .or_else(|deny| again(session.settle_pools(), deny))
        .or_else(|deny| {
            let of_use = !session.beyond_the_gpu(device, bytes);
            again(of_use && session.relieve_pools(device, bytes), deny)
        });
    match taken {
        Ok(()) => Decision::Allow(Reservation {
            session,
            device,
            ordinal,
            context,
            bytes,
        }),
        Err(_) if session.beyond_the_gpu(device, bytes) => Decision::Bypass(Bypass::BeyondTheGpu),
        Err(deny) => Decision::Deny(deny),
    }
}

impl Session {
    /// Whether the driver would refuse too what the quota does not allow.
    #[cold]
    fn beyond_the_gpu(&self, device: usize, bytes: u64) -> bool {
        self.ledger
            .limits()
            .snapshot()
            .and_then(|limits| limits.devices.get(device).copied())
            .is_some_and(|granted| {
                bytes > granted.capacity || granted.vram_limit >= granted.capacity
            })
    }
}

/// As the ledger counts, so that what is charged in parts is not rounded up part by part.
fn whole_units(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(UNIT_BYTES).unwrap_or(bytes)
}

fn take(session: &Session, device: usize, bytes: u64) -> Result<(), Deny> {
    session.ledger.charge(device, bytes).map_err(|refused| {
        log::line(format_args!("device {device}: {refused}"));
        Deny::OverQuota
    })
}

/// The answer of a call that the driver was expected to refuse. If it did not, what it gave is given back:
/// memory without a charge is the one thing that must not be handed out.
pub(super) fn uncharged<T: Copy>(
    result: Out<T>,
    answer: CUresult,
    give_back: impl FnOnce(T) -> CUresult,
) -> CUresult {
    match result.read() {
        Some(given) if answer == CUDA_SUCCESS => {
            give_back(given);
            CUDA_ERROR_OUT_OF_MEMORY
        }
        Some(_) | None => answer,
    }
}

/// The one place where a refusal becomes a status. Frameworks free their caches and try again on
/// exactly `CUDA_ERROR_OUT_OF_MEMORY`.
pub(super) fn status(deny: Deny) -> CUresult {
    match deny {
        Deny::OverQuota | Deny::NotGranted => CUDA_ERROR_OUT_OF_MEMORY,
        Deny::NoRegion => CUDA_ERROR_NOT_PERMITTED,
    }
}
