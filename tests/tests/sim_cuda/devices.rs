//! Initialisation, devices and contexts.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, array, good, null, text_in, zeroed};

const MIB: u64 = 1 << 20;

#[test]
fn nothing_works_before_init_but_what_may() {
    let cuda = Cuda::load("");
    let mut number = 0;
    assert_eq!(
        cuda.cuDeviceGetCount(Out::of(&mut number)),
        CUDA_ERROR_NOT_INITIALIZED
    );
    good(cuda.cuDriverGetVersion(Out::of(&mut number)));
    assert_eq!(number, 13000);
    assert_eq!(cuda.cuInit(1), CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuInit(0));
    good(cuda.cuInit(0));
    good(cuda.cuDeviceGetCount(Out::of(&mut number)));
    assert_eq!(number, 2);
}

#[test]
fn a_node_without_gpus_has_no_device() {
    let cuda = Cuda::load("count = 0");
    assert_eq!(cuda.cuInit(0), CUDA_ERROR_NO_DEVICE);
}

#[test]
fn a_gpu_without_its_device_node_is_not_there() {
    let cuda = Cuda::load("");
    std::fs::remove_file(cuda.node.root().join("dev/nvidia0")).unwrap();
    good(cuda.cuInit(0));
    let mut count = 0;
    good(cuda.cuDeviceGetCount(Out::of(&mut count)));
    assert_eq!(count, 1);
    let mut name = [0; 64];
    good(cuda.cuDeviceGetPCIBusId(array(&mut name), 64, 0));
    let name: Vec<u8> = name.iter().map(|&byte| byte as u8).take(12).collect();
    assert_eq!(name, b"0000:43:00.0");
}

#[test]
fn devices_are_found_in_every_way() {
    let cuda = Cuda::ready_on(
        "[[gpus]]\nuuid = \"GPU-00112233-4455-6677-8899-aabbccddeeff\"\nvram_mib = 1000",
    );
    let mut device = 9;
    good(cuda.cuDeviceGetByPCIBusId(Out::of(&mut device), text_in("0000:1b:00.0\0")));
    assert_eq!(device, 0);
    assert_eq!(
        cuda.cuDeviceGetByPCIBusId(Out::of(&mut device), text_in("0000:ff:00.0\0")),
        CUDA_ERROR_INVALID_DEVICE
    );
    assert_eq!(
        cuda.cuDeviceGet(Out::of(&mut device), 1),
        CUDA_ERROR_INVALID_DEVICE
    );
    let mut uuid: CUuuid = zeroed();
    good(cuda.cuDeviceGetUuid_v2(Out::of(&mut uuid), 0));
    assert_eq!(uuid.bytes.map(|byte| byte as u8)[..3], [0x00, 0x11, 0x22]);
    let mut total = 0_usize;
    good(cuda.cuDeviceTotalMem_v2(Out::of(&mut total), 0));
    assert_eq!(total as u64, (1000 - 250) * MIB);
    let mut value = 0;
    good(cuda.cuDeviceGetAttribute(
        Out::of(&mut value),
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        0,
    ));
    assert_eq!(value, 132);
    for attribute in 1..CU_DEVICE_ATTRIBUTE_MAX {
        good(cuda.cuDeviceGetAttribute(Out::of(&mut value), attribute, 0));
    }
    assert_eq!(
        cuda.cuDeviceGetAttribute(Out::of(&mut value), CU_DEVICE_ATTRIBUTE_MAX, 0),
        CUDA_ERROR_INVALID_VALUE
    );
}

