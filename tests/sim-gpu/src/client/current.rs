//! The one connection of this process, and how a forked child learns that it is not its own.
//!
//! A page that the kernel wipes in a forked child (`MADV_WIPEONFORK`) holds both the lock of the first call and
//! the mark "connected in this process": a child starts with both at zero, whatever its parent's other threads
//! were doing. A pid check would cost a system call each time and fail across pid namespaces.
//!
//! # Safety
//! `CURRENT` holds null or a pointer from `Box::leak`, which is never freed. `MARKS` holds null or the address of
//! a mapping that is never unmapped.

#![allow(unsafe_code, reason = "a process-wide pointer and a wiped page")]

use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32};
use std::thread;

use crate::client::{ConnectError, Node};

/// The words that a forked child finds at zero.
#[repr(C)]
struct Marks {
    connected: AtomicU32,
    connecting: AtomicU32,
}

static CURRENT: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());
static MARKS: AtomicPtr<Marks> = AtomicPtr::new(ptr::null_mut());

/// Whether this process made the connection that it sees.
pub(super) fn same_process() -> bool {
    existing_marks().is_some_and(|marks| marks.connected.load(Acquire) == 1)
}

/// The process's connection, made by `connect` if there is none.
pub(super) fn get_or_connect(
    connect: impl FnOnce() -> Result<Node, ConnectError>,
) -> Result<&'static Node, ConnectError> {
    if let Some(node) = existing() {
        return Ok(node);
    }
    let marks = marks();
    while marks.connecting.swap(1, Acquire) == 1 {
        thread::yield_now();
    }
    let result = existing().map_or_else(
        || {
            let node: &'static mut Node = Box::leak(Box::new(connect()?));
            CURRENT.store(ptr::from_mut(node), Release);
            marks.connected.store(1, Release);
            Ok(&*node)
        },
        Ok,
    );
    marks.connecting.store(0, Release);
    result
}

/// The connection, if this process has made one and it lives.
fn existing() -> Option<&'static Node> {
    if !same_process() {
        return None;
    }
    let node = CURRENT.load(Acquire);
    // SAFETY: null or leaked, see the file's head.
    let node = unsafe { node.as_ref() };
    node.filter(|node| node.is_alive())
}

fn existing_marks() -> Option<&'static Marks> {
    // SAFETY: null or never unmapped, see the file's head; all zeroes is a valid value.
    unsafe { MARKS.load(Acquire).as_ref() }
}

fn marks() -> &'static Marks {
    if let Some(marks) = existing_marks() {
        return marks;
    }
    let fresh = wiped_page();
    let raced = MARKS.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire);
    // A loser's page stays mapped: one page, once.
    let marks = raced.err().unwrap_or(fresh);
    // SAFETY: a mapping made by `wiped_page`, here or in the thread that won, never unmapped.
    unsafe { &*marks }
}

/// A private page of zeroes which is zero again in a forked child.
fn wiped_page() -> *mut Marks {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, access, flags, -1, 0) };
    assert!(page != libc::MAP_FAILED, "no memory for one page");
    // SAFETY: advice about the mapping just made.
    let advised = unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) };
    assert!(
        advised == 0,
        "this kernel cannot wipe a page on fork (4.14 and newer can)"
    );
    page.cast()
}
