//! NVML seen from inside: GPUs, memory, processes and use are the container's, and nothing of the node changes.
//! The limiter over the simulated driver; other tenants are clients of the node without the limiter.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::process::Command;

use limiter_world::{FOOTPRINT, QUOTA, World};
use serde_json::{Value, json};
use sim_gpu::client::{Kind, Node as Client};
use tempfile::TempDir;
use vgpu_region::{DeviceLimits, Limits, LimitsWriter};
use vgpu_tests::{Outcome, built};

const CLIENT: &str = include_str!("limiter_world/client.py");
const NVML: &str = include_str!("limiter_nvml/nvml.py");
const SCRIPTED: [(&str, &str); 2] = [
    ("libcuda.so.1", include_str!("limiter_world/driver.c")),
    ("libnvidia-ml.so.1", include_str!("limiter_nvml/driver.c")),
];
const SURVEY: &str = include_str!("limiter_nvml/survey.py");
/// What the simulated driver takes for a context.
const DRIVER_FOOTPRINT: u64 = 512 << 20;
/// `NVML_ERROR_*`.
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NO_PERMISSION: u32 = 4;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const FUNCTION_NOT_FOUND: u32 = 13;
const VERSION_MISMATCH: u32 = 25;

/// Class, name, and whether the row has a body.
fn rows() -> Vec<(&'static str, &'static str, bool)> {
    macro_rules! rows {
        ($({ $slot:literal $class:ident $name:ident [$($body:tt)*] $($rest:tt)* })*) => {
            vec![$((stringify!($class), stringify!($name), !stringify!($($body)*).is_empty())),*]
        };
    }
    vgpu_cuda_sys::nvml_table!(rows)
}

fn names(class: &str) -> Vec<&'static str> {
    let of_class = rows().into_iter().filter(|row| row.0 == class);
    of_class.map(|(_, name, _)| name).collect()
}

/// A process of the node that is in no container of ours: this one.
fn tenant(world: &World) -> Client {
    Client::connect(&world.node.as_ref().unwrap().root(), Kind::Cuda).unwrap()
}

fn limits(world: &World, gpu: usize) -> DeviceLimits {
    World::device(tenant(world).devices()[gpu].gpu.uuid_bytes())
}

/// A node of two GPUs, of which the container has the second.
fn world() -> World {
    let world = World::simulated();
    world.grant(&[limits(&world, 1)]);
    world
}

/// Both GPUs, without any limit.
fn unlimited() -> World {
    let world = World::simulated();
    let device = |gpu| DeviceLimits {
        vram_limit: u64::MAX,
        compute_limit: 100,
        context_footprint: DRIVER_FOOTPRINT,
        ..limits(&world, gpu)
    };
    world.grant(&[device(0), device(1)]);
    world
}

/// Libraries that do what the test says, of which the container has the first GPU. They live as long as the folder.
fn scripted() -> (World, TempDir) {
    let build = TempDir::new().unwrap();
    let [cuda, nvml] = SCRIPTED.map(|(name, source)| {
        let (library, file) = (
            build.path().join(name),
            build.path().join(name).with_extension("c"),
        );
        std::fs::write(&file, source).unwrap();
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-w", "-o"])
            .args([&library, &file])
            .arg(format!("-Wl,-soname,{name}"));
        Outcome::of(&mut compile).good();
        library
    });
    let world = World::in_front_of(&cuda, Some(&nvml));
    world.grant(&[DeviceLimits {
        compute_limit: 60,
        ..World::device([1; 16])
    }]);
    (world, build)
}

fn run(world: &World, program: &str) -> Value {
    world.run(&format!("{NVML}\n{program}"))
}

/// The same program over the bare driver.
fn bare(world: &World, program: &str) -> Value {
    let node = world.node.as_ref().unwrap();
    let mut python = Command::new(built::python());
    python
        .arg("-c")
        .arg(format!("{CLIENT}\n{NVML}\n{program}"))
        .env(
            "LD_LIBRARY_PATH",
            node.root().join("usr/lib/x86_64-linux-gnu"),
        );
    serde_json::from_str(Outcome::of(&mut python).good().trim()).unwrap()
}

