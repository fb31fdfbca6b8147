//! Charges and refunds on the usage page: exact, lock-free between processes, and safe against a
//! kill at any instruction. The algorithm is in [`crate::step`]; this file gives it shared memory,
//! a slot, and the private account that binds a process whose tenant scribbles on the page.
//!
//! Must never make a system call on a charge that is granted, or on a refund.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Instant;

use crate::error::RegionError;
use crate::file;
use crate::identity::Identity;
use crate::layout::{MAX_DEVICES, MAX_SLOTS, USAGE_BYTES, USAGE_FILE, USAGE_VERSION};
use crate::layout::{UsagePage, UsageSlot};
use crate::limits::{Limits, LimitsReader};
use crate::map::{Access, Mapping};
use crate::private::Private;
use crate::slot::Token;
use crate::step::{Cell, Cells, Change, Operation, Outcome};
use crate::word::{Held, Intent, Total, apply, bytes, next, units_down, units_up};

/// A charge that would have exceeded the quota. Nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for. **Units:** bytes.
    pub requested: u64,
    /// What was charged already. **Units:** bytes.
    pub used: u64,
    /// What may be charged. **Units:** bytes.
    pub quota: u64,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requested,
            used,
            quota,
        } = self;
        write!(f, "{requested} bytes asked for, {used} of {quota} in use")
    }
}

impl std::error::Error for Refused {}

/// How long what [`Ledger::used_by_the_living`] found out about siblings holds. **Units:** milliseconds.
const LOOK_AGAIN: u64 = 10;

/// This process's account in a region.
#[derive(Debug)]
pub struct Ledger {
    usage: Mapping<UsagePage>,
    /// Holds the slot's lock for as long as the process lives.
    token: Token,
    limits: LimitsReader,
    slot: u16,
    identity: Identity,
    private: Private,
    attached: Instant,
    /// When siblings were looked at last, by device: milliseconds after the attach, and [`LOOK_AGAIN`].
    looked: [AtomicU64; MAX_DEVICES],
}

impl Ledger {
    /// Attaches to the region in `dir`: claims a slot, and gives back what dead processes held.
    ///
    /// # Errors
    /// A page that is missing, truncated, of another version or unsettled; no free slot.
    pub fn attach(dir: &Path) -> Result<Self, RegionError> {
        let limits = LimitsReader::open(dir)?;
        let path = dir.join(USAGE_FILE);
        let file = file::open(&path, true, USAGE_BYTES)?;
        let usage = map_usage(&file, &path, Access::Write)?;
        let private = Private::new().map_err(|error| {
            RegionError::io("keep memory from forked children beside", &path, error)
        })?;
        let token = token(file, &path)?;
        let slot = claim_slot(&token, &path)?;
        let ledger = Self {
            usage,
            token,
            limits,
            slot,
            identity: Identity::own(),
            private,
            attached: Instant::now(),
            looked: [const { AtomicU64::new(0) }; MAX_DEVICES],
        };
        ledger.take_over();
        ledger.reclaim();
        Ok(ledger)
    }

    /// Makes the claimed slot this process's: empties it, then signs it. In this order, so that
    /// whoever sees an old generation knows that nothing of the new owner is in the slot.
    fn take_over(&self) {
        for device in 0..MAX_DEVICES {
            self.drain(device, self.slot, || true);
        }
        let Some(page) = self.usage.slots.get(usize::from(self.slot)) else {
            return;
        };
        page.pid.store(u64::from(self.identity.pid), Relaxed);
        page.pid_namespace
            .store(self.identity.pid_namespace, Relaxed);
        page.start_time.store(self.identity.start_time, Relaxed);
        let published = self.limits.dead_generation(self.slot);
        let generation = page
            .generation
            .load(Relaxed)
            .max(published)
            .saturating_add(1);
        page.generation.store(generation, Release);
    }

    /// Charges `bytes` of the device with this index, before the driver is called.
    ///
    /// # Errors
    /// [`Refused`]: it does not fit, even after what dead processes held was given back; or the
    /// device was not granted at all.
    pub fn charge(&self, device: usize, bytes: u64) -> Result<(), Refused> {
        self.try_charge(device, bytes).or_else(|refused| {
            if refused.quota == 0 || !self.reclaim_device(device) {
                return Err(refused);
            }
            self.try_charge(device, bytes)
        })
    }

