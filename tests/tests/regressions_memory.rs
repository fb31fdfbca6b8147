//! Bugs of other limiters, each a test by name: memory and loading. `docs/testing.md` says which bug of which project is
//! guarded by which test, here or in the suites of the limiter.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use limiter_world::{FOOTPRINT, QUOTA, World};
use serde_json::{Value, json};
use vgpu_core::DeviceUuid;
use vgpu_region::{DeviceLimits, LimitsWriter};
use vgpu_tests::Outcome;
use vgpu_tests::node::Node;

const UUID: &str = "GPU-11111111-1111-1111-1111-111111111111";

/// What the programs of this suite share.
const SHARED: &str = r#"
class Location(ctypes.Structure): _fields_ = [("type", c_int), ("id", c_int)]
class Prop(ctypes.Structure): _fields_ = [("type", c_int), ("handles", c_int), ("location", Location), ("win32", c_void_p), ("flags", c_ulonglong)]
PTX = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry plain() { ret; }\n\0"
used = lambda: info()[1] - info()[0]
p, n, h, s = c_ulonglong(), c_size_t(), c_ulonglong(), c_void_p()
"#;

/// A node of one large GPU.
fn world_with(vram_limit: u64, context_footprint: u64) -> World {
    let world = World::over(Node::described(&format!(
        "count = 1\n[[gpus]]\nuuid = \"{UUID}\"\n"
    )));
    world.grant(&[DeviceLimits {
        uuid: UUID.parse::<DeviceUuid>().unwrap().as_bytes(),
        capacity: 1 << 37,
        vram_limit,
        context_footprint,
        ..DeviceLimits::default()
    }]);
    world
}

fn world() -> World {
    world_with(QUOTA, FOOTPRINT)
}

fn run(world: &World, program: &str) -> Value {
    world.run(&format!("{SHARED}\n{program}"))
}

/// The same program over the driver alone.
fn bare(world: &World, program: &str) -> Value {
    let node = world.node.as_ref().unwrap();
    let mut command = world.client(&format!("{SHARED}\n{program}"));
    command.env(
        "LD_LIBRARY_PATH",
        node.root().join("usr/lib/x86_64-linux-gnu"),
    );
    let said = Outcome::of(&mut command).good();
    serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap()
}

/// HAMi-core#187: a host location's id is not read (it is junk in llama.cpp), and host memory is not VRAM.
#[test]
fn physical_memory_of_the_host_is_not_charged_whatever_its_id() {
    let program = r#"
start()
before, answers = used(), []
for kind in (2, 3, 4):
    for id in (0, -1, 12345):
        prop = Prop(type=1, location=Location(kind, id))
        answers.append(cuda.cuMemCreate(byref(h), size(128 * MIB), byref(prop), c_ulonglong(0)))
say(answers=answers, taken=used() - before)
"#;
    let world = world();
    let said = run(&world, program);
    assert_eq!(said["answers"], bare(&world, program)["answers"]);
    assert_eq!(said["taken"], 0);
}

/// HAMi-core's `cuMemRelease`: a mapping keeps memory, and its charge, alive; create, map and release is no way out.
#[test]
fn a_released_handle_stays_charged_while_it_is_mapped() {
    let said = run(
        &world(),
        r#"
start()
before, mapped, status = used(), 0, 0
prop = Prop(type=1, location=Location(1, 0))
ranges = []
while True:
    status = cuda.cuMemCreate(byref(h), size(2 * MIB), byref(prop), c_ulonglong(0))
    if status: break
    check(cuda.cuMemAddressReserve(byref(p), size(2 * MIB), size(0), c_ulonglong(0), c_ulonglong(0)))
    check(cuda.cuMemMap(p, size(2 * MIB), size(0), h, c_ulonglong(0)))
    check(cuda.cuMemRelease(h))
    ranges.append(p.value)
held = used() - before
for address in ranges: check(cuda.cuMemUnmap(c_ulonglong(address), size(2 * MIB)))
say(status=status, held=held, count=len(ranges), after=used() - before)
"#,
    );
    let room = (QUOTA - FOOTPRINT) >> 21;
    let expected = json!({"status": 2, "held": room << 21, "count": room, "after": 0});
    assert_eq!(said, expected);
}

