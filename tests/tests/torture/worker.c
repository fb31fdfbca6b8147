// The processes of the torture. Opens libcuda.so.1 by name, knows nothing of a limiter.
//
//   rounds N   N children in all are killed, one to four at a time; between the rounds one process takes the whole quota
//   threads N  the same with N children of four threads each
//   whole      takes the whole quota, and sees that there is no byte more; exit 3 where it is not to be had
//   hold | fork | vfork | rest | exec
// A QUOTA and a FOOTPRINT in bytes come from the compiler's command line.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
enum { OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3 };
#define MIB ((u64)1 << 20)
#define KEPT (10 * MIB)

static void *library;

// Calls a driver function by name; every argument travels as a 64-bit word.
static int call(const char *name, u64 a, u64 b, u64 c, u64 d, u64 e) {
  int (*function)(u64, u64, u64, u64, u64) = (int (*)(u64, u64, u64, u64, u64))dlsym(library, name);
  if (!function) { printf("no %s\n", name); exit(10); }
  return function(a, b, c, d, e);
}
#define CALL(name, a, b, c, d, e) call(name, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e))

static void must(int status, const char *what) {
  if (status) { printf("%s answered %d\n", what, status); exit(11); }
}

static void start(void) {
  u64 context = 0;
  must(CALL("cuInit", 0, 0, 0, 0, 0), "cuInit");
  must(CALL("cuDevicePrimaryCtxRetain", &context, 0, 0, 0, 0), "retain");
  must(CALL("cuCtxSetCurrent", context, 0, 0, 0, 0), "set current");
}

// --- random programs

typedef struct { u64 state; } Random;
static u64 below(Random *r, u64 n) {
  r->state = r->state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (r->state >> 33) % n;
}

enum Kind { NONE, PLAIN, MANAGED, PITCHED, ASYNC, POOLED, PHYSICAL, MAPPED, ARRAY, CONTEXT, KINDS };
typedef struct { enum Kind kind; u64 value, range, size; } Held;
typedef struct { int type, handles, location, id; u64 win32, flags; } Prop;
typedef struct { u64 width, height; unsigned format, channels; } ArrayDescriptor;

// Out of memory is right; anything else is not.
static int got(int status, const char *what) {
  if (status && status != OUT_OF_MEMORY) { printf("%s answered %d\n", what, status); fflush(stdout); _exit(12); }
  return status == 0;
}

static int take_physical(Held *h, u64 size, int mapped) {
  Prop prop = {1, 0, 1, 0, 0, 0};
  size = (size + 2 * MIB - 1) & ~(2 * MIB - 1);
  if (!got(CALL("cuMemCreate", &h->value, size, &prop, 0, 0), "create")) return 0;
  h->size = size;
  if (!mapped) return 1;
  must(CALL("cuMemAddressReserve", &h->range, size, 0, 0, 0), "reserve");
  must(CALL("cuMemMap", h->range, size, 0, h->value, 0), "map");
  must(CALL("cuMemRelease", h->value, 0, 0, 0, 0), "release");
  return 1;
}

static int take(Held *h, Random *r) {
  u64 size = 1 + below(r, 12 * MIB), pitch = 0, pool = 0;
  ArrayDescriptor array = {1 + below(r, 4096), below(r, 512), 0x20, 4};
  memset(h, 0, sizeof *h);
  h->kind = 1 + below(r, KINDS - 1);
  switch (h->kind) {
  case PLAIN: return got(CALL("cuMemAlloc_v2", &h->value, size, 0, 0, 0), "alloc");
  case MANAGED: return got(CALL("cuMemAllocManaged", &h->value, size, 1, 0, 0), "managed");
  case PITCHED: return got(CALL("cuMemAllocPitch_v2", &h->value, &pitch, 1 + size % 4000, 1 + size / 4000, 4), "pitch");
  case ASYNC: return got(CALL("cuMemAllocAsync", &h->value, size, 0, 0, 0), "async");
  case POOLED:
    must(CALL("cuDeviceGetDefaultMemPool", &pool, 0, 0, 0, 0), "pool");
    return got(CALL("cuMemAllocFromPoolAsync", &h->value, size, pool, 0, 0), "from pool");
  case PHYSICAL: return take_physical(h, size, 0);
  case MAPPED: return take_physical(h, size, 1);
  case ARRAY: return got(CALL("cuArrayCreate_v2", &h->value, &array, 0, 0, 0), "array");
  case CONTEXT:
    if (!got(CALL("cuCtxCreate_v2", &h->value, 0, 0, 0, 0), "context")) return 0;
    must(CALL("cuCtxPopCurrent_v2", &pitch, 0, 0, 0, 0), "pop");
    return 1;
  default: return 0;
  }
}

