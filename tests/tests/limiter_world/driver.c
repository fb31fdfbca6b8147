/* A scripted driver: the few functions that the hooks need, a counter of calls, and failures on demand.
 * One context per device, addresses that only grow, no memory behind them. */
#include <stddef.h>
#include <string.h>

typedef int R;
typedef unsigned long long P;
static int calls, fail, current = -1, below = -1, contexts[4];
static P next = 0x700000000000ull;

int script_calls(void) { return calls; }
void script_fail(int status) { fail = status; }

static R answer(void) { calls++; R status = fail; fail = 0; return status; }
static R alloc(P *p, size_t bytes) {
  R status = answer();
  if (status) return status;
  if (!p || !bytes) return 1;
  *p = next, next += (bytes + 0xfff) & ~0xfffull;
  return 0;
}

R cuInit(unsigned flags) { return answer(); }
R cuCtxGetCurrent(void **c) { *c = current < 0 ? NULL : &contexts[current]; return 0; }
R cuCtxGetDevice(int *d) { if (current < 0) return 201; *d = current; return 0; }
R cuCtxSetCurrent(void *c) { current = c ? (int)((int *)c - contexts) : -1; return 0; }
R cuCtxPushCurrent_v2(void *c) { below = current; return cuCtxSetCurrent(c); }
R cuCtxPopCurrent_v2(void **c) { R status = cuCtxGetCurrent(c); current = below; return status; }
R cuStreamGetCtx(void *s, void **c) { *c = &contexts[(size_t)s & 3]; return 0; }
R cuDeviceGetUuid(char *u, int d) { if (d < 0 || d > 3) return 101; memset(u, d + 1, 16); return 0; }