/// TensorFusion's 32-bit flags of `cuMemCreate`: all 64 bits reach the driver.
#[test]
fn wide_flags_reach_the_driver() {
    let program = r#"
start()
prop = Prop(type=1, location=Location(1, 0))
say(wide=cuda.cuMemCreate(byref(h), size(2 * MIB), byref(prop), c_ulonglong(1 << 32)))
"#;
    let world = world();
    assert_eq!(run(&world, program), bare(&world, program));
    assert_eq!(run(&world, program), json!({"wide": 1}));
}

/// HAMi-core keeps addresses and handles in one list: here each is looked for in its own.
#[test]
fn an_address_is_no_handle_and_a_handle_no_address() {
    let said = run(
        &world(),
        r#"
start()
prop = Prop(type=1, location=Location(1, 0))
check(cuda.cuMemCreate(byref(h), size(2 * MIB), byref(prop), c_ulonglong(0)))
address = alloc(2 * MIB)[1]
before = used()
wrong = [free(h.value), cuda.cuMemRelease(c_ulonglong(address))]
same = used() == before
say(refused=all(wrong), same=same, right=[cuda.cuMemRelease(h), free(address)], after=before - used())
"#,
    );
    let expected = json!({"refused": true, "same": true, "right": [0, 0], "after": 4 << 20});
    assert_eq!(said, expected);
}

/// HAMi#1181, HAMi-core#200 (17 TB free) and HAMi#1370 (an error): a limit below what is in use shows nothing free.
#[test]
fn free_never_wraps_when_the_limit_falls_below_use() {
    let world = world();
    let writer = LimitsWriter::open(&world.region()).unwrap();
    let mut client = world.client(
        "start(); check(alloc(40 * MIB)[0]); say(ready=1); sys.stdin.readline(); say(shown=info(), more=alloc(1)[0])",
    );
    let mut child = client
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    lines.next().unwrap().unwrap();
    writer
        .edit(|limits| limits.devices[0].vram_limit = 10 << 20)
        .unwrap();
    drop(child.stdin.take());
    let said: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    child.wait().unwrap();
    assert_eq!(said, json!({"shown": [0, 10 << 20], "more": 2}));
}

/// HAMi#1370: a quota of next to nothing is shown as it is.
#[test]
fn a_tiny_quota_is_shown_and_no_error() {
    let said = run(
        &world_with(512, 0),
        "start(); say(shown=info(), one=alloc(512)[0], left=info()[0], more=alloc(1)[0])",
    );
    let expected = json!({"shown": [512, 512], "one": 0, "left": 0, "more": 2});
    assert_eq!(said, expected);
}

/// HAMi-core#55: the code on which frameworks free their caches and try again, on every path.
#[test]
fn out_of_quota_is_code_2_on_every_path() {
    let said = run(
        &world(),
        r#"
start()
big = 100 * MIB
prop = Prop(type=1, location=Location(1, 0))
pool = c_void_p()
check(cuda.cuDeviceGetDefaultMemPool(byref(pool), 0))
class Array(ctypes.Structure): _fields_ = [("w", c_size_t), ("h", c_size_t), ("format", c_uint), ("channels", c_uint)]
say(codes=[
    cuda.cuMemAlloc_v2(byref(p), size(big)), cuda.cuMemAllocManaged(byref(p), size(big), 1),
    cuda.cuMemAllocPitch_v2(byref(p), byref(n), size(1 << 16), size(big >> 16), 4),
    cuda.cuMemAllocAsync(byref(p), size(big), s), cuda.cuMemAllocAsync_ptsz(byref(p), size(big), s),
    cuda.cuMemAllocFromPoolAsync(byref(p), size(big), pool, s), cuda.cuMemAllocFromPoolAsync_ptsz(byref(p), size(big), pool, s),
    cuda.cuMemCreate(byref(h), size(big), byref(prop), c_ulonglong(0)),
    cuda.cuArrayCreate_v2(byref(s), byref(Array(16384, 16384, 0x20, 4))),
])
"#,
    );
    assert_eq!(said, json!({"codes": [2, 2, 2, 2, 2, 2, 2, 2, 2]}));
}

