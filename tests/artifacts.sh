#!/bin/bash
# What the built files promise to the machines they are put on, checked with readelf:
# names, dependencies, no symbol newer than glibc 2.17 in the limiter, a static hook below 2 MB.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
DIST=${VGPU_DIST:-$PWD/target/dist}
bad=0
fault() { echo "artifacts: $*" >&2; bad=1; }
dynamic() { readelf -dW "$1" | sed -n "s/.*($2).*\[\(.*\)\]/\1/p"; }

# library FILE SONAME DRIVER
library() {
  local f=$DIST/lib/vgpu/$1 extra newest
  [ -f "$f" ] || { fault "no $f"; return; }
  [ "$(dynamic "$f" SONAME)" = "$2" ] || fault "$1: SONAME is '$(dynamic "$f" SONAME)', not $2"
  # shellcheck disable=SC2016  # the loader expands it
  [ "$(dynamic "$f" RUNPATH)" = '$ORIGIN/driver:/usr/lib/vgpu/driver' ] || fault "$1: RUNPATH is '$(dynamic "$f" RUNPATH)'"
  dynamic "$f" NEEDED | grep -qx "$3" || fault "$1: does not need $3"
  extra=$(dynamic "$f" NEEDED | grep -vxE "$3|lib(c|m|dl|rt|pthread)\.so\.[0-9]+|ld-linux-x86-64\.so\.2" | tr '\n' ' ')
  [ -z "$extra" ] || fault "$1: needs more than glibc and the driver: $extra"
  newest=$(readelf -VW "$f" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
  [ "$(printf '%s\n' GLIBC_2.17 "$newest" | sort -V | tail -n 1)" = GLIBC_2.17 ] || fault "$1: needs $newest, the floor is GLIBC_2.17"
  constructors "$f" "$1"
}

# No code of ours runs at load. Rust's own note of the program's arguments stands in the array; nothing else may.
constructors() {
  local bytes; bytes=$(readelf -dW "$1" | sed -n 's/.*(INIT_ARRAYSZ) *\([0-9]*\) (bytes).*/\1/p')
  [ "${bytes:-0}" -le 8 ] || fault "$2: $((bytes / 8)) constructors in .init_array, only Rust's own may be there"
}

hook() {
  local f=$DIST/bin/vgpu-hook size
  [ -f "$f" ] || { fault "no $f"; return; }
  size=$(stat -c %s "$f")
  [ "$size" -lt 2000000 ] || fault "vgpu-hook: $size bytes, the limit is 2000000"
  [ -z "$(dynamic "$f" NEEDED)" ] || fault "vgpu-hook: not static, needs $(dynamic "$f" NEEDED | tr '\n' ' ')"
  ! readelf -lW "$f" | grep -q INTERP || fault "vgpu-hook: asks for a program interpreter"
  echo "artifacts: vgpu-hook is static, $size bytes"
}

library libcuda.so.1 libcuda.so.1 libcuda-driver.so.1
library libnvidia-ml.so.1 libnvidia-ml.so.1 libnvidia-ml-driver.so.1
hook
[ $bad = 0 ] && echo "artifacts: as promised"
exit $bad
