"""An ordinary monitoring program on the unmodified nvidia-ml-py package. Prints one line of JSON; knows nothing of vgpu."""
import json

import pynvml


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def device(index):
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return {
        "name": text(pynvml.nvmlDeviceGetName(handle)),
        "uuid": text(pynvml.nvmlDeviceGetUUID(handle)),
        "total": memory.total,
        "used": memory.used,
        "free": memory.free,
        "processes": [{"pid": p.pid, "used": p.usedGpuMemory} for p in processes],
    }


def main():
    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
    print(json.dumps({"devices": [device(index) for index in range(count)]}), flush=True)
    pynvml.nvmlShutdown()


if __name__ == "__main__":
    main()
