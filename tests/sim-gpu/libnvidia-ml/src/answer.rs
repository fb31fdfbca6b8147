//! Between values and C: status codes, output arguments, strings, lists and versioned structures.
//!
//! # Safety
//! `In` and `Out` are null or valid by the contract of the C function that got them. What is added here is the
//! contract's small print: a text argument ends with NUL, a versioned structure starts with its version, an array
//! inside a structure has the length that stands beside it.

#![allow(unsafe_code, reason = "C strings and the insides of C structures")]

use std::ffi::{CStr, c_char, c_uint};

use sim_gpu::page::PageError;
use vgpu_cuda_sys::nvml::*;
use vgpu_cuda_sys::{In, Out};

/// A status other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) nvmlReturn_t);

/// What a body answers.
pub(crate) type Answer<T = ()> = Result<T, Failure>;

pub(crate) const INVALID: Failure = Failure(NVML_ERROR_INVALID_ARGUMENT);

impl From<nvmlReturn_t> for Failure {
    fn from(code: nvmlReturn_t) -> Self {
        Self(code)
    }
}

impl From<PageError> for Failure {
    fn from(error: PageError) -> Self {
        Self(match error {
            PageError::OutOfMemory { .. } => NVML_ERROR_MEMORY,
            PageError::Disconnected => NVML_ERROR_GPU_IS_LOST,
            PageError::Stuck { .. } => NVML_ERROR_TIMEOUT,
        })
    }
}

/// The C status of an answer.
pub(crate) fn status(answer: Answer) -> nvmlReturn_t {
    answer.map_or_else(|Failure(code)| code, |()| NVML_SUCCESS)
}

/// Writes one value.
pub(crate) fn put<T>(out: Out<T>, value: T) -> Answer {
    out.write(value).then_some(()).ok_or(INVALID)
}

/// Writes a text with its NUL into room for `length` characters.
pub(crate) fn put_text(out: Out<c_char>, length: c_uint, text: &str) -> Answer {
    if out.is_null() {
        return Err(INVALID);
    }
    if (length as usize) <= text.len() {
        return Err(Failure(NVML_ERROR_INSUFFICIENT_SIZE));
    }
    put_characters(out, text)
}

/// Writes a text with its NUL where the API promises enough room.
pub(crate) fn put_characters(out: Out<c_char>, text: &str) -> Answer {
    let characters: Vec<c_char> = text.bytes().chain([0]).map(|byte| byte as c_char).collect();
    out.write_all(&characters).then_some(()).ok_or(INVALID)
}

/// A text as a C array of `N` characters, cut if it is longer.
pub(crate) fn characters<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (place, byte) in array[..N - 1].iter_mut().zip(text.bytes()) {
        *place = byte as c_char;
    }
    array
}

/// Writes a list into room for as many as `count` says, and how many there are into `count`.
///
/// As NVML has it: no room or too little is an error that tells the size, except when there is nothing to tell.
pub(crate) fn put_list<T: Copy>(out: Out<T>, count: Out<c_uint>, items: &[T]) -> Answer {
    let room = count.read().ok_or(INVALID)? as usize;
    put(count, items.len() as c_uint)?;
    if items.is_empty() {
        return Ok(());
    }
    if room < items.len() || out.is_null() {
        return Err(Failure(NVML_ERROR_INSUFFICIENT_SIZE));
    }
    out.write_all(items).then_some(()).ok_or(INVALID)
}

/// A text argument.
pub(crate) fn text_of(text: In<c_char>) -> Answer<String> {
    if text.is_null() {
        return Err(INVALID);
    }
    // SAFETY: not null, and NUL-terminated by the API's contract.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    text.to_str().map(str::to_owned).map_err(|_| INVALID)
}

/// The version that a structure of kind `T` and number `number` carries.
pub(crate) const fn version<T>(number: c_uint) -> c_uint {
    size_of::<T>() as c_uint | number << 24
}

/// Checks the version that the caller wrote into a structure before anything else of it is touched: an older
/// caller's structure may be shorter.
pub(crate) fn expect_version<T>(structure: Out<T>, number: c_uint) -> Answer {
    let first = structure.as_ptr().cast::<c_uint>();
    // SAFETY: null or valid like the structure, which starts with its version.
    let found = unsafe { Out::from_ptr(first) }.read().ok_or(INVALID)?;
    let right = found == version::<T>(number);
    right
        .then_some(())
        .ok_or(Failure(NVML_ERROR_ARGUMENT_VERSION_MISMATCH))
}

/// Writes the first `length` bytes of `value`: an older form of a structure that only grew.
pub(crate) fn put_prefix<T: Copy>(out: Out<T>, value: &T, length: usize) -> Answer {
    assert!(length <= size_of::<T>(), "{length}");
    // SAFETY: `length` bytes of a plain C structure, checked above to lie within it.
    let bytes =
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), length) };
    // SAFETY: null or valid for as many bytes as the older form has, by that function's contract.
    let out = unsafe { Out::from_ptr(out.as_ptr().cast::<u8>()) };
    out.write_all(bytes).then_some(()).ok_or(INVALID)
}

/// An array that a structure points to.
pub(crate) fn array<T>(pointer: *mut T) -> Out<T> {
    // SAFETY: null or valid by the API's contract for the structure that holds the pointer.
    unsafe { Out::from_ptr(pointer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_its_size() {
        let mut count = 1;
        let mut room = [0_u32; 3];
        let full = put_list(Out::of(&mut room[0]), Out::of(&mut count), &[7, 8]);
        assert_eq!(
            (full, count),
            (Err(Failure(NVML_ERROR_INSUFFICIENT_SIZE)), 2)
        );
        let empty = put_list(Out::<u32>::null(), Out::of(&mut count), &[]);
        assert_eq!((empty, count), (Ok(()), 0));
    }

    #[test]
    fn a_text_needs_room_for_its_end() {
        let mut room = [1; 4];
        let short = put_text(Out::of(&mut room[0]), 3, "abc");
        assert_eq!(short, Err(Failure(NVML_ERROR_INSUFFICIENT_SIZE)));
        assert_eq!(characters::<4>("abcdef"), [97, 98, 99, 0]);
    }

    #[test]
    fn a_wrong_version_is_a_mismatch() {
        let mut memory = nvmlMemory_v2_t {
            version: 3,
            total: 0,
            reserved: 0,
            free: 0,
            used: 0,
        };
        let mismatch = Err(Failure(NVML_ERROR_ARGUMENT_VERSION_MISMATCH));
        assert_eq!(expect_version(Out::of(&mut memory), 2), mismatch);
        memory.version = version::<nvmlMemory_v2_t>(2);
        assert_eq!(expect_version(Out::of(&mut memory), 2), Ok(()));
    }
}
