//! The ledger on real pages: reference model, dead processes, forks, scribbles, and a kill torture.
#![allow(unsafe_code, reason = "forks and kills children")]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "small numbers; an overflow fails the test"
)]

use std::collections::HashMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::limits::{DeviceLimits, LimitsWriter};
use crate::usage::read_summary;

const UNIT: u64 = 512;

struct Region {
    dir: tempfile::TempDir,
}

impl Region {
    fn new(quota_units: &[u64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let devices = (1..)
            .zip(quota_units)
            .map(|(byte, units)| DeviceLimits {
                uuid: [byte; 16],
                vram_limit: units * UNIT,
                ..DeviceLimits::default()
            })
            .collect();
        crate::create(
            dir.path(),
            &Limits {
                devices,
                ..Limits::default()
            },
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    fn attach(&self) -> Ledger {
        Ledger::attach(self.dir.path()).unwrap()
    }
}

/// Runs `body` in a forked child, which then stops without running any exit handler.
fn in_child(body: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child runs `body` on its own copy of this process and leaves by _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = body();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    pid
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        -libc::WTERMSIG(status)
    }
}

fn kill(pid: libc::pid_t) {
    // SAFETY: `pid` is a child of this process that was not waited for yet.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait(pid);
}

#[test]
fn the_quota_is_exact_and_shared() {
    let region = Region::new(&[10, 3]);
    let (one, two) = (region.attach(), region.attach());
    one.charge(0, 6 * UNIT).unwrap();
    two.charge(0, 4 * UNIT).unwrap();
    let refused = two.charge(0, 1).unwrap_err();
    assert_eq!(
        refused,
        Refused {
            requested: 1,
            used: 10 * UNIT,
            quota: 10 * UNIT
        }
    );
    two.charge(1, 3 * UNIT).unwrap();
    one.refund(0, 6 * UNIT);
    two.charge(0, 6 * UNIT).unwrap();
    assert_eq!((one.used(0), one.used(1)), (10 * UNIT, 3 * UNIT));
    assert_eq!(two.used_here(0), 10 * UNIT);
}

#[test]
fn absurd_sizes_and_devices_are_refused() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    for bytes in [u64::MAX, 1 << 63, 1 << 62, 11 * UNIT] {
        assert!(ledger.charge(0, bytes).is_err());
    }
    for device in [1, MAX_DEVICES, usize::MAX] {
        assert_eq!(ledger.charge(device, 1).unwrap_err().quota, 0);
        ledger.refund(device, 1);
    }
    ledger.charge(0, 0).unwrap();
    assert_eq!(ledger.used(0), 0);
}

#[test]
fn a_changed_limit_binds_the_next_charge() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    ledger.charge(0, 8 * UNIT).unwrap();
    let writer = LimitsWriter::open(&region.path()).unwrap();
    writer
        .edit(|limits| limits.devices[0].vram_limit = 4 * UNIT)
        .unwrap();
    assert!(ledger.charge(0, UNIT).is_err());
    ledger.refund(0, 5 * UNIT);
    ledger.charge(0, UNIT).unwrap();
    writer
        .edit(|limits| limits.devices[0].untracked = UNIT)
        .unwrap();
    assert!(ledger.charge(0, UNIT).is_err());
}

#[test]
fn a_killed_process_gives_back_before_a_sibling_is_refused() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    let dir = region.path();
    let child = in_child(|| {
        let own = Ledger::attach(&dir).unwrap();
        own.charge(0, 9 * UNIT).unwrap();
        // SAFETY: waits to be killed.
        unsafe { libc::pause() }
    });
    while ledger.used(0) < 9 * UNIT {
        std::thread::yield_now();
    }
    assert!(ledger.charge(0, 2 * UNIT).is_err(), "the holder is alive");
    let summary = read_summary(&region.path()).unwrap();
    let holder = summary
        .iter()
        .find(|process| process.pid == child.cast_unsigned())
        .unwrap();
    assert!(holder.live);
    assert_eq!(holder.bytes_of(&[1; 16]), 9 * UNIT);
    kill(child);
    let summary = read_summary(&region.path()).unwrap();
    assert!(
        summary
            .iter()
            .any(|process| !process.live && process.slot == holder.slot)
    );
    ledger.charge(0, 10 * UNIT).unwrap();
    assert_eq!(ledger.used(0), 10 * UNIT);
}

