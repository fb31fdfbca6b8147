//! Memory of the calling program: the only file, besides the exports and host callbacks, that touches raw addresses.
//!
//! Owns reading and writing at addresses that a C caller handed over or that this library mapped, and the system
//! calls that map memory. It must never decide whether an address is right: callers check what can be checked
//! (ranges of device memory) before they come here.
#![allow(
    unsafe_code,
    reason = "a driver copies between addresses that its callers name"
)]
//!
//! # Safety
//! Addresses are either inside a mapping that this library made and keeps, or were given by the C caller, who
//! promised by the API's contract that they are valid for the length of the call. A caller that breaks the promise
//! would crash the real driver just the same.

use core::ffi::{CStr, c_char, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_cuda_sys::{In, Out};

/// Copies `len` bytes; the ranges may overlap.
pub(crate) fn copy(dst: u64, src: u64, len: u64) {
    if len == 0 {
        return;
    }
    // SAFETY: both ranges are valid by the file's rule.
    unsafe { core::ptr::copy(src as *const u8, dst as *mut u8, len as usize) };
}

/// Writes `count` times the low `size` bytes of `value`; `size` is 1, 2 or 4.
pub(crate) fn fill(dst: u64, value: u32, size: usize, count: u64) {
    let bytes = value.to_ne_bytes();
    if count == 0 {
        return;
    }
    if bytes[..size].iter().all(|&byte| byte == bytes[0]) {
        // SAFETY: the range is valid by the file's rule.
        unsafe { core::ptr::write_bytes(dst as *mut u8, bytes[0], count as usize * size) };
        return;
    }
    for index in 0..count {
        copy(
            dst + index * size as u64,
            bytes.as_ptr() as u64,
            size as u64,
        );
    }
}

/// Reads a value of the program.
pub(crate) fn read<T: Copy>(address: u64) -> T {
    // SAFETY: valid for reads by the file's rule; alignment is not assumed.
    unsafe { (address as *const T).read_unaligned() }
}

/// Writes a value of the program.
pub(crate) fn write<T>(address: u64, value: T) {
    // SAFETY: valid for writes by the file's rule; alignment is not assumed.
    unsafe { (address as *mut T).write_unaligned(value) };
}

/// Atomic words at the start of a mapping that other processes share.
pub(crate) fn shared<T>(address: u64) -> &'static T {
    // SAFETY: callers name a live mapping of theirs, page-aligned, and a type made of atomics, for which any bytes are
    // valid and change by others is allowed; they use it no longer than the mapping.
    unsafe { &*(address as *const T) }
}

/// The address behind an argument.
pub(crate) fn addr_in<T>(pointer: In<T>) -> u64 {
    pointer.as_ptr() as u64
}

/// The address behind an argument.
pub(crate) fn addr_out<T>(pointer: Out<T>) -> u64 {
    pointer.as_ptr() as u64
}

/// Copies out an array argument of `len` elements; `None` for null with a length.
pub(crate) fn array<T: Copy>(address: u64, len: usize) -> Option<Vec<T>> {
    if len == 0 {
        return Some(Vec::new());
    }
    if address == 0 {
        return None;
    }
    Some(
        (0..len)
            .map(|index| read(address + (index * size_of::<T>()) as u64))
            .collect(),
    )
}

/// The text of a C string argument; `None` for null.
pub(crate) fn text(pointer: In<c_char>) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string by the API's contract.
    let text = unsafe { CStr::from_ptr(pointer.as_ptr()) };
    Some(text.to_string_lossy().into_owned())
}

/// `len` bytes of the program, copied.
pub(crate) fn bytes(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; len];
    copy(bytes.as_mut_ptr() as u64, address, len as u64);
    bytes
}

/// Bytes up to and without the terminating zero.
pub(crate) fn bytes_to_zero(address: u64) -> Vec<u8> {
    // SAFETY: the caller knows that text starts here, which ends in a zero by the API's contract.
    let text = unsafe { CStr::from_ptr(address as *const c_char) };
    text.to_bytes().to_vec()
}

/// How a mapping may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Not at all.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

impl Protection {
    fn flags(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

fn map(
    hint: u64,
    len: u64,
    protection: Protection,
    flags: i32,
    fd: i32,
    offset: u64,
) -> Option<u64> {
    // SAFETY: a mapping is placed at a free address, or (MAP_FIXED) over a range that this library reserved.
    let address = unsafe {
        libc::mmap(
            hint as *mut c_void,
            len as usize,
            protection.flags(),
            flags,
            fd,
            offset as i64,
        )
    };
    (address != libc::MAP_FAILED).then_some(address as u64)
}

/// Address space whose pages appear when they are touched; not inherited by a forked child.
pub(crate) fn reserve(len: u64, protection: Protection, low: bool) -> Option<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let flags = if low { flags | libc::MAP_32BIT } else { flags };
    let address = map(0, len, protection, flags, -1, 0)?;
    advise(address, len, libc::MADV_DONTFORK);
    advise(address, len, libc::MADV_DONTDUMP);
    Some(address)
}

/// Maps a file, at a reserved address when `at` names one.
pub(crate) fn map_file(
    at: Option<u64>,
    fd: &OwnedFd,
    offset: u64,
    len: u64,
    protection: Protection,
) -> Option<u64> {
    let flags = if at.is_some() {
        libc::MAP_SHARED | libc::MAP_FIXED
    } else {
        libc::MAP_SHARED
    };
    map(
        at.unwrap_or(0),
        len,
        protection,
        flags,
        fd.as_raw_fd(),
        offset,
    )
}

/// Puts plain reserved address space back over a mapping.
pub(crate) fn reserve_again(at: u64, len: u64, protection: Protection) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    map(at, len, protection, flags, -1, 0).is_some()
}

