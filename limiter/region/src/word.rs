//! The three packed words of the ledger. Pure: no shared memory here.
//!
//! A sequence number counts the operations of one slot on one device, modulo 2^20. A process would
//! have to sleep through exactly a multiple of 2^20 operations of one slot, between two of its
//! steps, to mistake an old word for a new one.

use crate::layout::UNIT_BYTES;

const SEQUENCE_BITS: u32 = 20;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;
const SLOT_BITS: u32 = 9;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const UNITS_SHIFT: u32 = SEQUENCE_BITS + SLOT_BITS;
/// The largest amount that a word can carry: 2^35 units of 512 bytes are 16 TiB.
pub(crate) const MAX_UNITS: u64 = (1 << 35) - 1;

const _: () = assert!(UNITS_SHIFT + 35 == 64);
const _: () = assert!(crate::layout::MAX_SLOTS as u64 == SLOT_MASK + 1);

/// Rounds bytes up to units; more than the words can carry becomes `None`.
pub(crate) fn units_up(bytes: u64) -> Option<u64> {
    let units = bytes.div_ceil(UNIT_BYTES);
    (units <= MAX_UNITS).then_some(units)
}

/// Rounds bytes down to units, at most what a word can carry.
pub(crate) fn units_down(bytes: u64) -> u64 {
    (bytes / UNIT_BYTES).min(MAX_UNITS)
}

/// Units in bytes.
pub(crate) fn bytes(units: u64) -> u64 {
    units.saturating_mul(UNIT_BYTES)
}

/// The sequence number after this one.
pub(crate) fn next(sequence: u64) -> u64 {
    sequence.wrapping_add(1) & SEQUENCE_MASK
}

/// What all slots hold of a device, and the operation that made it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Total {
    pub(crate) units: u64,
    pub(crate) slot: u16,
    pub(crate) sequence: u64,
}

impl Total {
    pub(crate) fn unpack(word: u64) -> Self {
        let slot = u16::try_from((word >> SEQUENCE_BITS) & SLOT_MASK).unwrap_or_default();
        Self {
            units: word >> UNITS_SHIFT,
            slot,
            sequence: word & SEQUENCE_MASK,
        }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.units.min(MAX_UNITS) << UNITS_SHIFT)
            | ((u64::from(self.slot) & SLOT_MASK) << SEQUENCE_BITS)
            | (self.sequence & SEQUENCE_MASK)
    }
}

/// What one slot holds of a device, and how many operations made it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) units: u64,
    pub(crate) sequence: u64,
}

impl Held {
    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            units: word >> UNITS_SHIFT,
            sequence: word & SEQUENCE_MASK,
        }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.units.min(MAX_UNITS) << UNITS_SHIFT) | (self.sequence & SEQUENCE_MASK)
    }
}

/// What the operation `sequence` of a slot adds to what the slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Intent {
    pub(crate) delta: i64,
    pub(crate) sequence: u64,
}

impl Intent {
    pub(crate) fn unpack(word: u64) -> Self {
        // An arithmetic shift brings the sign back.
        Self {
            delta: word.cast_signed() >> SEQUENCE_BITS,
            sequence: word & SEQUENCE_MASK,
        }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.delta.cast_unsigned() << SEQUENCE_BITS) | (self.sequence & SEQUENCE_MASK)
    }
}

/// Units after a change; a page that was scribbled on may not wrap round.
pub(crate) fn apply(units: u64, delta: i64) -> u64 {
    units.saturating_add_signed(delta).min(MAX_UNITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_packing() {
        for units in [0, 1, 77, MAX_UNITS] {
            for sequence in [0, 1, SEQUENCE_MASK] {
                for slot in [0, 1, 511] {
                    let total = Total {
                        units,
                        slot,
                        sequence,
                    };
                    assert_eq!(Total::unpack(total.pack()), total);
                }
                let held = Held { units, sequence };
                assert_eq!(Held::unpack(held.pack()), held);
                for delta in [units.cast_signed(), -units.cast_signed()] {
                    let intent = Intent { delta, sequence };
                    assert_eq!(Intent::unpack(intent.pack()), intent);
                }
            }
        }
    }

    #[test]
    fn rounding_is_up_for_charges_and_down_for_limits() {
        assert_eq!(units_up(0), Some(0));
        assert_eq!(units_up(1), Some(1));
        assert_eq!(units_up(513), Some(2));
        assert_eq!(units_up(u64::MAX), None);
        assert_eq!(units_down(1023), 1);
        assert_eq!(units_down(u64::MAX), MAX_UNITS);
    }

    #[test]
    fn scribbled_words_do_not_wrap() {
        assert_eq!(apply(1, -5), 0);
        assert_eq!(apply(MAX_UNITS, 5), MAX_UNITS);
        assert_eq!(next(SEQUENCE_MASK), 0);
    }
}
