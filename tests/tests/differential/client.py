"""One side of the differential test: plays random streams of driver calls and tells what each one answered.

A line of input is {"seed", "keep": step numbers}; each stream is played in a forked child, so that it starts from a
fresh process. A line of output is one step: what was called, the status, the outputs, with handles and addresses
replaced by names in order of appearance. Every step draws from a generator of its own, (seed, step number), so a
stream stays meaningful when steps are left out.
"""
import ctypes, json, os, random, resource, signal, sys, time, zlib
from ctypes import byref, c_char_p, c_int, c_longlong, c_size_t, c_ubyte, c_uint, c_ulonglong, c_ushort, c_void_p

cuda = ctypes.CDLL("libcuda.so.1")
MIB = 1 << 20
HUGE = [1 << 63, (1 << 64) - 1, (1 << 64) - 511, 1 << 40]
SIZES = [0, 1, 511, 512, 513, 4096, 65536, 65537, MIB, 2 * MIB, 2 * MIB + 1, 5 * MIB, 32 * MIB, 100 * MIB, 300 * MIB]
NOT_READY, TIMED = 600, ("cuEventQuery", "cuStreamQuery", "cuEventElapsedTime")
ROOM = 1 << 16
ADDRESSES = ("mem", "hostmem", "range")
PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry quick(.param .u64 a, .param .u32 b) { // sim-gpu: duration_ns=2000
 ret; }
