//! Every hook over a scripted driver: under quota it reaches the driver; over quota it answers the right status
//! without a driver call; a driver that fails gets the charge refunded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use limiter_world::{FOOTPRINT, QUOTA, World};
use serde_json::{Value, json};

/// What all programs of this suite start with: the driver's own counter, and a way to make it fail.
const SCRIPT: &str = r#"
driver = ctypes.CDLL(os.environ["WORLD"] + "/driver/libcuda-driver.so.1")
used = lambda: info()[1] - info()[0]
def calls(f):
    before = driver.script_calls()
    status = f()
    return status, driver.script_calls() - before
a32, a64, pitch32, pitch64, ctx, s = c_uint(), c_ulonglong(), c_uint(), c_size_t(), c_void_p(), c_void_p(0)
"#;

fn run(world: &World, program: &str) -> Value {
    world.run(&format!("{SCRIPT}\n{program}"))
}

/// Name, call with `n` bytes, free of what it gave.
const ALLOCATIONS: [(&str, &str, &str); 9] = [
    (
        "cuMemAlloc",
        "cuda.cuMemAlloc(byref(a32), c_uint(n))",
        "cuda.cuMemFree(a32)",
    ),
    (
        "cuMemAlloc_v2",
        "cuda.cuMemAlloc_v2(byref(a64), size(n))",
        "cuda.cuMemFree_v2(a64)",
    ),
    (
        "cuMemAllocManaged",
        "cuda.cuMemAllocManaged(byref(a64), size(n), 1)",
        "cuda.cuMemFree_v2(a64)",
    ),
    (
        "cuMemAllocAsync",
        "cuda.cuMemAllocAsync(byref(a64), size(n), s)",
        "cuda.cuMemFreeAsync(a64, s)",
    ),
    (
        "cuMemAllocAsync_ptsz",
        "cuda.cuMemAllocAsync_ptsz(byref(a64), size(n), s)",
        "cuda.cuMemFreeAsync_ptsz(a64, s)",
    ),
    (
        "cuMemAllocFromPoolAsync",
        "cuda.cuMemAllocFromPoolAsync(byref(a64), size(n), s, s)",
        "cuda.cuMemFreeAsync(a64, s)",
    ),
    (
        "cuMemAllocFromPoolAsync_ptsz",
        "cuda.cuMemAllocFromPoolAsync_ptsz(byref(a64), size(n), s, s)",
        "cuda.cuMemFree_v2(a64)",
    ),
    (
        "cuMemAllocPitch",
        "cuda.cuMemAllocPitch(byref(a32), byref(pitch32), c_uint(1024), c_uint(n // 1024), c_uint(4))",
        "cuda.cuMemFree(a32)",
    ),
    (
        "cuMemAllocPitch_v2",
        "cuda.cuMemAllocPitch_v2(byref(a64), byref(pitch64), size(1024), size(n // 1024), c_uint(4))",
        "cuda.cuMemFree_v2(a64)",
    ),
];

#[test]
fn allocations_are_charged_refused_and_refunded() {
    let world = World::scripted();
    let room = QUOTA - FOOTPRINT;
    for (name, call, free) in ALLOCATIONS {
        let program = format!(
            r#"
start()
n = {room}
start_used = used()
under = calls(lambda: {call})
full = used()
n = 1024
over = calls(lambda: {call})
busy = used()
driver.script_fail(719)
failed_free = {free}
kept = used()
freed = {free}
empty = used()
n = {room}
driver.script_fail(2)
failed = calls(lambda: {call})
after_failure = used()
n = {room} + 1024
too_much = calls(lambda: {call})
say(start=start_used, under=under, full=full, over=over, busy=busy, failed_free=failed_free, kept=kept,
    freed=freed, empty=empty, failed=failed, after_failure=after_failure, too_much=too_much)
"#
        );
        let said = run(&world, &program);
        let expected = json!({
            "start": FOOTPRINT, "under": [0, 1], "full": QUOTA, "over": [2, 0], "busy": QUOTA,
            "failed_free": 719, "kept": QUOTA, "freed": 0, "empty": FOOTPRINT,
            "failed": [2, 1], "after_failure": FOOTPRINT, "too_much": [2, 0],
        });
        assert_eq!(said, expected, "{name}");
    }
}

