//! Memory of every kind: what it costs, what it is, and that bytes arrive.

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::world::{Cuda, address, any, bytes_in, bytes_out, good, input, null, zeroed};

const MIB: u64 = 1 << 20;
const SMALL: &str =
    "count = 1\ncontext_footprint_mib = 10\n[gpu]\nvram_mib = 200\nreserved_mib = 0";

#[test]
fn plain_memory_is_counted_to_the_unit() {
    let cuda = Cuda::ready_on(SMALL);
    let before = cuda.free();
    assert_eq!(before, 190 * MIB);
    let pointer = cuda.alloc(1000);
    assert_eq!(cuda.free(), before - 1024);
    let mut wrong = 7;
    assert_eq!(
        cuda.cuMemAlloc_v2(Out::of(&mut wrong), 190 << 20),
        CUDA_ERROR_OUT_OF_MEMORY
    );
    assert_eq!(wrong, 7);
    assert_eq!(
        cuda.cuMemAlloc_v2(Out::of(&mut wrong), 0),
        CUDA_ERROR_INVALID_VALUE
    );
    assert_eq!(
        cuda.cuMemAlloc_v2(Out::of(&mut wrong), usize::MAX),
        CUDA_ERROR_OUT_OF_MEMORY
    );
    let (mut base, mut size) = (0, 0_usize);
    good(cuda.cuMemGetAddressRange_v2(Out::of(&mut base), Out::of(&mut size), pointer + 500));
    assert_eq!((base, size), (pointer, 1000));
    good(cuda.cuMemFree_v2(pointer));
    assert_eq!(cuda.cuMemFree_v2(pointer), CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuMemFree_v2(0));
    assert_eq!(cuda.free(), before);
}

#[test]
fn the_first_version_has_pointers_of_32_bits() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut pointer = 0_u32;
    good(cuda.cuMemAlloc(Out::of(&mut pointer), 1000));
    assert_eq!(cuda.free(), before - 1024);
    let mut bytes = [0; 3];
    good(cuda.cuMemcpyHtoD(pointer, bytes_in(b"old"), 3));
    good(cuda.cuMemcpyDtoH(bytes_out(&mut bytes), pointer, 3));
    assert_eq!(&bytes, b"old");
    good(cuda.cuMemFree(pointer));
    assert_eq!(cuda.free(), before);
}

#[test]
fn fresh_memory_has_nothing_of_its_former_owner() {
    let cuda = Cuda::ready();
    let pointer = cuda.alloc(10 << 20);
    cuda.put(pointer + 5_000_000, b"secret");
    good(cuda.cuMemFree_v2(pointer));
    let again = cuda.alloc(10 << 20);
    assert_eq!(again, pointer);
    assert_eq!(cuda.get(again + 5_000_000, 6), [0; 6]);
}

#[test]
fn pitched_and_managed_memory() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let (mut pointer, mut pitch) = (0, 0_usize);
    good(cuda.cuMemAllocPitch_v2(Out::of(&mut pointer), Out::of(&mut pitch), 600, 10, 4));
    assert_eq!((pitch, cuda.free()), (1024, before - 10240));
    let wrong = cuda.cuMemAllocPitch_v2(Out::of(&mut pointer), Out::of(&mut pitch), 600, 10, 5);
    assert_eq!(wrong, CUDA_ERROR_INVALID_VALUE);
    let mut managed = 0;
    good(cuda.cuMemAllocManaged(Out::of(&mut managed), 4096, CU_MEM_ATTACH_GLOBAL));
    let place = managed as *mut u8;
    // SAFETY: managed memory is the program's to touch.
    unsafe { place.write(42) };
    assert_eq!(cuda.get(managed, 1), [42]);
    let mut is_managed = false;
    good(cuda.cuPointerGetAttribute(
        any(&mut is_managed),
        CU_POINTER_ATTRIBUTE_IS_MANAGED,
        managed,
    ));
    assert!(is_managed);
    good(cuda.cuMemAdvise(managed, 4096, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 1));
    good(cuda.cuMemPrefetchAsync(managed, 4096, 1, null()));
    let mut location = 9;
    let which = CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION;
    good(cuda.cuMemRangeGetAttribute(any(&mut location), 4, which, managed, 4096));
    assert_eq!(location, 1);
}