.visible .entry plain() { ret; }
"""
NAMES = ["cuMemAlloc", "cuMemFree", "cuMemGetInfo", "cuLaunchKernel", "cuMemAllocAsync", "cuCtxCreate", "cuGraphLaunch",
         "cuGetProcAddress", "cuMemCreate", "cuMemAllocPitch", "cuArrayCreate", "cuMemAdvise", "cuMemPrefetchAsync",
         "cuGraphAddNode", "cuStreamGetCaptureInfo", "cuMemAlloc_v2", "cuNoSuchThing", "", "cuDeviceTotalMem",
         "cuDevicePrimaryCtxRelease", "cuGraphExecUpdate", "cuGraphGetEdges", "cuStreamBeginCapture"]
WITHOUT = os.environ.get("VGPU_WITHOUT", "").split(",")
VERSIONS = [0, -1, 2000, 3010, 3020, 7000, 10000, 11020, 11040, 12000, 12030, 13000, 13050, 99999]


class Location(ctypes.Structure):
    _fields_ = [("type", c_int), ("id", c_int)]


class AllocationProp(ctypes.Structure):
    _fields_ = [("type", c_int), ("handles", c_int), ("location", Location), ("win32", c_void_p), ("flags", c_ubyte * 8)]


class AccessDesc(ctypes.Structure):
    _fields_ = [("location", Location), ("flags", c_int)]


class PoolProps(ctypes.Structure):
    _fields_ = [("type", c_int), ("handles", c_int), ("location", Location), ("win32", c_void_p), ("max", c_size_t),
                ("usage", c_ushort), ("reserved", c_ubyte * 54)]


class ArrayDesc(ctypes.Structure):
    _fields_ = [("width", c_size_t), ("height", c_size_t), ("format", c_uint), ("channels", c_uint)]


class Array3dDesc(ctypes.Structure):
    _fields_ = [("width", c_size_t), ("height", c_size_t), ("depth", c_size_t), ("format", c_uint), ("channels", c_uint),
                ("flags", c_uint)]


class Requirements(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("alignment", c_size_t), ("reserved", c_uint * 4)]


class AllocNode(ctypes.Structure):
    _fields_ = [("pool", PoolProps), ("access", c_void_p), ("accesses", c_size_t), ("size", c_size_t), ("pointer", c_ulonglong)]


class FillNode(ctypes.Structure):
    _fields_ = [("pointer", c_ulonglong), ("pitch", c_size_t), ("value", c_uint), ("element", c_uint), ("width", c_size_t),
                ("height", c_size_t)]


class Thing:
    def __init__(self, value, size=0):
        # Lost: nobody knows whether it still lives, so nobody uses it.
        self.value, self.size, self.live, self.lost = value, size, True, False


OPS = []


def op(weight=2):
    def note(function):
        OPS.extend([function] * weight)
        return function
    return note


class World:
    """What this side holds, and how it speaks of it."""

    def __init__(self):
        self.things, self.names, self.said, self.buffers = {}, {}, [], []
        self.host = ctypes.create_string_buffer(ROOM)
        self.count = 0
        self.names[ctypes.addressof(self.host)] = "own"
        self.module_image = ctypes.create_string_buffer(PTX)
        # Where no process has anything.
        self.foreign = 0x1000

    def call(self, name, *args, show=()):
        """Calls, notes the status and the outputs in `show`, answers the status."""
        status = getattr(cuda, name)(*args) & 0xFFFFFFFF
        told = 0 if name in TIMED and status == NOT_READY else status
        self.said.append([name, told, *(show if status == 0 or not show else ["-"] * len(show))])
        return status

    def tell(self, *outputs):
        self.said[-1].extend(outputs)

    def name(self, value):
        """A handle or address by a name that does not depend on where things lie."""
        value = getattr(value, "value", value) or 0
        if value == 0:
            return 0
        for thing in self.things.get("mem", []) + self.things.get("range", []) + self.things.get("hostmem", []):
            if thing.live and thing.value <= value < thing.value + max(thing.size, 1):
                return f"{self.names[thing.value]}+{value - thing.value}"
        if value not in self.names:
            self.names[value] = self.fresh()
        return self.names[value]

    def fresh(self):
        self.count += 1
        return f"#{self.count}"

    def add(self, kind, value, size=0):
        thing = Thing(getattr(value, "value", value) or 0, size)
        if kind in ADDRESSES:
            # A freed address may come back or not: that is no promise, so it is no difference.
            self.names[thing.value] = self.fresh()
        for old in self.things.get(kind, []):
            if old.value == thing.value:
                old.live = False
        self.things.setdefault(kind, []).append(thing)
        self.tell(f"{self.names[thing.value]}+0" if kind in ADDRESSES else self.name(thing.value))
        return thing

    def live(self, kind):
        return [thing for thing in self.things.get(kind, []) if thing.live]

    def pick(self, r, kind, wrong=0.08):
        """Mostly something that lives; now and then something freed, null, or never seen."""
        live, dice = self.live(kind), r.random()
        if live and dice >= wrong:
            return r.choice(live)
        dead = [thing for thing in self.things.get(kind, []) if not thing.live and not thing.lost]
        if dead and dice < wrong / 2:
            thing = r.choice(dead)
            return Thing(self.foreign) if kind in ADDRESSES and self.taken(thing) else thing
        return Thing(0)

    def taken(self, old):
        """Whether something else lives, or may live, where this one was."""
        return any(thing.value < old.value + max(old.size, 1) and old.value < thing.value + max(thing.size, 1)
                   for kind in ADDRESSES for thing in self.things.get(kind, []) if thing.live or thing.lost)

    def pick_address(self, r, kinds=("mem",), wrong=0.08):
        """An address: of a living thing, inside it, freed, null or foreign."""
        thing = self.pick(r, r.choice(kinds), wrong)
        dice = r.random()
        if dice < 0.05:
            return Thing(self.foreign)
        if dice < 0.15 and thing.size > 1:
            inside = Thing(thing.value + r.randrange(1, thing.size), 0)
            inside.size = thing.size - (inside.value - thing.value)
            return inside
        return thing

    def stream(self, r):
        dice = r.random()
        if dice < 0.3:
            return c_void_p(r.choice([0, 0, 1, 2]))
        return c_void_p(self.pick(r, "stream").value)

    def drop(self, thing):
        thing.live = False

    def forget(self):
        """A context may have ended, and its memory with it: what lies there afterwards depends on where things lie."""
        for kind in ("mem", "hostmem"):
            for thing in self.live(kind):
                thing.live, thing.lost = False, True

    def where(self, value, size):
        """Marks everything that lived in a range as gone."""
        for kind in ("mem", "mapping"):
            for thing in self.live(kind):
                if value <= thing.value < value + size:
                    thing.live = False


def a_size(r):
    return r.choice(HUGE) if r.random() < 0.06 else r.choice(SIZES)


def out(r, place):
    """A place for an output; now and then none."""
    return None if r.random() < 0.03 else byref(place)


def zptr(r, name):
    """The name, or the form for per-thread default streams."""
    return name + ("_ptsz" if r.random() < 0.3 else "")


def settle(w, stream):
    """Waits for what a stream has to do, whichever form of the default stream that was: nothing may depend on time."""
    w.call("cuStreamSynchronize", stream)
    w.call("cuStreamSynchronize_ptsz", stream)
    w.call("cuCtxSynchronize")


def device(r):
    return c_int(r.choice([0, 0, 0, 0, 1, 1, -1, 2, 99]))


# --- contexts

@op()
def primary_retain(w, r):
    context = c_void_p()
    if w.call("cuDevicePrimaryCtxRetain", out(r, context), device(r)) == 0:
        w.add("context", context)


@op(1)
def primary_release(w, r):
    if w.call(r.choice(["cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"]), device(r)) == 0:
        w.forget()


@op(1)
def primary_reset(w, r):
    if r.random() < 0.3:
        w.call(r.choice(["cuDevicePrimaryCtxReset_v2", "cuDevicePrimaryCtxReset"]), device(r))
        w.forget()


@op(1)
def primary_state(w, r):
    flags, active = c_uint(), c_int()
    if w.call("cuDevicePrimaryCtxGetState", device(r), out(r, flags), out(r, active)) == 0:
        w.tell(flags.value, active.value)


@op(1)
def context_create(w, r):
    context = c_void_p()
    flags = c_uint(r.choice([0, 1, 4, 8, 0x100, 0xFFFF]))
    form = r.randrange(3)
    if form == 0:
        status = w.call("cuCtxCreate_v2", out(r, context), flags, device(r))
    elif form == 1:
        status = w.call("cuCtxCreate_v4", out(r, context), None, flags, device(r))
    else:
        status = w.call("cuCtxCreate_v3", out(r, context), None, c_int(0), flags, device(r))
    if status == 0:
        w.add("context", context)
        w.add("made", context)


@op(1)
def context_destroy(w, r):
    thing = w.pick(r, r.choice(["made", "made", "context"]))
    if w.call(r.choice(["cuCtxDestroy_v2", "cuCtxDestroy"]), c_void_p(thing.value)) == 0:
        w.drop(thing)
        w.forget()


@op(1)
def context_attach(w, r):
    context = c_void_p()
    if w.call("cuCtxAttach", out(r, context), c_uint(r.choice([0, 0, 1]))) == 0:
        w.tell(w.name(context))


@op(1)
def context_detach(w, r):
    if w.call("cuCtxDetach", c_void_p(w.pick(r, "made").value)) == 0:
        w.forget()


@op()
def context_current(w, r):
    verb = r.choice(["cuCtxSetCurrent", "cuCtxSetCurrent", "cuCtxPushCurrent_v2"])
    w.call(verb, c_void_p(w.pick(r, "context", 0.02).value))


@op(1)
def context_pop(w, r):
    context = c_void_p()
    if w.call("cuCtxPopCurrent_v2", out(r, context)) == 0:
        w.tell(w.name(context))


@op()
def context_ask(w, r):
    context, place, flags, version = c_void_p(), c_int(-9), c_uint(), c_uint()
    if w.call("cuCtxGetCurrent", out(r, context)) == 0:
        w.tell(w.name(context))
    if w.call("cuCtxGetDevice", out(r, place)) == 0:
        w.tell(place.value)
    if w.call("cuCtxGetFlags", out(r, flags)) == 0:
        w.tell(flags.value)
    if w.call("cuCtxGetApiVersion", c_void_p(w.pick(r, "context").value), out(r, version)) == 0:
        w.tell(version.value)


@op(1)
def context_synchronize(w, r):
    w.call("cuCtxSynchronize")


@op(1)
def context_limit(w, r):
    limit, value = c_uint(r.choice([0, 1, 2, 3, 99])), c_size_t()
    if r.random() < 0.5:
        w.call("cuCtxSetLimit", limit, c_size_t(a_size(r)))
    if w.call("cuCtxGetLimit", out(r, value), limit) == 0:
        w.tell(value.value)


# --- memory

@op(10)
def alloc(w, r):
    address, size = c_ulonglong(), a_size(r)
    if w.call("cuMemAlloc_v2", out(r, address), c_size_t(size)) == 0:
        w.add("mem", address, size)


@op(1)
def alloc_v1(w, r):
    """Freed at once: what lies beside it, so low in memory, is not the driver's choice."""
    address = c_uint()
    if w.call("cuMemAlloc", out(r, address), c_uint(a_size(r) & 0xFFFFFFFF)) == 0:
        w.call("cuMemGetInfo_v2", byref(free_bytes := c_size_t()), None)
        w.tell(free_bytes.value)
        w.call("cuMemFree", address)