#[test]
fn without_a_limit_it_is_the_bare_driver() {
    let world = unlimited();
    let program = format!("{SURVEY}\ninit()\nsay(found=survey())");
    let (ours, theirs) = (run(&world, &program), bare(&world, &program));
    let pairs = ours["found"].as_array().unwrap().iter();
    for (number, (ours, theirs)) in pairs.zip(theirs["found"].as_array().unwrap()).enumerate() {
        assert_eq!(ours, theirs, "answer {number} of the survey");
    }
    assert_eq!(ours, theirs);
}

/// Every hooked function, with nothing in any argument, before and after `nvmlInit`.
#[test]
fn nothing_in_every_argument_is_the_drivers_to_refuse() {
    let world = unlimited();
    let program = format!(
        "names = {:?}
call = lambda: [getattr(nvml, name)(*[None] * 6) for name in names]
before = call()
init()
say(before=before, after=call())",
        names("info")
    );
    let (ours, theirs) = (run(&world, &program), bare(&world, &program));
    assert_eq!(ours, theirs);
    assert_eq!(theirs["before"], json!(vec![1; names("info").len()]));
}

/// NVIDIA's own library, which finds no GPU: what it answers so early is what comes out.
#[test]
fn nvidias_own_library_refuses_in_its_own_words() {
    let Some(world) = World::real() else { return };
    let names = [names("info"), names("set")].concat();
    let program = format!(
        r#"
nvml = ctypes.CDLL("libnvidia-ml.so.1")
bare = ctypes.CDLL(os.path.realpath(os.environ["WORLD"] + "/driver/libnvidia-ml-driver.so.1"))
known = [name for name in {names:?} if hasattr(bare, name)]
call = lambda library: [getattr(library, name)(*[None] * 6) for name in known]
theirs = call(bare)
say(known=len(known), other=[name for name, a, b in zip(known, call(nvml), theirs) if a != b], first=nvml.nvmlInit_v2())"#
    );
    let said = world.run(&program);
    assert!(said["known"].as_u64().unwrap() > 60, "{said}");
    assert_eq!(said["other"], json!([]));
}

/// No third form of the lists, a MIG device, pids looked up among the host's.
#[test]
fn an_older_driver_with_mig_is_served() {
    let (world, _build) = scripted();
    let said = run(
        &world,
        r#"
init(); start(); alloc(MIB)
gpu, mig = handle(0), c_void_p()
check(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0, byref(mig)))
attributes = (c_uint * 10)()
lists = [processes(gpu, f"nvmlDeviceGetComputeRunningProcesses{form}") for form in ("_v2", "_v3")]
say(own=os.getpid(), counts=number("nvmlDeviceGetCount_v2"), lists=lists, rates=rates(gpu), used=used(gpu),
    mig=[memory(mig)[1], number("nvmlDeviceGetIndex", mig), nvml.nvmlDeviceGetAttributes_v2(mig, attributes), attributes[7:9]],
    found=[looked_up("nvmlDeviceGetHandleByUUID", f"{kind}-0{n}0{n}0{n}0{n}-0{n}0{n}-0{n}0{n}-0{n}0{n}-0{n}0{n}0{n}0{n}0{n}0{n}".encode()) for kind, n in (("GPU", 1), ("GPU", 2), ("MIG", 3))],
    names=[name(os.getpid()), name(0x7FFFFFFF)])"#,
    );
    let used = FOOTPRINT + (1 << 20);
    assert_eq!(said["counts"], json!([0, 1]));
    let listed = json!([0, 1, [[said["own"], used]]]);
    assert_eq!(said["lists"], json!([listed, [FUNCTION_NOT_FOUND, 8, []]]));
    assert_eq!(
        said["rates"],
        json!([0, 50, 25]),
        "30 % of the GPU is half of 60 %"
    );
    assert_eq!(said["used"], json!([0, 1, [[said["own"], 50]]]));
    let memory = json!([QUOTA, QUOTA - used, used]);
    assert_eq!(said["mig"], json!([memory, [0, 0], 0, [8, QUOTA >> 20]]));
    let found = json!([[0, [0, 0]], [NOT_FOUND, null], [0, [0, 0]]]);
    assert_eq!(said["found"], found);
    assert_eq!(said["names"], json!([[0, "host"], [NOT_FOUND, ""]]));
}

