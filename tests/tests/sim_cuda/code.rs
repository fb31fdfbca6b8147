//! Modules, libraries, functions and launches.

use core::ffi::c_void;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, array, bytes_in, good, input, null, text_in, zeroed};

const MODULE: &str = ".version 8.0\n.target sm_90\n.address_size 64\n\
    .visible .global .align 4 .b8 table[40];\n\
    .visible .entry add(.param .u64 a, .param .u32 n) .maxntid 256, 1, 1 {\n\
    // sim-gpu: duration_ns=3000000\n .shared .align 4 .b8 tile[2048]; ret; }\n\
    .visible .entry other() { ret; }\n\0";

fn module(cuda: &Cuda) -> CUmodule {
    let mut module = null();
    good(cuda.cuModuleLoadData(Out::of(&mut module), bytes_in(MODULE.as_bytes())));
    module
}

#[test]
fn a_module_lists_what_is_in_it() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let module = module(&cuda);
    assert_eq!(cuda.free(), before - 512);
    let (mut count, mut function) = (0, null());
    good(cuda.cuModuleGetFunctionCount(Out::of(&mut count), module));
    assert_eq!(count, 2);
    good(cuda.cuModuleGetFunction(Out::of(&mut function), module, text_in("add\0")));
    let missing = cuda.cuModuleGetFunction(Out::of(&mut function), module, text_in("sub\0"));
    assert_eq!(missing, CUDA_ERROR_NOT_FOUND);
    let (mut global, mut size) = (0, 0_usize);
    good(cuda.cuModuleGetGlobal_v2(
        Out::of(&mut global),
        Out::of(&mut size),
        module,
        text_in("table\0"),
    ));
    assert_eq!(size, 40);
    cuda.put(global, b"initialised");
    let attribute = |which| {
        let mut value = 0;
        good(cuda.cuFuncGetAttribute(Out::of(&mut value), which, function));
        value
    };
    assert_eq!(attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 256);
    assert_eq!(attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES), 2048);
    let (mut offset, mut bytes) = (0_usize, 0_usize);
    good(cuda.cuFuncGetParamInfo(function, 1, Out::of(&mut offset), Out::of(&mut bytes)));
    assert_eq!((offset, bytes), (8, 4));
    let past = cuda.cuFuncGetParamInfo(function, 2, Out::of(&mut offset), Out::of(&mut bytes));
    assert_eq!(past, CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuModuleUnload(module));
    assert_eq!(cuda.cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cuda.free(), before);
}

#[test]
fn images_that_cannot_run_are_refused() {
    let cuda = Cuda::ready();
    let load = |image: &[u8]| {
        let mut module = null();
        cuda.cuModuleLoadData(Out::of(&mut module), bytes_in(image))
    };
    assert_eq!(load(b"\xFF\xFFgarbage\0"), CUDA_ERROR_INVALID_IMAGE);
    assert_eq!(load(b"\n// nothing\n\0"), CUDA_ERROR_INVALID_PTX);
    assert_eq!(
        load(b".version 99.9\n.target sm_90\n\0"),
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    );
    assert_eq!(
        load(b".version 8.0\n.target sm_120\n\0"),
        CUDA_ERROR_NO_BINARY_FOR_GPU
    );
    let mut module = null();
    let absent = cuda.cuModuleLoad(Out::of(&mut module), text_in("/nowhere.ptx\0"));
    assert_eq!(absent, CUDA_ERROR_FILE_NOT_FOUND);
}

#[test]
fn a_fat_binary_yields_its_ptx() {
    let cuda = Cuda::ready();
    let ptx = MODULE.as_bytes();
    let mut image = Vec::new();
    image.extend(0xBA55_ED50_u32.to_le_bytes());
    image.extend(1_u16.to_le_bytes());
    image.extend(16_u16.to_le_bytes());
    image.extend((64 + ptx.len() as u64).to_le_bytes());
    let mut member = [0_u8; 64];
    member[..2].copy_from_slice(&1_u16.to_le_bytes());
    member[4..8].copy_from_slice(&64_u32.to_le_bytes());
    member[8..16].copy_from_slice(&(ptx.len() as u64).to_le_bytes());
    member[28..32].copy_from_slice(&90_u32.to_le_bytes());
    image.extend(member);
    image.extend(ptx);
    let (mut module, mut count) = (null(), 0);
    good(cuda.cuModuleLoadFatBinary(Out::of(&mut module), bytes_in(&image)));
    good(cuda.cuModuleGetFunctionCount(Out::of(&mut count), module));
    assert_eq!(count, 2);
}