#[test]
fn a_survivor_sees_what_the_dead_held_as_free() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    let observer = Observer::open(&region.path()).unwrap();
    ledger.charge(0, UNIT).unwrap();
    let dir = region.path();
    let child = in_child(|| {
        let own = Ledger::attach(&dir).unwrap();
        own.charge(0, 6 * UNIT).unwrap();
        // SAFETY: waits to be killed.
        unsafe { libc::pause() }
    });
    while ledger.used(0) < 7 * UNIT {
        std::thread::yield_now();
    }
    assert_eq!(ledger.used_by_the_living(0), 7 * UNIT);
    assert_eq!(observer.used(0), 7 * UNIT);
    kill(child);
    assert_eq!(observer.used(0), UNIT);
    // Siblings are looked at every so often.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ledger.used_by_the_living(0) != UNIT {
        assert!(std::time::Instant::now() < end, "the dead one still counts");
        std::thread::yield_now();
    }
    assert_eq!((ledger.used(0), observer.used(0)), (UNIT, UNIT));
}

/// A process that is killed between the total and its own word: who only looks counts as if it were finished.
#[test]
fn an_observer_finishes_in_thought_what_a_dead_process_left() {
    let region = Region::new(&[10]);
    let dead = region.attach();
    let observer = Observer::open(&region.path()).unwrap();
    dead.charge(0, 3 * UNIT).unwrap();
    let cells = dead.cells(0).unwrap();
    let before = cells.load(Cell::Held(dead.slot()));
    dead.charge(0, 4 * UNIT).unwrap();
    cells.store(Cell::Held(dead.slot()), before);
    assert_eq!(observer.used(0), 7 * UNIT);
    drop(dead);
    assert_eq!(observer.used(0), 0);
}

#[test]
fn a_new_process_takes_a_dead_ones_slot_empty() {
    let region = Region::new(&[10]);
    let dir = region.path();
    let child = in_child(|| {
        let own = Ledger::attach(&dir).unwrap();
        own.charge(0, 9 * UNIT).unwrap();
        i32::from(own.slot())
    });
    assert_eq!(wait(child), 0);
    let ledger = region.attach();
    assert_eq!((ledger.slot(), ledger.used(0)), (0, 0));
    assert_eq!(read_summary(&region.path()).unwrap()[0].generation, 2);
}

#[test]
fn a_forked_child_holds_nothing_and_keeps_nothing_alive() {
    let region = Region::new(&[10]);
    let watcher = region.attach();
    let dir = region.path();
    let mut pipe = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    unsafe { libc::pipe(pipe.as_mut_ptr()) };
    let parent = in_child(|| {
        let own = Ledger::attach(&dir).unwrap();
        own.charge(0, 9 * UNIT).unwrap();
        let grandchild = in_child(|| {
            // Inherits the lock's description, but is told apart.
            let code = i32::from(own.is_ours());
            // SAFETY: `pause` until killed; the descriptor is inherited.
            unsafe { libc::pause() };
            code
        });
        // SAFETY: writes four bytes that are there.
        unsafe { libc::write(pipe[1], (&raw const grandchild).cast(), 4) };
        0
    });
    assert_eq!(wait(parent), 0);
    let mut grandchild: libc::pid_t = 0;
    // SAFETY: reads four bytes into room for them.
    unsafe { libc::read(pipe[0], (&raw mut grandchild).cast(), 4) };
    assert!(watcher.token.is_claimed(1), "the grandchild keeps the lock");
    watcher.charge(0, 10 * UNIT).unwrap();
    // SAFETY: the orphan made above.
    unsafe { libc::kill(grandchild, libc::SIGKILL) };
}

/// Runs `body` in a child with namespaces of its own; nothing where this machine refuses them.
fn in_namespaces(flags: libc::c_int, body: impl FnOnce() -> i32) {
    const REFUSED: i32 = 77;
    let code = wait(in_child(|| {
        // SAFETY: concerns this child alone.
        if unsafe { libc::unshare(flags) } != 0 {
            return REFUSED;
        }
        body()
    }));
    if code == REFUSED {
        eprintln!("SKIPPED: no namespaces here");
        return;
    }
    assert_eq!(code, 0);
}

/// Charges 9 of 10 units, runs `other`, and answers its status, or 2 where the charge was lost.
fn beside_a_holder(dir: &std::path::Path, other: impl FnOnce(libc::pid_t) -> i32) -> i32 {
    let own = Ledger::attach(dir).unwrap();
    own.charge(0, 9 * UNIT).unwrap();
    // SAFETY: plain call.
    let pid = unsafe { libc::getpid() };
    let code = wait(in_child(|| other(pid)));
    if own.used(0) == 9 * UNIT { code } else { 2 }
}

/// 0 where a process that attaches now sees the holder and is refused.
fn is_refused(dir: &std::path::Path) -> i32 {
    let observer = Observer::open(dir).unwrap();
    let seen = observer.processes(0).len() == 1;
    let refused = Ledger::attach(dir).unwrap().charge(0, 2 * UNIT).is_err();
    i32::from(!(seen && refused))
}

