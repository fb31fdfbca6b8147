//! The limiter over the simulated driver: whole processes, several at a time, one of them killed, and NVML's view.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use limiter_world::{FOOTPRINT, QUOTA, World};
use serde_json::{Value, json};
use vgpu_core::DeviceUuid;

/// A simulated node of two GPUs, of which the container has the second.
fn world() -> World {
    let world = World::simulated();
    world.grant(&[World::device(uuid(&world, 1))]);
    world
}

/// The UUID of a GPU of the simulated node, as the bare library says.
fn uuid(world: &World, index: u32) -> [u8; 16] {
    let library = world.dir.path().join("driver/libnvidia-ml-driver.so.1");
    let program = format!(
        r#"
import ctypes
nvml = ctypes.CDLL({library:?})
assert nvml.nvmlInit_v2() == 0
device, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
assert nvml.nvmlDeviceGetHandleByIndex_v2({index}, ctypes.byref(device)) == 0
assert nvml.nvmlDeviceGetUUID(device, text, 96) == 0
print(text.value.decode())
"#
    );
    let mut python = std::process::Command::new(vgpu_tests::built::python());
    let text = vgpu_tests::Outcome::of(python.arg("-c").arg(program)).good();
    text.trim().parse::<DeviceUuid>().unwrap().as_bytes()
}

/// A client that is killed when it is dropped, so that a failed test leaves none behind.
struct Waiting(Child);

impl Waiting {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that says something and then waits to be killed.
fn waiting(world: &World, program: &str) -> (Waiting, Value) {
    let mut client = world.client(&format!("{program}\nsignal.pause()"));
    let mut child = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (Waiting(child), serde_json::from_str(&line).unwrap())
}

#[test]
fn a_process_is_stopped_exactly_at_its_quota() {
    let world = world();
    let said = world.run(
        r#"
start(1)
shown = info()
total = c_size_t()
check(cuda.cuDeviceTotalMem_v2(byref(total), 1))
granted = 0
for step in (16 * MIB, MIB, 64 << 10, 4096, 512):
    while alloc(step)[0] == 0: granted += step
say(shown=shown, total=total.value, granted=granted, left=info()[0], other=cuda.cuDevicePrimaryCtxRetain(byref(CONTEXT), 0))
"#,
    );
    let room = QUOTA - FOOTPRINT;
    let expected =
        json!({"shown": [room, QUOTA], "total": QUOTA, "granted": room, "left": 0, "other": 2});
    assert_eq!(said, expected);
}

#[test]
fn every_kind_of_allocation_is_charged_and_given_back() {
    let world = world();
    let said = world.run(
        r#"
start(1)
begin = info()[0]
taken = []
def take(give_back, call):
    before = info()[0]
    check(call())
    taken.append(before - info()[0])
    check(give_back())
p, pitch, stream, pool = c_ulonglong(), c_size_t(), c_void_p(), c_void_p()
check(cuda.cuStreamCreate(byref(stream), 0))
check(cuda.cuDeviceGetDefaultMemPool(byref(pool), 1))
take(lambda: cuda.cuMemFree_v2(p), lambda: cuda.cuMemAlloc_v2(byref(p), size(MIB)))
take(lambda: cuda.cuMemFree_v2(p), lambda: cuda.cuMemAllocManaged(byref(p), size(MIB), 1))
take(lambda: cuda.cuMemFreeAsync(p, stream), lambda: cuda.cuMemAllocAsync(byref(p), size(MIB), stream))
take(lambda: cuda.cuMemFreeAsync(p, stream), lambda: cuda.cuMemAllocFromPoolAsync(byref(p), size(MIB), pool, stream))
take(lambda: cuda.cuMemFree_v2(p), lambda: cuda.cuMemAllocPitch_v2(byref(p), byref(pitch), size(1024), size(1024), c_uint(4)))
check(cuda.cuCtxSynchronize())
host = c_void_p()
take(lambda: cuda.cuMemFreeHost(host), lambda: cuda.cuMemAllocHost_v2(byref(host), size(MIB)))
say(taken=taken, end=info()[0] - begin)
"#,
    );
    // A pool reserves 32 MiB at a time, keeps them for the next one, and gives them back at a
    // synchronisation.
    let mib = 1 << 20;
    assert_eq!(
        said,
        json!({"taken": [mib, mib, 32 * mib, 0, mib, 0], "end": 0})
    );
}

#[test]
fn what_a_killed_process_held_is_shown_as_free_to_a_survivor() {
    let world = world();
    let said = world.run(
        r#"
nvml, device, memory = ctypes.CDLL("libnvidia-ml.so.1"), c_void_p(), (c_ulonglong * 3)()
check(nvml.nvmlInit_v2())
check(nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device)))
def used():
    free, total = info()
    check(nvml.nvmlDeviceGetMemoryInfo(device, memory))
    return [(total - free) // MIB, memory[2] // MIB]
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    start(1); check(alloc(32 * MIB)[0])
    os.write(write_end, b"1")
    signal.pause()
os.read(read_end, 1)
start(1)
both = used()
os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
time.sleep(0.05)
say(both=both, alone=used())
"#,
    );
    let own = FOOTPRINT >> 20;
    let both = 2 * own + 32;
    assert_eq!(said, json!({"both": [both, both], "alone": [own, own]}));
}