#[test]
fn libraries_load_themselves_where_they_are_used() {
    let cuda = Cuda::ready();
    let (mut library, mut kernel, mut function) = (null(), null(), null());
    let image = bytes_in(MODULE.as_bytes());
    let none = Out::null;
    good(cuda.cuLibraryLoadData(
        Out::of(&mut library),
        image,
        none(),
        Out::null(),
        0,
        Out::null(),
        Out::null(),
        0,
    ));
    good(cuda.cuLibraryGetKernel(Out::of(&mut kernel), library, text_in("other\0")));
    good(cuda.cuKernelGetFunction(Out::of(&mut function), kernel));
    for launchable in [function, kernel.cast()] {
        good(cuda.cuLaunchKernel(
            launchable,
            1,
            1,
            1,
            32,
            1,
            1,
            0,
            null(),
            Out::null(),
            Out::null(),
        ));
    }
    good(cuda.cuLibraryUnload(library));
    assert_eq!(cuda.cuLibraryUnload(library), CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn launches_are_checked() {
    let cuda = Cuda::ready();
    let module = module(&cuda);
    let (mut add, mut other) = (null(), null());
    good(cuda.cuModuleGetFunction(Out::of(&mut add), module, text_in("add\0")));
    good(cuda.cuModuleGetFunction(Out::of(&mut other), module, text_in("other\0")));
    let launch = |function, grid, block, shared| {
        cuda.cuLaunchKernel(
            function,
            grid,
            1,
            1,
            block,
            1,
            1,
            shared,
            null(),
            Out::null(),
            Out::null(),
        )
    };
    good(launch(other, 1, 1024, 0));
    for (grid, block, shared) in [(0, 1, 0), (1, 0, 0), (1, 1025, 0), (1, 1, 50 << 10)] {
        assert_eq!(launch(other, grid, block, shared), CUDA_ERROR_INVALID_VALUE);
    }
    let opt_in = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    good(cuda.cuFuncSetAttribute(other, opt_in, 60 << 10));
    good(launch(other, 1, 1, 50 << 10));
    // It has parameters, and nobody passed any.
    assert_eq!(launch(add, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(launch(null(), 1, 1, 0), CUDA_ERROR_INVALID_HANDLE);
    let many = 132 * 100;
    let whole =
        cuda.cuLaunchCooperativeKernel(other, many, 1, 1, 256, 1, 1, 0, null(), Out::null());
    assert_eq!(whole, CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}

#[test]
fn every_kind_of_launch_takes_time() {
    let cuda = Cuda::ready();
    let (module, stream) = (module(&cuda), cuda.stream());
    let mut add = null();
    good(cuda.cuModuleGetFunction(Out::of(&mut add), module, text_in("add\0")));
    let (mut pointer, mut count) = (1_u64, 2_u32);
    let mut params = [(&raw mut pointer).cast::<c_void>(), (&raw mut count).cast()];
    let mut config: CUlaunchConfig = zeroed();
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (1, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (1, 1, 1);
    config.hStream = stream;
    let (start, end) = (cuda.event(), cuda.event());
    good(cuda.cuEventRecord(start, stream));
    good(cuda.cuLaunchKernelEx(input(&config), add, array(&mut params), Out::null()));
    good(cuda.cuLaunchKernel_ptsz(
        add,
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        stream,
        array(&mut params),
        Out::null(),
    ));
    good(cuda.cuLaunchCooperativeKernel(add, 1, 1, 1, 1, 1, 1, 0, stream, array(&mut params)));
    good(cuda.cuParamSetSize(add, 12));
    good(cuda.cuParamSeti(add, 8, 7));
    good(cuda.cuLaunchGridAsync(add, 1, 1, stream));
    let mut buffer = [0_u8; 12];
    let mut size = buffer.len();
    let mut extra: [*mut c_void; 5] = [
        core::ptr::without_provenance_mut(CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize),
        buffer.as_mut_ptr().cast(),
        core::ptr::without_provenance_mut(CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize),
        (&raw mut size).cast(),
        null(),
    ];
    good(cuda.cuLaunchKernel(
        add,
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        stream,
        Out::null(),
        array(&mut extra),
    ));
    good(cuda.cuEventRecord(end, stream));
    good(cuda.cuEventSynchronize(end));
    let measured = cuda.elapsed(start, end);
    assert!((15.0..115.0).contains(&measured), "{measured}");
}

#[test]
fn occupancy_follows_threads_and_shared_memory() {
    let cuda = Cuda::ready();
    let function = cuda.function(".visible .entry plain() { ret; }", "plain");
    let blocks = |threads, shared| {
        let mut blocks = 0;
        let out = Out::of(&mut blocks);
        good(cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(out, function, threads, shared));
        blocks
    };
    assert_eq!(
        (blocks(1024, 0), blocks(128, 0), blocks(32, 0)),
        (2, 16, 32)
    );
    assert_eq!(blocks(128, 100 << 10), 2);
    let (mut grid, mut block) = (0, 0);
    good(cuda.cuOccupancyMaxPotentialBlockSize(
        Out::of(&mut grid),
        Out::of(&mut block),
        function,
        None,
        0,
        0,
    ));
    assert_eq!((grid, block), (264, 1024));
}
