//! The ledger's operations as a machine that touches one shared word at a step.
//!
//! The same machine runs on shared memory ([`crate::ledger`]) and in the exhaustive model below, in
//! which every interleaving of several processes, with a kill between any two steps, is tried.
//!
//! An operation of slot `s` adds a signed amount to what `s` holds and to the total of all slots:
//!
//! 1. read the total, which names the slot and sequence number of the operation that wrote it;
//! 2. finish that operation if its author has not: move the author's `held` by its `intent`;
//! 3. write the own intent for the next sequence number;
//! 4. swap the total, if the new one is within the limit: **this is the moment it takes effect**;
//! 5. move the own `held`.
//!
//! A kill before 4 leaves nothing behind, a kill after 4 is finished by whoever comes next. So the
//! total is the sum of all `held`, plus at most one finished-by-the-next intent, at every instant.
//!
//! What a dead process held is given back by *draining*: any process acts as the dead slot, with
//! an amount that follows from what was seen before the process was found dead. Racing drainers
//! therefore write the same intent, and a slot whose next owner has come to life in between has
//! moved on, which the drainer notices. A new owner drains its slot before its first charge.

use crate::word::{Held, Intent, Total, apply, next};

/// How many steps an operation may take. Only a page that is being scribbled on needs more.
const MAX_STEPS: u32 = 1 << 20;

/// One shared word of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    Total,
    Held(u16),
    Intent(u16),
}

/// The shared words of one device. Every call is one atomic access.
pub(crate) trait Cells {
    fn load(&self, cell: Cell) -> u64;
    fn store(&self, cell: Cell, value: u64);
    /// Writes `new` where `old` is; whether it was.
    fn swap_if(&self, cell: Cell, old: u64, new: u64) -> bool;
}

/// What an operation is to do. Amounts are in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// Add, unless the total would exceed the limit.
    Charge { units: u64, limit: u64 },
    /// Take away, at most what is held.
    Refund { units: u64 },
    /// Take away all of a dead slot's, if its words are still those seen before it was found dead.
    Drain { held: u64, intent: u64 },
    /// Only finish what a dead process may have left half done.
    Settle,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It took effect: the total is `total` units now, of which `delta` are this operation's.
    Done { total: u64, delta: i64 },
    /// The charge would have exceeded the limit: `total` units are held.
    Refused { total: u64 },
    /// The slot to be drained has moved on.
    Moved,
    /// The words contradict each other: somebody scribbled on the page.
    Damaged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    LoadTotal,
    LoadAuthor,
    LoadAuthorIntent { held: u64 },
    FinishAuthor { held: u64, intent: u64 },
    LoadOwn,
    WriteIntent { held: u64 },
    SwapTotal { held: u64 },
    SwapOwn { held: u64, units: u64 },
}

/// An operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    slot: u16,
    change: Change,
    at: At,
    total: u64,
    /// What a drainer's intent word holds as far as it knows.
    intent: u64,
}

