//! The library behind ours: where its functions are. And where we are ourselves.
//!
//! The driver is loaded already, as our dependency by the name `libcuda-driver.so.1`; this file only
//! looks functions up in it, each when it is first called. A function that this driver lacks gets
//! an answerer with the documented status in its place.
//!
//! # Safety
//! Slots hold 0 or the address of a function: of the driver, with the signature that the headers
//! give for that slot, or of an answerer that takes no argument and returns a status.
#![allow(unsafe_code, reason = "asks the dynamic loader")]

use std::ffi::{CStr, OsStr, OsString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use vgpu_cuda_sys::cuda::{CUDA_ERROR_NOT_SUPPORTED, CUdevice, CUmemLocation, CUresult};
use vgpu_cuda_sys::nvml::{NVML_ERROR_FUNCTION_NOT_FOUND, nvmlReturn_t};
use vgpu_cuda_sys::{CUDA_COUNT, In, NVML_COUNT, Out};

/// Addresses of the driver's CUDA functions, by slot; the stubs read it.
#[doc(hidden)]
pub static CUDA_SLOTS: [AtomicUsize; CUDA_COUNT] = [const { AtomicUsize::new(0) }; CUDA_COUNT];
/// Addresses of the driver's NVML functions, by slot; the stubs read it.
#[doc(hidden)]
pub static NVML_SLOTS: [AtomicUsize; NVML_COUNT] = [const { AtomicUsize::new(0) }; NVML_COUNT];

/// The driver's CUDA library.
pub static CUDA: Library = Library {
    file: c"libcuda-driver.so.1",
    handle: AtomicPtr::new(null_mut()),
    names: &crate::table::CUDA_NAMES,
    slots: &CUDA_SLOTS,
    absent: cuda_absent,
};
/// The driver's NVML library.
pub static NVML: Library = Library {
    file: c"libnvidia-ml-driver.so.1",
    handle: AtomicPtr::new(null_mut()),
    names: &crate::table::NVML_NAMES,
    slots: &NVML_SLOTS,
    absent: nvml_absent,
};

extern "C" fn cuda_absent() -> CUresult {
    CUDA_ERROR_NOT_SUPPORTED
}

extern "C" fn nvml_absent() -> nvmlReturn_t {
    NVML_ERROR_FUNCTION_NOT_FOUND
}

/// A library of the driver.
#[derive(Debug)]
pub struct Library {
    file: &'static CStr,
    handle: AtomicPtr<c_void>,
    /// By slot, each with a final zero byte.
    names: &'static [&'static str],
    slots: &'static [AtomicUsize],
    absent: extern "C" fn() -> u32,
}

impl Library {
    /// The address to call for a slot: the driver's function, or the answerer where it lacks it.
    #[inline]
    pub fn target(&self, slot: usize) -> usize {
        match self.slots.get(slot).map(|word| word.load(Relaxed)) {
            Some(0) | None => self.resolve(slot),
            Some(address) => address,
        }
    }

    /// The address of the driver's own function; `None` where it lacks it.
    pub fn function(&self, slot: usize) -> Option<usize> {
        let address = self.target(slot);
        (address != self.absent_address()).then_some(address)
    }

    fn absent_address(&self) -> usize {
        self.absent as usize
    }

    #[cold]
    fn resolve(&self, slot: usize) -> usize {
        let found = self.names.get(slot).and_then(|name| self.look_up(name));
        let address = found.unwrap_or_else(|| self.absent_address());
        if let Some(word) = self.slots.get(slot) {
            word.store(address, Release);
        }
        address
    }

    fn look_up(&self, name: &str) -> Option<usize> {
        let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
        let handle = self.open()?;
        // SAFETY: a handle that dlopen gave and nobody closes, and a terminated name.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if address.is_null() {
            forget_loader_error();
        }
        (!address.is_null()).then_some(address as usize)
    }

    /// The handle of our dependency. Never loads anything: it is there, or we are not in front of a
    /// driver (a unit test).
    fn open(&self) -> Option<*mut c_void> {
        let known = self.handle.load(Acquire);
        if !known.is_null() {
            return Some(known);
        }
        // SAFETY: a terminated name; with RTLD_NOLOAD no code runs.
        let handle =
            unsafe { libc::dlopen(self.file.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW) };
        if handle.is_null() {
            forget_loader_error();
            return None;
        }
        // Whoever comes second opened the same library; its reference is one more that stays.
        match self
            .handle
            .compare_exchange(null_mut(), handle, AcqRel, Acquire)
        {
            Ok(_) => Some(handle),
            Err(first) => Some(first),
        }
    }
}

/// A failed look-up of ours must not show up in the application's next `dlerror`.
fn forget_loader_error() {
    // SAFETY: resets a string of this thread.
    unsafe { libc::dlerror() };
}

/// The directory of the library that this code is linked into, as the loader was given it.
pub fn own_directory() -> Option<PathBuf> {
    let here: fn() -> Option<PathBuf> = own_directory;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: null_mut(),
    };
    // SAFETY: any address may be asked for; the structure outlives the call.
    let known = unsafe { libc::dladdr(here as *const c_void, &raw mut info) };
    if known == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, which lives as long as this library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
        .parent()
        .map(PathBuf::from)
}

/// The string behind an argument; `None` for null.
pub(crate) fn text(argument: In<c_char>) -> Option<&'static CStr> {
    if argument.is_null() {
        return None;
    }
    // SAFETY: not null, so a terminated string by the API's contract; it is only looked at while the
    // call that brought it lasts.
    Some(unsafe { CStr::from_ptr(argument.as_ptr()) })
}

/// A structure of ours as an argument of a call that reads it while it lasts.
pub(crate) fn argument<T>(place: &T) -> In<T> {
    // SAFETY: a reference is valid for reads; the driver keeps no pointer to a descriptor.
    unsafe { In::from_ptr(place) }
}

/// A place of ours as an argument whose type the call's other arguments decide.
pub(crate) fn untyped<T>(place: Out<T>) -> Out<c_void> {
    // SAFETY: the same pointer; whoever calls names the attribute that has this type.
    unsafe { Out::from_ptr(place.as_ptr().cast()) }
}

/// The device of a location whose type says that it is one.
pub(crate) fn location_id(location: CUmemLocation) -> CUdevice {
    // SAFETY: every member of the union is made of integers, and the call's author wrote this one.
    unsafe { location.__bindgen_anon_1.id }
}

/// A variable of the environment; nothing in a set-user-id program.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    // SAFETY: reads a number that the kernel gave the process.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    if secure != 0 {
        None
    } else {
        std::env::var_os(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_every_function_is_absent() {
        assert!(CUDA.function(0).is_none());
        assert!(NVML.function(NVML_COUNT).is_none());
        assert_eq!(CUDA.target(0), CUDA.absent_address());
    }

    #[test]
    fn names_follow_the_slots() {
        assert_eq!(crate::table::CUDA_NAMES.len(), CUDA_COUNT);
        assert_eq!(crate::table::NVML_NAMES.len(), NVML_COUNT);
        assert!(
            crate::table::CUDA_NAMES
                .iter()
                .all(|name| name.ends_with('\0'))
        );
    }

    #[test]
    fn own_directory_is_that_of_the_test_binary() {
        let own = std::fs::canonicalize(own_directory().unwrap()).unwrap();
        let test = std::fs::canonicalize(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(own, test.parent().unwrap());
    }
}