    fn try_charge(&self, device: usize, requested: u64) -> Result<(), Refused> {
        let quota = self.limits.quota(device);
        let refused = |used| Refused {
            requested,
            used: bytes(used),
            quota,
        };
        let limit = units_down(quota);
        let (Some(units), Some(own)) = (units_up(requested), self.private.device(device)) else {
            return Err(refused(0));
        };
        if units == 0 {
            return Ok(());
        }
        let _turn = own.lock();
        let private = own.units.load(Relaxed);
        if private.checked_add(units).is_none_or(|sum| sum > limit) {
            return Err(refused(private));
        }
        match self.run(device, self.slot, Change::Charge { units, limit }) {
            Outcome::Done { .. } => {
                own.units
                    .store(apply(private, units.cast_signed()), Relaxed);
                Ok(())
            }
            Outcome::Refused { total } => Err(refused(total)),
            // Nobody can say what is used on a page that contradicts itself.
            Outcome::Moved | Outcome::Damaged => Err(refused(limit)),
        }
    }

    /// Gives `bytes` of a device back, rounded as the charge was.
    pub fn refund(&self, device: usize, bytes: u64) {
        let (Some(units), Some(own)) = (units_up(bytes), self.private.device(device)) else {
            return;
        };
        let _turn = own.lock();
        let private = own.units.load(Relaxed);
        own.units.store(
            apply(private, units.cast_signed().saturating_neg()),
            Relaxed,
        );
        self.run(device, self.slot, Change::Refund { units });
    }

    /// What all processes of the container hold of a device, and never less than this one does.
    /// **Units:** bytes.
    pub fn used(&self, device: usize) -> u64 {
        let private = self
            .private
            .device(device)
            .map_or(0, |own| own.units.load(Relaxed));
        total(&self.usage, device).max(bytes(private))
    }

    /// As [`Self::used`], without what dead siblings held, which is given back. Makes no system call while this
    /// process alone holds memory, and otherwise looks at the others every few milliseconds at most.
    /// **Units:** bytes.
    pub fn used_by_the_living(&self, device: usize) -> u64 {
        if total(&self.usage, device) > self.used_here(device) && self.is_time_to_look(device) {
            self.reclaim_device(device);
        }
        self.used(device)
    }

    fn is_time_to_look(&self, device: usize) -> bool {
        let passed = u64::try_from(self.attached.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = passed.saturating_add(LOOK_AGAIN);
        self.looked.get(device).is_some_and(|looked| {
            let due = now.saturating_sub(looked.load(Relaxed)) >= LOOK_AGAIN;
            if due {
                looked.store(now, Relaxed);
            }
            due
        })
    }

    /// What this process holds of a device, by its own account. **Units:** bytes.
    pub fn used_here(&self, device: usize) -> u64 {
        bytes(
            self.private
                .device(device)
                .map_or(0, |own| own.units.load(Relaxed)),
        )
    }

    /// The limits this ledger obeys.
    pub fn limits(&self) -> &LimitsReader {
        &self.limits
    }

    /// This process's slot.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Whether this process made the ledger: false in a forked child, which must attach anew.
    pub fn is_ours(&self) -> bool {
        self.private.is_ours()
    }

    /// Gives back what dead processes hold of every device.
    pub fn reclaim(&self) {
        for device in 0..MAX_DEVICES {
            self.reclaim_device(device);
        }
    }

    /// Gives back what dead processes hold of a device; whether there was any.
    fn reclaim_device(&self, device: usize) -> bool {
        let _turn = self.private.device(device).map(|own| own.lock());
        self.run(device, self.slot, Change::Settle);
        let Some(cells) = self.cells(device) else {
            return false;
        };
        let mut any = false;
        for slot in (0..MAX_SLOTS).filter_map(|slot| u16::try_from(slot).ok()) {
            if slot != self.slot && Held::unpack(cells.load(Cell::Held(slot))).units > 0 {
                any |= self.drain(device, slot, || self.is_dead(slot));
            }
        }
        any
    }

    /// Empties a slot whose process is dead; whether there was anything. What the slot holds is
    /// read before the process is found dead: that is what makes a late drainer harmless.
    fn drain(&self, device: usize, slot: u16, is_dead: impl Fn() -> bool) -> bool {
        let Some(cells) = self.cells(device) else {
            return false;
        };
        // Racing drainers make each other start again, at most once for each of them.
        for _ in 0..MAX_SLOTS {
            self.run(device, slot, Change::Settle);
            let held = cells.load(Cell::Held(slot));
            if Held::unpack(held).units == 0 {
                return false;
            }
            let intent = cells.load(Cell::Intent(slot));
            if !is_dead() {
                return false;
            }
            let drained = Operation::new(slot, Change::Drain { held, intent }).run(&cells);
            if matches!(drained, Outcome::Done { .. } | Outcome::Damaged) {
                return true;
            }
        }
        false
    }

    fn is_dead(&self, slot: u16) -> bool {
        let page = self.usage.slots.get(usize::from(slot));
        page.is_some_and(|page| is_dead((slot, page), &self.token, &self.limits, &self.identity))
    }

    fn run(&self, device: usize, slot: u16, change: Change) -> Outcome {
        self.cells(device).map_or(Outcome::Damaged, |cells| {
            Operation::new(slot, change).run(&cells)
        })
    }

    fn cells(&self, device: usize) -> Option<SharedCells<'_>> {
        (device < MAX_DEVICES).then_some(SharedCells {
            page: &self.usage,
            device,
        })
    }
}