#[test]
fn physical_memory_lives_while_a_handle_or_a_mapping_holds_it() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
base = used()
# Type, handle types, location (type 1 is a device, 2 the host), id, and the rest.
def prop(kind, device): return (c_uint * 16)(1, 0, kind, device)
def create(n, kind=1, device=0):
    h = c_ulonglong()
    return cuda.cuMemCreate(byref(h), size(n), prop(kind, device), c_ulonglong(0)), h
held = lambda: (used() - base) // MIB
status, h = create(8 * MIB)
seen = [held()]
check(cuda.cuMemMap(c_ulonglong(1 << 40), size(8 * MIB), size(0), h, c_ulonglong(0)))
check(cuda.cuMemRelease(h)); seen.append(held())
other = c_ulonglong()
check(cuda.cuMemRetainAllocationHandle(byref(other), c_void_p((1 << 40) + MIB))); seen.append(held())
check(cuda.cuMemUnmap(c_ulonglong(1 << 40), size(8 * MIB))); seen.append(held())
driver.script_fail(4); failed = cuda.cuMemRelease(other); seen.append(held())
check(cuda.cuMemRelease(other)); seen.append(held())
room = info()[0]
over = calls(lambda: create(room + 4096)[0])
host = calls(lambda: create(1 << 40, kind=2, device=12345)[0]), held()
driver.script_fail(2)
refunded = calls(lambda: create(MIB)[0]), held()
missing = cuda.cuMemCreate(byref(h), size(MIB), None, c_ulonglong(0)), create(MIB, device=77)[0], create(MIB, device=1)[0]
say(seen=seen, failed=failed, over=over, host=host, refunded=refunded, missing=missing, end=held())
"#,
    );
    let expected = json!({
        "seen": [8, 8, 8, 8, 8, 0], "failed": 4, "over": [2, 0], "host": [[0, 1], 0], "refunded": [[2, 1], 0],
        "missing": [1, 2, 2], "end": 0,
    });
    assert_eq!(said, expected);
}

#[test]
fn arrays_take_what_the_driver_says_or_a_formula() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
base = used()
def flat(w, h): return (c_ulonglong * 3)(w, h, 32 | 1 << 32)
def solid(w, h, d, flags=0): return (c_ulonglong * 5)(w, h, d, 32 | 1 << 32, flags)
def narrow(*dimensions): return (c_uint * 6)(*dimensions, 32, 1, 0)
makes = [lambda n: cuda.cuArrayCreate(byref(a64), narrow(n, 0)), lambda n: cuda.cuArrayCreate_v2(byref(a64), flat(n, 0)),
    lambda n: cuda.cuArray3DCreate(byref(a64), narrow(n, 0, 0)), lambda n: cuda.cuArray3DCreate_v2(byref(a64), solid(n, 0, 0)),
    lambda n: cuda.cuMipmappedArrayCreate(byref(a64), solid(n, 0, 0), 3)]
rounds = []
for told in (0, 3 * MIB):
    driver.script_array(size(told))
    for i, make in enumerate(makes):
        destroy = cuda.cuMipmappedArrayDestroy if i == 4 else cuda.cuArrayDestroy
        under = calls(lambda: make(MIB))
        taken = (used() - base) // MIB
        driver.script_fail(4)
        kept = destroy(a64), (used() - base) // MIB
        gone = destroy(a64), used() - base
        driver.script_fail(719)
        failed = make(MIB), used() - base
        driver.script_array(size(told and 1 << 36))
        over = calls(lambda: make(1 << 30))
        driver.script_array(size(told))
        rounds.append([under, taken, kept, gone, failed, over])
