//! What the library exports, and how `cuGetProcAddress` finds it.

use std::collections::BTreeSet;
use std::path::Path;

use object::{Object, ObjectSymbol};
use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, NAMES, good, input, null, text_in, zeroed};

fn exports(library: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(library).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let defined = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition());
    defined
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect()
}

#[test]
fn every_function_of_the_header_is_exported_and_nothing_else() {
    let cuda = Cuda::load("");
    let library = cuda
        .node
        .root()
        .join("usr/lib/x86_64-linux-gnu/libcuda.so.1");
    let header: BTreeSet<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(exports(&library), header);
}

#[test]
fn what_has_no_body_says_so() {
    let cuda = Cuda::ready();
    assert_eq!(cuda.cuMulticastAddDevice(1, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(
        cuda.cuCheckpointProcessLock(1, Out::null()),
        CUDA_ERROR_NOT_SUPPORTED
    );
}

struct Found {
    code: CUresult,
    pointer: usize,
    status: CUdriverProcAddressQueryResult,
}

fn look_up(cuda: &Cuda, name: &str, version: i32, flags: u32) -> Found {
    let name = format!("{name}\0");
    let (mut pointer, mut status) = (null(), 77);
    let (out, status_out) = (Out::of(&mut pointer), Out::of(&mut status));
    let code = cuda.cuGetProcAddress_v2(text_in(&name), out, version, u64::from(flags), status_out);
    Found {
        code,
        pointer: pointer as usize,
        status,
    }
}

#[test]
fn names_versions_and_streams_lead_to_the_right_form() {
    let cuda = Cuda::load("");
    let at = |name, version, flags| {
        let found = look_up(&cuda, name, version, flags);
        assert_eq!(
            (found.code, found.status),
            (CUDA_SUCCESS, CU_GET_PROC_ADDRESS_SUCCESS),
            "{name}"
        );
        found.pointer
    };
    let own = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    assert_eq!(at("cuCtxCreate", 12000, 0), at("cuCtxCreate", 12040, 0));
    assert_ne!(at("cuCtxCreate", 12000, 0), at("cuCtxCreate", 13000, 0));
    assert_ne!(
        at("cuStreamQuery", 12000, 0),
        at("cuStreamQuery", 12000, own)
    );
    assert_eq!(
        at("cuCtxGetDevice", 12000, 0),
        at("cuCtxGetDevice", 12000, own)
    );
    // Newer than the driver (13.0): the newest that the driver has.
    assert_eq!(at("cuCtxCreate", 13000, 0), at("cuCtxCreate", 99000, 0));
}

#[test]
fn a_failed_look_up_says_why() {
    let cuda = Cuda::load("cuda_version = \"12.4\"");
    let why = |name, version| {
        let found = look_up(&cuda, name, version, 0);
        assert_eq!((found.code, found.pointer), (CUDA_SUCCESS, 0), "{name}");
        found.status
    };
    assert_eq!(why("cuNope", 12000), CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    assert_eq!(
        why("cuCtxCreate_v2", 12000),
        CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    );
    assert_eq!(
        why("cuCtxCreate", 1000),
        CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
    );
    // Came with 12.5, after this driver.
    assert_eq!(
        why("cuCtxRecordEvent", 13000),
        CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    );
    assert_eq!(
        look_up(&cuda, "cuInit", 12000, 8).code,
        CUDA_ERROR_INVALID_VALUE
    );
    let mut pointer = null();
    let first = cuda.cuGetProcAddress(text_in("cuNope\0"), Out::of(&mut pointer), 12000, 0);
    assert_eq!(first, CUDA_ERROR_NOT_FOUND);
}

#[test]
fn there_are_no_export_tables() {
    let cuda = Cuda::load("");
    let table: CUuuid = zeroed();
    let mut pointer = core::ptr::dangling();
    assert_eq!(
        cuda.cuGetExportTable(Out::of(&mut pointer), input(&table)),
        CUDA_ERROR_NOT_FOUND
    );
    assert!(pointer.is_null());
}

#[test]
fn errors_have_names_and_texts() {
    let cuda = Cuda::load("");
    let mut text = core::ptr::null();
    let of = |text| {
        // SAFETY: a text that lives as long as the library.
        unsafe { core::ffi::CStr::from_ptr(text) }
    };
    good(cuda.cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, Out::of(&mut text)));
    assert_eq!(of(text), c"CUDA_ERROR_OUT_OF_MEMORY");
    good(cuda.cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, Out::of(&mut text)));
    assert_eq!(of(text), c"out of memory");
    assert_eq!(
        cuda.cuGetErrorName(5555, Out::of(&mut text)),
        CUDA_ERROR_INVALID_VALUE
    );
    assert!(text.is_null());
}

#[test]
fn nothing_falls_over_zeroes() {
    let cuda = Cuda::ready();
    cuda.call_all_with_zeroes(|name, code| assert_ne!(code, CUDA_ERROR_UNKNOWN, "{name}"));
    // Still in order afterwards.
    let mut count = 0;
    good(cuda.cuDeviceGetCount(Out::of(&mut count)));
    assert_eq!(count, 2);
}

#[test]
fn before_init_every_function_says_so() {
    let cuda = Cuda::load("");
    let free = [
        "cuDriverGetVersion",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuGetExportTable",
        "cuInit",
    ];
    cuda.call_all_with_zeroes(|name, code| {
        // `cuInit` is itself among them, and succeeds.
        if name < "cuInit" && !free.contains(&name) && !name.starts_with("cuGetProcAddress") {
            assert_eq!(code, CUDA_ERROR_NOT_INITIALIZED, "{name}");
        }
    });
}