@op(3)
def alloc_managed(w, r):
    address, size = c_ulonglong(), a_size(r)
    if w.call("cuMemAllocManaged", out(r, address), c_size_t(size), c_uint(r.choice([1, 1, 1, 2, 0, 3, 99]))) == 0:
        w.add("mem", address, size)


@op(3)
def alloc_pitch(w, r):
    address, pitch = c_ulonglong(), c_size_t()
    width, height = r.choice([0, 1, 500, 512, 4096, 1 << 33, 1 << 63]), r.choice([0, 1, 7, 1024, 1 << 33])
    element = r.choice([4, 8, 16, 16, 3, 0])
    if w.call("cuMemAllocPitch_v2", out(r, address), out(r, pitch), c_size_t(width), c_size_t(height), c_uint(element)) == 0:
        w.tell(pitch.value)
        w.add("mem", address, pitch.value * height)


@op(10)
def free(w, r):
    thing = w.pick_address(r, ("mem", "mem", "mem", "mem", "range", "hostmem"))
    if w.call("cuMemFree_v2", c_ulonglong(thing.value)) == 0:
        w.drop(thing)


@op(1)
def free_v1(w, r):
    w.call("cuMemFree", c_uint(r.choice([0, 0x7000, 0xFFFFFFFF])))


@op(6)
def alloc_async(w, r):
    address, size = c_ulonglong(), a_size(r)
    if w.call(zptr(r, "cuMemAllocAsync"), out(r, address), c_size_t(size), w.stream(r)) == 0:
        w.add("mem", address, size)


@op(5)
def alloc_from_pool(w, r):
    address, size, pool = c_ulonglong(), a_size(r), c_void_p(w.pick(r, "pool").value)
    if w.call(zptr(r, "cuMemAllocFromPoolAsync"), out(r, address), c_size_t(size), pool, w.stream(r)) == 0:
        w.add("mem", address, size)