static void give(Held *h) {
  switch (h->kind) {
  case ASYNC: case POOLED: must(CALL("cuMemFreeAsync", h->value, 0, 0, 0, 0), "free async"); break;
  case PHYSICAL: must(CALL("cuMemRelease", h->value, 0, 0, 0, 0), "release"); break;
  case MAPPED:
    must(CALL("cuMemUnmap", h->range, h->size, 0, 0, 0), "unmap");
    must(CALL("cuMemAddressFree", h->range, h->size, 0, 0, 0), "free address");
    break;
  case ARRAY: must(CALL("cuArrayDestroy", h->value, 0, 0, 0, 0), "destroy array"); break;
  case CONTEXT: must(CALL("cuCtxDestroy_v2", h->value, 0, 0, 0, 0), "destroy context"); break;
  default: must(CALL("cuMemFree_v2", h->value, 0, 0, 0, 0), "free");
  }
  h->kind = NONE;
}

static void *churn(void *seed) {
  enum { MOST = 8 };
  Held held[MOST] = {0};
  Random r = {(u64)(uintptr_t)seed};
  u64 context = 0;
  must(CALL("cuDevicePrimaryCtxRetain", &context, 0, 0, 0, 0), "retain");
  must(CALL("cuCtxSetCurrent", context, 0, 0, 0, 0), "set current");
  for (;;) {
    Held *h = &held[below(&r, MOST)];
    if (h->kind) give(h);
    else if (!take(h, &r)) h->kind = NONE;
  }
  return NULL;
}

// --- who kills, and who looks

static void sleep_us(u64 us) {
  struct timespec t = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&t, NULL);
}

// A child that dies with its parent.
static pid_t offspring(void) {
  pid_t parent = getpid(), child = fork();
  if (child) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(13);
  return 0;
}

static pid_t spawn(u64 seed, int threads) {
  pid_t child = offspring();
  if (child) return child;
  // Sometimes the context itself does not fit beside the siblings.
  u64 context = 0;
  must(CALL("cuInit", 0, 0, 0, 0, 0), "cuInit");
  while (!got(CALL("cuDevicePrimaryCtxRetain", &context, 0, 0, 0, 0), "retain")) sched_yield();
  for (int i = 1; i < threads; i++) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, churn, (void *)(uintptr_t)(seed * 31 + i)), "thread");
  }
  churn((void *)(uintptr_t)seed);
  _exit(0);
}

static void kill_and_wait(pid_t child) {
  int status = 0;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  if (!WIFSIGNALED(status)) { printf("a child ended by itself with %d\n", WEXITSTATUS(status)); exit(14); }
}

// Takes all that there is, beside its own context, and sees that it is all.
static int take_whole(u64 others) {
  u64 all = 0, more = 0;
  int status = CALL("cuMemAlloc_v2", &all, QUOTA - FOOTPRINT - others, 0, 0, 0);
  if (status == 0) {
    int extra = CALL("cuMemAlloc_v2", &more, 1, 0, 0, 0);
    must(extra == OUT_OF_MEMORY ? 0 : 100 + extra, "a byte more than the quota");
    must(CALL("cuMemFree_v2", all, 0, 0, 0, 0), "free");
  }
  return status;
}