impl Operation {
    pub(crate) fn new(slot: u16, change: Change) -> Self {
        let intent = match change {
            Change::Drain { intent, .. } => intent,
            Change::Charge { .. } | Change::Refund { .. } | Change::Settle => 0,
        };
        Self {
            slot,
            change,
            at: At::LoadTotal,
            total: 0,
            intent,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self, cells: &impl Cells) -> Outcome {
        for _ in 0..MAX_STEPS {
            if let Some(outcome) = self.step(cells) {
                return outcome;
            }
        }
        Outcome::Damaged
    }

    /// Touches one shared word.
    pub(crate) fn step(&mut self, cells: &impl Cells) -> Option<Outcome> {
        match self.at {
            At::LoadTotal => {
                self.total = cells.load(Cell::Total);
                self.at = At::LoadAuthor;
                None
            }
            At::LoadAuthor => self.load_author(cells),
            At::LoadAuthorIntent { held } => {
                let intent = cells.load(Cell::Intent(Total::unpack(self.total).slot));
                self.at = At::FinishAuthor { held, intent };
                if Intent::unpack(intent).sequence != Total::unpack(self.total).sequence {
                    self.at = At::LoadTotal;
                }
                None
            }
            At::FinishAuthor { held, intent } => {
                let author = Cell::Held(Total::unpack(self.total).slot);
                let Intent { delta, sequence } = Intent::unpack(intent);
                let units = apply(Held::unpack(held).units, delta);
                cells.swap_if(author, held, Held { units, sequence }.pack());
                self.at = At::LoadOwn;
                None
            }
            At::LoadOwn => {
                let held = cells.load(Cell::Held(self.slot));
                self.decide(held)
            }
            At::WriteIntent { held } => self.write_intent(cells, held),
            At::SwapTotal { held } => {
                self.swap_total(cells, held);
                None
            }
            At::SwapOwn { held, units } => Some(self.swap_own(cells, held, units)),
        }
    }

    /// Finds out whether the operation that wrote the total is finished.
    fn load_author(&mut self, cells: &impl Cells) -> Option<Outcome> {
        let total = Total::unpack(self.total);
        let held = cells.load(Cell::Held(total.slot));
        if next(Held::unpack(held).sequence) == total.sequence {
            self.at = At::LoadAuthorIntent { held };
        } else if total.slot == self.slot {
            return self.decide(held);
        } else {
            self.at = At::LoadOwn;
        }
        None
    }

    /// Decides with the own word in hand; no shared access.
    fn decide(&mut self, held: u64) -> Option<Outcome> {
        let total = Total::unpack(self.total).units;
        match self.change {
            Change::Settle => return Some(Outcome::Done { total, delta: 0 }),
            Change::Charge { units, limit } => {
                if total.checked_add(units).is_none_or(|sum| sum > limit) {
                    return Some(Outcome::Refused { total });
                }
            }
            Change::Refund { .. } => {
                if self.delta(held) == 0 {
                    return Some(Outcome::Done { total, delta: 0 });
                }
            }
            Change::Drain { held: seen, .. } => {
                if held != seen {
                    return Some(Outcome::Moved);
                }
            }
        }
        self.at = At::WriteIntent { held };
        None
    }

    fn delta(&self, held: u64) -> i64 {
        let held = Held::unpack(held).units;
        match self.change {
            Change::Charge { units, .. } => units.cast_signed(),
            // What another process believes this slot holds binds its own refunds too, or total and
            // sum would part for ever.
            Change::Refund { units } => units.min(held).cast_signed().wrapping_neg(),
            Change::Drain { .. } => held.cast_signed().wrapping_neg(),
            Change::Settle => 0,
        }
    }

    fn write_intent(&mut self, cells: &impl Cells, held: u64) -> Option<Outcome> {
        let sequence = next(Held::unpack(held).sequence);
        let wanted = Intent {
            delta: self.delta(held),
            sequence,
        }
        .pack();
        self.at = At::SwapTotal { held };
        if !matches!(self.change, Change::Drain { .. }) {
            cells.store(Cell::Intent(self.slot), wanted);
            return None;
        }
        // A drainer may be late: the word must still be the one seen before the death, or already
        // the one that every drainer of this death writes.
        if self.intent != wanted && !cells.swap_if(Cell::Intent(self.slot), self.intent, wanted) {
            return Some(Outcome::Moved);
        }
        self.intent = wanted;
        None
    }

    fn swap_total(&mut self, cells: &impl Cells, held: u64) {
        let delta = self.delta(held);
        let units = apply(Total::unpack(self.total).units, delta);
        let sequence = next(Held::unpack(held).sequence);
        let new = Total {
            units,
            slot: self.slot,
            sequence,
        }
        .pack();
        self.at = if cells.swap_if(Cell::Total, self.total, new) {
            At::SwapOwn { held, units }
        } else {
            At::LoadTotal
        };
    }

    fn swap_own(&self, cells: &impl Cells, held: u64, total: u64) -> Outcome {
        let delta = self.delta(held);
        let Held { units, sequence } = Held::unpack(held);
        let new = Held {
            units: apply(units, delta),
            sequence: next(sequence),
        }
        .pack();
        // Whoever came by in between has done it already: same words, same result.
        cells.swap_if(Cell::Held(self.slot), held, new);
        Outcome::Done { total, delta }
    }
}

#[cfg(test)]
mod tests;
