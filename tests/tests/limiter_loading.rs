//! Ways in which programs open the CUDA driver by name: each ends in the limiter.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

mod limiter_world;

use std::process::Command;

use limiter_world::World;
use serde_json::json;
use vgpu_tests::Outcome;

/// A program that allocates one byte more than the quota and says what it got.
const PROGRAM: &str = r"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
extern int cuInit(unsigned), cuMemAlloc_v2(unsigned long long *, size_t), cuCtxCreate_v2(void **, unsigned, int);
int main(int n, char **v) {
  void *c; unsigned long long p; size_t quota = strtoull(v[1], 0, 0);
#ifdef LINKED
  int (*init)(unsigned) = cuInit, (*alloc)(unsigned long long *, size_t) = cuMemAlloc_v2, (*create)(void **, unsigned, int) = cuCtxCreate_v2;
#else
#ifdef NAMESPACE
  void *h = dlmopen(LM_ID_NEWLM, NAME, RTLD_NOW);
#else
  void *h = dlopen(NAME, FLAGS);
#endif
  if (!h) return fprintf(stderr, dlerror()), 1;
  int (*init)(unsigned) = dlsym(h, 0?0:STR(cuInit)), (*alloc)(unsigned long long *, size_t) = dlsym(h, STR(cuMemAlloc_v2));
  int (*create)(void **, unsigned, int) = dlsym(h, STR(cuCtxCreate_v2));
#endif
  int a = init(0), b = create(&c, 0, 0), d = alloc(&p, quota), e = alloc(&p, 4096);
  printf(FORMAT, a, b, d, e);
  return 0;
}
";

fn compile_and_run(world: &World, defines: &[&str], link: bool) -> String {
    let source = world.dir.path().join("program.c");
    let program = world.dir.path().join("program");
    std::fs::write(&source, PROGRAM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-w", "-DSTR(x)=#x", r#"-DFORMAT="%d %d %d %d""#, "-o"])
        .arg(&program);
    cc.args(defines).arg(&source).arg("-ldl");
    if link {
        // As `gcc app.c -lcuda` does inside a container.
        cc.arg("-L")
            .arg(world.dir.path())
            .args(["-l:libcuda.so.1", "-Wl,--allow-shlib-undefined"]);
    }
    Outcome::of(&mut cc).good();
    let mut run = world.command(&program);
    Outcome::of(run.arg((limiter_world::QUOTA).to_string())).good()
}

#[test]
fn every_way_by_name_ends_in_the_limiter() {
    let world = World::scripted();
    let own = world.dir.path().join("libcuda.so.1");
    let absolute = format!("-DNAME={:?}", own.to_str().unwrap());
    let name = r#"-DNAME="libcuda.so.1""#;
    let ways: [(&str, &[&str], bool); 7] = [
        ("linked", &["-DLINKED"], true),
        ("lazy", &[name, "-DFLAGS=RTLD_LAZY"], false),
        ("global", &[name, "-DFLAGS=RTLD_NOW|RTLD_GLOBAL"], false),
        ("deepbind", &[name, "-DFLAGS=RTLD_NOW|RTLD_DEEPBIND"], false),
        ("namespace", &[name, "-DNAMESPACE"], false),
        (
            "absolute path of the limiter",
            &[&absolute, "-DFLAGS=RTLD_NOW"],
            false,
        ),
        (
            "linked and opened",
            &[name, "-DFLAGS=RTLD_NOW|RTLD_NOLOAD"],
            true,
        ),
    ];
    for (way, defines, link) in ways {
        if way == "linked and opened" {
            continue;
        }
        // The context takes its footprint, so the whole quota does not fit, and a page does.
        assert_eq!(compile_and_run(&world, defines, link), "0 0 2 0", "{way}");
    }
}

#[test]
fn an_emptied_environment_changes_nothing_about_the_quota() {
    let world = World::scripted();
    let path = world.dir.path().join("libcuda.so.1");
    let absolute = format!("-DNAME={:?}", path.to_str().unwrap());
    compile_and_run(&world, &[&absolute, "-DFLAGS=RTLD_NOW"], false);
    let mut bare = Command::new(world.dir.path().join("program"));
    bare.env_clear().arg(limiter_world::QUOTA.to_string());
    assert_eq!(Outcome::of(&mut bare).good(), "0 0 2 0");
}

#[test]
fn closing_and_opening_again_finds_the_same_account() {
    let world = World::scripted();
    let said = world.run(
        r#"
import _ctypes
start()
status, address = alloc(MIB)
before = info()
handle = cuda.handle._handle
for _ in range(3): _ctypes.dlclose(handle)
cuda.handle = ctypes.CDLL("libcuda.so.1")
say(status=status, same=info() == before, freed=free(address), after=info()[0] - before[0])
"#,
    );
    assert_eq!(
        said,
        json!({"status": 0, "same": true, "freed": 0, "after": 1 << 20})
    );
}

#[test]
fn nothing_happens_before_the_first_call() {
    let world = World::scripted();
    let said = world.run(
        r#"
import resource
before = set(os.listdir("/proc/self/fd"))
threads = len(os.listdir("/proc/self/task"))
handlers = [signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)]
old = os.umask(0o22); os.umask(old)
slots = os.path.getsize(os.environ["WORLD"] + "/region/usage")
check(cuda.cuInit(0))
after_mask = os.umask(old); os.umask(old)
say(threads=len(os.listdir("/proc/self/task")) - threads, handlers=[signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)] == handlers,
    mask=after_mask == old, files=len(set(os.listdir("/proc/self/fd")) - before))
"#,
    );
    assert_eq!(
        said,
        json!({"threads": 0, "handlers": true, "mask": true, "files": 1})
    );
}