#[test]
fn copies_stay_inside_their_ranges() {
    let cuda = Cuda::ready();
    let (left, right) = (cuda.alloc(100), cuda.alloc(100));
    cuda.put(left, &[7; 100]);
    good(cuda.cuMemcpyDtoD_v2(right, left, 100));
    good(cuda.cuMemcpy(right + 50, left, 50));
    assert_eq!(cuda.get(right, 100), [7; 100]);
    let bytes = [0; 101];
    assert_eq!(
        cuda.cuMemcpyHtoD_v2(left, bytes_in(&bytes), 101),
        CUDA_ERROR_INVALID_VALUE
    );
    assert_eq!(
        cuda.cuMemcpyHtoD_v2(0x1234, bytes_in(&bytes), 1),
        CUDA_ERROR_INVALID_VALUE
    );
    assert_eq!(cuda.cuMemsetD8_v2(left, 1, 101), CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuMemsetD16_v2(left, 0x0201, 50));
    assert_eq!(cuda.get(left, 4), [1, 2, 1, 2]);
    good(cuda.cuMemsetD2D32_v2(left, 16, 0x0403_0201, 2, 3));
    assert_eq!(
        cuda.get(left + 30, 12),
        [1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    );
    assert_eq!(
        cuda.cuMemsetD32_v2(left + 2, 0, 1),
        CUDA_ERROR_INVALID_VALUE
    );
}

#[test]
fn boxes_of_two_and_three_dimensions() {
    let cuda = Cuda::ready();
    let device = cuda.alloc(8 * 8 * 4);
    let source: Vec<u8> = (0..=255).collect();
    let mut copy: CUDA_MEMCPY3D = zeroed();
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = source.as_ptr().cast();
    (copy.srcPitch, copy.srcHeight) = (8, 8);
    (copy.srcXInBytes, copy.srcY, copy.srcZ) = (2, 3, 1);
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = device;
    (copy.dstPitch, copy.dstHeight) = (8, 8);
    (copy.WidthInBytes, copy.Height, copy.Depth) = (4, 2, 2);
    good(cuda.cuMemcpy3D_v2(input(&copy)));
    let bytes = cuda.get(device, 256);
    assert_eq!(bytes[..5], [90, 91, 92, 93, 0]);
    assert_eq!(bytes[8..12], [98, 99, 100, 101]);
    assert_eq!(bytes[64..68], [154, 155, 156, 157]);
    copy.Height = 9;
    copy.dstDevice = device + 200;
    assert_eq!(cuda.cuMemcpy3D_v2(input(&copy)), CUDA_ERROR_INVALID_VALUE);
    let mut flat: CUDA_MEMCPY2D = zeroed();
    let mut rows = [0; 6];
    flat.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    flat.srcDevice = device;
    flat.srcPitch = 8;
    flat.dstMemoryType = CU_MEMORYTYPE_HOST;
    flat.dstHost = bytes_out(&mut rows).as_ptr();
    (flat.WidthInBytes, flat.Height) = (3, 2);
    good(cuda.cuMemcpy2D_v2(input(&flat)));
    assert_eq!(rows, [90, 91, 92, 98, 99, 100]);
}

fn reserved_and_used(cuda: &Cuda, pool: CUmemoryPool) -> (u64, u64) {
    let (mut reserved, mut used) = (0_u64, 0_u64);
    good(cuda.cuMemPoolGetAttribute(
        pool,
        CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
        any(&mut reserved),
    ));
    good(cuda.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, any(&mut used)));
    (reserved, used)
}

