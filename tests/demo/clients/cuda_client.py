"""An ordinary CUDA program on the unmodified cuda-bindings package: allocates until the driver refuses.

Prints one line of JSON: what the driver said the GPU has, what it took before it refused, and each refusal with the
amount held at that moment. With --hold it then keeps its memory until it is killed. It knows nothing of vgpu.
"""
import json
import signal
import sys

from cuda.bindings import driver as cuda

# Ever smaller requests close in on the exact limit.
CHUNKS = [256 << 20, 1 << 20, 4 << 10, 512]


def call(function, *args):
    """The results of a driver call, or an exception which names it."""
    status, *results = function(*args)
    if status != cuda.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function.__name__}: {status.name}")
    return results[0] if len(results) == 1 else results


def allocate(chunk):
    """How many requests of this size were granted before the refusal."""
    granted = 0
    while True:
        status, _ = cuda.cuMemAlloc(chunk)
        if status == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            return granted
        if status != cuda.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"cuMemAlloc({chunk}): {status.name}, which is not how a full GPU answers")
        granted += 1


def fill():
    held, refusals = 0, []
    for chunk in CHUNKS:
        held += chunk * allocate(chunk)
        refusals.append({"request": chunk, "held": held})
    return held, refusals


def main():
    call(cuda.cuInit, 0)
    device = call(cuda.cuDeviceGet, 0)
    name = call(cuda.cuDeviceGetName, 96, device)
    context = call(cuda.cuDevicePrimaryCtxRetain, device)
    call(cuda.cuCtxSetCurrent, context)
    free, total = call(cuda.cuMemGetInfo)
    held, refusals = (0, []) if "--look" in sys.argv else fill()
    print(json.dumps({
        "devices": call(cuda.cuDeviceGetCount),
        "name": name.split(b"\0")[0].decode(),
        "total": call(cuda.cuDeviceTotalMem, device),
        "info_total": total,
        "free_at_start": free,
        "free_at_end": call(cuda.cuMemGetInfo)[0],
        "context": total - free,
        "allocated": held,
        "refusals": refusals,
    }), flush=True)
    if "--hold" in sys.argv:
        signal.pause()


if __name__ == "__main__":
    main()