/// Changes how a mapping of this library may be used.
pub(crate) fn protect(at: u64, len: u64, protection: Protection) -> bool {
    // SAFETY: the range is a mapping of this library by the file's rule.
    unsafe { libc::mprotect(at as *mut c_void, len as usize, protection.flags()) == 0 }
}

/// Ends a mapping of this library.
pub(crate) fn unmap(at: u64, len: u64) {
    // SAFETY: the range is a mapping of this library that nothing uses any more.
    let _cannot_fail = unsafe { libc::munmap(at as *mut c_void, len as usize) };
}

/// Gives the pages of a private mapping back to the system; they read as zero afterwards.
pub(crate) fn discard(at: u64, len: u64) {
    let start = at.next_multiple_of(4096);
    let end = (at + len) & !4095;
    if end > start {
        advise(start, end - start, libc::MADV_DONTNEED);
    }
}

fn advise(at: u64, len: u64, advice: i32) {
    // SAFETY: the range is a mapping of this library; none of the advice used here breaks one.
    let _advice = unsafe { libc::madvise(at as *mut c_void, len as usize, advice) };
}

/// An anonymous file of `len` bytes.
pub(crate) fn memory_file(len: u64) -> Option<OwnedFd> {
    let name = c"sim-gpu-memory";
    // The bare system call: glibc has a function for it since 2.27 only, and this library runs in older images.
    // SAFETY: the name is a C string; the flag closes the file on exec.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) };
    let fd = i32::try_from(fd).ok()?;
    if fd < 0 {
        return None;
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a plain system call on a descriptor that lives.
    let done = unsafe { libc::ftruncate(fd.as_raw_fd(), len as i64) };
    (done == 0).then_some(fd)
}

/// Length of a file; `None` when the number is no descriptor.
pub(crate) fn file_len(fd: i32) -> Option<u64> {
    Some(status(fd)?.st_size as u64)
}

/// What tells a file from all others; `None` when the number is no descriptor.
pub(crate) fn file_identity(fd: i32) -> Option<(u64, u64)> {
    let stat = status(fd)?;
    Some((stat.st_dev, stat.st_ino))
}

fn status(fd: i32) -> Option<libc::stat> {
    // SAFETY: all zeroes is a valid stat.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is valid to write; a wrong descriptor is answered with an error.
    let done = unsafe { libc::fstat(fd, &raw mut stat) };
    (done == 0).then_some(stat)
}

/// Another descriptor for the same open file, closed on exec.
pub(crate) fn duplicate(fd: i32) -> Option<OwnedFd> {
    // SAFETY: a plain system call; a wrong descriptor is answered with an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return None;
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether every page of the range is mapped in this process.
pub(crate) fn is_mapped(at: u64, len: u64) -> bool {
    let start = at & !4095;
    let pages = (at + len - start).div_ceil(4096);
    let mut seen = vec![0_u8; pages as usize];
    // SAFETY: mincore only looks; `seen` has a byte a page.
    let done = unsafe {
        libc::mincore(
            start as *mut c_void,
            (pages * 4096) as usize,
            seen.as_mut_ptr(),
        )
    };
    done == 0
}

/// Zeroes of type `T`, for C structures whose fields are numbers, handles and pointers.
pub(crate) fn zeroed<T: Copy>() -> T {
    // SAFETY: used for C structures only, for which all zeroes is a valid value.
    unsafe { core::mem::zeroed() }
}

/// A word that holds 1 in this process and 0 in its forked children; `None` where the kernel cannot do that.
pub(crate) fn mark_process() -> Option<&'static AtomicU64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = map(0, 4096, Protection::ReadWrite, flags, -1, 0)?;
    // SAFETY: advice about the mapping just made.
    let advised = unsafe { libc::madvise(page as *mut c_void, 4096, libc::MADV_WIPEONFORK) };
    if advised != 0 {
        return None;
    }
    let mark: &'static AtomicU64 = shared(page);
    mark.store(1, Ordering::Release);
    Some(mark)
}

/// Has `at_exit` run when the process exits.
pub(crate) fn on_exit(at_exit: extern "C" fn()) {
    // SAFETY: `at_exit` is a function of this library, which is never unloaded once initialised.
    let _refused = unsafe { libc::atexit(at_exit) };
}