#[test]
fn pools_reserve_in_granules_and_give_back_at_synchronisation() {
    let cuda = Cuda::ready_on(SMALL);
    let stream = cuda.stream();
    let before = cuda.free();
    let (mut pool, mut pointer) = (null(), 0);
    good(cuda.cuDeviceGetDefaultMemPool(Out::of(&mut pool), 0));
    good(cuda.cuMemAllocAsync(Out::of(&mut pointer), 1000, stream));
    assert_eq!(reserved_and_used(&cuda, pool), (32 * MIB, 1024));
    assert_eq!(cuda.free(), before - 32 * MIB);
    good(cuda.cuMemFreeAsync(pointer, stream));
    assert_eq!(reserved_and_used(&cuda, pool), (32 * MIB, 0));
    good(cuda.cuStreamSynchronize(stream));
    assert_eq!((reserved_and_used(&cuda, pool).0, cuda.free()), (0, before));
    let mut threshold = u64::MAX;
    good(cuda.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, any(&mut threshold)));
    good(cuda.cuMemAllocAsync(Out::of(&mut pointer), 40 << 20, stream));
    good(cuda.cuMemFreeAsync(pointer, stream));
    good(cuda.cuStreamSynchronize(stream));
    assert_eq!(reserved_and_used(&cuda, pool).0, 64 * MIB);
    good(cuda.cuMemPoolTrimTo(pool, 0));
    assert_eq!(reserved_and_used(&cuda, pool).0, 0);
    // What is left is less than a granule: it is used to the last 2 MiB.
    good(cuda.cuMemAllocAsync(Out::of(&mut pointer), 190 << 20, stream));
    assert_eq!(
        cuda.cuMemAllocAsync(Out::of(&mut pointer), 1, stream),
        CUDA_ERROR_OUT_OF_MEMORY
    );
}

