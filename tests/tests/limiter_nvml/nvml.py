nvml = ctypes.CDLL("libnvidia-ml.so.1")


def struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


U, L = c_uint, c_ulonglong
Memory = struct("Memory", ("total", L), ("free", L), ("used", L))
Memory2 = struct("Memory2", ("version", U), ("total", L), ("reserved", L), ("free", L), ("used", L))
Process1 = struct("Process1", ("pid", U), ("used", L))
Process = struct("Process", ("pid", U), ("used", L), ("gpu", U), ("compute", U))
Detail = struct("Detail", ("pid", U), ("used", L), ("gpu", U), ("compute", U), ("protected", L))
Details = struct("Details", ("version", U), ("mode", U), ("count", U), ("list", POINTER(Detail)))
Rates = struct("Rates", ("gpu", U), ("memory", U))
Used = struct("Used", ("pid", U), ("time", L), ("sm", U), ("memory", U), ("enc", U), ("dec", U))
Used1 = struct("Used1", ("time", L), ("pid", U), ("sm", U), ("memory", U), ("enc", U), ("dec", U), ("jpg", U), ("ofa", U))
Use = struct("Use", ("version", U), ("count", U), ("since", L), ("list", POINTER(Used1)))
Sample = struct("Sample", ("time", L), ("value", L))
Uuid = struct("Uuid", ("version", U), ("type", U), ("value", ctypes.c_char * 41))
Stats = struct("Stats", ("gpu", U), ("memory", U), ("most", L), ("time", L), ("start", L), ("running", U), ("reserved", U * 5))
Stats2 = struct("Stats2", ("pid", U), ("running", U), ("gpu", U), ("memory", U), ("most", L), ("samples", U), ("sums", L * 2), ("time", L), ("start", L))
KINDS = [("Compute", Process), ("Graphics", Process), ("MPSCompute", Process)]


def version(kind, number=1):
    return ctypes.sizeof(kind) | number << 24


def init():
    check(nvml.nvmlInit_v2())


def number(name, *arguments):
    out = c_uint()
    return [getattr(nvml, name)(*arguments, byref(out)), out.value]


def handle(index):
    device = c_void_p()
    check(nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device)))
    return device


def looked_up(name, *arguments):
    """[status, the device's index among ours]"""
    device = c_void_p()
    status = getattr(nvml, name)(*arguments, byref(device))
    return [status, number("nvmlDeviceGetIndex", device) if status == 0 else None]


def uuid(device):
    text = ctypes.create_string_buffer(96)
    check(nvml.nvmlDeviceGetUUID(device, text, 96))
    return text.value.decode()


def memory(device, form=None):
    one, two, bar = Memory(), Memory2(version=version(Memory2, 2) if form is None else form), Memory()
    status = [nvml.nvmlDeviceGetMemoryInfo(device, byref(one)), nvml.nvmlDeviceGetMemoryInfo_v2(device, byref(two)), nvml.nvmlDeviceGetBAR1MemoryInfo(device, byref(bar))]
    return [status, [one.total, one.free, one.used], [two.total, two.reserved, two.free, two.used], [bar.total, bar.free, bar.used]]


def processes(device, name, room=8, kind=Process):
    """[status, count, [(is it this process, bytes)]]"""
    count, list = c_uint(room), (kind * 8)()
    status = getattr(nvml, name)(device, byref(count), list if room else None)
    return [status, count.value, [(p.pid, p.used) for p in list[:count.value]] if status == 0 else []]


def every_list(device, room=8):
    forms = [("", Process1), ("_v2", Process), ("_v3", Process)]
    return [processes(device, f"nvmlDeviceGet{what}RunningProcesses{form}", room, kind) for what in ("Compute", "Graphics", "MPSCompute") for form, kind in forms]


def details(device, mode=0, room=8, form=None):
    list = (Detail * 8)()
    asked = Details(version(Details) if form is None else form, mode, room, list if room else None)
    status = nvml.nvmlDeviceGetRunningProcessDetailList(device, byref(asked))
    return [status, asked.count, [(p.pid, p.used) for p in list[:asked.count]] if status == 0 else []]


def rates(device):
    out = Rates()
    return [nvml.nvmlDeviceGetUtilizationRates(device, byref(out)), out.gpu, out.memory]


def used(device, room=8, since=0):
    count, list = c_uint(room), (Used * 8)()
    status = nvml.nvmlDeviceGetProcessUtilization(device, list if room else None, byref(count), c_ulonglong(since))
    return [status, count.value, [(p.pid, p.sm) for p in list[:count.value]] if status == 0 else []]


def used_info(device, room=8, form=None):
    list = (Used1 * 8)()
    asked = Use(version(Use) if form is None else form, room, 0, list if room else None)
    status = nvml.nvmlDeviceGetProcessesUtilizationInfo(device, byref(asked))
    return [status, asked.count, [(p.pid, p.sm) for p in list[:asked.count]] if status == 0 else []]


def samples(device, kind=1, room=64):
    """[status, type, values]"""
    count, what, list = c_uint(room), c_uint(), (Sample * 64)()
    status = nvml.nvmlDeviceGetSamples(device, kind, c_ulonglong(0), byref(what), byref(count), list)
    return [status, what.value, [s.value for s in list[:count.value]] if status == 0 else []]


def accounting(device, pid, room=8):
    count, pids = c_uint(room), (c_uint * 8)()
    listed = nvml.nvmlDeviceGetAccountingPids(device, byref(count), pids if room else None)
    one, two = Stats(), Stats2(pid=pid)
    status = [nvml.nvmlDeviceGetAccountingStats(device, pid, byref(one)), nvml.nvmlDeviceGetAccountingStats_v2(device, byref(two))]
    return [listed, pids[:count.value] if listed == 0 else count.value, status, one.most, two.most, two.pid]


def name(pid, room=64):
    text = ctypes.create_string_buffer(room)
    status = nvml.nvmlSystemGetProcessName(pid, text, room)
    return [status, text.value.decode()]


PTX = b""".version 7.0
.target sm_80
.address_size 64
.visible .entry spin(.param .u64 ns) { ret; }
\0"""


def spin(seconds):
    """Keeps the current context's GPU busy."""
    module, function, time_ns = c_void_p(), c_void_p(), c_ulonglong(int(seconds * 1e9))
    check(cuda.cuModuleLoadData(byref(module), PTX))
    check(cuda.cuModuleGetFunction(byref(function), module, b"spin"))
    check(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, (c_void_p * 1)(ctypes.addressof(time_ns)), None))