@op(8)
def free_async(w, r):
    thing, stream = w.pick_address(r), w.stream(r)
    if w.call(zptr(r, "cuMemFreeAsync"), c_ulonglong(thing.value), stream) == 0:
        w.drop(thing)
        settle(w, stream)


@op(2)
def host_alloc(w, r):
    address, size = c_void_p(), r.choice([0, 1, 4096, MIB, 1 << 63])
    if r.random() < 0.5:
        status = w.call("cuMemAllocHost_v2", out(r, address), c_size_t(size))
    else:
        status = w.call("cuMemHostAlloc", out(r, address), c_size_t(size), c_uint(r.choice([0, 1, 2, 3, 4, 64, 99])))
    if status == 0:
        w.add("hostmem", address, size)


@op(1)
def host_free(w, r):
    thing = w.pick_address(r, ("hostmem", "hostmem", "mem"))
    if w.call("cuMemFreeHost", c_void_p(thing.value)) == 0:
        w.drop(thing)


@op(1)
def host_ask(w, r):
    thing, address, flags = w.pick_address(r, ("hostmem",)), c_ulonglong(), c_uint()
    if w.call("cuMemHostGetDevicePointer_v2", out(r, address), c_void_p(thing.value), c_uint(r.choice([0, 0, 1]))) == 0:
        w.tell(w.name(address))
    if w.call("cuMemHostGetFlags", out(r, flags), c_void_p(thing.value)) == 0:
        w.tell(flags.value)


# --- pools

@op(2)
def pool_create(w, r):
    pool = c_void_p()
    props = PoolProps(type=r.choice([1, 1, 1, 0, 2]), location=Location(r.choice([1, 1, 1, 0, 3, 9]), r.choice([0, 0, 1, 9])),
                      max=r.choice([0, 0, MIB, 64 * MIB, 1 << 63]))
    if w.call("cuMemPoolCreate", out(r, pool), out(r, props)) == 0:
        w.add("pool", pool)
        w.add("ownpool", pool)


@op(1)
def pool_destroy(w, r):
    thing = w.pick(r, "ownpool")
    if w.call("cuMemPoolDestroy", c_void_p(thing.value)) == 0:
        for other in w.live("pool"):
            if other.value == thing.value:
                w.drop(other)
        w.drop(thing)


@op(2)
def pool_of_device(w, r):
    pool = c_void_p()
    if w.call(r.choice(["cuDeviceGetDefaultMemPool", "cuDeviceGetMemPool"]), out(r, pool), device(r)) == 0:
        w.add("pool", pool)
    if r.random() < 0.3:
        w.call("cuDeviceSetMemPool", device(r), c_void_p(w.pick(r, "pool").value))


@op(2)
def pool_attributes(w, r):
    pool, attribute, value = c_void_p(w.pick(r, "pool").value), c_uint(r.randrange(0, 11)), c_ulonglong()
    if r.random() < 0.4:
        value.value = r.choice([0, 1, MIB, (1 << 64) - 1])
        w.call("cuMemPoolSetAttribute", pool, attribute, out(r, value))
    value.value = 0
    if w.call("cuMemPoolGetAttribute", pool, attribute, out(r, value)) == 0:
        w.tell(value.value)


@op(2)
def pool_trim(w, r):
    w.call("cuMemPoolTrimTo", c_void_p(w.pick(r, "pool").value), c_size_t(a_size(r)))


# --- virtual memory

def prop(r):
    kind = r.choice([1, 1, 1, 1, 1, 1, 2, 3, 0, 99])
    return AllocationProp(type=r.choice([1, 1, 1, 1, 1, 0]), handles=r.choice([0, 0, 1]),
                          location=Location(kind, r.choice([0, 0, 0, 1, -1, 12345])))


@op(1)
def granularity(w, r):
    value, wanted = c_size_t(), prop(r)
    if w.call("cuMemGetAllocationGranularity", out(r, value), out(r, wanted), c_int(r.choice([0, 1, 2]))) == 0:
        w.tell(value.value)


@op(5)
def physical_create(w, r):
    handle, wanted, size = c_ulonglong(), prop(r), r.choice([2, 4, 6, 64, 256]) * MIB
    if r.random() < 0.1:
        size = a_size(r)
    if w.call("cuMemCreate", out(r, handle), c_size_t(size), out(r, wanted), c_ulonglong(r.choice([0, 0, 0, 0, 1]))) == 0:
        w.add("physical", handle, size)


@op(3)
def physical_release(w, r):
    thing = w.pick(r, "physical")
    if w.call("cuMemRelease", c_ulonglong(thing.value)) == 0:
        w.drop(thing)


@op(2)
def physical_properties(w, r):
    wanted = AllocationProp()
    if w.call("cuMemGetAllocationPropertiesFromHandle", out(r, wanted), c_ulonglong(w.pick(r, "physical").value)) == 0:
        w.tell(wanted.type, wanted.location.type, wanted.location.id)