#[test]
fn a_pool_keeps_to_its_size() {
    let cuda = Cuda::ready();
    let mut props: CUmemPoolProps = zeroed();
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type_ = CU_MEM_LOCATION_TYPE_DEVICE;
    props.maxSize = 64 << 20;
    let (mut pool, mut first, mut second) = (null(), 0, 0);
    good(cuda.cuMemPoolCreate(Out::of(&mut pool), input(&props)));
    good(cuda.cuMemAllocFromPoolAsync(Out::of(&mut first), 60 << 20, pool, null()));
    let refused = cuda.cuMemAllocFromPoolAsync(Out::of(&mut second), 60 << 20, pool, null());
    assert_eq!(refused, CUDA_ERROR_OUT_OF_MEMORY);
    let mut holder: CUmemoryPool = null();
    good(cuda.cuPointerGetAttribute(any(&mut holder), CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, first));
    assert_eq!(holder, pool);
    good(cuda.cuMemPoolDestroy(pool));
    good(cuda.cuMemFree_v2(first));
    assert_eq!(cuda.cuMemPoolTrimTo(pool, 0), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn pools_are_shared_pointer_by_pointer() {
    let cuda = Cuda::ready();
    let kind = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    let mut props: CUmemPoolProps = zeroed();
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type_ = CU_MEM_LOCATION_TYPE_DEVICE;
    props.handleTypes = kind;
    let (mut pool, mut imported, mut fd) = (null(), null(), -1);
    let (mut pointer, mut twin, mut wrong) = (0, 0, 0);
    good(cuda.cuMemPoolCreate(Out::of(&mut pool), input(&props)));
    good(cuda.cuMemPoolExportToShareableHandle(any(&mut fd), pool, kind, 0));
    let given = address(fd as u64);
    good(cuda.cuMemPoolImportFromShareableHandle(Out::of(&mut imported), given, kind, 0));
    let refused = cuda.cuMemAllocFromPoolAsync(Out::of(&mut wrong), 1, imported, null());
    assert_eq!(refused, CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuMemAllocFromPoolAsync(Out::of(&mut pointer), 100, pool, null()));
    cuda.put(pointer, b"shared");
    let charged = cuda.free();
    let mut data: CUmemPoolPtrExportData = zeroed();
    good(cuda.cuMemPoolExportPointer(Out::of(&mut data), pointer));
    good(cuda.cuMemPoolImportPointer(Out::of(&mut twin), imported, Out::of(&mut data)));
    assert_ne!(pointer, twin);
    assert_eq!(
        (cuda.get(twin, 6), cuda.free()),
        (b"shared".to_vec(), charged)
    );
    cuda.put(twin, b"S");
    assert_eq!(cuda.get(pointer, 6), b"Shared");
    good(cuda.cuMemFreeAsync(twin, null()));
    good(cuda.cuMemFreeAsync(pointer, null()));
    // SAFETY: the descriptor is this test's.
    unsafe { libc::close(fd) };
}

fn physical(location: CUmemLocationType) -> CUmemAllocationProp {
    let mut props: CUmemAllocationProp = zeroed();
    props.type_ = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type_ = location;
    props.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    props
}

#[test]
fn physical_memory_lives_while_a_handle_or_a_mapping_does() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let props = physical(CU_MEM_LOCATION_TYPE_DEVICE);
    let (mut handle, mut base, size) = (0, 0, 4_usize << 20);
    assert_eq!(
        cuda.cuMemCreate(Out::of(&mut handle), 1000, input(&props), 0),
        CUDA_ERROR_INVALID_VALUE
    );
    good(cuda.cuMemCreate(Out::of(&mut handle), size, input(&props), 0));
    good(cuda.cuMemAddressReserve(Out::of(&mut base), size, 0, 0, 0));
    assert_eq!(
        cuda.cuMemMap(base, size, 2 << 20, handle, 0),
        CUDA_ERROR_INVALID_VALUE
    );
    good(cuda.cuMemMap(base, size, 0, handle, 0));
    assert_eq!(
        cuda.cuMemMap(base, size, 0, handle, 0),
        CUDA_ERROR_INVALID_VALUE
    );
    good(cuda.cuMemRelease(handle));
    assert_eq!(cuda.free(), before - size as u64);
    let mut access: CUmemAccessDesc = zeroed();
    access.location.type_ = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    assert_eq!(
        cuda.cuMemcpyHtoD_v2(base, bytes_in(b"no"), 2),
        CUDA_ERROR_ILLEGAL_ADDRESS
    );
    good(cuda.cuMemSetAccess(base, size, input(&access), 1));
    cuda.put(base, b"yes");
    assert_eq!(cuda.get(base, 3), b"yes");
    let mut again = 0;
    good(cuda.cuMemRetainAllocationHandle(Out::of(&mut again), address(base + 100)));
    assert_eq!(again, handle);
    assert_eq!(cuda.cuMemAddressFree(base, size), CUDA_ERROR_INVALID_VALUE);
    good(cuda.cuMemUnmap(base, size));
    assert_eq!(cuda.free(), before - size as u64);
    // An import of it keeps it as well.
    let (mut fd, mut imported, kind) = (-1, 0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    good(cuda.cuMemExportToShareableHandle(any(&mut fd), handle, kind, 0));
    good(cuda.cuMemImportFromShareableHandle(Out::of(&mut imported), address(fd as u64), kind));
    // SAFETY: the descriptor is this test's.
    unsafe { libc::close(fd) };
    good(cuda.cuMemRelease(handle));
    assert_eq!(cuda.free(), before - size as u64);
    good(cuda.cuMemRelease(imported));
    assert_eq!(cuda.free(), before);
    good(cuda.cuMemAddressFree(base, size));
}

#[test]
fn physical_memory_of_the_host_costs_no_gpu() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut props = physical(CU_MEM_LOCATION_TYPE_HOST);
    // Programs leave junk in the id of host locations.
    props.location.__bindgen_anon_1.id = 12345;
    let (mut handle, mut fd) = (0, -1);
    good(cuda.cuMemCreate(Out::of(&mut handle), 2 << 20, input(&props), 0));
    assert_eq!(cuda.free(), before);
    let kind = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    good(cuda.cuMemExportToShareableHandle(any(&mut fd), handle, kind, 0));
    let mut imported = 0;
    good(cuda.cuMemImportFromShareableHandle(Out::of(&mut imported), address(fd as u64), kind));
    let mut found: CUmemAllocationProp = zeroed();
    good(cuda.cuMemGetAllocationPropertiesFromHandle(Out::of(&mut found), imported));
    assert_eq!(found.location.type_, CU_MEM_LOCATION_TYPE_HOST);
    // SAFETY: the descriptor is this test's.
    unsafe { libc::close(fd) };
}

#[test]
fn arrays_hold_rows() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut wanted: CUDA_ARRAY_DESCRIPTOR = zeroed();
    (wanted.Width, wanted.Height) = (100, 4);
    (wanted.Format, wanted.NumChannels) = (CU_AD_FORMAT_FLOAT, 1);
    let mut array = null();
    good(cuda.cuArrayCreate_v2(Out::of(&mut array), input(&wanted)));
    assert_eq!(cuda.free(), before - 4 * 512);
    let (source, mut bytes) = ((0..200).collect::<Vec<u8>>(), [0; 4]);
    good(cuda.cuMemcpyHtoA_v2(array, 300, bytes_in(&source), 200));
    good(cuda.cuMemcpyAtoH_v2(bytes_out(&mut bytes), array, 310, 4));
    assert_eq!(bytes, [10, 11, 12, 13]);
    assert_eq!(
        cuda.cuMemcpyAtoH_v2(bytes_out(&mut bytes), array, 1598, 4),
        CUDA_ERROR_INVALID_VALUE
    );
    good(cuda.cuArrayDestroy(array));
    assert_eq!(cuda.cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
    wanted.NumChannels = 3;
    assert_eq!(
        cuda.cuArrayCreate_v2(Out::of(&mut array), input(&wanted)),
        CUDA_ERROR_INVALID_VALUE
    );
    let mut deferred: CUDA_ARRAY3D_DESCRIPTOR = zeroed();
    (deferred.Width, deferred.Height, deferred.Flags) = (64, 64, CUDA_ARRAY3D_DEFERRED_MAPPING);
    (deferred.Format, deferred.NumChannels) = (CU_AD_FORMAT_UNSIGNED_INT8, 4);
    let mut mipmap = null();
    good(cuda.cuMipmappedArrayCreate(Out::of(&mut mipmap), input(&deferred), 3));
    assert_eq!(cuda.free(), before);
    let mut needs: CUDA_ARRAY_MEMORY_REQUIREMENTS = zeroed();
    good(cuda.cuMipmappedArrayGetMemoryRequirements(Out::of(&mut needs), mipmap, 0));
    assert_eq!(needs.size, 512 * (64 + 32 + 16));
}

#[test]
fn host_memory_is_known_but_not_charged() {
    let cuda = Cuda::ready();
    let before = cuda.free();
    let mut pointer = null();
    good(cuda.cuMemHostAlloc(Out::of(&mut pointer), 1 << 20, CU_MEMHOSTALLOC_PORTABLE));
    assert_eq!(cuda.free(), before);
    let (mut kind, mut device) = (0_u32, 0);
    let at = pointer as u64;
    good(cuda.cuPointerGetAttribute(any(&mut kind), CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at));
    assert_eq!(kind, CU_MEMORYTYPE_HOST);
    good(cuda.cuMemHostGetDevicePointer_v2(Out::of(&mut device), address(at), 0));
    assert_eq!(device, at);
    good(cuda.cuMemFreeHost(address(at)));
    assert_eq!(cuda.cuMemFreeHost(address(at)), CUDA_ERROR_INVALID_VALUE);
    let mut own = vec![1_u8; 8192];
    let at = own.as_mut_ptr() as u64;
    let twice = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    good(cuda.cuMemHostRegister_v2(address(at), 8192, 0));
    assert_eq!(cuda.cuMemHostRegister_v2(address(at), 8192, 0), twice);
    good(cuda.cuMemHostUnregister(address(at)));
    let not = CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    assert_eq!(cuda.cuMemHostUnregister(address(at)), not);
    assert_eq!(
        cuda.cuPointerGetAttribute(any(&mut kind), CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at),
        CUDA_ERROR_INVALID_VALUE
    );
}