#[test]
fn a_driver_that_fails_is_believed_and_never_changed() {
    let (world, _build) = scripted();
    let said = run(
        &world,
        r#"
script = ctypes.CDLL(os.environ["WORLD"] + "/driver/libnvidia-ml-driver.so.1")
init(); start(); alloc(MIB)
gpu = handle(0)
script.script_fail(15)
lost = [*memory(gpu)[0][::2], rates(gpu)[0], used(gpu)[0], number("nvmlDeviceGetIndex", gpu)[0], processes(gpu, "nvmlDeviceGetComputeRunningProcesses_v2")[0]]
bad = [*memory(None)[0][::2], rates(None)[0]]
say(lost=lost, bad=bad, set=[nvml.nvmlDeviceSetComputeMode(gpu, 1), nvml.nvmlDeviceSetGpuLockedClocks(gpu, 1, 2), nvml.nvmlDeviceSetMigMode(gpu, 1, None)],
    changes=script.script_changes())"#,
    );
    assert_eq!(said["lost"], json!(vec![15; 6]));
    assert_eq!(said["bad"], json!(vec![15; 3]), "the driver judges first");
    assert_eq!(
        said["set"],
        json!(vec![NO_PERMISSION; 3]),
        "also what this driver lacks"
    );
    assert_eq!(said["changes"], json!(0));
}

#[test]
fn a_gpu_without_an_entry_does_not_exist() {
    let world = world();
    let node = tenant(&world);
    let other = &node.devices()[0].gpu;
    let own = &node.devices()[1].gpu;
    let look_ups = |gpu: &sim_gpu::config::GpuConfig| {
        format!(
            r#"[looked_up("nvmlDeviceGetHandleByUUID", b"{uuid}"),
looked_up("nvmlDeviceGetHandleByUUIDV", byref(Uuid(version(Uuid), 1, b"{uuid}"))),
looked_up("nvmlDeviceGetHandleBySerial", b"{}"),
looked_up("nvmlDeviceGetHandleByPciBusId", b"{bus}"), looked_up("nvmlDeviceGetHandleByPciBusId_v2", b"{bus}")]"#,
            gpu.serial,
            uuid = gpu.uuid,
            bus = gpu.pci_bus_id(),
        )
    };
    let said = run(
        &world,
        &format!(
            r#"
init()
counts = [number("nvmlDeviceGetCount"), number("nvmlDeviceGetCount_v2")]
first = handle(0)
indices = [looked_up(f"nvmlDeviceGetHandleByIndex{{form}}", index) for form in ("", "_v2") for index in (0, 1, 2, 4294967295)]
near = []
for function, *before in ("nvmlDeviceGetTopologyNearestGpus", first, 40), ("nvmlSystemGetTopologyGpuSet", 0):
    for room in (0, 8):
        count, list = c_uint(room), (c_void_p * 8)()
        near.append([getattr(nvml, function)(*before, byref(count), list), count.value, [d == first.value for d in list if d]])
say(counts=counts, uuid=uuid(first), minor=number("nvmlDeviceGetMinorNumber", first), indices=indices, near=near,
    own={}, other={}, names=[nvml.nvmlDeviceGetHandleByUUID(b"{}", None)])
"#,
            look_ups(own),
            look_ups(other),
            own.uuid
        ),
    );
    assert_eq!(said["counts"], json!([[0, 1], [0, 1]]));
    assert_eq!(said["uuid"], json!(own.uuid));
    assert_eq!(
        said["minor"],
        json!([0, 1]),
        "device nodes keep their names"
    );
    let absent = json!([INVALID_ARGUMENT, null]);
    let found = json!([0, [0, 0]]);
    let indices = [&found, &absent, &absent, &absent];
    assert_eq!(said["indices"], json!([indices, indices].concat()));
    assert_eq!(said["own"], json!(vec![found; 5]));
    let not_found = json!([NOT_FOUND, null]);
    assert_eq!(said["other"], json!(vec![not_found; 5]));
    assert_eq!(said["names"], json!([INVALID_ARGUMENT]));
    assert_eq!(
        said["near"],
        json!([[0, 0, []], [0, 0, []], [0, 1, []], [0, 1, [true]]])
    );
}

