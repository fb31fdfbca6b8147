# Everything that NVML is asked here, as one value: the same with and without a limiter that limits nothing.
def without_time(answers):
    """Own process 1, others by their number."""
    text = json.dumps(answers)
    return json.loads(text.replace(f"[{os.getpid()},", "[1,").replace(f"[{os.getpid()}]", "[1]"))


def survey():
    start(1)
    alloc(16 * MIB)
    found = [number("nvmlDeviceGetCount"), number("nvmlDeviceGetCount_v2"), nvml.nvmlDeviceGetCount(None), nvml.nvmlDeviceGetCount_v2(None)]
    for index in range(3):
        found += [looked_up("nvmlDeviceGetHandleByIndex", index), looked_up("nvmlDeviceGetHandleByIndex_v2", index)]
        found += [nvml.nvmlDeviceGetHandleByIndex(index, None), nvml.nvmlDeviceGetHandleByIndex_v2(index, None)]
    for device in (handle(0), handle(1), c_void_p(0x1234), None):
        found += [memory(device), memory(device, 0), memory(device, version(Memory2, 3))]
        found += [every_list(device), every_list(device, 0), every_list(device, 1)]
        found += [details(device, mode, room) for mode in (0, 1, 2, 3) for room in (8, 1, 0)] + [details(device, form=7)]
        found += [nvml.nvmlDeviceGetMemoryInfo(device, None), nvml.nvmlDeviceGetMemoryInfo_v2(device, None), nvml.nvmlDeviceGetBAR1MemoryInfo(device, None)]
        found += [getattr(nvml, f"nvmlDeviceGet{what}RunningProcesses{form}")(device, None, None) for what, _ in KINDS for form in ("", "_v2", "_v3")]
        found += [nvml.nvmlDeviceGetRunningProcessDetailList(device, None), nvml.nvmlDeviceGetUtilizationRates(device, None)]
        found += [rates(device), used(device), used(device, 0), used(device, 1), used_info(device), used_info(device, 0), used_info(device, form=3)]
        found += [nvml.nvmlDeviceGetProcessUtilization(device, None, None, c_ulonglong(0)), nvml.nvmlDeviceGetProcessesUtilizationInfo(device, None)]
        found += [samples(device, kind)[:2] for kind in range(10)] + [nvml.nvmlDeviceGetSamples(device, 1, c_ulonglong(0), None, None, None)]
        count, what = c_uint(), c_uint()
        found += [nvml.nvmlDeviceGetSamples(device, 1, c_ulonglong(0), byref(what), byref(count), None), count.value, what.value]
        found += [accounting(device, os.getpid())[:5], accounting(device, 1), accounting(device, os.getpid(), 0)[:5]]
        found += [nvml.nvmlDeviceGetAccountingPids(device, None, None), nvml.nvmlDeviceGetAccountingStats(device, 1, None), nvml.nvmlDeviceGetAccountingStats_v2(device, None)]
        found += [number("nvmlDeviceGetIndex", device), nvml.nvmlDeviceGetIndex(device, None), number("nvmlDeviceGetMinorNumber", device)]
        for room in (0, 8):
            count, list = c_uint(room), (c_void_p * 8)()
            found += [nvml.nvmlDeviceGetTopologyNearestGpus(device, 40, byref(count), list), count.value, list[:]]
            found += [nvml.nvmlSystemGetTopologyGpuSet(0, byref(count), list), count.value, list[:]]
        for function in (nvml.nvmlDeviceGetEncoderSessions, nvml.nvmlDeviceGetFBCSessions):
            count = c_uint(4)
            found += [function(device, byref(count), None), count.value, function(device, None, None)]
        found += [nvml.nvmlDeviceGetAttributes_v2(device, None), nvml.nvmlDeviceGetAttributes(device, None)]
    for kind in ("UUID", "Serial", "PciBusId", "PciBusId_v2"):
        function = "nvmlDeviceGetHandleBy" + kind
        found += [looked_up(function, text) for text in (b"", b"GPU-1", b"0:43:0", None)] + [getattr(nvml, function)(b"GPU-1", None)]
    found += [looked_up("nvmlDeviceGetHandleByUUID", uuid(handle(1)).encode()), looked_up("nvmlDeviceGetHandleByUUIDV", None)]
    found += [looked_up("nvmlDeviceGetHandleByUUIDV", byref(Uuid(form, 1, uuid(handle(1)).encode()))) for form in (0, version(Uuid))]
    found += [name(os.getpid()), name(os.getpid(), 4), name(0x7FFFFFFF), nvml.nvmlSystemGetProcessName(1, None, 8), nvml.nvmlSystemGetProcessName(1, byref(c_uint()), 0)]
    return without_time(found)
