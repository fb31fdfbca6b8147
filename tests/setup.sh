#!/bin/bash
# Installs what the build, the demo and the tests need beyond Rust, and says what it does.
#
# Two things, each left alone when it is already there:
#   1. distribution packages for commands this machine lacks (root and apt; otherwise it names them and fails);
#   2. the pinned Python packages of tests/requirements.txt in target/tools/venv.
# Nothing else on the machine is touched: container engines are unpacked under one directory by tests/engines/.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
VENV=${VGPU_VENV:-$ROOT/target/tools/venv}
WANT=$HERE/requirements.txt

die() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

# The distribution's interpreter before any other: version managers put wrappers first in PATH that may have no version set.
python() { for p in /usr/bin/python3 python3; do command -v "$p" >/dev/null && { echo "$p"; return; }; done; echo /usr/bin/python3; }
has_venv() { "$(python)" -c 'import venv, ensurepip' 2>/dev/null; }

missing_packages() {
  command -v cc >/dev/null || echo gcc
  command -v readelf >/dev/null || echo binutils
  command -v make >/dev/null || echo make
  command -v git >/dev/null || echo git
  command -v unshare >/dev/null || echo util-linux
  command -v strace >/dev/null || echo strace
  has_venv || echo python3-venv
  [ -e "$(cc -print-file-name=libc.a 2>/dev/null)" ] || echo libc6-dev   # headers, and what the static hook links
  [ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

install_packages() {
  local -a lacking
  mapfile -t lacking < <(missing_packages)
  [ ${#lacking[@]} -gt 0 ] || { say "distribution packages: nothing missing"; return; }
  command -v apt-get >/dev/null || die "please install: ${lacking[*]} (no apt-get here to do it)"
  [ "$(id -u)" = 0 ] || die "please install as root: apt-get install ${lacking[*]}"
  say "apt-get install ${lacking[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log; log=$(mktemp)
  { apt-get -q update && apt-get -q -y install --no-install-recommends "${lacking[@]}"; } >"$log" 2>&1 </dev/null \
    || { cat "$log" >&2; rm -f "$log"; die "apt-get could not install: ${lacking[*]}"; }
  rm -f "$log"
  mapfile -t lacking < <(missing_packages)
  [ ${#lacking[@]} = 0 ] || die "still missing after the installation: ${lacking[*]}"
}

install_venv() {
  if cmp -s "$WANT" "$VENV/installed.txt"; then say "python tools: already in $VENV"; return; fi
  say "python tools into $VENV (about 600 MB)"
  rm -rf "$VENV"
  "$(python)" -m venv "$VENV" || die "python3 -m venv $VENV failed"
  "$VENV/bin/pip" install -q --disable-pip-version-check -r "$WANT" </dev/null || die "pip could not install $WANT"
  cp "$WANT" "$VENV/installed.txt"   # last: an interrupted installation starts over
}

# A minimal Rust installation lacks these two.
install_components() {
  local part
  for part in clippy rustfmt; do
    cargo "${part/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null || die "cargo has no $part: install that component of Rust"
    say "rustup component add $part"
    rustup -q component add "$part" </dev/null || die "rustup could not add $part"
  done
}

command -v cargo >/dev/null || die "no cargo in PATH: install Rust 1.89 or newer first"
install_packages
install_components
install_venv
say "ready"
