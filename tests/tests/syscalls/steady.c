// What an application does all day, between two markers that a trace of system calls shows.
//   steady PATH N: one PATH N times, once it has been warmed up
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef unsigned long long u64;
static int (*alloc)(u64 *, u64), (*release)(u64), (*info)(u64 *, u64 *);
static int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
static int (*alloc_async)(u64 *, u64, void *), (*free_async)(u64, void *);
static void *function;
static const char PTX[] = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry plain() { ret; }\n";

static void must(int status, const char *what) {
  if (status) { printf("%s answered %d\n", what, status); exit(1); }
}

static void once(const char *path) {
  u64 address = 0, total = 0;
  if (!strcmp(path, "alloc")) {
    must(alloc(&address, 4096), "alloc");
    must(release(address), "free");
  } else if (!strcmp(path, "info")) must(info(&address, &total), "info");
  else if (!strcmp(path, "launch")) must(launch(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), "launch");
  else if (!strcmp(path, "async")) {
    must(alloc_async(&address, 4096, NULL), "alloc async");
    must(free_async(address, NULL), "free async");
  } else if (!strcmp(path, "control")) syscall(SYS_getuid);
  else exit(2);
}

int main(int count, char **args) {
  if (count < 3) return 3;
  void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *module = NULL;
  if (!cuda) { puts(dlerror()); return 4; }
#define FIND(name) dlsym(cuda, name)
  int (*init)(unsigned) = FIND("cuInit"), (*retain)(void **, int) = FIND("cuDevicePrimaryCtxRetain"), (*set)(void *) = FIND("cuCtxSetCurrent");
  int (*load)(void **, const void *) = FIND("cuModuleLoadData"), (*find)(void **, void *, const char *) = FIND("cuModuleGetFunction");
  void *context = NULL;
  alloc = FIND("cuMemAlloc_v2"), release = FIND("cuMemFree_v2"), info = FIND("cuMemGetInfo_v2"), launch = FIND("cuLaunchKernel");
  alloc_async = FIND("cuMemAllocAsync"), free_async = FIND("cuMemFreeAsync");
  must(init(0), "init"), must(retain(&context, 0), "retain"), must(set(context), "set current");
  must(load(&module, PTX), "load"), must(find(&function, module, "plain"), "find");
  for (int i = 0; i < 100; i++) once(args[1]);
  syscall(SYS_getppid);
  for (int i = 0; i < atoi(args[2]); i++) once(args[1]);
  syscall(SYS_getppid);
  return 0;
}