/// A look at a region by a process that charges nothing.
#[derive(Debug)]
pub struct Observer {
    usage: Mapping<UsagePage>,
    token: Token,
    limits: LimitsReader,
    own: Identity,
}

impl Observer {
    /// Opens the region in `dir` for reading.
    ///
    /// # Errors
    /// A page that is missing, truncated, of another version or unsettled.
    pub fn open(dir: &Path) -> Result<Self, RegionError> {
        let limits = LimitsReader::open(dir)?;
        let path = dir.join(USAGE_FILE);
        let file = file::open(&path, false, USAGE_BYTES)?;
        let usage = map_usage(&file, &path, Access::Read)?;
        Ok(Self {
            usage,
            token: token(file, &path)?,
            limits,
            own: Identity::own(),
        })
    }

    /// The limits of the region.
    pub fn limits(&self) -> &LimitsReader {
        &self.limits
    }

    /// What the live processes of the container hold of a device: what dead ones held is not taken back by
    /// somebody who only looks, but left out. **Units:** bytes.
    pub fn used(&self, device: usize) -> u64 {
        let cells = SharedCells {
            page: &self.usage,
            device,
        };
        let total = Total::unpack(cells.load(Cell::Total));
        let dead = (0_u16..).zip(&self.usage.slots).filter_map(|slot| {
            let units = settled(&cells, total, slot.0);
            let dead = units > 0 && is_dead(slot, &self.token, &self.limits, &self.own);
            dead.then_some(units)
        });
        bytes(dead.fold(total.units, u64::saturating_sub))
    }

    /// The live processes that hold memory of a device, as (pid, bytes), in the order of their
    /// pids. Pids are those of the caller's pid namespace; processes of others are left out.
    pub fn processes(&self, device: usize) -> Vec<(u32, u64)> {
        let mut found: Vec<(u32, u64)> = Vec::new();
        for (number, slot) in (0_u16..).zip(&self.usage.slots) {
            let Some(used) = self.live_bytes(number, slot, device) else {
                continue;
            };
            let pid = u32::try_from(slot.pid.load(Relaxed)).unwrap_or_default();
            match found.iter_mut().find(|(other, _)| *other == pid) {
                // One process with two copies of the library has two slots.
                Some((_, sum)) => *sum = sum.saturating_add(used),
                None => found.push((pid, used)),
            }
        }
        found.sort_unstable();
        found
    }

    fn live_bytes(&self, number: u16, slot: &UsageSlot, device: usize) -> Option<u64> {
        let used = bytes(Held::unpack(slot.devices.get(device)?.held.load(Relaxed)).units);
        let who = identity(slot);
        let visible = used > 0 && who.pid_namespace == self.own.pid_namespace;
        let live = visible && !is_dead((number, slot), &self.token, &self.limits, &self.own);
        live.then_some(used)
    }

