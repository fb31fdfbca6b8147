#!/bin/bash
# Builds what gets installed, and the simulated driver of the tests, into one folder:
#
#   bin/vgpu  bin/vgpu-hook                          the command; the static OCI hook
#   lib/vgpu/{libcuda,libnvidia-ml}.so.1             the limiter, no symbol newer than glibc 2.17
#   sim/bin/sim-gpu  sim/lib/libsim_*.so             tests only: never part of a package
#
# Environment: VGPU_DIST (target/dist), VGPU_VENV (target/tools/venv, by tests/setup.sh), CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."
DIST=${VGPU_DIST:-$PWD/target/dist}
VENV=${VGPU_VENV:-$PWD/target/tools/venv}
TARGET=x86_64-unknown-linux-gnu
OUT=${CARGO_TARGET_DIR:-target}/$TARGET

die() { echo "dist: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || die "only x86_64 is built for now, this is $(uname -m)"
[ -x "$VENV/bin/cargo-zigbuild" ] || die "no $VENV/bin/cargo-zigbuild: run tests/setup.sh first"

# Zig brings the old glibc's stubs, so the floor does not depend on this machine. Its cache stays in the checkout.
zigbuild() {
  PATH=$VENV/bin:$PATH ZIG_GLOBAL_CACHE_DIR=$PWD/target/tools/zig-cache CARGO_ZIGBUILD_CACHE_DIR=$PWD/target/tools/zigbuild \
    "$VENV/bin/cargo-zigbuild" zigbuild -q --locked --target "$TARGET.2.17" "$@"
}

step() { local t0=$SECONDS what=$1; shift; "$@" || die "$what failed"; [ $((SECONDS - t0)) -lt 1 ] || echo "dist: $what ($((SECONDS - t0)) s)"; }

# The limiter by itself: built together with the command it would be given the command's features (a config parser).
step "limiter" zigbuild --release -p vgpu-libcuda -p vgpu-libnvidia-ml
step "command and simulated driver" zigbuild --profile tools -p vgpu-cli -p sim-gpu -p sim-libcuda -p sim-libnvidia-ml
step "hook" env RUSTFLAGS="-C target-feature=+crt-static" cargo build -q --locked --profile hook --target "$TARGET" -p vgpu-hook

# put FILE PLACE: replaced by rename, so that whoever runs or maps the old file keeps it.
put() { mkdir -p "${2%/*}"; cp "$1" "$2.new"; chmod 755 "$2.new"; mv "$2.new" "$2"; }
put "$OUT/tools/vgpu" "$DIST/bin/vgpu"
put "$OUT/hook/vgpu-hook" "$DIST/bin/vgpu-hook"
put "$OUT/release/libcuda.so" "$DIST/lib/vgpu/libcuda.so.1"
put "$OUT/release/libnvidia_ml.so" "$DIST/lib/vgpu/libnvidia-ml.so.1"
put "$OUT/tools/sim-gpu" "$DIST/sim/bin/sim-gpu"
put "$OUT/tools/libsim_cuda.so" "$DIST/sim/lib/libsim_cuda.so"
put "$OUT/tools/libsim_nvidia_ml.so" "$DIST/sim/lib/libsim_nvidia_ml.so"
