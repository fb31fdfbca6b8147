//! A value that is made once (or again after a fork), shared by all threads and never freed.
//!
//! # Safety
//! The pointer is null or came from a leaked box, so what it points to lives as long as the process.
#![allow(
    unsafe_code,
    reason = "hands out a reference from an atomic pointer, without a lock"
)]

use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

/// A place for a value that readers reach without a lock, because a lock could be held for ever by
/// a thread that a fork left behind.
#[derive(Debug)]
pub(crate) struct Published<T: Send + Sync + 'static>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Published<T> {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or a leaked box that nobody changes but through its own synchronisation.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    /// Replaces the value. The old one stays where it is: other threads may be looking.
    pub(crate) fn set(&self, value: T) -> &'static T {
        let leaked: &'static mut T = Box::leak(Box::new(value));
        self.0.store(leaked, Release);
        leaked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_is_seen_and_old_references_stay_good() {
        let place = Published::empty();
        assert!(place.get().is_none());
        let first = place.set(1);
        place.set(2);
        assert_eq!((*first, place.get()), (1, Some(&2)));
    }
}