#[test]
fn a_proc_of_another_pid_namespace_makes_nobody_dead() {
    let region = Region::new(&[10]);
    let dir = region.path();
    in_namespaces(libc::CLONE_NEWPID, || {
        // `/proc` still shows the outer namespace, where the pids 1 and 2 are others.
        wait(in_child(|| beside_a_holder(&dir, |_| is_refused(&dir))))
    });
}

#[test]
fn a_hidden_process_is_not_dead() {
    let region = Region::new(&[10]);
    let (dir, empty) = (region.path(), tempfile::tempdir().unwrap());
    let bind = |pid: libc::pid_t| {
        let c = |text: String| std::ffi::CString::new(text).unwrap();
        let from = c(empty.path().display().to_string());
        let to = c(format!("/proc/{pid}"));
        let (null, kind) = (std::ptr::null(), c"none".as_ptr());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: all strings outlive the call; the mounts are this child's own namespace's.
        unsafe { libc::mount(null, c"/".as_ptr(), null, private, null.cast()) };
        // SAFETY: as above.
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind, libc::MS_BIND, null.cast()) }
    };
    in_namespaces(libc::CLONE_NEWNS, || {
        beside_a_holder(&dir, |holder| {
            assert_eq!(bind(holder), 0);
            is_refused(&dir)
        })
    });
}

#[test]
fn a_process_that_closes_its_descriptors_keeps_its_slot() {
    let region = Region::new(&[10]);
    let dir = region.path();
    let code = wait(in_child(|| {
        let own = std::mem::ManuallyDrop::new(Ledger::attach(&dir).unwrap());
        own.charge(0, 9 * UNIT).unwrap();
        // SAFETY: the ledger's own descriptor among them; it is never dropped here.
        unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
        let other = Ledger::attach(&dir).unwrap();
        let kept = other.token.is_claimed(own.slot()) && other.charge(0, 2 * UNIT).is_err();
        i32::from(!kept)
    }));
    assert_eq!(code, 0);
}

#[test]
fn a_fork_is_noticed() {
    let region = Region::new(&[10]);
    let own = region.attach();
    assert!(own.is_ours());
    assert_eq!(wait(in_child(|| i32::from(own.is_ours()))), 0);
}

#[test]
fn the_dead_that_the_agent_publishes_are_drained() {
    let region = Region::new(&[10]);
    let (one, two) = (region.attach(), region.attach());
    one.charge(0, 9 * UNIT).unwrap();
    assert!(two.charge(0, 2 * UNIT).is_err());
    LimitsWriter::open(&region.path())
        .unwrap()
        .publish_dead(one.slot(), 1);
    two.charge(0, 2 * UNIT).unwrap();
    assert_eq!(two.used(0), 2 * UNIT);
}

#[test]
fn a_scribbled_page_gains_nothing() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    ledger.charge(0, 9 * UNIT).unwrap();
    for byte in [0_u8, 0x5a, 0xff] {
        let file = std::fs::File::options()
            .write(true)
            .open(region.path().join(USAGE_FILE))
            .unwrap();
        let len = usize::try_from(USAGE_BYTES).unwrap() - 8;
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![byte; len], 8).unwrap();
        assert!(ledger.charge(0, 2 * UNIT).is_err(), "byte {byte:#x}");
        ledger.refund(0, 0);
        drop(read_summary(&region.path()).unwrap());
    }
    ledger.refund(0, 9 * UNIT);
}

#[test]
fn an_observer_sees_live_processes_only() {
    let region = Region::new(&[10]);
    let ledger = region.attach();
    ledger.charge(0, 3 * UNIT).unwrap();
    let observer = Observer::open(&region.path()).unwrap();
    assert_eq!(observer.processes(0), vec![(std::process::id(), 3 * UNIT)]);
    assert_eq!(observer.used(0), 3 * UNIT);
    assert!(observer.processes(1).is_empty());
    drop(ledger);
    assert!(observer.processes(0).is_empty());
}

#[test]
fn the_descriptor_is_closed_by_exec() {
    let region = Region::new(&[10]);
    let _ledger = region.attach();
    let descriptor = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .find(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|to| to == region.path().join(USAGE_FILE))
        })
        .map(|entry| {
            entry
                .file_name()
                .to_str()
                .unwrap()
                .parse::<libc::c_int>()
                .unwrap()
        })
        .unwrap();
    // SAFETY: reads a flag of a descriptor that we own.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