@op(3)
def range_reserve(w, r):
    address, size = c_ulonglong(), r.choice([2, 4, 6, 64, 256]) * MIB
    if r.random() < 0.1:
        size = a_size(r)
    if w.call("cuMemAddressReserve", out(r, address), c_size_t(size), c_size_t(0), c_ulonglong(0), c_ulonglong(0)) == 0:
        w.add("range", address, size)


@op(1)
def range_free(w, r):
    thing = w.pick_address(r, ("range",))
    if w.call("cuMemAddressFree", c_ulonglong(thing.value), c_size_t(thing.size)) == 0:
        w.drop(thing)


@op(5)
def range_map(w, r):
    place, physical = w.pick(r, "range"), w.pick(r, "physical")
    offset = r.choice([0, 0, 0, 2 * MIB]) if place.size > 2 * MIB else 0
    size = min(physical.size, max(place.size - offset, 0)) if r.random() < 0.9 else a_size(r)
    inner = r.choice([0, 0, 0, 0, 2 * MIB, 1])
    status = w.call("cuMemMap", c_ulonglong(place.value + offset), c_size_t(size), c_size_t(inner), c_ulonglong(physical.value),
                    c_ulonglong(r.choice([0, 0, 0, 0, 1])))
    if status == 0:
        w.add("mapping", place.value + offset, size)


@op(3)
def range_unmap(w, r):
    thing = w.pick_address(r, ("mapping", "mapping", "mapping", "range"))
    if w.call("cuMemUnmap", c_ulonglong(thing.value), c_size_t(thing.size)) == 0:
        w.where(thing.value, thing.size)


@op(3)
def range_access(w, r):
    thing, flags = w.pick_address(r, ("mapping",)), c_ulonglong(99)
    wanted = AccessDesc(Location(r.choice([1, 1, 1, 0, 2]), r.choice([0, 0, 1, 9])), r.choice([3, 3, 1, 0, 7]))
    w.call("cuMemSetAccess", c_ulonglong(thing.value), c_size_t(thing.size), out(r, wanted), c_size_t(r.choice([1, 1, 1, 0])))
    if w.call("cuMemGetAccess", out(r, flags), byref(Location(1, r.choice([0, 1]))), c_ulonglong(thing.value)) == 0:
        w.tell(flags.value)


@op(2)
def physical_retain(w, r):
    handle, thing = c_ulonglong(), w.pick_address(r, ("mapping", "mapping", "mem"))
    if w.call("cuMemRetainAllocationHandle", out(r, handle), c_void_p(thing.value)) == 0:
        w.add("physical", handle, thing.size)


# --- arrays

@op(2)
def array_create(w, r):
    array = c_void_p()
    wanted = ArrayDesc(r.choice([0, 1, 64, 1000, 1 << 40]), r.choice([0, 0, 1, 64]), r.choice([1, 2, 3, 0x20, 0x10, 99]),
                       r.choice([1, 2, 4, 3, 0]))
    if w.call("cuArrayCreate_v2", out(r, array), out(r, wanted)) == 0:
        w.add("array", array)


@op(2)
def array_create_3d(w, r):
    array = c_void_p()
    wanted = Array3dDesc(r.choice([0, 1, 64, 1000]), r.choice([0, 1, 64]), r.choice([0, 0, 1, 6, 16]),
                         r.choice([1, 2, 3, 0x20, 99]), r.choice([1, 2, 4]), r.choice([0, 0, 1, 2, 4, 0x80, 0x40, 0x1000]))
    if r.random() < 0.6:
        if w.call("cuArray3DCreate_v2", out(r, array), out(r, wanted)) == 0:
            w.add("array", array)
    elif w.call("cuMipmappedArrayCreate", out(r, array), out(r, wanted), c_uint(r.choice([1, 2, 4, 0, 99]))) == 0:
        w.add("mipmap", array)


@op(2)
def array_destroy(w, r):
    kind, verb = r.choice([("array", "cuArrayDestroy"), ("mipmap", "cuMipmappedArrayDestroy")])
    thing = w.pick(r, kind)
    if w.call(verb, c_void_p(thing.value)) == 0:
        w.drop(thing)


@op(2)
def array_ask(w, r):
    said, needs = Array3dDesc(), Requirements()
    array = c_void_p(w.pick(r, "array").value)
    if w.call("cuArray3DGetDescriptor_v2", out(r, said), array) == 0:
        w.tell(said.width, said.height, said.depth, said.format, said.channels, said.flags)
    if w.call("cuArrayGetMemoryRequirements", out(r, needs), array, device(r)) == 0:
        w.tell(needs.size, needs.alignment)
    level = c_void_p()
    if w.call("cuMipmappedArrayGetLevel", out(r, level), c_void_p(w.pick(r, "mipmap").value), c_uint(r.choice([0, 0, 1, 99]))) == 0:
        w.tell(w.name(level))


# --- what memory looks like