sparse = cuda.cuArray3DCreate_v2(byref(a64), solid(1 << 30, 0, 0, 64)), used() - base
say(rounds=rounds, sparse=sparse)
"#,
    );
    let round = |taken: u64| json!([[0, 1], taken, [4, taken], [0, 0], [719, 0], [2, 0]]);
    let expected: Vec<Value> = [4, 4, 4, 4, 8, 3, 3, 3, 3, 6]
        .into_iter()
        .map(round)
        .collect();
    assert_eq!(said, json!({"rounds": expected, "sparse": [0, 0]}));
}

#[test]
fn pools_are_charged_what_they_reserve_and_trimmed_before_a_refusal() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
base = used()
held = lambda: (used() - base) / MIB
def take(n):
    p = c_ulonglong()
    return cuda.cuMemAllocAsync(byref(p), size(n), s), p
# Granules of 8 MiB, and freed memory is kept: as frameworks set their pools.
driver.script_pool(size(8 * MIB), 1)
status, first = take(MIB); seen = [held()]
status, second = take(MIB); seen.append(held())
check(cuda.cuMemFreeAsync(first, s)); seen.append(held())
check(cuda.cuMemFree_v2(second)); seen.append(held())
check(cuda.cuMemPoolTrimTo(c_void_p(1), size(0))); seen.append(held())
# The script has one pool under every handle: what another one's trim gave back shows at the next look.
info(); seen.append(held())
status, first = take(MIB)
check(cuda.cuMemFreeAsync(first, s)); seen.append(held())
room = info()[0]
plain = calls(lambda: alloc(room + 4 * MIB)[0]); seen.append(held() > 50)
# A granule that does not fit is not kept.
driver.script_pool(size(32 * MIB), 1)
over = take(MIB)[0]; seen.append(used() <= info()[1])
say(seen=seen, plain=plain, over=over)
"#,
    );
    let seen = json!([8.0, 8.0, 8.0, 8.0, 0.0, 0.0, 8.0, true, true]);
    assert_eq!(said, json!({"seen": seen, "plain": [0, 1], "over": 2}));
}

#[test]
fn a_pitch_that_is_wider_than_expected_is_settled() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
before = used()
check(cuda.cuMemAllocPitch_v2(byref(a64), byref(pitch64), size(1), size(1000), c_uint(4)))
taken = used() - before
check(cuda.cuMemFree_v2(a64))
back = used() - before
# 512 bytes a row would fit, the driver's 1024 do not: nothing stays allocated.
rows = (info()[0] // 512)
over = calls(lambda: cuda.cuMemAllocPitch_v2(byref(a64), byref(pitch64), size(1), size(rows), c_uint(4)))
say(taken=taken, back=back, over=over, left=used() - before)
"#,
    );
    // Two driver calls: the allocation and its undoing.
    assert_eq!(
        said,
        json!({"taken": 1024 * 1000, "back": 0, "over": [2, 2], "left": 0})
    );
}

