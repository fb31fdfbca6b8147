# shellcheck shell=bash
# packages.sh: Debian packages unpacked into a folder, resolved by an apt that shares nothing with this machine's:
# its own package lists, an empty dpkg status and its own archive folder. No maintainer script runs.
# Sourced by engines.sh.

KEYRING=${ENGINES_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

# What every engine root holds besides its engine.
# shellcheck disable=SC2034  # read by engines.sh
BASE_PACKAGES="base-files base-passwd dash bash coreutils sed grep findutils libc-bin mount util-linux iproute2 jq procps"

mirror() {
  if [ -n "${ENGINES_MIRROR:-}" ]; then echo "$ENGINES_MIRROR"; return; fi
  # Cloud images name a file of mirrors instead of a mirror; it holds nothing but addresses. Vendors of other software
  # keep theirs below /linux/debian.
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/mirrors/*.list 2>/dev/null || true; } \
    | sed -n 's#^\(URIs:\|deb\)\? *\(\[[^]]*\] *\)\?\(http[^ ]*/debian\)/\?\( .*\)\?$#\3#p' | grep -v /linux/debian | sed -n 1p
}

# apt_config SUITE ROOT-NAME: sets APT_CONFIG. Lists are shared by all roots of a suite, archives belong to one root.
apt_config() {
  local suite=$1 a=$ENGINES_DIR/apt/$1 archives=$ENGINES_DIR/apt/debs-$2 url
  url=$(mirror)
  [ -n "$url" ] || die "no Debian mirror in this machine's apt sources: set ENGINES_MIRROR=http://HOST/debian"
  [ -r "$KEYRING" ] || die "no $KEYRING: install debian-archive-keyring"
  mkdir -p "$a/lists/partial" "$archives/partial"
  [ -e "$a/status" ] || : > "$a/status"
  echo "deb [signed-by=$KEYRING] $url $suite main non-free" > "$a/sources.list"
  cat > "$archives/apt.conf" <<X
Dir::State "$a"; Dir::State::Lists "$a/lists"; Dir::State::status "$a/status";
Dir::Etc::SourceList "$a/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null"; Dir::Etc::PreferencesParts "/dev/null"; Dir::Etc::Main "/dev/null";
Dir::Cache "$a"; Dir::Cache::archives "$archives"; Dir::Log "$a";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Install-Recommends "false"; APT::Sandbox::User "root";
$(apt-config dump | grep -E '^Acquire::(http|https)::' || true)
Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Retries "3";
X
  export APT_CONFIG=$archives/apt.conf
}

# install_root ROOT-NAME SUITE PACKAGE...: the packages and all they depend on, in $ENGINES_DIR/root/ROOT-NAME.
install_root() {
  local name=$1 suite=$2 root=$ENGINES_DIR/root/$1 d log; shift 2
  [ "$(cat "$root/.complete" 2>/dev/null)" != "$*" ] || return 0
  apt_config "$suite" "$name"
  log=$ENGINES_DIR/apt/debs-$name/log
  [ -e "$ENGINES_DIR/apt/$suite/updated" ] || update_lists "$suite" "$log"
  say "fetching the packages of $name"
  # The lists may be older than the mirror: one more try with new ones.
  download "$log" "$@" || { update_lists "$suite" "$log"; download "$log" "$@"; } \
    || { cat "$log" >&2; die "apt-get could not fetch: $*"; }
  rm -rf --one-file-system "$root"
  for d in bin sbin lib lib64; do mkdir -p "$root/usr/$d"; ln -s "usr/$d" "$root/$d"; done   # merged /usr
  for d in "$ENGINES_DIR/apt/debs-$name"/*.deb; do unpack "$d" "$root"; done
  rm -f "$ENGINES_DIR/apt/debs-$name"/*.deb
  echo "$*" > "$root/.complete"   # last: an interrupted installation starts over
}

# install_driver: NVIDIA's own libcuda and libnvidia-ml, which load without a GPU, in $ENGINES_DIR/root/driver. Only these
# two files' packages: what they depend on is for machines with a GPU.
install_driver() {
  local root=$ENGINES_DIR/root/driver archives=$ENGINES_DIR/apt/debs-driver log=$ENGINES_DIR/apt/debs-driver/log d
  [ ! -e "$root/.complete" ] || return 0
  apt_config bookworm driver
  [ -e "$ENGINES_DIR/apt/bookworm/updated" ] || update_lists bookworm "$log"
  say "fetching NVIDIA's libcuda1 and libnvidia-ml1 from non-free"
  ( cd "$archives" && rm -f ./*.deb && apt-get -q download libcuda1 libnvidia-ml1 >"$log" 2>&1 </dev/null ) \
    || { cat "$log" >&2; die "apt-get could not fetch libcuda1 and libnvidia-ml1"; }
  rm -rf --one-file-system "$root"; mkdir -p "$root"
  for d in "$archives"/*.deb; do unpack "$d" "$root"; done
  rm -f "$archives"/*.deb
  : > "$root/.complete"
}

update_lists() {
  apt-get -q update >"$2" 2>&1 </dev/null || { cat "$2" >&2; die "apt-get update failed for suite $1"; }
  : > "$ENGINES_DIR/apt/$1/updated"
}

download() { local log=$1; shift; apt-get -q -y install --download-only "$@" >"$log" 2>&1 </dev/null; }

unpack() {
  dpkg-deb --fsys-tarfile "$1" | tar -C "$2" -x -p --keep-directory-symlink \
    --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' \
    --exclude './usr/share/info/*' -f -
}

# What the maintainer scripts of base-files and base-passwd would have done.
finish_engine_root() {
  local root=$1
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  mkdir -p "$root/old" "$root/var/lib"
  rm -rf "$root/var/run" "$root/var/lock"
  ln -s /run "$root/var/run"; ln -s /run/lock "$root/var/lock"
}