@op(8)
def memory_info(w, r):
    free_bytes, total = c_size_t(), c_size_t()
    if w.call("cuMemGetInfo_v2", out(r, free_bytes), out(r, total)) == 0:
        w.tell(free_bytes.value, total.value)
    if r.random() < 0.2:
        low_free, low_total = c_uint(), c_uint()
        if w.call("cuMemGetInfo", out(r, low_free), out(r, low_total)) == 0:
            w.tell(low_free.value, low_total.value)


@op(1)
def device_total(w, r):
    total, low = c_size_t(), c_uint()
    if w.call("cuDeviceTotalMem_v2", out(r, total), device(r)) == 0:
        w.tell(total.value)
    if w.call("cuDeviceTotalMem", out(r, low), device(r)) == 0:
        w.tell(low.value)


@op(2)
def device_ask(w, r):
    value, place, count, text = c_int(), c_int(-9), c_int(), ctypes.create_string_buffer(64)
    if w.call("cuDeviceGetAttribute", out(r, value), c_int(r.randrange(0, 150)), device(r)) == 0:
        w.tell(value.value)
    if w.call("cuDeviceGet", out(r, place), c_int(r.choice([0, 1, 2, -1]))) == 0:
        w.tell(place.value)
    if w.call("cuDeviceGetCount", out(r, count)) == 0:
        w.tell(count.value)
    if w.call("cuDeviceGetUuid_v2", text, device(r)) == 0:
        w.tell(text.raw[:16].hex())


@op(4)
def pointer_ask(w, r):
    thing = w.pick_address(r, ("mem", "mem", "hostmem", "mapping", "range"))
    attribute = r.choice([1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 15, 16, 17, 20, 99])
    value = (c_ulonglong * 2)()
    if w.call("cuPointerGetAttribute", None if r.random() < 0.03 else value, c_uint(attribute), c_ulonglong(thing.value)) == 0:
        w.tell(attribute, w.name(value[0]) if attribute in (1, 3, 4, 11, 17) else [value[0], value[1]] if attribute != 7 else 0)


@op(2)
def address_range(w, r):
    base, size = c_ulonglong(), c_size_t()
    thing = w.pick_address(r, ("mem", "mem", "hostmem", "mapping", "range"))
    if w.call("cuMemGetAddressRange_v2", out(r, base), out(r, size), c_ulonglong(thing.value)) == 0:
        w.tell(w.name(base), size.value)


@op(1)
def advise(w, r):
    thing = w.pick_address(r)
    w.call("cuMemAdvise", c_ulonglong(thing.value), c_size_t(thing.size), c_uint(r.choice([1, 2, 3, 5, 99])), device(r))
    w.call(zptr(r, "cuMemPrefetchAsync"), c_ulonglong(thing.value), c_size_t(thing.size), device(r), w.stream(r))


# --- contents