/// vcuda, TensorFusion, vgpu-manager: a one-dimensional array is not free, and bytes are not bits.
#[test]
fn arrays_cost_what_they_take() {
    let said = run(
        &world(),
        r#"
start()
class Array(ctypes.Structure): _fields_ = [("w", c_size_t), ("h", c_size_t), ("format", c_uint), ("channels", c_uint)]
taken = []
for shape in (Array(1 << 16, 0, 0x20, 4), Array(1024, 1024, 0x20, 4), Array(1024, 1024, 1, 1)):
    before = used()
    check(cuda.cuArrayCreate_v2(byref(s), byref(shape)))
    taken.append(used() - before)
    check(cuda.cuArrayDestroy(s))
    assert used() == before
say(taken=taken)
"#,
    );
    let taken = [(1_u64 << 16) * 16, 1 << 24, 1 << 20];
    for (charged, bytes) in said["taken"].as_array().unwrap().iter().zip(taken) {
        let charged = charged.as_u64().unwrap();
        assert!(
            (bytes..bytes + (2 << 20)).contains(&charged),
            "{charged} for {bytes}"
        );
    }
}

/// HAMi#2691, HAMi-core#281: UCX asks whether memory is managed, and must be told the truth.
#[test]
fn managed_memory_says_so_and_plain_memory_does_not() {
    let said = run(
        &world(),
        r#"
start()
plain, managed, answer = c_ulonglong(), c_ulonglong(), []
check(cuda.cuMemAlloc_v2(byref(plain), size(MIB)))
check(cuda.cuMemAllocManaged(byref(managed), size(MIB), 1))
for address in (plain, managed):
    value = c_uint(9)
    check(cuda.cuPointerGetAttribute(byref(value), 8, address))
    answer.append(value.value)
say(managed=answer)
"#,
    );
    assert_eq!(said, json!({"managed": [0, 1]}));
}

/// HAMi-core#333, #234 (OptiX): nulls where a result should go crash nothing and get the driver's answer.
#[test]
fn null_arguments_get_the_drivers_answer() {
    let program = r#"
start()
names = ["cuMemAlloc_v2", "cuMemAllocManaged", "cuMemAllocPitch_v2", "cuMemAllocAsync", "cuMemAllocFromPoolAsync", "cuMemFree_v2",
    "cuMemFreeAsync", "cuMemGetInfo_v2", "cuMemGetInfo", "cuDeviceTotalMem_v2", "cuDeviceTotalMem", "cuMemCreate", "cuMemRelease", "cuMemMap",
    "cuMemUnmap", "cuMemRetainAllocationHandle", "cuArrayCreate_v2", "cuArray3DCreate_v2", "cuMipmappedArrayCreate", "cuArrayDestroy",
    "cuCtxCreate_v2", "cuCtxCreate_v3", "cuCtxCreate_v4", "cuCtxDestroy_v2", "cuDevicePrimaryCtxRetain", "cuGetProcAddress",
    "cuGetProcAddress_v2", "cuMemPoolCreate", "cuMemPoolDestroy", "cuMemPoolTrimTo", "cuIpcGetMemHandle", "cuIpcOpenMemHandle_v2",
    "cuIpcCloseMemHandle", "cuGraphAddMemAllocNode", "cuLaunchKernel", "cuGraphLaunch", "cuMemImportFromShareableHandle", "cuImportExternalMemory"]
answers = {}
# Each call with nothing but zeroes.
for name in names: answers[name] = getattr(cuda, name)(*[c_void_p(0)] * 11)
say(**answers)
"#;
    let world = world();
    assert_eq!(run(&world, program), bare(&world, program));
}

