//! GPU time on the page: one GPU shared fairly by the processes that have work for it.
//!
//! Each (slot, GPU) has a line of work in nanoseconds: `submitted` is its length, `executed` how far it has come.
//! While `n` slots have work left each gets 1/n of the time (fluid processor sharing, what a driver's time slices
//! amount to). The work of one process runs one piece after the other. An event is a *target*, a place on the
//! process's line; [`Guard::time_of`] finds when it was reached from the remembered corners of (time, executed).
//!
//! The clock is a parameter everywhere, so that tests own it. Fractions below `n` nanoseconds are carried to the
//! next call. Limits: a target whose corner was overwritten (512 changes of pace later) is dated at the oldest
//! corner that is left.

use std::sync::atomic::Ordering::Relaxed;

use crate::page::Guard;
use crate::page::layout::{BREAKPOINTS, BUCKET_NS, BUCKETS, Bucket, Busy, SLOTS, ShareWords};

impl Guard<'_> {
    /// Puts `duration` nanoseconds of work at the end of the line of `slot` on GPU `device`, and returns the target
    /// at its end. A duration of 0 is the target of all work so far.
    pub fn submit(&self, slot: u32, device: usize, duration: u64, now: u64) -> u64 {
        self.advance(device, now);
        let submitted = &self.page.share(slot, device).submitted;
        let target = submitted.load(Relaxed) + duration;
        submitted.store(target, Relaxed);
        if duration > 0 {
            let word = &self.page.device(device).active[slot as usize / 64];
            word.store(word.load(Relaxed) | 1 << (slot % 64), Relaxed);
        }
        target
    }

    /// Nanoseconds of work that `slot` has had done on GPU `device` by `now`.
    pub fn executed(&self, slot: u32, device: usize, now: u64) -> u64 {
        self.advance(device, now);
        self.page.share(slot, device).executed.load(Relaxed)
    }

    /// When `slot` will reach `target` on GPU `device` if nobody submits anything more; `Err` holds that moment
    /// for a target that has not been reached by `now`.
    ///
    /// # Errors
    /// The moment at which the target will be reached, while it lies ahead.
    pub fn time_of(&self, slot: u32, device: usize, target: u64, now: u64) -> Result<u64, u64> {
        let executed = self.executed(slot, device, now);
        if target <= executed {
            return Ok(reached_at(self.page.share(slot, device), target));
        }
        let ahead = target - executed;
        // When this slot gets `ahead`, every other has got as much, or all that it wants.
        let everybody = self
            .active(device)
            .map(|other| self.backlog(other, device).min(ahead));
        let last = self.page.device(device).last.load(Relaxed);
        Err(last + everybody.sum::<u64>().max(ahead))
    }

    /// Deals out the time of GPU `device` up to `now`.
    pub fn advance(&self, device: usize, now: u64) {
        let words = self.page.device(device);
        let mut time = words.last.load(Relaxed);
        while time < now {
            let slots = self.active(device).count() as u64;
            let shortest = self
                .active(device)
                .map(|slot| self.backlog(slot, device))
                .min();
            let Some(shortest) = shortest else {
                time = now;
                break;
            };
            let each = ((now - time) / slots).min(shortest);
            if each == 0 && shortest > 0 {
                break;
            }
            let end = time + each * slots;
            for slot in self.active(device) {
                self.run(slot, device, (time, end), each, slots);
            }
            add_busy(&words.busy, time, end, end - time);
            time = end;
        }
        words.last.fetch_max(time, Relaxed);
    }

    /// Nanoseconds that `slot` has used of GPU `device` between two moments in the last three seconds.
    pub fn busy(&self, slot: u32, device: usize, from: u64, to: u64) -> u64 {
        let last = self.page.device(device).last.load(Relaxed);
        busy_between(&self.page.share(slot, device).busy, (from, to), last)
    }

    /// Nanoseconds that GPU `device` was busy between two moments in the last three seconds.
    pub fn device_busy(&self, device: usize, from: u64, to: u64) -> u64 {
        let words = self.page.device(device);
        busy_between(&words.busy, (from, to), words.last.load(Relaxed))
    }

    /// The line of `slot` on GPU `device` starts anew.
    pub(super) fn forget_time(&self, slot: u32, device: usize) {
        let share = self.page.share(slot, device);
        for word in [&share.submitted, &share.executed, &share.rate, &share.count] {
            word.store(0, Relaxed);
        }
        for bucket in &share.busy.buckets {
            bucket.interval.store(0, Relaxed);
            bucket.used.store(0, Relaxed);
        }
        let word = &self.page.device(device).active[slot as usize / 64];
        word.store(word.load(Relaxed) & !(1 << (slot % 64)), Relaxed);
    }

    pub(super) fn recompute_active(&self, device: usize) {
        let words = self.page.device(device);
        for (index, word) in words.active.iter().enumerate() {
            let bits = (0..64).filter(|&bit| self.backlog(index as u32 * 64 + bit, device) > 0);
            word.store(bits.fold(0, |all, bit| all | 1 << bit), Relaxed);
        }
    }

    fn backlog(&self, slot: u32, device: usize) -> u64 {
        let share = self.page.share(slot, device);
        share
            .submitted
            .load(Relaxed)
            .saturating_sub(share.executed.load(Relaxed))
    }

    /// Slots with work left on GPU `device`. A bit set during the walk may or may not be seen.
    fn active(&self, device: usize) -> impl Iterator<Item = u32> {
        let active = &self.page.device(device).active;
        (0..SLOTS / 64).flat_map(move |index| {
            let mut bits = active[index].load(Relaxed);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }

    /// `slot` gets `each` nanoseconds between two moments in which `slots` share the GPU.
    fn run(&self, slot: u32, device: usize, (start, end): (u64, u64), each: u64, slots: u64) {
        let share = self.page.share(slot, device);
        let before = share.executed.load(Relaxed);
        share.executed.store(before + each, Relaxed);
        record(share, (start, before), (end, before + each), slots);
        add_busy(&share.busy, start, end, each);
        if self.backlog(slot, device) == 0 {
            let word = &self.page.device(device).active[slot as usize / 64];
            word.store(word.load(Relaxed) & !(1 << (slot % 64)), Relaxed);
        }
    }
}

/// Remembers a segment of progress: the newest one grows while the pace stays the same.
fn record(share: &ShareWords, start: (u64, u64), end: (u64, u64), rate: u64) {
    let count = share.count.load(Relaxed);
    let newest = count.checked_sub(1).map(|index| point(share, index));
    if newest == Some(start) && share.rate.load(Relaxed) == rate {
        set_point(share, count - 1, end);
        return;
    }
    let mut count = count;
    if newest != Some(start) {
        set_point(share, count, start);
        count += 1;
    }
    set_point(share, count, end);
    share.rate.store(rate, Relaxed);
    share.count.store(count + 1, Relaxed);
}

fn point(share: &ShareWords, index: u64) -> (u64, u64) {
    let point = &share.points[index as usize % BREAKPOINTS];
    (point.time.load(Relaxed), point.executed.load(Relaxed))
}

fn set_point(share: &ShareWords, index: u64, (time, executed): (u64, u64)) {
    let point = &share.points[index as usize % BREAKPOINTS];
    point.time.store(time, Relaxed);
    point.executed.store(executed, Relaxed);
}

/// The first moment at which `executed` had reached `target`, which it has.
fn reached_at(share: &ShareWords, target: u64) -> u64 {
    let count = share.count.load(Relaxed);
    let oldest = count.saturating_sub(BREAKPOINTS as u64);
    let (mut low, mut high) = (oldest, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if point(share, middle).1 < target {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == count {
        return 0;
    }
    let (end, executed_end) = point(share, low);
    if low == oldest {
        return end;
    }
    let (start, executed_start) = point(share, low - 1);
    let part = u128::from(target - executed_start) * u128::from(end - start);
    start + (part / u128::from(executed_end - executed_start)) as u64
}

/// Spreads `used` nanoseconds evenly over the intervals between two moments.
fn add_busy(busy: &Busy, start: u64, end: u64, used: u64) {
    if end <= start {
        return;
    }
    let last = (end - 1) / BUCKET_NS;
    let first = (start / BUCKET_NS).max((last + 1).saturating_sub(BUCKETS as u64));
    for interval in first..=last {
        let from = start.max(interval * BUCKET_NS);
        let to = end.min((interval + 1) * BUCKET_NS);
        let part = u128::from(used) * u128::from(to - from) / u128::from(end - start);
        let bucket = &busy.buckets[interval as usize % BUCKETS];
        if bucket.interval.load(Relaxed) != interval {
            bucket.interval.store(interval, Relaxed);
            bucket.used.store(0, Relaxed);
        }
        bucket
            .used
            .store(bucket.used.load(Relaxed) + part as u64, Relaxed);
    }
}

/// Nanoseconds used between two moments, as far as the intervals remember. Use is known up to `last`, so the newest
/// interval is as long as what has passed of it.
fn busy_between(busy: &Busy, (from, to): (u64, u64), last: u64) -> u64 {
    let part = |bucket: &Bucket| {
        let start = bucket.interval.load(Relaxed) * BUCKET_NS;
        let end = (start + BUCKET_NS).min(last);
        let common = to.min(end).saturating_sub(from.max(start));
        bucket.used.load(Relaxed) * common / end.saturating_sub(start).max(1)
    };
    busy.buckets.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;
    use crate::page::Page;

    const MS: u64 = 1_000_000;

    fn page() -> Page {
        Page::create(&NodeConfig::default()).unwrap()
    }

    #[test]
    fn alone_a_process_gets_the_whole_gpu() {
        let page = page();
        let guard = page.lock(0).unwrap();
        let first = guard.submit(0, 0, 10 * MS, 100 * MS);
        let second = guard.submit(0, 0, 5 * MS, 100 * MS);
        assert_eq!(guard.executed(0, 0, 104 * MS), 4 * MS);
        assert_eq!(guard.time_of(0, 0, second, 104 * MS), Err(115 * MS));
        assert_eq!(guard.time_of(0, 0, first, 200 * MS), Ok(110 * MS));
        assert_eq!(guard.time_of(0, 0, second, 200 * MS), Ok(115 * MS));
    }

    #[test]
    fn two_processes_share_and_the_rest_speeds_up() {
        let page = page();
        let guard = page.lock(0).unwrap();
        let long = guard.submit(0, 0, 30 * MS, 0);
        let short = guard.submit(70, 0, 10 * MS, 10 * MS);
        assert_eq!(guard.time_of(70, 0, short, 10 * MS), Err(30 * MS));
        assert_eq!(guard.time_of(0, 0, long, 10 * MS), Err(40 * MS));
        assert_eq!(guard.time_of(0, 0, long, 50 * MS), Ok(40 * MS));
        assert_eq!(guard.time_of(70, 0, short, 50 * MS), Ok(30 * MS));
        assert_eq!(guard.time_of(0, 0, 15 * MS, 50 * MS), Ok(20 * MS));
    }

    #[test]
    fn gpus_do_not_share() {
        let page = page();
        let guard = page.lock(0).unwrap();
        guard.submit(0, 0, 10 * MS, 0);
        let other = guard.submit(1, 1, 10 * MS, 0);
        assert_eq!(guard.time_of(1, 1, other, 20 * MS), Ok(10 * MS));
    }

    #[test]
    fn idle_gaps_are_remembered() {
        let page = page();
        let guard = page.lock(0).unwrap();
        let targets: Vec<u64> = (0..20)
            .map(|round| guard.submit(0, 0, MS, round * 10 * MS + 3))
            .collect();
        for (round, &target) in (0..).zip(&targets) {
            assert_eq!(
                guard.time_of(0, 0, target, 1000 * MS),
                Ok(round * 10 * MS + 3 + MS)
            );
        }
    }

    #[test]
    fn an_overwritten_corner_is_dated_at_the_oldest_left() {
        let page = page();
        let guard = page.lock(0).unwrap();
        let first = guard.submit(0, 0, MS, 0);
        for round in 1..=BREAKPOINTS as u64 {
            guard.submit(0, 0, MS, round * 10 * MS);
        }
        let at = guard.time_of(0, 0, first, 10_000 * MS).unwrap();
        assert!(at > MS && at <= 10_000 * MS, "{at}");
    }

    #[test]
    fn time_is_neither_lost_nor_made() {
        let page = page();
        let guard = page.lock(0).unwrap();
        for slot in 0..3 {
            guard.submit(slot, 0, 1_000_003 + u64::from(slot), 0);
        }
        for now in (0..=4_000_000).step_by(7) {
            guard.advance(0, now);
        }
        let done: u64 = (0..3).map(|slot| guard.executed(slot, 0, 4_000_000)).sum();
        assert_eq!(done, 3 * 1_000_003 + 3);
        let last = guard.time_of(2, 0, 1_000_005, 4_000_000).unwrap();
        assert!((3_000_012..3_000_020).contains(&last), "{last}");
    }

    #[test]
    fn use_is_seen_per_process_and_per_gpu() {
        let page = page();
        let guard = page.lock(0).unwrap();
        let second = 1000 * MS;
        guard.submit(0, 0, second / 2, second);
        guard.submit(1, 0, second / 4, second);
        guard.advance(0, 2 * second);
        let near = |value: u64, expected: u64| value.abs_diff(expected) < 100;
        assert!(near(guard.busy(0, 0, second, 2 * second), second / 2));
        assert!(near(guard.busy(1, 0, second, 2 * second), second / 4));
        assert!(near(
            guard.device_busy(0, second, 2 * second),
            second * 3 / 4
        ));
        assert!(near(
            guard.device_busy(0, second, second + second / 2),
            second / 2
        ));
        assert_eq!(guard.device_busy(1, 0, 2 * second), 0);
        // In the middle of an interval.
        guard.submit(0, 0, second, 3 * second + 7 * MS);
        guard.advance(0, 3 * second + 17 * MS);
        let lately = guard.device_busy(0, 3 * second + 7 * MS, 3 * second + 17 * MS);
        assert!(
            near(lately, 10 * MS * 10 / 17),
            "{lately}: spread over the interval so far"
        );
    }

    #[test]
    fn a_killed_process_leaves_the_gpu_to_the_others() {
        let page = page();
        let guard = page.lock(0).unwrap();
        guard.submit(0, 0, 1000 * MS, 0);
        let target = guard.submit(1, 0, 10 * MS, 0);
        guard.wipe(0, 10 * MS);
        assert_eq!(guard.time_of(1, 0, target, 100 * MS), Ok(15 * MS));
        assert_eq!(guard.submit(0, 0, 0, 100 * MS), 0);
    }
}