def length(r, thing):
    longest = min(thing.size, ROOM)
    return r.choice([0, 1, longest // 2, longest, longest])


@op(6)
def fill(w, r):
    thing = w.pick_address(r, ("mem", "mem", "mapping"))
    n, value = length(r, thing), r.randrange(256)
    if r.random() < 0.5:
        w.call(r.choice(["cuMemsetD8_v2", "cuMemsetD8_v2_ptds"]), c_ulonglong(thing.value), c_ubyte(value), c_size_t(n))
    else:
        w.call(zptr(r, "cuMemsetD32Async"), c_ulonglong(thing.value), c_uint(value * 0x01020304 & 0xFFFFFFFF), c_size_t(n // 4), (stream := w.stream(r)))
        settle(w, stream)


@op(6)
def write(w, r):
    thing = w.pick_address(r, ("mem", "mem", "mapping"))
    n = length(r, thing)
    ctypes.memmove(w.host, bytes([r.randrange(256)]) * n + b"x", n)
    if r.random() < 0.05:
        n = min(thing.size + 1, ROOM)
    w.call(r.choice(["cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2_ptds"]), c_ulonglong(thing.value), w.host, c_size_t(n))


@op(6)
def read(w, r):
    thing = w.pick_address(r, ("mem", "mem", "mapping"))
    n = length(r, thing)
    if r.random() < 0.6:
        status = w.call("cuMemcpyDtoH_v2", w.host, c_ulonglong(thing.value), c_size_t(n))
    else:
        stream = w.stream(r)
        status = w.call(zptr(r, "cuMemcpyDtoHAsync_v2"), w.host, c_ulonglong(thing.value), c_size_t(n), stream)
        settle(w, stream)
    if status == 0:
        w.tell(zlib.crc32(w.host.raw[:n]))


@op(3)
def copy(w, r):
    left, right = w.pick_address(r), w.pick_address(r)
    n = min(length(r, left), length(r, right))
    w.call("cuMemcpyDtoD_v2", c_ulonglong(left.value), c_ulonglong(right.value), c_size_t(n))


# --- streams, events, kernels

@op(2)
def stream_create(w, r):
    stream = c_void_p()
    if r.random() < 0.5:
        status = w.call("cuStreamCreate", out(r, stream), c_uint(r.choice([0, 1, 1, 99])))
    else:
        status = w.call("cuStreamCreateWithPriority", out(r, stream), c_uint(r.choice([0, 1])), c_int(r.choice([0, -1, 5])))
    if status == 0:
        w.add("stream", stream)


@op(1)
def stream_destroy(w, r):
    thing = w.pick(r, "stream")
    if w.call("cuStreamDestroy_v2", c_void_p(thing.value)) == 0:
        w.drop(thing)


@op(2)
def stream_ask(w, r):
    stream, context, flags, state = w.stream(r), c_void_p(), c_uint(), c_int()
    w.call(r.choice(["cuStreamSynchronize", "cuStreamQuery", "cuStreamSynchronize_ptsz"]), stream)
    if w.call("cuStreamGetCtx", stream, out(r, context)) == 0:
        w.tell(w.name(context))
    if w.call("cuStreamGetFlags", stream, out(r, flags)) == 0:
        w.tell(flags.value)
    if w.call("cuStreamIsCapturing", stream, out(r, state)) == 0:
        w.tell(state.value)


@op(2)
def event(w, r):
    made = c_void_p()
    if w.call("cuEventCreate", out(r, made), c_uint(r.choice([0, 1, 2, 3, 99]))) == 0:
        w.add("event", made)
    chosen, other = c_void_p(w.pick(r, "event").value), c_void_p(w.pick(r, "event").value)
    w.call(zptr(r, "cuEventRecord"), chosen, w.stream(r))
    w.call(zptr(r, "cuStreamWaitEvent"), w.stream(r), other, c_uint(r.choice([0, 0, 1])))
    w.call(r.choice(["cuEventQuery", "cuEventSynchronize"]), chosen)
    milliseconds = ctypes.c_float()
    w.call("cuEventElapsedTime", out(r, milliseconds), chosen, other)


@op(1)
def event_destroy(w, r):
    thing = w.pick(r, "event")
    if w.call("cuEventDestroy_v2", c_void_p(thing.value)) == 0:
        w.drop(thing)


@op(2)
def module(w, r):
    made, function = c_void_p(), c_void_p()
    if w.call("cuModuleLoadData", out(r, made), w.module_image if r.random() < 0.95 else None) == 0:
        w.add("module", made)
    if w.call("cuModuleGetFunction", out(r, function), c_void_p(w.pick(r, "module").value), r.choice([b"quick", b"plain", b"none"])) == 0:
        w.add("function", function)


@op(1)
def module_unload(w, r):
    thing = w.pick(r, "module")
    if w.call("cuModuleUnload", c_void_p(thing.value)) == 0:
        w.drop(thing)
        for function in w.live("function"):
            w.drop(function)


@op(6)
def launch(w, r):
    a, b = c_ulonglong(1), c_uint(2)
    parameters = (c_void_p * 2)(ctypes.addressof(a), ctypes.addressof(b))
    grid, block = r.choice([1, 1, 100, 0, 1 << 31]), r.choice([1, 32, 256, 0, 2048])
    w.call(zptr(r, "cuLaunchKernel"), c_void_p(w.pick(r, "function").value), *(c_uint(n) for n in (grid, 1, 1, block, 1, 1)),
           c_uint(r.choice([0, 0, 1024, 1 << 20])), w.stream(r), parameters, None)


# --- graphs

@op(2)
def graph_create(w, r):
    graph = c_void_p()
    if w.call("cuGraphCreate", out(r, graph), c_uint(r.choice([0, 0, 0, 1]))) == 0:
        w.add("graph", graph)


@op(4)
def graph_node(w, r):
    node, graph = c_void_p(), c_void_p(w.pick(r, "graph").value)
    which = r.randrange(4)
    if which == 0:
        status = w.call("cuGraphAddEmptyNode", out(r, node), graph, None, c_size_t(0))
    elif which == 1:
        target = w.pick_address(r)
        wanted = FillNode(target.value, 0, 7, 1, max(length(r, target), 0), 1)
        status = w.call("cuGraphAddMemsetNode", out(r, node), graph, None, c_size_t(0), out(r, wanted), c_void_p(w.pick(r, "context").value))
    elif which == 2:
        wanted = AllocNode(pool=PoolProps(type=1, location=Location(r.choice([1, 1, 1, 3]), r.choice([0, 0, 1, 9]))), size=a_size(r))
        status = w.call("cuGraphAddMemAllocNode", out(r, node), graph, None, c_size_t(0), out(r, wanted))
        if status == 0:
            w.add("mem", wanted.pointer, wanted.size)
    else:
        status = w.call("cuGraphAddMemFreeNode", out(r, node), graph, None, c_size_t(0), c_ulonglong(w.pick_address(r).value))
    if status == 0:
        w.add("node", node)


@op(3)
def graph_instantiate(w, r):
    made, graph, flags = c_void_p(), c_void_p(w.pick(r, "graph").value), c_ulonglong(r.choice([0, 0, 1, 99]))
    if w.call("cuGraphInstantiateWithFlags", out(r, made), graph, flags) == 0:
        w.add("exec", made)


@op(4)
def graph_launch(w, r):
    stream = w.stream(r)
    w.call(r.choice([zptr(r, "cuGraphLaunch"), zptr(r, "cuGraphLaunch"), "cuGraphUpload"]), c_void_p(w.pick(r, "exec").value), stream)
    settle(w, stream)


@op(1)
def graph_destroy(w, r):
    kind, verb = r.choice([("graph", "cuGraphDestroy"), ("exec", "cuGraphExecDestroy")])
    thing = w.pick(r, kind)
    if w.call(verb, c_void_p(thing.value)) == 0:
        w.drop(thing)


@op(2)
def graph_memory(w, r):
    value, place = c_ulonglong(), device(r)
    if r.random() < 0.3:
        w.call("cuDeviceGraphMemTrim", place)
    if w.call("cuDeviceGetGraphMemAttribute", place, c_uint(r.randrange(0, 5)), out(r, value)) == 0:
        w.tell(value.value)


@op(2)
def capture(w, r):
    stream, graph = c_void_p(w.pick(r, "stream").value), c_void_p()
    w.call(zptr(r, "cuStreamBeginCapture_v2"), stream, c_uint(r.choice([0, 1, 2, 2, 99])))
    address = c_ulonglong()
    for _ in range(r.randrange(3)):
        if w.call("cuMemAllocAsync", byref(address), c_size_t(r.choice([512, MIB])), stream) == 0:
            size = w.name(address)
            w.call("cuMemsetD8Async", address, c_ubyte(3), c_size_t(512), stream)
            w.call("cuMemFreeAsync", address, stream)
            w.tell(size)
    w.call("cuMemGetInfo_v2", byref(c_size_t()), byref(c_size_t()))
    if w.call(zptr(r, "cuStreamEndCapture"), stream, out(r, graph)) == 0 and graph.value:
        w.add("graph", graph)


# --- everything else

@op(4)
def look_up(w, r):
    address, answer = c_void_p(), c_int(-9)
    name = None if r.random() < 0.03 else c_char_p(r.choice(NAMES).encode())
    flags, version = c_ulonglong(r.choice([0, 0, 1, 2, 2, 3, 99])), c_int(r.choice(VERSIONS))
    if r.random() < 0.7:
        if w.call("cuGetProcAddress_v2", name, out(r, address), version, flags, out(r, answer)) == 0:
            w.tell(bool(address.value), answer.value)
        else:
            w.tell(bool(address.value), answer.value)
    elif w.call("cuGetProcAddress", name, out(r, address), version, flags) == 0:
        w.tell(bool(address.value))


@op(1)
def ipc(w, r):
    """In one process a handle can be made but not opened."""
    handle, address = ctypes.create_string_buffer(64), c_ulonglong()
    thing = w.pick_address(r)
    status = w.call("cuIpcGetMemHandle", handle, c_ulonglong(thing.value))
    if status == 0 and w.call("cuIpcOpenMemHandle_v2", out(r, address), handle, c_uint(r.choice([1, 1, 0]))) == 0:
        w.add("imported", address, thing.size)
    w.call("cuIpcCloseMemHandle", c_ulonglong(w.pick_address(r, ("imported", "mem")).value))


@op(1)
def init(w, r):
    w.call("cuInit", c_uint(r.choice([0, 0, 1])))


def prepare(w):
    """A context, and the node empty again after whoever was before."""
    w.call("cuInit", c_uint(0))
    context, end = c_void_p(), time.monotonic() + 5
    w.call("cuDevicePrimaryCtxRetain", byref(context), 0)
    w.add("context", context)
    w.call("cuCtxSetCurrent", context)
    free_bytes, total, footprint = c_size_t(), c_size_t(), int(os.environ["FOOTPRINT"])
    while time.monotonic() < end:
        cuda.cuMemGetInfo_v2(byref(free_bytes), byref(total))
        if free_bytes.value + footprint == total.value:
            break
        time.sleep(0.001)
    w.said[-1].append([free_bytes.value, total.value])


def play(seed, keep):
    """One line a step, of all calls that it made."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(120)
    w = World()
    prepare(w)
    print(json.dumps(["start", w.said]), flush=True)
    for step in keep:
        r = random.Random(seed * 1_000_003 + step)
        function = r.choice(OPS)
        if function.__name__ in WITHOUT:
            continue
        w.said = []
        function(w, r)
        sys.stdout.write(json.dumps([f"{step} {function.__name__}", w.said]) + "\n")
    sys.stdout.flush()


def serve():
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                play(wanted["seed"], wanted["keep"])
            except BaseException as error:
                print(json.dumps(["client", repr(error)]), flush=True)
            os._exit(0)
        print(f"end {os.waitpid(child, 0)[1]}", flush=True)


if __name__ == "__main__":
    serve()
