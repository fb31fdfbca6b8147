"""A user of the official `cuda-bindings`: what the suites ask of the simulated driver, a function each."""
import ctypes
import os
import subprocess
import sys
import time

from cuda.bindings import driver as cu

PTX = b""".version 8.0
.target sm_80
.address_size 64
.visible .entry spin(.param .u64 ns) { ret; }
\0"""


def good(answer):
    """The results of a call that succeeded."""
    assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
    return None if len(answer) == 1 else answer[1] if len(answer) == 2 else answer[1:]


def ready():
    good(cu.cuInit(0))
    context = good(cu.cuDevicePrimaryCtxRetain(0))
    good(cu.cuCtxSetCurrent(context))


def launch(stream, nanoseconds):
    module = good(cu.cuModuleLoadData(PTX))
    spin = good(cu.cuModuleGetFunction(module, b"spin"))
    good(cu.cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, ((nanoseconds,), (ctypes.c_uint64,)), 0))


def devices():
    if cu.cuInit(0)[0] == cu.CUresult.CUDA_ERROR_NO_DEVICE:
        return "no device"
    buses = [good(cu.cuDeviceGetPCIBusId(13, index)) for index in range(good(cu.cuDeviceGetCount()))]
    return [bus.rstrip(b"\0").decode() for bus in buses]


def uuids():
    good(cu.cuInit(0))
    return [good(cu.cuDeviceGetUuid(index)).bytes.hex() for index in range(good(cu.cuDeviceGetCount()))]


def everything():
    """A little of each chapter."""
    ready()
    assert good(cu.cuDeviceGetName(80, 0)).rstrip(b"\0 ").startswith(b"NVIDIA")
    free, total = good(cu.cuMemGetInfo())
    assert 0 < free < total
    pointer = good(cu.cuMemAlloc(1 << 20))
    good(cu.cuMemcpyHtoD(pointer, b"hello", 5))
    back = bytearray(5)
    good(cu.cuMemcpyDtoH(back, pointer, 5))
    assert back == b"hello"
    assert cu.cuMemAlloc(1 << 50)[0] == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    stream = good(cu.cuStreamCreate(1))
    first, last = good(cu.cuEventCreate(0)), good(cu.cuEventCreate(0))
    good(cu.cuEventRecord(first, stream))
    launch(stream, 10_000_000)
    good(cu.cuEventRecord(last, stream))
    good(cu.cuEventSynchronize(last))
    assert 10 <= good(cu.cuEventElapsedTime(first, last)) < 200
    pooled = good(cu.cuMemAllocAsync(1000, stream))
    good(cu.cuMemFreeAsync(pooled, stream))
    mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
    good(cu.cuStreamBeginCapture(stream, mode))
    good(cu.cuMemsetD8Async(pointer, 7, 5, stream))
    graph = good(cu.cuStreamEndCapture(stream))
    good(cu.cuGraphLaunch(good(cu.cuGraphInstantiate(graph, 0)), stream))
    good(cu.cuStreamSynchronize(stream))
    good(cu.cuMemcpyDtoH(back, pointer, 5))
    assert back == bytes([7] * 5)
    good(cu.cuMemFree(pointer))
    print("done")


def hold(size):
    ready()
    good(cu.cuMemAlloc(size))
    time.sleep(600)


def busy():
    ready()
    launch(0, 60_000_000_000)
    good(cu.cuMemAlloc(1 << 30))
    time.sleep(600)


CHILD = """
import ctypes, sys
from cuda.bindings import driver as cu
def good(answer):
    assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
    return None if len(answer) == 1 else answer[1]
good(cu.cuInit(0))
good(cu.cuCtxSetCurrent(good(cu.cuDevicePrimaryCtxRetain(0))))
memory, event = cu.CUipcMemHandle(), cu.CUipcEventHandle()
ctypes.memmove(memory.getPtr(), bytes.fromhex(sys.argv[1]), 64)
ctypes.memmove(event.getPtr(), bytes.fromhex(sys.argv[2]), 64)
pointer, event = good(cu.cuIpcOpenMemHandle(memory, 1)), good(cu.cuIpcOpenEventHandle(event))
assert cu.cuEventQuery(event)[0] == cu.CUresult.CUDA_ERROR_NOT_READY
good(cu.cuEventSynchronize(event))
back = bytearray(15)
good(cu.cuMemcpyDtoH(back, pointer, 15))
assert back == b"from the parent", back
good(cu.cuMemcpyHtoD(pointer, b"from the child ", 15))
good(cu.cuIpcCloseMemHandle(pointer))
"""


def share():
    ready()
    pointer, stream = good(cu.cuMemAlloc(100)), good(cu.cuStreamCreate(1))
    good(cu.cuMemcpyHtoD(pointer, b"from the parent", 15))
    memory = good(cu.cuIpcGetMemHandle(pointer))
    assert cu.cuIpcOpenMemHandle(memory, 1)[0] == cu.CUresult.CUDA_ERROR_INVALID_CONTEXT
    event = good(cu.cuEventCreate(6))
    launch(stream, 5_000_000_000)
    good(cu.cuEventRecord(event, stream))
    handles = [ctypes.string_at(handle.getPtr(), 64).hex() for handle in (memory, good(cu.cuIpcGetEventHandle(event)))]
    subprocess.run([sys.executable, "-c", CHILD, *handles], check=True)
    back = bytearray(14)
    good(cu.cuMemcpyDtoH(back, pointer, 14))
    print(bytes(back))


def fork():
    ready()
    child = os.fork()
    if child == 0:
        print(cu.cuMemAlloc(1)[0].name, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