/// What a pool took from the driver for an allocation that does not fit is nobody's charge, so it goes back.
#[test]
fn a_refused_pool_keeps_nothing() {
    let world = world();
    let said = world.run(
        r#"
start(1)
def make():
    pool, most = c_void_p(), c_ulonglong(2**64 - 1)
    check(cuda.cuMemPoolCreate(byref(pool), (c_uint * 22)(1, 0, 1, 1)))
    check(cuda.cuMemPoolSetAttribute(pool, 4, byref(most)))  # the release threshold
    return pool
def take(pool):
    p = c_ulonglong()
    return cuda.cuMemAllocFromPoolAsync(byref(p), size(MIB), pool, None)
def reserved(pool):
    bytes = c_ulonglong()
    check(cuda.cuMemPoolGetAttribute(pool, 5, byref(bytes)))  # reserved
    return bytes.value // MIB
pools = [make() for _ in range(4)]
status = [take(pool) for pool in pools]
held = [reserved(pool) for pool in pools]
free, total = info()
say(status=status, held=held, used=(total - free) // MIB, again=[take(pool) for pool in pools])
"#,
    );
    let used = (FOOTPRINT >> 20) + 32;
    assert_eq!(
        said,
        json!({"status": [0, 2, 2, 2], "held": [32, 0, 0, 0], "used": used, "again": [0, 2, 2, 2]})
    );
}

/// Reserve, create, map, release the handle, unmap: as PyTorch's expandable segments and JAX do.
#[test]
fn virtual_memory_and_arrays_are_charged() {
    let world = world();
    let said = world.run(
        r#"
start(1)
begin = info()[0]
held = lambda: (begin - info()[0]) // MIB
prop = (c_uint * 16)(1, 0, 1, 1)
address, handle, n = c_ulonglong(), c_ulonglong(), size(8 * MIB)
check(cuda.cuMemAddressReserve(byref(address), n, size(0), c_ulonglong(0), c_ulonglong(0)))
check(cuda.cuMemCreate(byref(handle), n, prop, c_ulonglong(0)))
seen = [held()]
check(cuda.cuMemMap(address, n, size(0), handle, c_ulonglong(0)))
check(cuda.cuMemRelease(handle)); seen.append(held())
over = cuda.cuMemCreate(byref(handle), size(64 * MIB), prop, c_ulonglong(0))
check(cuda.cuMemUnmap(address, n)); seen.append(held())
array = c_void_p()
check(cuda.cuArrayCreate_v2(byref(array), (c_ulonglong * 3)(1 << 10, 1 << 10, 32 | 1 << 32))); seen.append(held() >= 4)
check(cuda.cuArrayDestroy(array)); seen.append(held())
say(seen=seen, over=over)
"#,
    );
    assert_eq!(said, json!({"seen": [8, 8, 0, true, 0], "over": 2}));
}

#[test]
fn processes_share_one_quota_and_a_killed_one_gives_back() {
    let world = world();
    let (mut holder, said) = waiting(&world, "start(1); say(got=alloc(40 * MIB)[0])");
    assert_eq!(said, json!({"got": 0}));
    let program = "start(1); first = alloc(40 * MIB)[0]; say(first=first, left=info()[0])";
    let left = QUOTA - 2 * FOOTPRINT - (40 << 20);
    assert_eq!(world.run(program), json!({"first": 2, "left": left}));
    holder.kill();
    let left = QUOTA - FOOTPRINT - (40 << 20);
    assert_eq!(world.run(program), json!({"first": 0, "left": left}));
    let after = vgpu_region::usage::read_summary(&world.region()).unwrap();
    assert!(after.iter().all(|process| !process.live));
}

#[test]
fn a_changed_limit_is_obeyed_by_a_running_process() {
    let world = world();
    let writer = vgpu_region::LimitsWriter::open(&world.region()).unwrap();
    let mut client = world.client(
        r#"
start(1)
first = alloc(40 * MIB)[0]
say(first=first)
sys.stdin.readline()
say(second=alloc(8 * MIB)[0], shown=info())
"#,
    );
    let mut child = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"first": 0}"#);
    writer
        .edit(|limits| limits.devices[0].vram_limit = 50 << 20)
        .unwrap();
    drop(child.stdin.take());
    let shown: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    child.wait().unwrap();
    assert_eq!(
        shown,
        json!({"second": 2, "shown": [(10 << 20) - FOOTPRINT, 50 << 20]})
    );
}

