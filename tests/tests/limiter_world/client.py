"""The unmodified program of the limiter's tests: opens libcuda.so.1 by name, as everybody does."""
import ctypes, json, os, signal, subprocess, sys, threading, time
from ctypes import POINTER, byref, c_char_p, c_int, c_longlong, c_size_t, c_uint, c_ulonglong, c_void_p

OOM, MIB, GIB = 2, 1 << 20, 1 << 30


class Library:
    """Functions by name; sizes, addresses and handles are 64 bits wide, plain ints are int or unsigned."""

    def __init__(self, name):
        self.handle = ctypes.CDLL(name)

    def __getattr__(self, name):
        return getattr(self.handle, name)


cuda = Library("libcuda.so.1")
CONTEXT, ADDRESS = c_void_p(), c_ulonglong()


def size(n):
    return c_size_t(n)


def start(device=0):
    """cuInit and a current primary context."""
    check(cuda.cuInit(0))
    context = c_void_p()
    check(cuda.cuDevicePrimaryCtxRetain(byref(context), device))
    check(cuda.cuCtxSetCurrent(context))
    return context


def check(status):
    assert status == 0, f"status {status}"


def info():
    free, total = c_size_t(), c_size_t()
    check(cuda.cuMemGetInfo_v2(byref(free), byref(total)))
    return free.value, total.value


def alloc(n):
    """(status, address)"""
    address = c_ulonglong()
    return cuda.cuMemAlloc_v2(byref(address), size(n)), address.value


def free(address):
    return cuda.cuMemFree_v2(c_ulonglong(address))


def say(**facts):
    print(json.dumps(facts), flush=True)
