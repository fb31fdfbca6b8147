//! Pointer arguments of C functions, as hooks see them.
//!
//! `In` and `Out` have the layout of the pointer itself, so they stand in the signature of an exported function.
//! Bodies of hooks read and write through them and never see a raw pointer.
#![allow(
    unsafe_code,
    reason = "this is where pointers that C callers hand over are dereferenced"
)]
//!
//! # Safety
//! A wrapper is made only by a C caller (as an argument) or by `from_ptr`, whose caller makes the same promise the
//! C caller makes by the API's contract: the pointer is null or valid for the call. A caller that breaks it would
//! crash the bare driver just the same.

use core::fmt;

/// A pointer that the callee reads: `const T *`.
#[repr(transparent)]
pub struct In<T>(*const T);

/// A pointer that the callee writes (and may read): `T *`.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> In<T> {
    /// Wraps a pointer.
    ///
    /// # Safety
    /// `pointer` is null or valid for reads while the call lasts.
    pub const unsafe fn from_ptr(pointer: *const T) -> Self {
        Self(pointer)
    }

    /// The pointer itself, to hand on.
    pub const fn as_ptr(self) -> *const T {
        self.0
    }

    /// Whether the caller passed null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The value behind the pointer; `None` for null.
    pub fn read(self) -> Option<T>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: not null, so valid for reads by the promise of whoever made the wrapper.
        Some(unsafe { self.0.read_unaligned() })
    }
}

impl<T> Out<T> {
    /// Wraps a pointer.
    ///
    /// # Safety
    /// `pointer` is null or valid for reads and writes while the call lasts.
    pub const unsafe fn from_ptr(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer to a place of ours, for calls of our own.
    pub fn of(place: &mut T) -> Self {
        Self(place)
    }

    /// The null pointer.
    pub const fn null() -> Self {
        Self(core::ptr::null_mut())
    }

    /// The pointer itself, to hand on.
    pub const fn as_ptr(self) -> *mut T {
        self.0
    }

    /// Whether the caller passed null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The value behind the pointer; `None` for null.
    pub fn read(self) -> Option<T>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: not null, so valid for reads by the promise of whoever made the wrapper.
        Some(unsafe { self.0.read_unaligned() })
    }

    /// Stores `value`; false (and nothing done) for null.
    pub fn write(self, value: T) -> bool {
        if self.0.is_null() {
            return false;
        }
        // SAFETY: not null, so valid for writes by the promise of whoever made the wrapper.
        unsafe { self.0.write_unaligned(value) };
        true
    }

    /// Stores `values` one after the other; false (and nothing done) for null.
    ///
    /// The caller of the C function promised room for as many, by a length argument that the body has checked.
    pub fn write_all(self, values: &[T]) -> bool
    where
        T: Copy,
    {
        if self.0.is_null() {
            return false;
        }
        // SAFETY: not null, with room for `values` by the API's contract; our slice cannot overlap the caller's.
        unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), self.0, values.len()) };
        true
    }
}

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

impl<T> fmt::Debug for In<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "In({:p})", self.0)
    }
}
impl<T> fmt::Debug for Out<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Out({:p})", self.0)
    }
}
