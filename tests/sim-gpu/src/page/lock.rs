//! The page's lock: one word that names its owner.
//!
//! A futex would sleep better, but a robust one belongs to libc and dies with the library that made it; critical
//! sections here are tens of nanoseconds, so waiters spin, then yield. Breaking the lock of a dead owner is the
//! daemon's alone ([`Page::break_lock`]): it knows who has died.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use crate::page::{Page, PageError, now};

/// How long a waiter believes in the owner.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The page with its lock held; every operation that must be whole is a method of it.
#[derive(Debug)]
pub struct Guard<'page> {
    pub(super) page: &'page Page,
    owner: u32,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Only if still ours: the daemon may have taken us for dead and broken the lock.
        let lock = &self.page.header().lock;
        let _broken = lock.compare_exchange(self.owner + 1, 0, Release, Relaxed);
    }
}

impl Page {
    /// Takes the lock for `owner`, a slot or [`DAEMON`](crate::page::DAEMON).
    ///
    /// # Errors
    /// [`PageError::Stuck`] when nobody releases it for ten seconds.
    pub fn lock(&self, owner: u32) -> Result<Guard<'_>, PageError> {
        self.lock_or(owner, |_| ())
    }

    /// As [`Page::lock`]; `waiting` is told the present owner now and then.
    pub(crate) fn lock_or(
        &self,
        owner: u32,
        mut waiting: impl FnMut(u32),
    ) -> Result<Guard<'_>, PageError> {
        let lock = &self.header().lock;
        let mut start = 0;
        for round in 0_u32.. {
            match lock.compare_exchange_weak(0, owner + 1, Acquire, Relaxed) {
                Ok(_) => return Ok(Guard { page: self, owner }),
                Err(_) if round < 64 => std::hint::spin_loop(),
                Err(_) if round < 256 => thread::yield_now(),
                Err(held) => {
                    start = if start == 0 { now() } else { start };
                    if now() - start > PATIENCE_NS {
                        return Err(PageError::Stuck {
                            owner: held.saturating_sub(1),
                        });
                    }
                    if held > 0 {
                        waiting(held - 1);
                    }
                    thread::sleep(Duration::from_micros(100));
                }
            }
        }
        Err(PageError::Stuck { owner })
    }

    /// Frees the lock if `dead` holds it, and makes the sums right again. Returns whether it did.
    ///
    /// Only for an owner that is known to be gone. What a killed owner can leave half done: a sum that does not
    /// match its parts (recomputed here), and one step of GPU time dealt out to some slots only (harmless).
    pub(crate) fn break_lock(&self, dead: u32) -> bool {
        let lock = &self.header().lock;
        // Straight to the daemon, so that nobody sees the sums before they are right.
        let daemon = crate::page::DAEMON;
        if lock
            .compare_exchange(dead + 1, daemon + 1, Acquire, Relaxed)
            .is_err()
        {
            return false;
        }
        let guard = Guard {
            page: self,
            owner: daemon,
        };
        guard.recompute();
        true
    }

    /// Takes the lock for the daemon, whoever holds it: the last resort against an owner that is stopped. What that
    /// one still writes when it goes on is made right when the next client ends.
    pub(crate) fn seize_lock(&self) -> Guard<'_> {
        let owner = crate::page::DAEMON;
        self.header().lock.store(owner + 1, Relaxed);
        Guard { page: self, owner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn a_broken_lock_leaves_right_sums() {
        let page = Page::create(&NodeConfig::default()).unwrap();
        page.slot(3).generation.store(1, Relaxed);
        page.share(3, 1).held.store(4096, Relaxed);
        let _never_dropped = std::mem::ManuallyDrop::new(page.lock(3).unwrap());
        assert!(!page.break_lock(4));
        assert!(page.break_lock(3));
        assert_eq!(page.device(1).used.load(Relaxed), 4096);
        drop(page.lock(5).unwrap());
    }

    #[test]
    fn the_lock_excludes() {
        let page = Page::create(&NodeConfig::default()).unwrap();
        let word = &page.device(0).last;
        thread::scope(|scope| {
            for owner in 0..3 {
                let page = &page;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let _guard = page.lock(owner).unwrap();
                        word.store(word.load(Relaxed) + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(word.load(Relaxed), 6000);
    }
}
