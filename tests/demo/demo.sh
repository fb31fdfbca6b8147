#!/bin/bash
# make demo: two containers with a slice of one GPU each, side by side, running unmodified clients from the Python
# registry, and a table of what they asked for, saw and were stopped at. Uses the real driver where there is one and a
# simulated node elsewhere. Leaves nothing behind; exits non-zero when a row is off.
#
#   --no-containers   plain processes under `vgpu run` instead of containers
#   --no-build        what is in target/dist already
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$(dirname "$HERE")")
DIST=${VGPU_DIST:-$ROOT/target/dist}
VENV=${VGPU_VENV:-$ROOT/target/tools/venv}
ENGINE=podman
SLICES=(gpu0-quarter gpu0-half)
export ENGINES_NAME=demo-$$

say() { printf 'demo: %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
engines() { "$ROOT/tests/engines/engines.sh" "$@"; }
inside() { engines exec "$ENGINE" "$@"; }
podman() { inside podman --log-level=error "$@"; }

cleanup() {
  local rc=$?
  trap - EXIT INT TERM
  set +e
  # `vgpu run` passes the signal on and takes its folder away.
  for pid in "${PLAIN[@]}"; do kill -TERM "$pid"; wait "$pid"; done 2>/dev/null
  [ -z "${STARTED:-}" ] || engines stop "$ENGINE" 2>/dev/null
  [ -z "${SIMULATED:-}" ] || "$DIST/sim/bin/sim-gpu" down --root "$WORK/node" >/dev/null
  [ -z "${WORK:-}" ] || rm -rf --one-file-system "$WORK"
  [ $rc = 0 ] || say "failed (everything it started is gone again)" >&2
  exit $rc
}
declare -A PLAIN=()
STARTED='' SIMULATED='' WORK='' WITHOUT='' BUILD=yes
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Why containers cannot run here; empty when they can.
no_containers() {
  [ -z "$WITHOUT" ] || { echo "--no-containers was given"; return; }
  [ "$(id -u)" = 0 ] || { echo "not root"; return; }
  command -v apt-get >/dev/null || { echo "no apt-get to fetch $ENGINE with"; return; }
  unshare --mount --pid --fork true 2>/dev/null || echo "namespaces are refused here"
}

# The machine's own driver, or a simulated node whose whole file tree is below $WORK/node.
bring_up_node() {
  if [ -e /proc/driver/nvidia/version ] && [ -e /dev/nvidiactl ]; then
    NODE=/; say "node: the NVIDIA driver of this machine"; return
  fi
  NODE=$WORK/node; SIMULATED=yes
  "$DIST/sim/bin/sim-gpu" up --root "$NODE" >/dev/null
  say "node: no NVIDIA driver here, so a simulated one"
}

write_spec() {
  cat > "$WORK/config.toml" <<X
[paths]
hook = "$DIST/bin/vgpu-hook"
limiter_dir = "$DIST/lib/vgpu"
X
  "$DIST/bin/vgpu" --config "$WORK/config.toml" cdi generate --driver-root "$NODE" --dev-root "$NODE" --output "$WORK/vgpu.json"
  say "spec: $("$VENV/bin/python" "$HERE/table.py" --count "$WORK/vgpu.json")"
}

# Everything the spec mounts must be visible in the engine's private root; one folder holds it when it is simulated.
paths_to_bind() {
  if [ "$NODE" != / ]; then echo "$ROOT/tests/demo/clients:$DIST:$WORK"
  else echo "$ROOT/tests/demo/clients:$DIST:$WORK:$("$VENV/bin/python" "$HERE/table.py" --paths "$WORK/vgpu.json" "$DIST" "$WORK")"; fi
}

# False, with the engine's own words on stderr, where one of its steps is refused on this machine.
start_engine() {
  engines install "$ENGINE" && engines images || return 1
  STARTED=yes
  ENGINES_BIND=$(paths_to_bind) engines start "$ENGINE" &&
    inside cp "$WORK/vgpu.json" /etc/cdi/vgpu.json &&
    say "loading the image with the unmodified clients" &&
    podman load -q -i "$(engines dir)/img/clients.tar" >/dev/null &&
    podman run --rm localhost/clients:1 true
}

# wait_for_line FILE-OR-CONTAINER SLICE: until the client has printed its line and holds its memory.
await_result() {
  local slice=$1 t0=$SECONDS
  until grep -q '}$' "$WORK/$slice.cuda" 2>/dev/null; do
    "still_runs" "$slice" || { "show_output" "$slice" >&2; die "the client in $slice ended early"; }
    [ $((SECONDS - t0)) -lt 120 ] || die "the client in $slice printed nothing for 120 s"
    sleep 0.2
    collect "$slice"
  done
}

# ---- with containers ---------------------------------------------------------------------------------------------
run_in_containers() {
  local slice
  for slice in "${SLICES[@]}"; do
    say "podman run --device tensor-fusion.ai/vgpu=$slice ..."
    podman run -d --name "$slice" --device "tensor-fusion.ai/vgpu=$slice" -v "$HERE/clients:/clients:ro" localhost/clients:1 \
      python3 /clients/cuda_client.py --hold >/dev/null
  done
  still_runs() { [ "$(podman inspect -f '{{.State.Running}}' "$1")" = true ]; }
  show_output() { podman logs "$1"; }
  collect() { podman logs "$1" > "$WORK/$1.cuda" 2>/dev/null || true; }
  for slice in "${SLICES[@]}"; do await_result "$slice"; done
  for slice in "${SLICES[@]}"; do podman exec "$slice" python3 /clients/nvml_client.py > "$WORK/$slice.nvml"; done
  say "both containers are full; vgpu ps says:"
  inside "$DIST/bin/vgpu" ps | sed 's/^/    /'
}

# ---- without --------------------------------------------------------------------------------------------------------
run_plain() {
  local slice quota
  for slice in "${SLICES[@]}"; do
    quota=$("$VENV/bin/python" "$HERE/table.py" --quota "$WORK/vgpu.json" "$slice")
    say "vgpu run --vram $quota -- python cuda_client.py ..."
    "$DIST/bin/vgpu" --config "$WORK/config.toml" run --driver-root "$NODE" --vram "$quota" --gpu 0 -- \
      "$VENV/bin/python" "$HERE/clients/cuda_client.py" --hold > "$WORK/$slice.cuda" 2> "$WORK/$slice.err" &
    PLAIN[$slice]=$!
  done
  still_runs() { kill -0 "${PLAIN[$1]}" 2>/dev/null; }
  show_output() { cat "$WORK/$1.err"; }
  collect() { :; }
  for slice in "${SLICES[@]}"; do await_result "$slice"; done
}

options() {
  local option
  for option; do
    case $option in
      --no-containers) WITHOUT=yes ;;
      --no-build) BUILD='' ;;
      *) die "unknown option $option; there are --no-containers and --no-build" ;;
    esac
  done
}

main() {
  local reason
  options "$@"
  cd "$ROOT"
  if [ -n "$BUILD" ]; then
    say "building (the first time takes minutes)"
    tests/setup.sh
    tests/dist.sh
  fi
  WORK=$(mktemp -d /var/tmp/vgpu-demo.XXXXXX)
  chmod 755 "$WORK"
  bring_up_node
  write_spec
  reason=$(no_containers)
  if [ -z "$reason" ] && ! start_engine; then reason="$ENGINE cannot run here, as it says above"; fi
  if [ -z "$reason" ]; then run_in_containers
  else say "no containers: $reason; running plain processes under \`vgpu run\` instead"; run_plain; fi
  "$VENV/bin/python" "$HERE/table.py" "$WORK/vgpu.json" "$WORK" "${SLICES[@]}"
}
main "$@"