#[test]
fn contexts_are_charged_by_their_footprint() {
    let world = World::scripted();
    let creations = [
        ("cuCtxCreate(byref(ctx), 0, 0)", "cuCtxDestroy(ctx)"),
        ("cuCtxCreate_v2(byref(ctx), 0, 0)", "cuCtxDestroy_v2(ctx)"),
        (
            "cuCtxCreate_v3(byref(ctx), None, 0, 0, 0)",
            "cuCtxDetach(ctx)",
        ),
        (
            "cuCtxCreate_v4(byref(ctx), None, 0, 0)",
            "cuCtxDestroy_v2(ctx)",
        ),
        (
            "cuDevicePrimaryCtxRetain(byref(ctx), 0)",
            "cuDevicePrimaryCtxRelease(0)",
        ),
        (
            "cuDevicePrimaryCtxRetain(byref(ctx), 0)",
            "cuDevicePrimaryCtxRelease_v2(0)",
        ),
    ];
    for (create, destroy) in creations {
        let said = run(
            &world,
            &format!(
                r#"
check(cuda.cuInit(0))
make = lambda: cuda.{create}
under = calls(make)
check(cuda.cuCtxSetCurrent(ctx))
one = used()
status, address = alloc(MIB)
with_memory = used()
gone = cuda.{destroy}
driver.cuCtxSetCurrent(ctx)
none = used()
driver.script_fail(999)
failed = calls(make)
after_failure = used()
say(under=under, one=one, with_memory=with_memory, gone=gone, none=none, failed=failed, after_failure=after_failure)
"#
            ),
        );
        let expected = json!({
            "under": [0, 1], "one": FOOTPRINT, "with_memory": FOOTPRINT + (1 << 20), "gone": 0, "none": 0,
            "failed": [999, 1], "after_failure": 0,
        });
        assert_eq!(said, expected, "{create}");
    }
}

#[test]
fn a_context_that_does_not_fit_is_not_created() {
    let world = World::scripted();
    let said = run(
        &world,
        &format!(
            r#"
start()
status, address = alloc({QUOTA} - {FOOTPRINT})
made = [calls(f) for f in (
    lambda: cuda.cuCtxCreate(byref(ctx), 0, 0), lambda: cuda.cuCtxCreate_v2(byref(ctx), 0, 0),
    lambda: cuda.cuCtxCreate_v3(byref(ctx), None, 0, 0, 0), lambda: cuda.cuCtxCreate_v4(byref(ctx), None, 0, 0))]
say(status=status, made=made)
"#
        ),
    );
    assert_eq!(
        said,
        json!({"status": 0, "made": [[2, 0], [2, 0], [2, 0], [2, 0]]})
    );
}

#[test]
fn the_primary_context_is_charged_once_and_reset_frees_its_memory() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
once = used()
check(cuda.cuDevicePrimaryCtxRetain(byref(ctx), 0))
twice = used()
check(cuda.cuDevicePrimaryCtxRelease_v2(0))
released = used()
alloc(MIB)
cuda.cuMemAllocAsync(byref(a64), size(MIB), s)
check(cuda.cuDevicePrimaryCtxReset_v2(0))
reset = used()
check(cuda.cuDevicePrimaryCtxRelease(0))
driver.cuCtxSetCurrent(ctx)
last = used()
stray = cuda.cuDevicePrimaryCtxRelease_v2(0), cuda.cuDevicePrimaryCtxReset(0)
say(once=once, twice=twice, released=released, reset=reset, last=last, stray=stray, end=used())
"#,
    );
    let f = FOOTPRINT;
    let expected = json!({"once": f, "twice": f, "released": f, "reset": f, "last": 0, "stray": [0, 0], "end": 0});
    assert_eq!(said, expected);
}

#[test]
fn attached_contexts_live_until_the_last_detach() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
check(cuda.cuInit(0))
check(cuda.cuCtxCreate_v2(byref(ctx), 0, 0))
check(cuda.cuCtxAttach(byref(ctx), 0))
check(cuda.cuCtxDetach(ctx))
still = used()
check(cuda.cuCtxDetach(ctx))
say(still=still, gone=used())
"#,
    );
    assert_eq!(said, json!({"still": FOOTPRINT, "gone": 0}));
}