R cuMemAlloc(unsigned *p, unsigned n) { P wide; R s = alloc(p ? &wide : NULL, n); if (!s) *p = (unsigned)(wide >> 8); return s; }
R cuMemAlloc_v2(P *p, size_t n) { return alloc(p, n); }
R cuMemAllocManaged(P *p, size_t n, unsigned f) { return alloc(p, n); }
/* One pool. It reserves what it is asked for, in granules if so told, and keeps freed memory until trimmed if so told. */
static char pool; static P taken[4096]; static size_t sizes[4096], reserved, granule = 1, in_use; static int takes, keeps;
void script_pool(size_t g, int k) { granule = g, keeps = k; }
static R pooled(P *p, size_t n) {
  R s = alloc(p, n);
  if (s) return s;
  taken[takes] = *p, sizes[takes++] = n, in_use += n;
  while (reserved < in_use) reserved += granule < n ? n : granule;
  return 0;
}
static void unpool(P p) { for (int i = 0; i < takes; i++) if (taken[i] == p) { in_use -= sizes[i], taken[i] = 0; if (!keeps) reserved = in_use; return; } }
R cuDeviceGetMemPool(void **p, int d) { *p = &pool; return 0; }
R cuMemPoolGetAttribute(void *p, int a, size_t *v) { *v = reserved; return a == 5 ? 0 : 1; }
R cuMemPoolTrimTo(void *p, size_t keep) { size_t least = in_use > keep ? in_use : keep; if (reserved > least) reserved = least; return 0; }
R cuMemPoolDestroy(void *p) { return answer(); }
R cuMemAllocAsync(P *p, size_t n, void *s) { return pooled(p, n); }
R cuMemAllocAsync_ptsz(P *p, size_t n, void *s) { return pooled(p, n); }
R cuMemAllocFromPoolAsync(P *p, size_t n, void *o, void *s) { return pooled(p, n); }
R cuMemAllocFromPoolAsync_ptsz(P *p, size_t n, void *o, void *s) { return pooled(p, n); }
/* A pitch of its own: rows are padded to 1024, so the hook has to settle. */
R cuMemAllocPitch_v2(P *p, size_t *pitch, size_t w, size_t h, unsigned e) { size_t row = (w + 1023) & ~1023ull; R s = alloc(p, row * h); if (!s) *pitch = row; return s; }
R cuMemAllocPitch(unsigned *p, unsigned *pitch, unsigned w, unsigned h, unsigned e) { P wide; size_t row = 0; R s = cuMemAllocPitch_v2(&wide, &row, w, h, e); if (!s) *p = (unsigned)(wide >> 8), *pitch = (unsigned)row; return s; }
R cuMemFree(unsigned p) { return answer(); }
R cuMemFree_v2(P p) { R r = answer(); if (!r) unpool(p); return r; }
R cuMemFreeAsync(P p, void *s) { R r = answer(); if (!r) unpool(p); return r; }
R cuMemFreeAsync_ptsz(P p, void *s) { R r = answer(); if (!r) unpool(p); return r; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { R s = answer(); if (s) return s; if (!f || !t) return 1; *f = 1ull << 36, *t = 1ull << 37; return 0; }
R cuMemGetInfo(unsigned *f, unsigned *t) { R s = answer(); if (s) return s; *f = *t = ~0u; return 0; }
R cuDeviceTotalMem_v2(size_t *t, int d) { R s = answer(); if (s) return s; *t = 1ull << 37; return 0; }
R cuDeviceTotalMem(unsigned *t, int d) { R s = answer(); if (s) return s; *t = ~0u; return 0; }

static R context(void **c, int d) { R s = answer(); if (s) return s; if (d < 0 || d > 3) return 101; *c = &contexts[d]; current = d; return 0; }
R cuCtxCreate(void **c, unsigned f, int d) { return context(c, d); }
R cuCtxCreate_v2(void **c, unsigned f, int d) { return context(c, d); }
R cuCtxCreate_v3(void **c, void *a, int n, unsigned f, int d) { return context(c, d); }
R cuCtxCreate_v4(void **c, void *a, unsigned f, int d) { return context(c, d); }
/* What happens once, right after a context's end and before its owner hears of it. */
static void (*then)(void);
void script_then(void (*f)(void)) { then = f; }
static R end(void) { R s = answer(); void (*f)(void) = then; then = NULL; if (f) f(); return s; }
R cuCtxDestroy(void *c) { return end(); }
R cuCtxDestroy_v2(void *c) { return end(); }
R cuCtxAttach(void **c, unsigned f) { R s = answer(); if (!s) cuCtxGetCurrent(c); return s; }
R cuCtxDetach(void *c) { return end(); }
R cuDevicePrimaryCtxRetain(void **c, int d) { int was = current; R s = context(c, d); current = was; return s; }
R cuDevicePrimaryCtxRelease(int d) { return answer(); }
R cuDevicePrimaryCtxRelease_v2(int d) { return answer(); }
R cuDevicePrimaryCtxReset(int d) { return answer(); }
R cuDevicePrimaryCtxReset_v2(int d) { R s = end(); if (!s) reserved = in_use = 0; return s; }
/* Physical memory: handles are addresses; mapping and unmapping always succeed. The location follows two ints. */
R cuMemCreate(P *h, size_t n, int *prop, unsigned long long f) { if (!prop) return 1; return alloc(h, n); }
R cuMemRelease(P h) { return answer(); }
R cuMemMap(P p, size_t n, size_t o, P h, unsigned long long f) { return answer(); }
R cuMemUnmap(P p, size_t n) { return answer(); }
R cuMemRetainAllocationHandle(P *h, void *p) { R s = answer(); if (!s) *h = (P)(size_t)p | 1; return s; }
/* Arrays: without memory on request (flag 128); one like it needs what script_array says. */
static size_t array_bytes;
void script_array(size_t bytes) { array_bytes = bytes; }
static R array(P *h) { return alloc(h, 1); }
R cuArrayCreate(P *h, void *d) { return array(h); }
R cuArrayCreate_v2(P *h, void *d) { return array(h); }
R cuArray3DCreate(P *h, void *d) { return array(h); }
R cuArray3DCreate_v2(P *h, unsigned *d) { if (d[8] & 128) { *h = 1; return 0; } return array(h); }
R cuMipmappedArrayCreate(P *h, unsigned *d, unsigned n) { if (d[8] & 128) { *h = 1; return 0; } return array(h); }
R cuArrayGetMemoryRequirements(size_t *n, void *a, int d) { *n = array_bytes; return 0; }
R cuMipmappedArrayGetMemoryRequirements(size_t *n, void *a, int d) { *n = 2 * array_bytes; return 0; }
R cuArrayDestroy(P a) { return a == 1 ? 0 : answer(); }
R cuMipmappedArrayDestroy(P a) { return a == 1 ? 0 : answer(); }
/* Eight integers and a sum of doubles: a pass row with arguments in registers and on the stack. */
R cuArray3DGetDescriptor(void *a, void *b) { return (int)(size_t)a + (int)(size_t)b; }
R cuLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned h, void *s, void **p, void **x) {
  return f == (void *)1 && a == 2 && b == 3 && c == 4 && d == 5 && e == 6 && g == 7 && h == 8 && s == (void *)9 && p == (void *)10 && x == (void *)11 ? 0 : 999;
}
