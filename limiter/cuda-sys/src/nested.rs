//! What lies inside NVML's structures: arrays behind pointers, and the union of values.
#![allow(unsafe_code, reason = "pointers and unions that C callers filled in")]
//!
//! # Safety
//! As in [`crate::Out`]: the caller of the C function promised that a pointer inside a structure is null or valid for
//! as many elements as the count beside it says. The members of the union of values are plain numbers.

use core::ffi::c_uint;

use crate::Out;
use crate::nvml::{
    nvmlProcessDetail_v1_t, nvmlProcessDetailList_v1_t, nvmlProcessUtilizationInfo_v1_t,
    nvmlProcessesUtilizationInfo_v1_t, nvmlSample_st, nvmlValue_st,
};

impl nvmlProcessDetailList_v1_t {
    /// The caller's array.
    pub fn processes(&self) -> Out<nvmlProcessDetail_v1_t> {
        // SAFETY: the pointer of a caller's structure, null or valid as its author promised.
        unsafe { Out::from_ptr(self.procArray) }
    }
}

impl nvmlProcessesUtilizationInfo_v1_t {
    /// The caller's array.
    pub fn samples(&self) -> Out<nvmlProcessUtilizationInfo_v1_t> {
        // SAFETY: the pointer of a caller's structure, null or valid as its author promised.
        unsafe { Out::from_ptr(self.procUtilArray) }
    }
}

impl nvmlSample_st {
    /// The value of a sample whose type is `NVML_VALUE_TYPE_UNSIGNED_INT`.
    pub fn unsigned(&self) -> c_uint {
        // SAFETY: every bit pattern is a number.
        unsafe { self.sampleValue.uiVal }
    }

    /// The same moment with another value of that type.
    pub fn with_unsigned(self, value: c_uint) -> Self {
        Self {
            sampleValue: nvmlValue_st {
                // As the driver does it: the unused half is zero.
                ullVal: value.into(),
            },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_its_moment() {
        let sample = nvmlSample_st {
            timeStamp: 7,
            sampleValue: nvmlValue_st { ullVal: u64::MAX },
        };
        let other = sample.with_unsigned(40);
        assert_eq!((other.timeStamp, other.unsigned()), (7, 40));
    }
}
