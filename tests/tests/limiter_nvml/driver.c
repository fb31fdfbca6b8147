/* A scripted NVML as an older driver has it (no third form of the process lists), with two GPUs, a MIG device on the
   first, and a process of somebody else. `script_fail(code)` makes every question about a device end with that code;
   `script_changes()` counts the setters that got here. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef unsigned U;
typedef unsigned long long L;
typedef char *D; /* 1, 2: GPUs; 3: the MIG device */
#define OF(n) ((D)(size_t)(n))
#define MIG OF(3)

static int failing, changes;
void script_fail(int code) { failing = code; }
int script_changes(void) { return changes; }
#define JUDGE if (failing) return failing; if (!device || device > MIG) return 2;

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(U *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(U index, D *device) { if (index > 1) return 2; *device = OF(index + 1); return 0; }
int nvmlDeviceGetUUID(D device, char *text, U room) {
  if (!device || device > MIG) return 2;
  int n = (int)(size_t)device;
  snprintf(text, room, "%s-0%d0%d0%d0%d-0%d0%d-0%d0%d-0%d0%d-0%d0%d0%d0%d0%d0%d", device == MIG ? "MIG" : "GPU",
           n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n);
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, D *device) {
  char own[96];
  for (int n = 1; n <= 3; n++) {
    nvmlDeviceGetUUID(OF(n), own, sizeof own);
    if (!strcmp(own, uuid)) { *device = OF(n); return 0; }
  }
  return 6;
}
int nvmlDeviceIsMigDeviceHandle(D device, U *mig) { *mig = device == MIG; return 0; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(D device, D *gpu) { *gpu = OF(1); return device == MIG ? 0 : 2; }
int nvmlDeviceGetMigDeviceHandleByIndex(D device, U index, D *mig) { JUDGE if (index) return 6; *mig = MIG; return 0; }
int nvmlDeviceGetIndex(D device, U *index) { JUDGE *index = device == MIG ? 0 : (U)((size_t)device - 1); return 0; }
int nvmlDeviceGetAttributes_v2(D device, U *attributes) {
  JUDGE if (device != MIG) return 3;
  for (int i = 0; i < 8; i++) attributes[i] = i + 1;
  *(L *)(attributes + 8) = 20000;
  return 0;
}
static int memory(D device, L *out) { JUDGE out[0] = 20ull << 30; out[1] = 19ull << 30; out[2] = 1ull << 30; return 0; }
int nvmlDeviceGetMemoryInfo(D device, L *out) { return memory(device, out); }
int nvmlDeviceGetBAR1MemoryInfo(D device, L *out) { return memory(device, out); }

struct process { U pid; L used; U gpu, compute; };
int nvmlDeviceGetComputeRunningProcesses_v2(D device, U *count, struct process *list) {
  JUDGE U room = *count; *count = 2;
  if (room < 2 || !list) return 7;
  list[0] = (struct process){77777777, 1 << 30, -1, -1};
  list[1] = (struct process){getpid(), 1 << 20, -1, -1};
  return 0;
}
int nvmlDeviceGetUtilizationRates(D device, U *out) { JUDGE out[0] = 90; out[1] = 45; return 0; }
struct sample { U pid; L time; U sm, memory, enc, dec; };
int nvmlDeviceGetProcessUtilization(D device, struct sample *list, U *count, L since) {
  JUDGE U room = *count; *count = 2;
  if (room < 2 || !list) return 7;
  list[0] = (struct sample){77777777, 5, 60, 30, 0, 0};
  list[1] = (struct sample){getpid(), 6, 30, 15, 7, 8};
  return 0;
}
/* As a driver that looks pids up among the host's. */
int nvmlSystemGetProcessName(U pid, char *name, U room) { snprintf(name, room, "host"); return 0; }
int nvmlDeviceSetComputeMode(D device, U mode) { changes++; return 0; }
int nvmlDeviceSetGpuLockedClocks(D device, U low, U high) { changes++; return 0; }