    /// A consistent copy of the limits; `None` while they are being written.
    pub fn snapshot(&self) -> Option<Limits> {
        self.limits.snapshot()
    }
}

fn map_usage(file: &File, path: &Path, access: Access) -> Result<Mapping<UsagePage>, RegionError> {
    let usage: Mapping<UsagePage> =
        Mapping::new(file.as_fd(), access).map_err(|error| RegionError::io("map", path, error))?;
    let found = usage.version.load(Acquire);
    if found != USAGE_VERSION {
        return Err(RegionError::Version {
            path: path.to_path_buf(),
            found,
            expected: USAGE_VERSION,
        });
    }
    Ok(usage)
}

fn token(file: File, path: &Path) -> Result<Token, RegionError> {
    Token::new(file).map_err(|error| RegionError::io("stat", path, error))
}

fn claim_slot(token: &Token, path: &Path) -> Result<u16, RegionError> {
    for slot in (0..MAX_SLOTS).filter_map(|slot| u16::try_from(slot).ok()) {
        match token.claim(slot) {
            Ok(true) => return Ok(slot),
            Ok(false) => {}
            Err(error) => return Err(RegionError::io("lock a slot of", path, error)),
        }
    }
    Err(RegionError::NoSlot { slots: MAX_SLOTS })
}

/// Whether the process that a slot names is certainly gone.
fn is_dead(
    (number, slot): (u16, &UsageSlot),
    token: &Token,
    limits: &LimitsReader,
    own: &Identity,
) -> bool {
    if !token.is_claimed(number) {
        return true;
    }
    let generation = slot.generation.load(Acquire);
    if generation != 0 && generation <= limits.dead_generation(number) {
        return true;
    }
    let gone = identity(slot).is_gone(own);
    // The identity belongs to one process only if nobody took the slot over meanwhile.
    fence(Acquire);
    gone && slot.generation.load(Relaxed) == generation
}

/// What a slot holds once the operation that wrote this total is finished, in units.
fn settled(cells: &SharedCells<'_>, total: Total, slot: u16) -> u64 {
    let held = Held::unpack(cells.load(Cell::Held(slot)));
    let intent = Intent::unpack(cells.load(Cell::Intent(slot)));
    let pending = total.slot == slot
        && next(held.sequence) == total.sequence
        && intent.sequence == total.sequence;
    apply(held.units, if pending { intent.delta } else { 0 })
}

fn identity(slot: &UsageSlot) -> Identity {
    Identity {
        pid: u32::try_from(slot.pid.load(Relaxed)).unwrap_or_default(),
        pid_namespace: slot.pid_namespace.load(Relaxed),
        start_time: slot.start_time.load(Relaxed),
    }
}

fn total(usage: &UsagePage, device: usize) -> u64 {
    usage.devices.get(device).map_or(0, |page| {
        bytes(Total::unpack(page.total.load(Relaxed)).units)
    })
}

/// One device's words in shared memory.
struct SharedCells<'a> {
    page: &'a UsagePage,
    device: usize,
}

impl SharedCells<'_> {
    fn word(&self, cell: Cell) -> Option<&AtomicU64> {
        let slot = |slot: u16| {
            self.page
                .slots
                .get(usize::from(slot))?
                .devices
                .get(self.device)
        };
        match cell {
            Cell::Total => self.page.devices.get(self.device).map(|page| &page.total),
            Cell::Held(number) => slot(number).map(|pair| &pair.held),
            Cell::Intent(number) => slot(number).map(|pair| &pair.intent),
        }
    }
}

impl Cells for SharedCells<'_> {
    fn load(&self, cell: Cell) -> u64 {
        self.word(cell).map_or(0, |word| word.load(Acquire))
    }

    fn store(&self, cell: Cell, value: u64) {
        if let Some(word) = self.word(cell) {
            word.store(value, Release);
        }
    }

    fn swap_if(&self, cell: Cell, old: u64, new: u64) -> bool {
        self.word(cell)
            .is_some_and(|word| word.compare_exchange(old, new, AcqRel, Acquire).is_ok())
    }
}

#[cfg(test)]
mod tests;