/// The driver gives the handle of a context that ended to another thread before the first one hears of the end.
#[test]
fn a_handle_that_comes_back_at_once_keeps_its_charges() {
    let world = World::scripted();
    for end in [
        "cuCtxDestroy(ctx)",
        "cuCtxDestroy_v2(ctx)",
        "cuCtxDetach(ctx)",
    ] {
        let said = run(
            &world,
            &format!(
                r#"
check(cuda.cuInit(0))
check(cuda.cuCtxCreate_v2(byref(ctx), 0, 0))
alloc(MIB)
again = []
def other():
    context = c_void_p()
    again.append(cuda.cuCtxCreate_v2(byref(context), 0, 0))
    again.append(context.value == ctx.value)
    again.append(alloc(8 * MIB)[0])
@ctypes.CFUNCTYPE(None)
def then():
    thread = threading.Thread(target=other)
    thread.start(); thread.join()
driver.script_then(then)
check(cuda.{end})
held = used()
driver.script_fail(4)
failed = cuda.{end}, used()
say(again=again, held=held, failed=failed, gone=cuda.{end}, end=used())
"#
            ),
        );
        let held = FOOTPRINT + (8 << 20);
        let expected =
            json!({"again": [0, true, 0], "held": held, "failed": [4, held], "gone": 0, "end": 0});
        assert_eq!(said, expected, "{end}");
    }
    let said = run(
        &world,
        r#"
start()
alloc(MIB)
@ctypes.CFUNCTYPE(None)
def then():
    thread = threading.Thread(target=lambda: alloc(8 * MIB))
    thread.start(); thread.join()
driver.script_then(then)
check(cuda.cuDevicePrimaryCtxReset_v2(0))
say(held=used())
"#,
    );
    assert_eq!(said, json!({"held": FOOTPRINT + (8 << 20)}), "reset");
}

/// Where the quota is the whole GPU the driver is the one to refuse; what it gives nevertheless is given back.
#[test]
fn nothing_is_without_a_charge_where_the_quota_is_the_gpu() {
    let world = World::scripted();
    let writer = vgpu_region::LimitsWriter::open(&world.region()).unwrap();
    writer
        .edit(|limits| limits.devices[0].capacity = QUOTA)
        .unwrap();
    let said = run(
        &world,
        &format!(
            r#"
check(cuda.cuInit(0))
driver.cuCtxCreate_v2(byref(ctx), 0, 0)
prop, array = (c_uint * 16)(1, 0, 1, 0), (c_ulonglong * 3)(MIB, 0, 32 | 1 << 32)
check(alloc({QUOTA})[0])
given = [calls(f) for f in (
    lambda: cuda.cuCtxCreate(byref(ctx), 0, 0), lambda: cuda.cuCtxCreate_v2(byref(ctx), 0, 0),
    lambda: cuda.cuCtxCreate_v3(byref(ctx), None, 0, 0, 0), lambda: cuda.cuCtxCreate_v4(byref(ctx), None, 0, 0),
    lambda: cuda.cuDevicePrimaryCtxRetain(byref(ctx), 0), lambda: alloc(1)[0],
    lambda: cuda.cuMemAllocAsync(byref(a64), size(1), s), lambda: cuda.cuArrayCreate_v2(byref(a64), array),
    lambda: cuda.cuMemCreate(byref(a64), size(MIB), prop, c_ulonglong(0)))]
say(given=given, end=used())
"#
        ),
    );
    // Each is two driver calls: the one that was expected to fail, and its undoing.
    assert_eq!(said, json!({"given": vec![[2, 2]; 9], "end": QUOTA}));
}

#[test]
fn a_device_asked_for_while_the_page_is_unsettled_is_asked_for_again() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
check(cuda.cuInit(0))
driver.cuCtxCreate_v2(byref(ctx), 0, 0)
def add(n):
    with open(os.environ["WORLD"] + "/region/limits", "r+b", buffering=0) as page:
        page.seek(8)  # the sequence counter: odd while a writer is at work
        count = int.from_bytes(page.read(8), sys.byteorder) + n
        page.seek(8)
        page.write(count.to_bytes(8, sys.byteorder))
add(1)
during = alloc(MIB)[0]
add(1)
say(during=during, after=alloc(MIB)[0])
"#,
    );
    assert_eq!(said, json!({"during": 2, "after": 0}));
}

