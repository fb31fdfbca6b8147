//! `cuGetProcAddress` in both versions, and the export tables that there are none of.
//!
//! Owns the choice of an export for (name, version, stream flavour). The facts are the generated table of versions;
//! the driver's own CUDA version is the ceiling, so a simulated 12.4 driver does not hand out what came with 13.0.
//! What the header leaves open (failures, odd arguments) follows NVIDIA's 535 library.

use core::ffi::{c_char, c_int, c_void};
use std::collections::HashMap;
use std::sync::OnceLock;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::versions::{CUDA_VERSIONS, Version};
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, fail, put_optional};
use crate::{exports, init, raw};

/// Addresses of the exports by name.
fn addresses() -> &'static HashMap<&'static str, usize> {
    static TABLE: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    TABLE.get_or_init(|| exports::table().into_iter().collect())
}

/// The versions of each name, oldest first.
fn versions() -> &'static HashMap<&'static str, Vec<&'static Version>> {
    static TABLE: OnceLock<HashMap<&'static str, Vec<&'static Version>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<&'static str, Vec<&'static Version>> = HashMap::new();
        for version in CUDA_VERSIONS {
            table.entry(version.base).or_default().push(version);
        }
        for forms in table.values_mut() {
            forms.sort_by_key(|version| version.since);
        }
        table
    })
}

/// Since when there are functions without a version (the one there is came with CUDA 7).
const UNLISTED_SINCE: u32 = 7000;

/// What a look-up comes to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Found(&'static str),
    TooNew,
    Unknown,
}

/// The newest form of `name` that a program for `asked` can use on a driver of version `driver`.
fn choose(name: &str, asked: u32, driver: u32, per_thread: bool) -> Answer {
    let Some(forms) = versions().get(name) else {
        // A public function that the versions' header leaves out has one form.
        let export = addresses().get_key_value(name).map(|(&export, _)| export);
        return match export.filter(|export| is_unlisted(export)) {
            Some(export) if asked >= UNLISTED_SINCE => Answer::Found(export),
            Some(_) => Answer::TooNew,
            None => Answer::Unknown,
        };
    };
    let usable = |flavour: bool| {
        let mut fitting = forms
            .iter()
            .filter(|form| form.per_thread == flavour && form.since <= asked.min(driver));
        fitting.next_back()
    };
    let plain = usable(false);
    // A function without a per-thread form has one form for both.
    let chosen = if per_thread {
        usable(true).or(plain)
    } else {
        plain
    };
    match chosen {
        Some(form) => Answer::Found(form.export),
        None if forms.iter().any(|form| form.since <= driver) => Answer::TooNew,
        None => Answer::Unknown,
    }
}

fn is_unlisted(export: &str) -> bool {
    CUDA_VERSIONS.iter().all(|version| version.export != export)
}

fn answer(symbol: In<c_char>, asked: c_int, flags: cuuint64_t) -> Cu<Answer> {
    let name = raw::text(symbol).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let legacy = u64::from(CU_GET_PROC_ADDRESS_LEGACY_STREAM);
    let own = u64::from(CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
    ensure(flags & !(legacy | own) == 0)?;
    // As on a real driver: a version below zero counts as a very new one.
    Ok(choose(
        &name,
        asked as u32,
        init::version(),
        flags & own != 0,
    ))
}

/// `cuGetProcAddress`: a look-up that fails is an error, and leaves the pointer alone.
pub(crate) fn get(
    symbol: In<c_char>,
    out: Out<*mut c_void>,
    asked: c_int,
    flags: cuuint64_t,
) -> Cu {
    ensure(!out.is_null())?;
    let Answer::Found(export) = answer(symbol, asked, flags)? else {
        return fail(CUDA_ERROR_NOT_FOUND);
    };
    put_optional(out, addresses()[export] as *mut c_void)
}

/// `cuGetProcAddress_v2`: a look-up that fails is a success with a null pointer; the status says why.
pub(crate) fn get_v2(
    symbol: In<c_char>,
    out: Out<*mut c_void>,
    asked: c_int,
    flags: cuuint64_t,
    status: Out<CUdriverProcAddressQueryResult>,
) -> Cu {
    ensure(!out.is_null())?;
    let (result, address) = match answer(symbol, asked, flags)? {
        Answer::Found(export) => (CU_GET_PROC_ADDRESS_SUCCESS, addresses()[export]),
        Answer::TooNew => (CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, 0),
        Answer::Unknown => (CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, 0),
    };
    out.write(address as *mut c_void);
    put_optional(status, result)
}

/// `cuGetExportTable`: what it would hand out is not documented, so there is nothing.
pub(crate) fn export_table(out: Out<*const c_void>, _table: In<CUuuid>) -> Cu {
    ensure(!out.is_null())?;
    out.write(core::ptr::null());
    fail(CUDA_ERROR_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_form_that_program_and_driver_know() {
        let chosen = |asked, driver| choose("cuCtxCreate", asked, driver, false);
        assert_eq!(chosen(12000, 13000), Answer::Found("cuCtxCreate_v3"));
        assert_eq!(chosen(13000, 13000), Answer::Found("cuCtxCreate_v4"));
        assert_eq!(chosen(13000, 12000), Answer::Found("cuCtxCreate_v3"));
        assert_eq!(chosen(3020, 13000), Answer::Found("cuCtxCreate_v2"));
        assert_eq!(chosen(1000, 13000), Answer::TooNew);
        assert_eq!(
            choose("cuLogicalEndpointCreate", 13050, 13000, false),
            Answer::Unknown
        );
        assert_eq!(choose("cuNope", 13000, 13000, false), Answer::Unknown);
    }

    #[test]
    fn per_thread_forms_where_there_are_any() {
        let own = |name| choose(name, 13000, 13000, true);
        assert_eq!(own("cuStreamQuery"), Answer::Found("cuStreamQuery_ptsz"));
        assert_eq!(own("cuMemcpyDtoH"), Answer::Found("cuMemcpyDtoH_v2_ptds"));
        assert_eq!(own("cuCtxCreate"), Answer::Found("cuCtxCreate_v4"));
    }
}
