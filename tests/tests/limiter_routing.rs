//! `cuGetProcAddress` in front of two drivers, NVIDIA's own and the simulated one: every name, version and flag
//! answers what the bare driver answers, and where we stand in front of a function, ours of the same symbol.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use limiter_world::World;
use serde_json::{Value, json};
use vgpu_cuda_sys::versions::CUDA_VERSIONS;

/// Rows with a body, and all rows.
macro_rules! hooked {
    ($( { $slot:literal $class:ident $name:ident [$($body:tt)*] $($rest:tt)* } )*) => {
        [$((stringify!($name), !stringify!($($body)*).is_empty())),*]
    };
}

fn rows() -> Vec<(&'static str, bool)> {
    Vec::from(vgpu_cuda_sys::cuda_table!(hooked))
}

/// Compares ours with the bare driver, which is the same file that ours has as its dependency, so that pointers can
/// be compared within one process. Ours is opened first: whoever opens the real one by its path first keeps it.
const COMPARE: &str = r#"
bare = ctypes.CDLL(os.path.realpath(os.environ["WORLD"] + "/driver/libcuda-driver.so.1"))
def address(library, name):
    try: return ctypes.cast(getattr(library, name), c_void_p).value
    except AttributeError: return None
theirs = {}
for name in ALL:
    a = address(bare, name)
    if a: theirs.setdefault(a, []).append(name)
ours = {}
for name in HOOKED:
    if address(bare, name): ours.setdefault(address(bare, name), {})[name] = address(cuda.handle, name)
def ask(library, v2, name, version, flags):
    pfn, found = c_void_p(0xdead), c_int(-77)
    if v2: status = library.cuGetProcAddress_v2(name.encode(), byref(pfn), version, c_ulonglong(flags), byref(found))
    else: status = library.cuGetProcAddress(name.encode(), byref(pfn), version, c_ulonglong(flags))
    return status, pfn.value, found.value
wrong, routed, answers, foreign = [], set(), 0, set()
ways = [way for way in (False, True) if address(bare, "cuGetProcAddress_v2" if way else "cuGetProcAddress")]
versions = [2000, 3020, 4000, 5050, 6050, 7000, 8000, 9000, 9020, 10000, 10010, 10020, 11000, 11010, 11020, 11030,
    11040, 11060, 11070, 11080, 12000, 12010, 12020, 12030, 12040, 12050, 12080, 13000, 13010, 13050, 0, -1, 99990]
for name in BASES:
    for version in versions:
        for flags in (0, 1, 2, 3):
            for v2 in ways:
                bare_status, bare_pointer, bare_found = ask(bare, v2, name, version, flags)
                status, pointer, found = ask(cuda, v2, name, version, flags)
                answers += 1
                expected = [bare_pointer]
                if bare_status == 0 and bare_pointer in ours:
                    # A linker may have folded equal functions: only those count that the name can stand for.
                    here = {n: a for n, a in ours[bare_pointer].items() if n in EXPORTS.get(name, HOOKED)}
                    expected = list(here.values()) or expected
                    routed |= set(here)
                if bare_status == 0 and bare_pointer and bare_pointer not in theirs: foreign.add(name)
                if (status, found) != (bare_status, bare_found) or pointer not in expected:
                    wrong.append([name, version, flags, v2, [status, pointer, found], [bare_status, expected, bare_found]])
say(wrong=wrong[:10], routed=sorted(routed), answers=answers, ways=len(ways), foreign=sorted(foreign),
    shared=sorted(n for n in theirs.values() if len(n) > 1 and set(n) & set(HOOKED)))
"#;

fn compare(world: &World) -> Value {
    let bases: BTreeSet<&str> = CUDA_VERSIONS.iter().map(|version| version.base).collect();
    let all: Vec<_> = rows().iter().map(|(name, _)| *name).collect();
    let hooked: Vec<_> = rows()
        .iter()
        .filter(|row| row.1)
        .map(|(name, _)| *name)
        .collect();
    let mut names: Vec<&str> = bases.into_iter().collect();
    // Also what nobody should ask for: full symbols, unknown names, nothing.
    names.extend([
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemAllocAsync_ptsz",
        "cuNoSuchThing",
        "",
        "memcpy",
    ]);
    let mut exports: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for version in CUDA_VERSIONS {
        exports
            .entry(version.base)
            .or_default()
            .push(version.export);
    }
    let mut program = String::new();
    writeln!(program, "EXPORTS = {}", json!(exports)).unwrap();
    writeln!(program, "ALL = {}", json!(all)).unwrap();
    write!(
        program,
        "HOOKED = {}\nBASES = {}\n{COMPARE}",
        json!(hooked),
        json!(names)
    )
    .unwrap();
    world.run(&program)
}

