#!/bin/bash
# What the built hook promises to the machines it is put on: static, and small enough to start in a moment.
# The limiter's promises are checked by tests/tests/limiter_library.rs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
HOOK=${VGPU_DIST:-$PWD/target/dist}/bin/vgpu-hook
LIMIT=2000000
bad=0
fault() { echo "artifacts: $*" >&2; bad=1; }

[ -f "$HOOK" ] || { echo "artifacts: no $HOOK: run tests/dist.sh first" >&2; exit 1; }
size=$(stat -c %s "$HOOK")
[ "$size" -lt $LIMIT ] || fault "vgpu-hook has $size bytes, the limit is $LIMIT"
needed=$(readelf -dW "$HOOK" | grep -F '(NEEDED)')
[ -z "$needed" ] || fault "vgpu-hook is not static: $needed"
! readelf -lW "$HOOK" | grep -q INTERP || fault "vgpu-hook asks for a program interpreter"
[ $bad = 1 ] || echo "artifacts: vgpu-hook is static, $size bytes"
exit $bad