#[test]
fn many_processes_at_once_never_exceed_the_quota() {
    let world = world();
    let limits = vgpu_region::LimitsWriter::open(&world.region()).unwrap();
    limits
        .edit(|limits| limits.devices[0].context_footprint = 0)
        .unwrap();
    let program = r#"
start(1)
held = []
import random
random.seed(os.getpid())
deadline = time.time() + 1.5
while time.time() < deadline:
    status, address = alloc(random.randrange(1, 4 * MIB))
    if status == 0: held.append(address)
    else: assert status == 2, status
    assert info()[0] >= 0
    if held and random.random() < 0.6: check(free(held.pop(random.randrange(len(held)))))
say(done=True)
"#;
    let mut clients: Vec<Child> = (0..4)
        .map(|_| world.client(program).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let mut most = 0;
    while clients
        .iter_mut()
        .any(|client| client.try_wait().unwrap().is_none())
    {
        let observer = vgpu_region::Observer::open(&world.region()).unwrap();
        most = most.max(observer.used(0));
        assert!(observer.used(0) <= QUOTA);
        std::thread::yield_now();
    }
    assert!(
        clients
            .iter_mut()
            .all(|client| client.wait().unwrap().success())
    );
    assert!(most > QUOTA / 2, "only {most} bytes were ever in use");
    let said = world.run("start(1); say(left=info())");
    assert_eq!(
        said,
        json!({"left": [QUOTA, QUOTA]}),
        "what ended processes held is back"
    );
}

const NVML: &str = r#"
nvml = ctypes.CDLL("libnvidia-ml.so.1")
class Memory(ctypes.Structure): _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]
class Memory2(ctypes.Structure): _fields_ = [("version", c_uint), ("total", c_ulonglong), ("reserved", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]
class Process(ctypes.Structure): _fields_ = [("pid", c_uint), ("used", c_ulonglong), ("gpu", c_uint), ("compute", c_uint)]
class Process1(ctypes.Structure): _fields_ = [("pid", c_uint), ("used", c_ulonglong)]
assert nvml.nvmlInit_v2() == 0
def handle(index):
    device = c_void_p()
    assert nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device)) == 0
    return device
def memory(device):
    one, two = Memory(), Memory2(version=40 | 2 << 24)
    s = nvml.nvmlDeviceGetMemoryInfo(device, byref(one)), nvml.nvmlDeviceGetMemoryInfo_v2(device, byref(two))
    return [*s, one.total, one.free, one.used, two.total, two.free, two.used, two.reserved]
def processes(device, name, kind=Process, room=8):
    count, list = c_uint(room), (kind * 8)()
    status = getattr(nvml, name)(device, byref(count), list)
    return [status, count.value, [(p.pid, p.used) for p in list[:count.value]] if status == 0 else []]
"#;

#[test]
fn nvml_shows_the_quota_and_the_containers_processes() {
    let world = world();
    let (mut other, _) = waiting(&world, "start(1); say(got=alloc(8 * MIB)[0])");
    let said = world.run(&format!(
        r#"{NVML}
start(1)
alloc(16 * MIB)
device = handle(0)
lists = [processes(device, "nvmlDeviceGetComputeRunningProcesses" + v, k) for v, k in (("", Process1), ("_v2", Process), ("_v3", Process))]
none = [processes(device, f"nvmlDeviceGet{{what}}RunningProcesses" + v) for what in ("Graphics", "MPSCompute") for v in ("", "_v2", "_v3")]
small = processes(device, "nvmlDeviceGetComputeRunningProcesses_v3", room=1)
say(memory=memory(device), cuda=info(), lists=lists, none=none, small=small, own=os.getpid())
"#
    ));
    let used = 2 * FOOTPRINT + (24 << 20);
    let free = QUOTA - used;
    assert_eq!(
        said["memory"],
        json!([0, 0, QUOTA, free, used, QUOTA, free, used, 0])
    );
    assert_eq!(said["cuda"], json!([free, QUOTA]));
    let own = said["own"].as_u64().unwrap();
    let mut processes = [
        (u64::from(other.0.id()), FOOTPRINT + (8 << 20)),
        (own, FOOTPRINT + (16 << 20)),
    ];
    processes.sort_unstable();
    let list = json!([0, 2, processes]);
    assert_eq!(said["lists"], json!([list, list, list]));
    assert_eq!(said["none"], json!(vec![json!([0, 0, []]); 6]));
    assert_eq!(
        said["small"],
        json!([7, 2, []]),
        "too little room tells how much is needed"
    );
    other.kill();
    let said = world.run(&format!(
        r#"{NVML}say(list=processes(handle(0), "nvmlDeviceGetComputeRunningProcesses_v3"))"#
    ));
    assert_eq!(said, json!({"list": [0, 0, []]}), "the dead are not listed");
}

/// UUIDs, not ordinals: reordering the visible devices changes nothing.
#[test]
fn visible_devices_change_ordinals_and_no_quota() {
    let world = world();
    let mut client = world
        .client("start(0); say(shown=info()[1], got=alloc(40 * MIB)[0], over=alloc(40 * MIB)[0])");
    let outcome = vgpu_tests::Outcome::of(client.env("CUDA_VISIBLE_DEVICES", "1"));
    let said: Value = serde_json::from_str(outcome.good().trim()).unwrap();
    assert_eq!(said, json!({"shown": QUOTA, "got": 0, "over": 2}));
}