fn check(said: &Value, at_least: &[&str]) {
    assert_eq!(said["wrong"], json!([]));
    assert_eq!(
        said["foreign"],
        json!([]),
        "answers that are no export escape the limiter"
    );
    let routed: Vec<&str> = said["routed"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for name in at_least {
        assert!(
            routed.contains(name),
            "{name} is not routed; these are: {routed:?}"
        );
    }
    assert!(
        said["answers"].as_u64().unwrap() > 50_000,
        "{}",
        said["answers"]
    );
}

const EVERYWHERE: [&str; 22] = [
    "cuInit",
    "cuGetProcAddress",
    "cuGetProcAddress_v2",
    "cuMemAlloc",
    "cuMemAlloc_v2",
    "cuMemAllocPitch",
    "cuMemAllocPitch_v2",
    "cuMemAllocManaged",
    "cuMemAllocAsync",
    "cuMemAllocAsync_ptsz",
    "cuMemAllocFromPoolAsync",
    "cuMemAllocFromPoolAsync_ptsz",
    "cuMemFree",
    "cuMemFree_v2",
    "cuMemFreeAsync",
    "cuMemFreeAsync_ptsz",
    "cuMemGetInfo_v2",
    "cuDeviceTotalMem_v2",
    "cuCtxCreate_v2",
    "cuCtxCreate_v3",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
];

#[test]
fn over_nvidias_own_driver() {
    let Some(world) = World::real() else { return };
    let said = compare(&world);
    check(&said, &EVERYWHERE);
    assert_eq!(
        said["shared"],
        json!([]),
        "on NVIDIA's driver no hooked function shares its address"
    );
}

#[test]
fn over_the_simulated_driver() {
    let world = World::simulated();
    check(&compare(&world), &EVERYWHERE);
}

/// Families in which one name stands for several calling conventions: a caller that asks for an old one gets the old
/// one. (Other limiters hand out the newest, or the oldest, whatever was asked for.)
#[test]
fn old_versions_keep_their_calling_convention() {
    let Some(world) = World::real() else { return };
    let families = [
        "cuCtxCreate",
        "cuMemAdvise",
        "cuMemPrefetchAsync",
        "cuGraphGetEdges",
        "cuGraphNodeGetDependencies",
        "cuGraphNodeGetDependentNodes",
        "cuGraphAddDependencies",
        "cuGraphRemoveDependencies",
        "cuGraphAddNode",
        "cuGraphExecUpdate",
        "cuGetProcAddress",
        "cuStreamGetCaptureInfo",
        "cuMemAlloc",
        "cuMemFree",
    ];
    let said = world.run(&format!(
        r#"
bare = ctypes.CDLL(os.path.realpath(os.environ["WORLD"] + "/driver/libcuda-driver.so.1"))
def name_of(library, pointer, names):
    for name in names:
        try:
            if ctypes.cast(getattr(library, name), c_void_p).value == pointer: return name
        except AttributeError: pass
seen = {{}}
for family in {}:
    names = [family] + [f"{{family}}_v{{n}}" for n in (2, 3, 4)] + [f"{{family}}_ptsz", f"{{family}}_v2_ptsz", f"{{family}}_v3_ptsz"]
    for version in (11030, 12000, 12020, 12040, 13000):
        for flags in (1, 2):
            answers = []
            for library in (cuda.handle, bare):
                pfn, found = c_void_p(), c_int()
                library.cuGetProcAddress_v2(family.encode(), byref(pfn), version, c_ulonglong(flags), byref(found))
                answers.append((name_of(library, pfn.value, names) or name_of(bare, pfn.value, names)) if pfn.value else None)
            seen[f"{{family}} {{version}} {{flags}}"] = answers
say(**{{key: value for key, value in seen.items() if value[0] != value[1]}}, count=len(seen))
"#,
        json!(families)
    ));
    assert_eq!(said, json!({"count": families.len() * 10}));
}

#[test]
fn nvidias_own_driver_loads_behind_ours_and_says_that_there_is_no_gpu() {
    let Some(world) = World::real() else { return };
    let said = world.run(
        r#"
version = c_int()
status = cuda.cuInit(0)
text = c_char_p()
cuda.cuGetErrorString(100, byref(text))
say(init=status, version=cuda.cuDriverGetVersion(byref(version)), known=version.value >= 12000, text=text.value.decode(),
    before=[cuda.cuDeviceGetCount(byref(version)), alloc(1)[0], cuda.cuMemFree_v2(c_ulonglong(1))])
"#,
    );
    let expected = json!({
        "init": 100, "version": 0, "known": true, "text": "no CUDA-capable device is detected", "before": [3, 3, 3],
    });
    assert_eq!(said, expected);
    std::fs::remove_dir_all(world.region()).unwrap();
    assert_eq!(world.run("say(init=cuda.cuInit(0))"), json!({"init": 800}));
}

#[test]
fn nvidias_own_nvml_loads_behind_ours() {
    let Some(world) = World::real() else { return };
    let program = r#"
nvml = ctypes.CDLL("libnvidia-ml.so.1")
nvml.nvmlErrorString.restype = c_char_p
say(init=nvml.nvmlInit_v2(), text=nvml.nvmlErrorString(9).decode(), count=nvml.nvmlDeviceGetCount_v2(byref(c_uint())))
"#;
    // Driver not loaded; uninitialised.
    assert_eq!(
        world.run(program),
        json!({"init": 9, "text": "Driver Not Loaded", "count": 1})
    );
    std::fs::remove_dir_all(world.region()).unwrap();
    let said = world.run(program);
    assert_eq!(said["init"], json!(4), "no region: no permission");
}

/// The table that the CUDA runtime takes from the driver goes through untouched, byte for byte.
#[test]
fn export_tables_are_the_drivers() {
    let Some(world) = World::real() else { return };
    let said = world.run(
        r#"
bare = ctypes.CDLL(os.path.realpath(os.environ["WORLD"] + "/driver/libcuda-driver.so.1"))
same = []
for text in ("6BD5FB6C5BF4E74A8987D93912FD9DF9", "0CA50B8C10049292894A2E6FF0C3E4F8", "C693336E1121DF11A8C368F355D89593", "D4082055BDE6704B8D34BA123C66E1F2"):
    identity, ours, theirs = bytes.fromhex(text), c_void_p(), c_void_p()
    status = cuda.cuGetExportTable(byref(ours), identity), bare.cuGetExportTable(byref(theirs), identity)
    same.append(status[0] == status[1] and ours.value == theirs.value)
say(same=same)
"#,
    );
    assert_eq!(said, json!({"same": [true, true, true, true]}));
}
