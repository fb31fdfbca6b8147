//! `nvmlDeviceGetFieldValues`: single values by number, each with a status of its own.
//!
//! # Safety
//! The caller's array is as long as the count beside it, by the function's contract.

#![allow(unsafe_code, reason = "the caller's array, one element at a time")]

use std::ffi::{c_int, c_uint};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::*;

use crate::answer::{Answer, Failure, INVALID};
use crate::clock;
use crate::handle::{self, Gpu};
use crate::process::wall_microseconds;

/// Most fields in one call; more is a length that was not set.
const MOST: c_int = 4096;

/// Fills in every element; fails as a whole only for arguments that make no sense.
pub(crate) fn values(device: nvmlDevice_t, count: c_int, values: Out<nvmlFieldValue_t>) -> Answer {
    let gpu = handle::gpu(device)?;
    if values.is_null() || !(1..=MOST).contains(&count) {
        return Err(INVALID);
    }
    for index in 0..count as usize {
        // SAFETY: the caller's array has `count` elements.
        let element = unsafe { values.as_ptr().add(index) };
        // SAFETY: as above, and not null.
        let element = unsafe { Out::from_ptr(element) };
        let asked = element.read().ok_or(INVALID)?;
        element.write(filled(&gpu, asked));
    }
    Ok(())
}

fn filled(gpu: &Gpu, mut field: nvmlFieldValue_t) -> nvmlFieldValue_t {
    field.timestamp = wall_microseconds() as i64;
    field.latencyUsec = 0;
    match value(gpu, field.fieldId) {
        Ok((value_type, value)) => {
            field.nvmlReturn = NVML_SUCCESS;
            field.valueType = value_type;
            field.value = nvmlValue_t { ullVal: value };
        }
        Err(Failure(code)) => field.nvmlReturn = code,
    }
    field
}

/// Type and value of one field. Every smaller integer is the low part of the 64-bit one on these machines.
fn value(gpu: &Gpu, field: c_uint) -> Answer<(nvmlValueType_t, u64)> {
    let small = |value: c_uint| Ok((NVML_VALUE_TYPE_UNSIGNED_INT, u64::from(value)));
    match field {
        NVML_FI_DEV_ECC_CURRENT | NVML_FI_DEV_ECC_PENDING => small(NVML_FEATURE_ENABLED),
        NVML_FI_DEV_MEMORY_TEMP => small(clock::degrees(gpu)? + 5),
        NVML_FI_DEV_POWER_INSTANT | NVML_FI_DEV_POWER_AVERAGE => small(clock::power(gpu)?),
        NVML_FI_DEV_POWER_MIN_LIMIT => small(clock::power_constraints(gpu)?.0),
        NVML_FI_DEV_POWER_MAX_LIMIT
        | NVML_FI_DEV_POWER_DEFAULT_LIMIT
        | NVML_FI_DEV_POWER_CURRENT_LIMIT => small(gpu.config.power_limit_mw),
        NVML_FI_DEV_RETIRED_SBE | NVML_FI_DEV_RETIRED_DBE | NVML_FI_DEV_RETIRED_PENDING => small(0),
        NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => {
            Ok((NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, clock::energy(gpu)?))
        }
        _ => Err(Failure(NVML_ERROR_NOT_SUPPORTED)),
    }
}