/// core#225, HAMi#1381: another device's limit under `CUDA_VISIBLE_DEVICES`.
/// <https://github.com/Project-HAMi/HAMi/issues/1381>
#[test]
fn issue_hami_1381_limits_follow_the_gpu_and_not_its_number() {
    let world = World::simulated();
    let small = DeviceLimits {
        vram_limit: QUOTA / 2,
        ..limits(&world, 0)
    };
    // In another order than the driver's.
    world.grant(&[limits(&world, 1), small]);
    let mut client = world.client(&format!(
        "{NVML}\ninit()\nstart(0)\nsay(cuda=info()[1], nvml=[memory(handle(i))[1][0] for i in (0, 1)])"
    ));
    let outcome = Outcome::of(client.env("CUDA_VISIBLE_DEVICES", "1"));
    let said: Value = serde_json::from_str(outcome.good().trim()).unwrap();
    assert_eq!(said, json!({"cuda": QUOTA, "nvml": [QUOTA / 2, QUOTA]}));
}

/// core#181: CUDA and NVML told a framework two different sizes. core#200, HAMi#1181: 17 TB were free.
/// <https://github.com/Project-HAMi/HAMi-core/issues/181>
#[test]
fn issue_core_181_all_sizes_come_from_one_snapshot() {
    let world = world();
    let neighbour = tenant(&world);
    neighbour.alloc(1, 1 << 30).unwrap();
    let program = "
init(); start(1)
got = alloc(16 * MIB)[0]
device = handle(0)
say(got=got, memory=memory(device), versions=[memory(device, v)[0][1] for v in (0, 3 << 24 | 40, 2 << 24 | 32)], cuda=info())";
    let said = run(&world, program);
    let used = FOOTPRINT + (16 << 20);
    let free = QUOTA - used;
    assert_eq!(said["cuda"], json!([free, QUOTA]));
    assert_eq!(
        said["memory"],
        json!([
            [0, 0, 0],
            [QUOTA, free, used],
            [QUOTA, 0, free, used],
            // The window of a card of this size.
            [QUOTA, QUOTA, 0]
        ])
    );
    assert_eq!(said["versions"], json!(vec![VERSION_MISMATCH; 3]));
    // More in use than is allowed now.
    let writer = LimitsWriter::open(&world.region()).unwrap();
    writer
        .edit(|limits| limits.devices[0].untracked = 2 * QUOTA)
        .unwrap();
    let said = run(&world, "init(); say(memory=memory(handle(0)))");
    assert_eq!(
        said["memory"][1],
        json!([QUOTA, 0, QUOTA]),
        "nothing is free, and nothing wraps"
    );
    assert_eq!(said["memory"][2], json!([QUOTA, 0, 0, QUOTA]));
}

/// The host's writer dies half-way: who has the page keeps what it knows.
#[test]
fn last_limits_hold_while_the_page_is_unsettled() {
    let world = world();
    let said = run(
        &world,
        r#"
init()
ask = lambda: [number("nvmlDeviceGetCount_v2"), memory(handle(0))[:2], rates(handle(0))]
before = ask()
with open(os.environ["WORLD"] + "/region/limits", "r+b", buffering=0) as page:
    page.seek(8)  # the sequence counter: odd while a writer is at work
    odd = int.from_bytes(page.read(8), sys.byteorder) | 1
    page.seek(8)
    page.write(odd.to_bytes(8, sys.byteorder))
say(before=before, after=ask(), later=subprocess.run([sys.executable, "-c", "import ctypes; print(ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2())"], capture_output=True, text=True).stdout)"#,
    );
    assert_eq!(said["before"], said["after"]);
    assert_eq!(said["after"][0], json!([0, 1]));
    assert_eq!(said["later"], json!("4\n"), "who comes later has no limits");
}

/// HAMi#1370: memory queries failed when the limit was smaller than what was in use.
/// <https://github.com/Project-HAMi/HAMi/issues/1370>
#[test]
fn issue_hami_1370_a_tiny_limit_is_an_answer() {
    let world = World::simulated();
    let tiny = DeviceLimits {
        vram_limit: 1,
        ..limits(&world, 1)
    };
    world.grant(&[tiny]);
    let said = run(&world, "init(); say(memory=memory(handle(0)))");
    assert_eq!(
        said["memory"],
        json!([[0, 0, 0], [1, 1, 0], [1, 0, 1, 0], [1, 1, 0]])
    );
}