/// HAMi#1360: what `torch.cuda.graph` does while its stream captures; a hook may not synchronise or allocate then.
#[test]
fn a_capture_survives_allocations_and_questions() {
    let said = run(
        &world(),
        r#"
start()
check(cuda.cuStreamCreate(byref(s), 1))
check(cuda.cuStreamBeginCapture_v2(s, 2))
plain = alloc(MIB)[0]
asked = info()[0] > 0
captured = cuda.cuMemAllocAsync(byref(p), size(MIB), s)
freed = cuda.cuMemFreeAsync(p, s)
graph = c_void_p()
ended = cuda.cuStreamEndCapture(s, byref(graph))
say(plain=plain, asked=asked, captured=captured, freed=freed, ended=ended, graph=bool(graph.value))
"#,
    );
    let expected =
        json!({"plain": 0, "asked": true, "captured": 0, "freed": 0, "ended": 0, "graph": true});
    assert_eq!(said, expected);
}

/// TensorFusion sent `cuLaunchKernel_ptsz` to the legacy stream: a capture of the thread's own stream sees the launch.
#[test]
fn per_thread_launches_stay_on_the_threads_stream() {
    let said = run(
        &world(),
        r#"
start()
module, function, graph = c_void_p(), c_void_p(), c_void_p()
check(cuda.cuModuleLoadData(byref(module), PTX))
check(cuda.cuModuleGetFunction(byref(function), module, b"plain"))
check(cuda.cuStreamBeginCapture_v2_ptsz(None, 2))
check(cuda.cuLaunchKernel_ptsz(function, 1, 1, 1, 1, 1, 1, 0, None, None, None))
check(cuda.cuStreamEndCapture_ptsz(None, byref(graph)))
check(cuda.cuGraphGetNodes(graph, None, byref(n)))
say(nodes=n.value)
"#,
    );
    assert_eq!(said, json!({"nodes": 1}));
}

/// NCCL and vLLM between processes: memory is charged to whoever allocated it, once.
#[test]
fn imported_memory_is_charged_to_its_owner_once() {
    let said = run(
        &world_with(QUOTA, 0),
        r#"
start()
child = r'''
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
c, p, f, t = ctypes.c_void_p(), ctypes.c_ulonglong(), ctypes.c_size_t(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0) == 0 and cuda.cuCtxSetCurrent(c) == 0
class Handle(ctypes.Structure): _fields_ = [("bytes", ctypes.c_ubyte * 64)]
h = Handle.from_buffer_copy(bytes.fromhex(sys.argv[1]))
out = []
def left():
    assert cuda.cuMemGetInfo_v2(ctypes.byref(f), ctypes.byref(t)) == 0
    return f.value
before = left()
out.append(cuda.cuIpcOpenMemHandle_v2(ctypes.byref(p), h, 1))
out.append(before - left())
out.append(cuda.cuIpcCloseMemHandle(p))
out.append(before - left())
print(out)
'''
address = alloc(40 * MIB)[1]
handle = ctypes.create_string_buffer(64)
check(cuda.cuIpcGetMemHandle(handle, c_ulonglong(address)))
answer = subprocess.run([sys.executable, "-c", child, handle.raw.hex()], capture_output=True, text=True)
say(child=answer.stdout.strip(), errors=answer.stderr, used=used())
"#,
    );
    let expected = json!({"child": "[0, 0, 0, 0]", "errors": "", "used": 40 << 20});
    assert_eq!(said, expected);
}