#[test]
fn the_quota_is_shown_everywhere_and_errors_stay_the_drivers() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
start()
total32, free32 = c_uint(), c_uint()
check(cuda.cuDeviceTotalMem(byref(total32), 0))
check(cuda.cuDeviceTotalMem_v2(byref(pitch64), 0))
shown = [total32.value, pitch64.value, *info()]
check(cuda.cuMemGetInfo(byref(free32), byref(total32)))
narrow = [free32.value, total32.value]
nulls = [cuda.cuMemGetInfo_v2(None, None), cuda.cuMemGetInfo_v2(byref(pitch64), None), cuda.cuMemAlloc_v2(None, size(1)), cuda.cuMemAlloc_v2(byref(a64), size(0))]
errors = []
for call in (lambda: cuda.cuMemGetInfo_v2(byref(pitch64), byref(c_size_t())), lambda: cuda.cuMemGetInfo(byref(free32), byref(total32)),
             lambda: cuda.cuDeviceTotalMem_v2(byref(pitch64), 0), lambda: cuda.cuDeviceTotalMem(byref(total32), 0), lambda: cuda.cuInit(0)):
    driver.script_fail(4)
    errors.append(call())
full = alloc(info()[0])[0], cuda.cuMemAlloc_v2(None, size(1 << 50)), cuda.cuArrayCreate_v2(None, None)
say(full=full, shown=shown, narrow=narrow, nulls=nulls, errors=errors, other=[alloc(2**63)[0], alloc(2**64 - 1)[0]], end=used())
"#,
    );
    let free = QUOTA - FOOTPRINT;
    let expected = json!({
        "shown": [QUOTA, QUOTA, free, QUOTA], "narrow": [free, QUOTA], "nulls": [1, 1, 1, 1],
        "errors": [4, 4, 4, 4, 4], "other": [2, 2], "end": QUOTA, "full": [0, 1, 1],
    });
    assert_eq!(said, expected);
}

#[test]
fn a_gpu_without_an_entry_gives_nothing() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
check(cuda.cuInit(0))
primary = calls(lambda: cuda.cuDevicePrimaryCtxRetain(byref(ctx), 1))
created = calls(lambda: cuda.cuCtxCreate_v2(byref(ctx), 0, 1))
unknown = cuda.cuCtxCreate_v2(byref(ctx), 0, 7), cuda.cuDevicePrimaryCtxRetain(byref(ctx), 7)
check(driver.cuCtxCreate_v2(byref(ctx), 0, 1))
taken = calls(lambda: alloc(1)[0])
say(primary=primary, created=created, unknown=unknown, taken=taken, shown=info())
"#,
    );
    let expected = json!({"primary": [2, 0], "created": [2, 0], "unknown": [101, 101], "taken": [2, 0], "shown": [0, 0]});
    assert_eq!(said, expected);
}

#[test]
fn memory_is_charged_to_the_streams_device() {
    let world = World::scripted();
    let writer = vgpu_region::LimitsWriter::open(&world.region()).unwrap();
    writer
        .edit(|limits| limits.devices.push(World::device([2; 16])))
        .unwrap();
    let said = run(
        &world,
        r#"
start()
before = used()
# The scripted driver takes a stream's low bits for its device.
check(cuda.cuMemAllocAsync(byref(a64), size(MIB), c_void_p(0x1001)))
here = used() - before
driver.cuCtxCreate_v2(byref(ctx), 0, 1)
there = used()
check(cuda.cuMemFreeAsync(a64, s))
say(here=here, there=there, end=used())
"#,
    );
    assert_eq!(said, json!({"here": 0, "there": 1 << 20, "end": 0}));
}