/// HAMi#235, #700, #1339: no processes. HAMi#1864, core#195: figures of zero.
/// <https://github.com/Project-HAMi/HAMi/issues/235>
#[test]
fn issue_hami_235_processes_are_listed() {
    let world = world();
    let neighbour = tenant(&world);
    neighbour.context_add(1).unwrap();
    let said = run(
        &world,
        "
init(); start(1); alloc(16 * MIB)
device = handle(0)
say(own=os.getpid(), lists=every_list(device), small=every_list(device, 0),
    details=[details(device, mode) for mode in (0, 1, 2, 3)], room=details(device, 0, 0), old=details(device, form=7),
    names=[name(os.getpid()), name(os.getpid(), 4), name(0x7FFFFFFF)], expected=open('/proc/self/cmdline').read().split('\\0')[0])",
    );
    let own = json!([0, 1, [[said["own"], FOOTPRINT + (16 << 20)]]]);
    let none = json!([0, 0, []]);
    let lists = [vec![own.clone(); 3], vec![none.clone(); 6]].concat();
    assert_eq!(said["lists"], json!(lists), "the neighbour is not listed");
    let small = [
        vec![json!([INSUFFICIENT_SIZE, 1, []]); 3],
        vec![none.clone(); 6],
    ]
    .concat();
    assert_eq!(said["small"], json!(small));
    let refused = json!([INVALID_ARGUMENT, 8, []]);
    assert_eq!(said["details"], json!([own, none, none, refused]));
    assert_eq!(said["room"], json!([INSUFFICIENT_SIZE, 1, []]));
    assert_eq!(said["old"], json!([VERSION_MISMATCH, 8, []]));
    let program = said["expected"].as_str().unwrap();
    let cut: String = program.chars().take(3).collect();
    let names = json!([[0, program], [0, cut], [NOT_FOUND, ""]]);
    assert_eq!(said["names"], names);
}

#[test]
fn use_is_the_containers_own_relative_to_its_share() {
    let world = world();
    let neighbour = tenant(&world);
    neighbour.context_add(1).unwrap();
    neighbour.submit(1, 60_000_000_000).unwrap();
    let idle = "
init(); start(1); alloc(1)
time.sleep(1.2)
device = handle(0)
say(own=os.getpid(), rates=rates(device), samples=max(samples(device)[2]), used=used(device), info=used_info(device), accounting=accounting(device, os.getpid()), foreign=accounting(device, NEIGHBOUR)[2])"
        .replace("NEIGHBOUR", &std::process::id().to_string());
    let said = run(&world, &idle);
    let own = &said["own"];
    assert_eq!(
        said["rates"],
        json!([0, 0, 0]),
        "the neighbour's is not ours"
    );
    assert_eq!(said["samples"], json!(0));
    assert_eq!(said["used"], json!([0, 1, [[own, 0]]]));
    assert_eq!(said["info"], json!([0, 1, [[own, 0]]]));
    let bytes = DRIVER_FOOTPRINT + 1;
    assert!(said["accounting"][3].as_u64().unwrap() >= bytes);
    assert_eq!(said["accounting"][1], json!([own]));
    assert_eq!(said["accounting"][2], json!([0, 0]));
    assert_eq!(said["foreign"], json!([NOT_FOUND, NOT_FOUND]));
    let busy = idle.replace("time.sleep", "spin(60); time.sleep");
    let half = |said: &Value| {
        let figures = [&said["rates"][1], &said["used"][2][0][1], &said["samples"]];
        figures.map(|figure| figure.as_u64().unwrap())
    };
    let shown = half(&run(&world, &busy));
    assert!(
        shown.iter().all(|percent| (35..=65).contains(percent)),
        "{shown:?}"
    );
    let writer = LimitsWriter::open(&world.region()).unwrap();
    writer
        .edit(|limits| limits.devices[0].compute_limit = 25)
        .unwrap();
    let shown = half(&run(&world, &busy));
    assert_eq!(shown, [100; 3], "half of the GPU is more than a quarter");
}

