//! Memory as a container sees it: one snapshot that every answer is computed from.

/// What is known of one GPU at one moment. **Units:** bytes throughout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySnapshot {
    /// What the container may hold.
    pub limit: u64,
    /// What its processes have charged.
    pub charged: u64,
    /// In use without a charge that explains it.
    pub untracked: u64,
    /// What the driver says the GPU has.
    pub real_total: u64,
    /// What the driver says is free on the GPU, other containers considered.
    pub real_free: u64,
}

impl MemorySnapshot {
    /// The size of the container's GPU.
    pub fn total(&self) -> u64 {
        self.limit.min(self.real_total)
    }

    /// What is in use of it: never more than its size, whatever was charged.
    pub fn used(&self) -> u64 {
        self.charged
            .saturating_add(self.untracked)
            .min(self.total())
    }

    /// What can still be had: within the quota, and on the card.
    pub fn free(&self) -> u64 {
        self.total().saturating_sub(self.used()).min(self.real_free)
    }

    /// What is in use where total, used and free must add up, as in NVML's answers.
    pub fn used_beside_free(&self) -> u64 {
        self.total().saturating_sub(self.free())
    }
}

/// Bytes for a 32-bit field of the first CUDA interface: saturated, never wrapped.
pub fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What a pitched allocation will take: the driver pads each row to at least `alignment`.
/// Saturates, so that an absurd size is refused instead of wrapping to a small one.
pub fn pitched(width: u64, height: u64, alignment: u64) -> u64 {
    width
        .checked_next_multiple_of(alignment)
        .and_then(|pitch| pitch.checked_mul(height))
        .unwrap_or(u64::MAX)
}

/// What an array may take at most where the driver does not tell: rows padded to 512 bytes, the whole
/// to the 64 KiB of a tile. A dimension of zero is an array of fewer dimensions, not of no bytes.
pub fn array_bytes([width, height, depth]: [u64; 3], element: u64) -> u64 {
    pitched(width.max(1).saturating_mul(element), height.max(1), 512)
        .checked_mul(depth.max(1))
        .and_then(|bytes| bytes.checked_next_multiple_of(64 << 10))
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn quarter() -> MemorySnapshot {
        MemorySnapshot {
            limit: 32 * GIB,
            charged: 8 * GIB,
            untracked: GIB,
            real_total: 128 * GIB,
            real_free: 100 * GIB,
        }
    }

    #[test]
    fn a_quarter_looks_like_a_small_gpu() {
        let shown = quarter();
        assert_eq!(
            (shown.total(), shown.used(), shown.free()),
            (32 * GIB, 9 * GIB, 23 * GIB)
        );
    }

    #[test]
    fn free_is_never_more_than_the_card_has() {
        let shown = MemorySnapshot {
            real_free: GIB,
            ..quarter()
        };
        assert_eq!(shown.free(), GIB);
        assert_eq!(shown.used_beside_free(), 31 * GIB);
    }

    #[test]
    fn more_used_than_allowed_shows_nothing_free() {
        let shown = MemorySnapshot {
            charged: u64::MAX,
            ..quarter()
        };
        assert_eq!((shown.used(), shown.free()), (32 * GIB, 0));
        let shrunk = MemorySnapshot {
            limit: 0,
            ..quarter()
        };
        assert_eq!((shrunk.total(), shrunk.used(), shrunk.free()), (0, 0, 0));
    }

    #[test]
    fn parts_never_exceed_the_whole() {
        let values = [0, 1, GIB, 32 * GIB, u64::MAX / 2, u64::MAX];
        for limit in values {
            for charged in values {
                for untracked in values {
                    for real_free in values {
                        let real_total = 128 * GIB;
                        let s = MemorySnapshot {
                            limit,
                            charged,
                            untracked,
                            real_total,
                            real_free,
                        };
                        assert!(s.used() <= s.total() && s.free() <= s.total());
                        assert!(s.used().checked_add(s.free()).unwrap() <= s.total());
                        assert_eq!(s.used_beside_free() + s.free(), s.total());
                    }
                }
            }
        }
    }

    #[test]
    fn pitches_do_not_wrap() {
        assert_eq!(pitched(1, 10, 512), 5120);
        assert_eq!(pitched(512, 10, 512), 5120);
        assert_eq!(pitched(0, 10, 512), 0);
        assert_eq!(pitched(u64::MAX, 1, 512), u64::MAX);
        assert_eq!(pitched(1 << 40, 1 << 40, 512), u64::MAX);
        assert_eq!(array_bytes([1 << 20, 0, 0], 4), 4 << 20);
        assert_eq!(
            array_bytes([1000, 1000, 0], 4),
            4096 * 1000_u64.next_multiple_of(16)
        );
        assert_eq!(array_bytes([1, 1, 10], 1), 64 << 10);
        assert_eq!(array_bytes([u64::MAX, 2, 2], 16), u64::MAX);
        assert_eq!(narrow(5 * GIB), u32::MAX);
        assert_eq!(narrow(7), 7);
    }
}
