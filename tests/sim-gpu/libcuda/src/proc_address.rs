//! `cuGetProcAddress` in both versions, and the export tables that there are none of.
//!
//! Owns the choice of an export for (name, version, stream flavour). The facts are the generated table of versions;
//! the driver's own CUDA version is the ceiling, so a simulated 12.4 driver does not hand out what came with 13.0.

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
        // Public functions that the header of versions leaves out have one form.
        let export = addresses().get_key_value(name).map(|(&export, _)| export);
        return export
            .filter(|export| is_unlisted(export))
            .map_or(Answer::Unknown, Answer::Found);
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
    ensure(flags == 0 || flags == legacy || flags == own)?;
    let asked = u32::try_from(asked).or(Err(Fail(CUDA_ERROR_INVALID_VALUE)))?;
    Ok(choose(&name, asked, init::version(), flags == own))
}

/// `cuGetProcAddress`: a look-up that fails is an error.
pub(crate) fn get(
    symbol: In<c_char>,
    out: Out<*mut c_void>,
    asked: c_int,
    flags: cuuint64_t,
) -> Cu {
    ensure(!out.is_null())?;
    out.write(core::ptr::null_mut());
    let Answer::Found(export) = answer(symbol, asked, flags)? else {
        return fail(CUDA_ERROR_NOT_FOUND);
    };
    put_optional(out, addresses()[export] as *mut c_void)
}

/// `cuGetProcAddress_v2`: without a place for the status a failed look-up is an error too.
pub(crate) fn get_v2(
    symbol: In<c_char>,
    out: Out<*mut c_void>,
    asked: c_int,
    flags: cuuint64_t,
    status: Out<CUdriverProcAddressQueryResult>,
) -> Cu {
    ensure(!out.is_null())?;
    out.write(core::ptr::null_mut());
    let (result, pointer) = match answer(symbol, asked, flags)? {
        Answer::Found(export) => (
            CU_GET_PROC_ADDRESS_SUCCESS,
            addresses()[export] as *mut c_void,
        ),
        Answer::TooNew => (
            CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
            core::ptr::null_mut(),
        ),
        Answer::Unknown => (CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, core::ptr::null_mut()),
    };
    out.write(pointer);
    if status.write(result) || !pointer.is_null() {
        Ok(())
    } else {
        fail(CUDA_ERROR_NOT_FOUND)
    }
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