#[test]
fn a_container_alone_on_its_gpu_sees_the_gpus_use() {
    let world = world();
    let program = "
init(); start(1); spin(60); time.sleep(1.2)
device = handle(0)
say(rates=rates(device), samples=max(samples(device)[2]), power=samples(device, 0)[0], room=[used(device, 0)[:2], used_info(device, 0)[:2]])";
    let said = run(&world, program);
    assert_eq!(said["rates"], json!([0, 100, 50]));
    assert_eq!(said["samples"], json!(100));
    assert_eq!(
        said["power"],
        json!(NOT_SUPPORTED),
        "the driver's own answer"
    );
    assert_eq!(said["room"], json!(vec![[INSUFFICIENT_SIZE, 1]; 2]));
}

/// Facts about the node's processes are in host pids there, and the container's in its own.
#[test]
fn pids_are_those_of_the_containers_namespace() {
    let world = world();
    let alone = "
init(); start(1); alloc(16 * MIB); spin(60); time.sleep(1.2)
device = handle(0)
say(own=os.getpid(), list=processes(device, 'nvmlDeviceGetComputeRunningProcesses_v3'), used=used(device), rates=rates(device)[:2], pids=accounting(device, os.getpid())[:3], name=name(os.getpid())[0])";
    let inside = |program: &str| {
        let client = world.client(&format!("{NVML}\n{program}"));
        let mut command = world.command("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--"])
            .arg(client.get_program())
            .args(client.get_args());
        Outcome::of(&mut command)
    };
    let probe = Outcome::of(Command::new("unshare").args(["--pid", "--fork", "true"]));
    if probe.code != 0 {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "{}",
            probe.stderr
        );
        eprintln!("SKIPPED: no pid namespace: {}", probe.stderr);
        return;
    }
    let answer = || serde_json::from_str::<Value>(inside(alone).good().trim()).unwrap();
    // Alone, and charged what the driver says that it takes.
    let writer = LimitsWriter::open(&world.region()).unwrap();
    let exact = |footprint, quota| {
        let change = |limits: &mut Limits| {
            limits.devices[0].context_footprint = footprint;
            limits.devices[0].vram_limit = quota;
        };
        writer.edit(change).unwrap();
    };
    exact(DRIVER_FOOTPRINT, 1 << 30);
    let bytes = DRIVER_FOOTPRINT + (16 << 20);
    let expected = json!({
        "own": 1, "list": [0, 1, [[1, bytes]]], "used": [0, 1, [[1, 100]]], "rates": [0, 100],
        "pids": [0, [1], [0, 0]], "name": 0,
    });
    assert_eq!(answer(), expected);
    // Another footprint, or a neighbour: nobody can tell which of the host's pids is ours.
    exact(FOOTPRINT, QUOTA);
    assert_eq!(answer()["used"][0], json!(NOT_SUPPORTED));
    let bytes = FOOTPRINT + (16 << 20);
    let neighbour = tenant(&world);
    neighbour.context_add(1).unwrap();
    let said = answer();
    assert_eq!(said["list"], json!([0, 1, [[1, bytes]]]));
    assert_eq!(said["rates"], json!([NOT_SUPPORTED, 0]));
    assert_eq!(said["used"][0], json!(NOT_SUPPORTED));
    assert_eq!(said["pids"][0], json!(NOT_SUPPORTED));
}

#[test]
fn whatever_would_change_the_node_is_refused() {
    let world = unlimited();
    let setters = names("set");
    assert!(setters.len() >= 79, "{}", setters.len());
    let program = format!(
        r#"
names = {setters:?}
modes = lambda: [number(f"nvmlDeviceGet{{what}}Mode", handle(0))[1] for what in ("Compute", "Persistence")]
call = lambda: [(name, status) for name in names for status in [getattr(nvml, name)(*[None] * 8)] if status != expected]
expected = 1
before = call()
init()
expected = {NO_PERMISSION}
first, after = modes(), call()
refused = [nvml.nvmlDeviceSetComputeMode(handle(0), 3), nvml.nvmlDeviceSetPersistenceMode(handle(0), 0)]
say(before=before, after=after, refused=refused, same=first == modes())"#
    );
    assert_eq!(
        run(&world, &program),
        json!({"before": [], "after": [], "refused": [NO_PERMISSION, NO_PERMISSION], "same": true})
    );
    let changed = bare(
        &world,
        "init(); say(status=nvml.nvmlDeviceSetPersistenceMode(handle(0), 0))",
    );
    assert_eq!(changed, json!({"status": 0}), "which the bare driver does");
}