#[test]
fn contexts_cost_their_footprint_and_give_it_back() {
    let cuda = Cuda::load("context_footprint_mib = 100\n[gpu]\nvram_mib = 1000\nreserved_mib = 0");
    good(cuda.cuInit(0));
    let mut first = null();
    good(cuda.cuCtxCreate_v2(Out::of(&mut first), 0, 0));
    assert_eq!(cuda.free(), 900 * MIB);
    let mut second = null();
    good(cuda.cuCtxCreate_v4(Out::of(&mut second), Out::null(), 0, 0));
    assert_eq!(cuda.free(), 800 * MIB);
    cuda.alloc(300 << 20);
    good(cuda.cuCtxDestroy_v2(second));
    // The first is current again, and what the second held is free.
    let mut current = null();
    good(cuda.cuCtxGetCurrent(Out::of(&mut current)));
    assert_eq!(current, first);
    assert_eq!(cuda.free(), 900 * MIB);
    cuda.alloc(850 << 20);
    assert_eq!(
        cuda.cuCtxCreate_v2(Out::of(&mut second), 0, 0),
        CUDA_ERROR_OUT_OF_MEMORY
    );
    assert_eq!(cuda.cuCtxDestroy_v2(second), CUDA_ERROR_INVALID_CONTEXT);
}

#[test]
fn primary_contexts_are_counted() {
    let cuda = Cuda::load("");
    good(cuda.cuInit(0));
    let (mut flags, mut active) = (0, 9);
    let state = |flags: &mut u32, active: &mut i32| {
        good(cuda.cuDevicePrimaryCtxGetState(1, Out::of(flags), Out::of(active)));
    };
    good(cuda.cuDevicePrimaryCtxSetFlags_v2(1, CU_CTX_SCHED_YIELD));
    state(&mut flags, &mut active);
    assert_eq!((flags, active), (CU_CTX_SCHED_YIELD, 0));
    let (mut first, mut second) = (null(), null());
    good(cuda.cuDevicePrimaryCtxRetain(Out::of(&mut first), 1));
    good(cuda.cuDevicePrimaryCtxRetain(Out::of(&mut second), 1));
    assert_eq!(first, second);
    assert_eq!(cuda.cuCtxDestroy_v2(first), CUDA_ERROR_INVALID_CONTEXT);
    good(cuda.cuDevicePrimaryCtxRelease_v2(1));
    state(&mut flags, &mut active);
    assert_eq!(active, 1);
    good(cuda.cuDevicePrimaryCtxRelease_v2(1));
    state(&mut flags, &mut active);
    assert_eq!(active, 0);
    assert_eq!(
        cuda.cuDevicePrimaryCtxRelease_v2(1),
        CUDA_ERROR_INVALID_CONTEXT
    );
}

#[test]
fn each_thread_has_its_stack() {
    let cuda = Cuda::ready();
    let mut device = 9;
    good(cuda.cuCtxGetDevice(Out::of(&mut device)));
    assert_eq!(device, 0);
    let mut other = null();
    good(cuda.cuCtxCreate_v2(Out::of(&mut other), 0, 1));
    good(cuda.cuCtxGetDevice(Out::of(&mut device)));
    assert_eq!(device, 1);
    std::thread::scope(|scope| {
        let bare = scope.spawn(|| {
            let mut device = 9;
            cuda.cuCtxGetDevice(Out::of(&mut device))
        });
        assert_eq!(bare.join().unwrap(), CUDA_ERROR_INVALID_CONTEXT);
    });
    good(cuda.cuCtxPopCurrent_v2(Out::of(&mut other)));
    good(cuda.cuCtxGetDevice(Out::of(&mut device)));
    assert_eq!(device, 0);
    let mut version = 0;
    good(cuda.cuCtxGetApiVersion(other, Out::of(&mut version)));
    assert_eq!(version, 3020);
}

#[test]
fn limits_are_kept_where_there_are_such() {
    let cuda = Cuda::ready();
    let mut value = 0_usize;
    good(cuda.cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 5000));
    good(cuda.cuCtxGetLimit(Out::of(&mut value), CU_LIMIT_STACK_SIZE));
    assert_eq!(value, 5008);
    assert_eq!(
        cuda.cuCtxGetLimit(Out::of(&mut value), 99),
        CUDA_ERROR_UNSUPPORTED_LIMIT
    );
    let (mut least, mut greatest) = (9, 9);
    good(cuda.cuCtxGetStreamPriorityRange(Out::of(&mut least), Out::of(&mut greatest)));
    assert_eq!((least, greatest), (0, -5));
}
