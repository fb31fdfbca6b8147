#!/bin/bash
# engines.sh: real container engines from Debian packages, each in its own namespaces under one directory,
# without installing anything on this machine.
#
#   engines.sh install ENGINE         resolve, fetch and unpack the engine's packages (no maintainer script runs)
#   engines.sh images                 build the container images the tests use (no registry of images needed)
#   engines.sh driver                 fetch NVIDIA's own libcuda and libnvidia-ml; prints the folder they are in
#   engines.sh start   ENGINE         private mount, pid, ipc, uts, net and cgroup namespaces, the engine's own root
#   engines.sh exec    ENGINE CMD...  run a command inside (podman run ...)
#   engines.sh stop    ENGINE         kill everything inside, remove its cgroups and state
#   engines.sh clean                  stop everything, delete ENGINES_DIR
#   engines.sh dir                    print ENGINES_DIR
#
# ENGINE is KIND or KIND@SUITE: podman, podman@bookworm (4.3.1 with runc 1.1.5).
# Environment:
#   ENGINES_DIR      everything lives here           (target/engines, or a short path below /var/tmp)
#   ENGINES_NAME     instance name, to run several of one engine at once                        (KIND)
#   ENGINES_CGROUP   v2 | v1: the hierarchy that the engine sees                                  (v2)
#   ENGINES_BIND     paths of this machine visible inside, at the same path, separated by colons    ()
#   ENGINES_MIRROR   Debian mirror                        (the first one of this machine's apt sources)
#   VGPU_VENV        the Python tools of tests/setup.sh                             (target/tools/venv)
#
# Needs root, unshare, dpkg-deb and apt-get. Sourced parts: packages.sh (fetch and unpack), images.sh,
# namespaces.sh (the engine's machine), and one file for each engine kind.
set -euo pipefail
SELF=$(readlink -f "$0")
HERE=$(dirname "$SELF")
PROJECT=$(dirname "$(dirname "$HERE")")

die() { echo "engines: $*" >&2; exit 1; }
say() { echo "engines: $*" >&2; }

# Unix socket paths end at 107 bytes and engines nest theirs deeply, so a long checkout path gets a short stand-in,
# which is the same for every call in this checkout.
default_dir() {
  local d=$PROJECT/target/engines
  if [ ${#d} -le 50 ] && [ "$(stat -f -c %T "$PROJECT")" != overlayfs ]; then echo "$d"
  else echo "/var/tmp/vgpu-$(printf %s "$PROJECT" | sha256sum | cut -c1-8)"; fi
}
ENGINES_DIR=${ENGINES_DIR:-$(default_dir)}
CG=${ENGINES_CGROUP:-v2}
BIND=${ENGINES_BIND:-}
VENV=${VGPU_VENV:-$PROJECT/target/tools/venv}

. "$HERE/packages.sh"
. "$HERE/images.sh"
. "$HERE/namespaces.sh"

usage() { sed -n '2,/^set /p' "$SELF" | grep '^#' | cut -c3-; exit 2; }

# One call at a time changes the shared folders; concurrent test processes wait for it.
locked() { mkdir -p "$ENGINES_DIR"; exec 9>"$ENGINES_DIR/lock"; flock 9; "$@"; exec 9>&-; }

do_install() {
  local t0=$SECONDS
  local -a names; read -ra names <<<"$(engine_packages) $BASE_PACKAGES"
  install_root "engine-$KIND-$SUITE" "$SUITE" "${names[@]}"
  finish_engine_root "$ENGINES_DIR/root/engine-$KIND-$SUITE"
  say "$KIND@$SUITE is in $ENGINES_DIR ($((SECONDS - t0)) s)"
}

do_clean() {
  local d
  for d in "$ENGINES_DIR"/run/*/; do
    [ -e "$d/engine" ] || continue
    # shellcheck source=/dev/null
    ( . "$d/engine"; ENGINES_NAME=$(basename "$d") ENGINES_CGROUP=$CG "$SELF" stop "$E" )
  done
  rm -rf --one-file-system "$ENGINES_DIR"
}

cmd=${1:-}
case $cmd in
  dir) echo "$ENGINES_DIR"; exit ;;
  ''|-h|--help|help) usage ;;
esac
[ "$(id -u)" = 0 ] || die "must be root"
[ ${#ENGINES_DIR} -le 50 ] || die "ENGINES_DIR is too long (${#ENGINES_DIR} > 50 characters): $ENGINES_DIR"
case $cmd in
  images) locked make_images; exit ;;
  driver) locked install_driver; dirname "$(find "$ENGINES_DIR/root/driver" -name 'libcuda.so.[0-9]*.*' | sed -n 1p)"; exit ;;
  clean) do_clean; exit ;;
esac

[ $# -ge 2 ] || usage
E=$2; shift 2
KIND=${E%@*} SUITE=bookworm
case $E in *@*) SUITE=${E#*@} ;; esac
[[ $KIND =~ ^[a-z]+$ && -e $HERE/$KIND.sh ]] || die "unknown engine $KIND; there are: podman"
# shellcheck source=SCRIPTDIR/podman.sh
. "$HERE/$KIND.sh"
NAME=${ENGINES_NAME:-$KIND}
ST=$ENGINES_DIR/run/$NAME
export ENGINES_DIR ENGINES_CGROUP=$CG ENGINES_NAME=$NAME
case $cmd in
  install) locked do_install ;;
  start) do_start ;;
  exec) enter "$@" ;;
  stop) do_stop ;;
  _ns) ns_first ;;
  _ns2) ns_second ;;
  _rmcg) remove_cgroups ;;
  *) die "unknown command $cmd" ;;
esac