/// HAMi-core#181: a profiler that divides one number by another gets both from one place.
#[test]
fn every_total_is_the_same_number() {
    let said = run(
        &world(),
        r#"
start()
nvml = ctypes.CDLL("libnvidia-ml.so.1")
class Memory(ctypes.Structure): _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]
device, memory, total, low = c_void_p(), Memory(), c_size_t(), c_uint()
check(alloc(3 * MIB)[0])
check(nvml.nvmlInit_v2())
check(nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device)))
check(nvml.nvmlDeviceGetMemoryInfo(device, byref(memory)))
check(cuda.cuDeviceTotalMem_v2(byref(total), 0))
check(cuda.cuDeviceTotalMem(byref(low), 0))
say(totals=[info()[1], total.value, low.value, memory.total], same=memory.free == info()[0])
"#,
    );
    let expected = json!({"totals": [QUOTA, QUOTA, QUOTA, QUOTA], "same": true});
    assert_eq!(said, expected);
}

/// HAMi#1090: a process that is not root uses the region like any other.
#[test]
fn another_user_has_the_same_quota() {
    let world = world();
    let public = std::fs::Permissions::from_mode(0o755);
    for dir in [
        world.dir.path(),
        &world.region(),
        world.node.as_ref().unwrap().folder(),
    ] {
        std::fs::set_permissions(dir, public.clone()).unwrap();
    }
    let said = run(
        &world,
        r#"
if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
start()
say(shown=info(), root=os.getuid() == 0, over=alloc(64 * MIB)[0], under=alloc(MIB)[0])
"#,
    );
    let shown = json!([QUOTA - FOOTPRINT, QUOTA]);
    assert_eq!(
        said,
        json!({"shown": shown, "root": false, "over": 2, "under": 0})
    );
}

/// HAMi-core#52, #36, #233: a function that is newer than our table is found in the driver behind us.
#[test]
fn functions_of_a_newer_driver_are_found() {
    let said = World::scripted()
        .run(r#"start(); say(found=cuda.script_calls() > 0, absent=hasattr(cuda.handle, "cuNoSuchThing"))"#);
    assert_eq!(said, json!({"found": true, "absent": false}));
}

const LOOK_UPS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int cuMemAlloc_v2();
int main(void) {
  void *own = (void *)cuMemAlloc_v2, *handle = dlopen("libcuda.so.1", RTLD_NOW);
  for (int i = 0; i < 3; i++)
    printf("%d%d%d ", dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") == own, dlsym(RTLD_NEXT, "cuMemAlloc_v2") == own,
           dlsym(handle, "cuMemAlloc_v2") == own);
  printf("%d", dlvsym(handle, "cuMemAlloc_v2", "NO_SUCH_VERSION") == NULL);
  return 0;
}
"#;

/// HAMi#1834, HAMi#2903, HAMi-core PR#279, PR#315: every look-up, and the second one too, finds the same function.
#[test]
fn repeated_look_ups_find_the_same_function() {
    let world = World::scripted();
    let (source, program) = (world.dir.path().join("l.c"), world.dir.path().join("l"));
    std::fs::write(&source, LOOK_UPS).unwrap();
    let mut cc = Command::new("cc");
    cc.arg("-w").arg("-o").arg(&program).arg(&source).arg("-L");
    cc.arg(world.dir.path())
        .args(["-l:libcuda.so.1", "-Wl,--allow-shlib-undefined", "-ldl"]);
    Outcome::of(&mut cc).good();
    let said = Outcome::of(&mut world.command(&program)).good();
    assert_eq!(said, "111 111 111 1");
}

/// HAMi-core PR#215: its own place is not written into it; a moved directory works the same.
#[test]
fn the_directory_may_be_anywhere() {
    let world = world();
    let moved = world.dir.path().join("somewhere else, with spaces");
    std::fs::create_dir(&moved).unwrap();
    for name in ["libcuda.so.1", "libnvidia-ml.so.1", "driver", "region"] {
        std::fs::rename(world.dir.path().join(name), moved.join(name)).unwrap();
    }
    let mut client = world.client("start(); say(shown=info())");
    let said = Outcome::of(client.env("LD_LIBRARY_PATH", &moved)).good();
    assert_eq!(
        said.trim(),
        format!(r#"{{"shown": [{}, {QUOTA}]}}"#, QUOTA - FOOTPRINT)
    );
}