#[test]
fn threads_of_one_process_never_exceed_the_limit() {
    let region = Region::new(&[64]);
    let ledger = region.attach();
    std::thread::scope(|scope| {
        for thread in 1..=4_u64 {
            let ledger = &ledger;
            scope.spawn(move || {
                for round in 0..5_000 {
                    let bytes = (thread + round % 20) * UNIT;
                    if ledger.charge(0, bytes).is_ok() {
                        assert!(ledger.used(0) <= 64 * UNIT);
                        ledger.refund(0, bytes);
                    }
                }
            });
        }
    });
    assert_eq!((ledger.used(0), ledger.used_here(0)), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Charge {
        who: usize,
        device: usize,
        bytes: u64,
    },
    Refund {
        who: usize,
        pick: usize,
    },
    Limit {
        device: usize,
        units: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0..40 * UNIT, Just(u64::MAX), Just(1 << 63)];
    let step = prop_oneof![
        6 => (0..3_usize, 0..3_usize, bytes)
            .prop_map(|(who, device, bytes)| Step::Charge { who, device, bytes }),
        4 => (0..3_usize, any::<usize>()).prop_map(|(who, pick)| Step::Refund { who, pick }),
        1 => (0..2_usize, 0..200_u64).prop_map(|(device, units)| Step::Limit { device, units }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The plain account that the ledger must agree with, step for step.
#[derive(Default)]
struct Reference {
    limit: HashMap<usize, u64>,
    held: Vec<(usize, usize, u64)>,
}

impl Reference {
    fn used(&self, device: usize) -> u128 {
        self.held
            .iter()
            .filter(|h| h.1 == device)
            .map(|h| u128::from(h.2.div_ceil(UNIT)))
            .sum()
    }

    fn fits(&self, device: usize, bytes: u64) -> bool {
        let limit = u128::from(self.limit.get(&device).copied().unwrap_or(0));
        bytes == 0 || self.used(device) + u128::from(bytes.div_ceil(UNIT)) <= limit
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_the_reference(steps in steps()) {
        let region = Region::new(&[100, 50]);
        let writer = LimitsWriter::open(&region.path()).unwrap();
        let ledgers = [region.attach(), region.attach(), region.attach()];
        let mut reference = Reference::default();
        reference.limit.extend([(0, 100), (1, 50)]);
        for step in steps {
            match step {
                Step::Charge { who, device, bytes } => {
                    let fits = reference.fits(device, bytes);
                    prop_assert_eq!(ledgers[who].charge(device, bytes).is_ok(), fits);
                    if fits {
                        reference.held.push((who, device, bytes));
                    }
                }
                Step::Refund { who, pick } => {
                    let own: Vec<_> = (0..reference.held.len())
                        .filter(|i| reference.held[*i].0 == who)
                        .collect();
                    if !own.is_empty() {
                        let (_, device, bytes) = reference.held.remove(own[pick % own.len()]);
                        ledgers[who].refund(device, bytes);
                    }
                }
                Step::Limit { device, units } => {
                    writer.edit(|limits| limits.devices[device].vram_limit = units * UNIT).unwrap();
                    reference.limit.insert(device, units);
                }
            }
            for device in 0..2 {
                let used = reference.used(device) * u128::from(UNIT);
                prop_assert_eq!(u128::from(ledgers[0].used(device)), used);
            }
        }
    }
}

/// Children charge and refund and are killed at random moments, `kills` times in all. At every
/// instant the total is within the limit, and at the end nothing is left.
fn torture(kills: u64) {
    const LIMIT: u64 = 100;
    let region = Region::new(&[LIMIT]);
    let watcher = region.attach();
    let dir = region.path();
    let spawn = |seed: u64| {
        in_child(|| {
            let Ok(own) = Ledger::attach(&dir) else {
                return 1;
            };
            let mut random = seed;
            loop {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(seed | 1);
                let bytes = ((random >> 40) % 40) * UNIT;
                if own.charge(0, bytes).is_ok() && random >> 63 == 0 {
                    own.refund(0, bytes);
                }
                if own.used_here(0) > 30 * UNIT {
                    own.refund(0, own.used_here(0));
                }
            }
        })
    };
    let mut children: Vec<_> = (0..4).map(spawn).collect();
    for round in 0..kills {
        // Between a few instructions and a few hundred thousand.
        for _ in 0..(round * 7_919) % 3_000 {
            let used = watcher.used(0);
            assert!(used <= LIMIT * UNIT, "{used} bytes after {round} kills");
        }
        let index = usize::try_from(round).unwrap() % children.len();
        kill(children[index]);
        children[index] = spawn(round.wrapping_add(99));
    }
    children.into_iter().for_each(kill);
    watcher
        .charge(0, LIMIT * UNIT)
        .expect("all are dead, so all is free");
    watcher.refund(0, LIMIT * UNIT);
    assert_eq!(watcher.used(0), 0);
    assert!(
        read_summary(&dir)
            .unwrap()
            .iter()
            .all(|process| process.devices.is_empty())
    );
}

#[test]
fn kills_lose_nothing() {
    torture(1_000);
}

#[test]
#[ignore = "ten thousand kills take a while; runs with the torture"]
fn ten_thousand_kills_lose_nothing() {
    torture(10_000);
}