/// A new function whose name says that it changes something must be classified so, or listed here with a reason.
#[test]
fn no_setter_is_classified_as_harmless() {
    const VERBS: [&str; 14] = [
        "Set",
        "Reset",
        "Clear",
        "Create",
        "Destroy",
        "Remove",
        "Modify",
        "Freeze",
        "Lock",
        "Update",
        "Activate",
        "Discover",
        "ReadWrite",
        "Force",
    ];
    // Concern the calling thread, or event sets of the caller.
    let own = |name: &str| {
        name.ends_with("CpuAffinity")
            || name.starts_with("nvmlEventSet")
            || name.starts_with("nvmlSystemEventSet")
    };
    let careless: Vec<_> = rows()
        .into_iter()
        .filter(|(class, name, body)| {
            let changes = VERBS.iter().any(|verb| name.contains(verb)) && !name.contains("Get");
            changes && !own(name) && (*class != "set" || !body)
        })
        .map(|(_, name, _)| name)
        .collect();
    assert!(careless.is_empty(), "{careless:?}");
    let shown_bare: Vec<_> = rows()
        .into_iter()
        .filter(|(class, _, body)| *class == "set" && !body)
        .collect();
    assert!(shown_bare.is_empty(), "{shown_bare:?}");
}

/// The unmodified Python client, as monitors use it.
#[test]
fn nvidia_ml_py_lists_the_quota() {
    let world = world();
    let neighbour = tenant(&world);
    neighbour.context_add(1).unwrap();
    let said = world.run(
        r#"
import pynvml as n
start(1); alloc(16 * MIB)
n.nvmlInit()
lines = []
for index in range(n.nvmlDeviceGetCount()):
    gpu = n.nvmlDeviceGetHandleByIndex(index)
    memory, second = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
    bar1 = n.nvmlDeviceGetBAR1MemoryInfo(gpu)
    lines.append(f"{n.nvmlDeviceGetIndex(gpu)} {n.nvmlDeviceGetName(gpu)} {memory.used >> 20}MiB / {memory.total >> 20}MiB | {second.used >> 20} {second.reserved} {bar1.bar1Total >> 20}")
    for process in n.nvmlDeviceGetComputeRunningProcesses(gpu) + n.nvmlDeviceGetGraphicsRunningProcesses(gpu) + n.nvmlDeviceGetMPSComputeRunningProcesses(gpu):
        mine = process.pid == os.getpid() and n.nvmlSystemGetProcessName(process.pid) == sys.orig_argv[0]
        lines.append(f"  {'this process' if mine else process.pid} {process.usedGpuMemory >> 20}MiB")
    use = n.nvmlDeviceGetUtilizationRates(gpu)
    lines.append(f"  use {use.gpu}% {use.memory}%")
    try:
        n.nvmlDeviceSetPowerManagementLimit(gpu, 400_000)
    except n.NVMLError_NoPermission as error:
        lines.append(f"  {error}")
n.nvmlShutdown()
say(lines=lines)
"#,
    );
    let expected = json!([
        "0 NVIDIA H200 20MiB / 64MiB | 20 0 64",
        "  this process 20MiB",
        "  use 0% 0%",
        "  Insufficient Permissions",
    ]);
    assert_eq!(said["lines"], expected);
}

/// No field of `nvmlDeviceGetFieldValues` tells a capacity or a use of memory: the call passes. Fails when a newer
/// header has one.
#[test]
fn field_values_are_none_of_the_quotas() {
    assert!(!rows().contains(&("info", "nvmlDeviceGetFieldValues", true)));
    let header = include_str!("../../limiter/cuda-sys/src/generated/nvml_types.rs");
    let telling: Vec<_> = header
        .lines()
        .filter_map(|line| line.strip_prefix("pub const NVML_FI_DEV_"))
        .filter_map(|line| line.split(':').next())
        .filter(|name| {
            ["MEM", "UTIL", "FB_", "BAR1", "PROCESS"]
                .iter()
                .any(|part| name.contains(part))
        })
        .collect();
    let known = [
        "PERF_POLICY_LOW_UTILIZATION",
        "MEMORY_TEMP",
        "TEMPERATURE_MEM_MAX_TLIMIT",
    ];
    assert_eq!(telling, known, "a violation counter and temperatures");
}
