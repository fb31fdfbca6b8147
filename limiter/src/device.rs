//! Which device of the region a driver call concerns. CUDA's ordinals depend on
//! `CUDA_VISIBLE_DEVICES`; the region knows UUIDs.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicUsize};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::{CUDA_SUCCESS, CUcontext, CUdevice, CUstream, CUuuid};

use crate::real::cuda as real;
use crate::session::Session;

const CACHED: usize = 64;
/// Not asked yet.
const UNKNOWN: u8 = 255;
/// Asked: the limits page has no entry.
const NOT_GRANTED: u8 = 254;

/// The index in the region of each ordinal, once asked for.
#[derive(Debug)]
pub(crate) struct Ordinals([AtomicU8; CACHED]);

impl Default for Ordinals {
    fn default() -> Self {
        Self([const { AtomicU8::new(UNKNOWN) }; CACHED])
    }
}

/// Where a call would take memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index in the region; `None`: not granted.
    pub(crate) device: Option<usize>,
    /// CUDA's number of it.
    pub(crate) ordinal: CUdevice,
    /// The context, as a number.
    pub(crate) context: usize,
}

/// Counts what makes a context's handle invalid, so that no thread trusts what it remembers.
static EPOCH: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    /// The context that this thread asked about last: (epoch, session, context, index + 1, ordinal).
    static LAST: Cell<(usize, usize, usize, usize, CUdevice)> =
        const { Cell::new((0, 0, 0, 0, -1)) };
}

/// A context was made or destroyed: its handle may be another device's than before.
pub(crate) fn forget_contexts() {
    EPOCH.fetch_add(1, Relaxed);
}

impl Session {
    /// The region's index of a CUDA device; `None`: no such device, or not granted.
    pub(crate) fn index_of(&self, device: CUdevice) -> Option<usize> {
        self.known_index(device).flatten()
    }

    /// The outer `None`: nobody can say, because the driver knows no such device or the limits page is
    /// unsettled. To be asked again, and not to be remembered.
    fn known_index(&self, device: CUdevice) -> Option<Option<usize>> {
        let cell = usize::try_from(device)
            .ok()
            .and_then(|ordinal| self.ordinals.0.get(ordinal));
        match cell.map(|cell| cell.load(Relaxed)) {
            Some(NOT_GRANTED) => Some(None),
            Some(index) if index != UNKNOWN => Some(Some(usize::from(index))),
            Some(_) | None => {
                let index = self.find(device)?;
                if let Some(cell) = cell {
                    let known = index.and_then(|index| u8::try_from(index).ok());
                    cell.store(known.unwrap_or(NOT_GRANTED), Relaxed);
                }
                Some(index)
            }
        }
    }

    /// Asks the driver.
    #[cold]
    fn find(&self, device: CUdevice) -> Option<Option<usize>> {
        let mut uuid = CUuuid { bytes: [0; 16] };
        if real::cuDeviceGetUuid(Out::of(&mut uuid), device) != CUDA_SUCCESS {
            return None;
        }
        let snapshot = self.ledger.limits().snapshot()?;
        let bytes = uuid.bytes.map(c_char_to_u8);
        Some(
            snapshot
                .devices
                .iter()
                .position(|device| device.uuid == bytes),
        )
    }

    /// Whether the driver knows a device by this ordinal.
    fn knows(&self, device: CUdevice) -> bool {
        let mut uuid = CUuuid { bytes: [0; 16] };
        self.index_of(device).is_some()
            || real::cuDeviceGetUuid(Out::of(&mut uuid), device) == CUDA_SUCCESS
    }

    /// Where something of this device itself is, without a context; `None`: the driver knows no such
    /// device, so it is the one to refuse.
    pub(crate) fn ordinal_place(&self, ordinal: CUdevice) -> Option<Place> {
        self.knows(ordinal).then(|| Place {
            device: self.index_of(ordinal),
            ordinal,
            context: 0,
        })
    }

    /// Where the current context is; `None`: there is none.
    pub(crate) fn place(&self) -> Option<Place> {
        let mut context: CUcontext = std::ptr::null_mut();
        if real::cuCtxGetCurrent(Out::of(&mut context)) != CUDA_SUCCESS || context.is_null() {
            return None;
        }
        self.place_of(context, || {
            let mut device: CUdevice = -1;
            (real::cuCtxGetDevice(Out::of(&mut device)) == CUDA_SUCCESS).then_some(device)
        })
    }

    /// Where work of a stream is: its own context's device, not the current one's.
    pub(crate) fn place_of_stream(&self, stream: CUstream) -> Option<Place> {
        // Null, and the handles 1 (legacy) and 2 (per thread), mean the current context.
        if stream.addr() <= 2 {
            return self.place();
        }
        let mut context: CUcontext = std::ptr::null_mut();
        if real::cuStreamGetCtx(stream, Out::of(&mut context)) != CUDA_SUCCESS {
            // A green context's stream has no plain context, but a device all the same.
            let mut device: CUdevice = -1;
            let known = real::cuStreamGetDevice(stream, Out::of(&mut device)) == CUDA_SUCCESS;
            return if known {
                self.ordinal_place(device)
            } else {
                self.place()
            };
        }
        self.place_of(context, || device_of(context))
    }

    fn place_of(
        &self,
        context: CUcontext,
        ask: impl FnOnce() -> Option<CUdevice>,
    ) -> Option<Place> {
        let (epoch, session) = (EPOCH.load(Relaxed), std::ptr::from_ref(self).addr());
        let context = context.addr();
        let (last_epoch, last_session, last_context, last, ordinal) = LAST.get();
        if (last_epoch, last_session, last_context) == (epoch, session, context) {
            return Some(Place {
                device: last.checked_sub(1),
                ordinal,
                context,
            });
        }
        let ordinal = ask()?;
        let known = self.known_index(ordinal);
        let device = known.flatten();
        if known.is_some() {
            let remembered = device.map_or(0, |index| index.saturating_add(1));
            LAST.set((epoch, session, context, remembered, ordinal));
        }
        Some(Place {
            device,
            ordinal,
            context,
        })
    }
}

/// The device of a context that may not be current.
fn device_of(context: CUcontext) -> Option<CUdevice> {
    if real::cuCtxPushCurrent_v2(context) != CUDA_SUCCESS {
        return None;
    }
    let mut device: CUdevice = -1;
    let status = real::cuCtxGetDevice(Out::of(&mut device));
    let mut popped: CUcontext = std::ptr::null_mut();
    real::cuCtxPopCurrent_v2(Out::of(&mut popped));
    (status == CUDA_SUCCESS).then_some(device)
}

fn c_char_to_u8(byte: std::ffi::c_char) -> u8 {
    let [byte] = byte.to_ne_bytes();
    byte
}

const _: () = assert!(size_of::<CUdevice>() == size_of::<c_int>());
