#!/bin/bash
# The limiter is loaded into strangers' processes: its crates take libc from outside and nothing else.
# And every crate of the workspace comes from the registry, none from a repository.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
bad=0
for crate in vgpu-libcuda vgpu-libnvidia-ml; do
  tree=$(cargo tree -q --locked -p "$crate" -e normal --prefix none --format '{p}') || { bad=1; continue; }
  outside=$(grep -v '(/' <<<"$tree" | cut -d' ' -f1 | sort -u | grep -vx libc | tr '\n' ' ')
  [ -z "$outside" ] || { echo "dependencies: $crate depends on $outside, libc alone is allowed" >&2; bad=1; }
done
if grep -n 'source = "git+' Cargo.lock; then echo "dependencies: crates from a repository" >&2; bad=1; fi
[ $bad = 0 ] && echo "dependencies: libc alone in the limiter, the registry alone for all"
exit $bad