#[test]
fn without_a_usable_region_nothing_is_unlimited() {
    let world = World::scripted();
    let program = r#"
say(init=calls(lambda: cuda.cuInit(0)), alloc=calls(lambda: alloc(1)[0]), ctx=calls(lambda: cuda.cuCtxCreate_v2(byref(ctx), 0, 0)),
    primary=calls(lambda: cuda.cuDevicePrimaryCtxRetain(byref(ctx), 0)), total=calls(lambda: cuda.cuDeviceTotalMem_v2(byref(pitch64), 0)))
"#;
    let refused = json!({"init": [800, 0], "alloc": [800, 0], "ctx": [800, 0], "primary": [800, 0], "total": [800, 0]});
    let limits = world.region().join("limits");
    let good = std::fs::read(&limits).unwrap();
    let damages: [(&str, Vec<u8>); 3] = [
        ("truncated", good[..100].to_vec()),
        ("another version", [&[9; 8], &good[8..]].concat()),
        (
            "half written",
            [&good[..8], &1_u64.to_ne_bytes(), &good[16..]].concat(),
        ),
    ];
    for (name, bytes) in damages {
        std::fs::write(&limits, bytes).unwrap();
        assert_eq!(run(&world, program), refused, "{name}");
    }
    std::fs::remove_dir_all(world.region()).unwrap();
    assert_eq!(run(&world, program), refused, "no region at all");
}

#[test]
fn the_reason_is_in_the_log_that_is_asked_for_and_nowhere_else() {
    let world = World::scripted();
    let log = world.dir.path().join("log");
    let mut client = world.client("start(); say(over=alloc(1 << 40)[0])");
    let outcome = vgpu_tests::Outcome::of(client.env("VGPU_LOG", &log));
    assert_eq!(
        (outcome.stdout.trim(), outcome.stderr.as_str()),
        (r#"{"over": 2}"#, "")
    );
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("1099511627776 bytes asked for"), "{text}");
}

#[test]
fn a_forked_child_starts_anew_and_a_killed_one_gives_back() {
    let world = World::scripted();
    let said = run(
        &world,
        &format!(
            r#"
start()
alloc(10 * MIB)
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    # Its first charge attaches it again, under the same quota.
    status, _ = alloc({QUOTA} - {FOOTPRINT} - 10 * MIB)
    over, _ = alloc(1)
    os.write(write_end, bytes([status, over]))
    signal.pause()
answers = list(os.read(read_end, 2))
full = alloc(1)[0]
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
again = alloc({QUOTA} - {FOOTPRINT} - 10 * MIB)[0]
say(child=answers, full=full, again=again)
"#
        ),
    );
    assert_eq!(said, json!({"child": [0, 2], "full": 2, "again": 0}));
}

#[test]
fn threads_share_the_quota_exactly() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
context = start()
got = []
def work():
    cuda.cuCtxSetCurrent(context)
    mine = []
    while True:
        status, address = alloc(64 << 10)
        if status: break
        mine.append(address)
    got.append(mine)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
count = sum(map(len, got))
full = used()
for mine in got:
    for address in mine: check(free(address))
say(count=count, full=full, end=used())
"#,
    );
    assert_eq!(
        said,
        json!({"count": (QUOTA - FOOTPRINT) >> 16, "full": QUOTA, "end": FOOTPRINT})
    );
}

#[test]
fn passed_functions_keep_their_arguments_and_absent_ones_answer() {
    let world = World::scripted();
    let said = run(
        &world,
        r#"
p = c_void_p
launch = lambda: cuda.cuLaunchKernel(p(1), 2, 3, 4, 5, 6, 7, 8, p(9), p(10), p(11))
say(first=launch(), second=launch(), sum=cuda.cuArray3DGetDescriptor(p(40), p(2)), absent=[cuda.cuStreamCreate(None, 0), cuda.cuStreamCreate(None, 0)])
"#,
    );
    assert_eq!(
        said,
        json!({"first": 0, "second": 0, "sum": 42, "absent": [801, 801]})
    );
}