typedef struct { int ask, answer; } Checker;

// A sibling that lives through all rounds.
static Checker checker(void) {
  int ask[2], answer[2];
  char byte;
  must(pipe(ask) | pipe(answer), "pipe");
  if (offspring() == 0) {
    start();
    while (read(ask[0], &byte, 1) == 1) {
      byte = (char)take_whole(0);
      if (write(answer[1], &byte, 1) != 1) break;
    }
    _exit(0);
  }
  close(ask[0]), close(answer[1]);
  return (Checker){ask[1], answer[0]};
}

static void check(Checker c, u64 kills) {
  char byte = 99;
  must(write(c.ask, "?", 1) == 1 ? 0 : 1, "ask");
  if (read(c.answer, &byte, 1) != 1) { printf("after %llu kills the sibling was gone\n", kills); exit(15); }
  if (byte) { printf("after %llu kills the whole quota answered %d\n", kills, byte); exit(16); }
}

static void rounds(u64 total, int threads) {
  Random r = {42};
  Checker c = checker();
  u64 kills = 0, rounds = 0;
  check(c, 0);
  while (kills < total) {
    pid_t children[4];
    u64 count = 1 + below(&r, 4);
    if (count > total - kills) count = total - kills;
    for (u64 i = 0; i < count; i++) children[i] = spawn(kills + i + 1, threads);
    for (u64 i = 0; i < count; i++) {
      sleep_us(below(&r, 3000));
      kill_and_wait(children[i]);
    }
    kills += count, rounds++;
    check(c, kills);
  }
  printf("%llu kills, %llu rounds\n", kills, rounds);
}

// --- fork, vfork, exec

static void after_child(pid_t child, int expected) {
  int status = 0;
  waitpid(child, &status, 0);
  if (status != expected) { printf("the child ended with status %d\n", status); exit(17); }
  must(take_whole(KEPT), "what the parent left");
  puts("kept");
}

static u64 kept(void) {
  u64 address = 0;
  start();
  must(CALL("cuMemAlloc_v2", &address, KEPT, 0, 0, 0), "alloc");
  return address;
}

static void with_fork(void) {
  u64 address = kept(), more = 0;
  pid_t child = fork();
  if (child == 0) {
    // The parent's driver is not the child's: that is for the driver to say, and no charge is touched.
    if (CALL("cuMemFree_v2", address, 0, 0, 0, 0) != NOT_INITIALIZED) _exit(1);
    if (CALL("cuMemAlloc_v2", &more, MIB, 0, 0, 0) != NOT_INITIALIZED) _exit(2);
    kill(getpid(), SIGKILL);
  }
  after_child(child, SIGKILL);
}

static void with_vfork(const char *self) {
  kept();
  pid_t child = vfork();
  if (child == 0) {
    execl(self, self, "rest", (char *)NULL);
    _exit(127);
  }
  after_child(child, 0);
}

int main(int count, char **args) {
  const char *verb = count > 1 ? args[1] : "", *number = count > 2 ? args[2] : "1";
  library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) { printf("%s\n", dlerror()); return 18; }
  if (!strcmp(verb, "rounds")) rounds(strtoull(number, NULL, 10), 1);
  else if (!strcmp(verb, "threads")) rounds(strtoull(number, NULL, 10), 4);
  else if (!strcmp(verb, "fork")) with_fork();
  else if (!strcmp(verb, "vfork")) with_vfork("/proc/self/exe");
  else if (!strcmp(verb, "rest")) { start(); must(take_whole(FOOTPRINT + KEPT), "the rest"); }
  else if (!strcmp(verb, "whole")) { start(); if (take_whole(0)) return 3; puts("whole"); }
  else if (!strcmp(verb, "exec")) {
    kept();
    execl("/proc/self/exe", "worker", "whole", (char *)NULL);
    return 19;
  } else if (!strcmp(verb, "hold")) { kept(); puts("ready"); fflush(stdout); pause(); }
  else return 20;
  return 0;
}
