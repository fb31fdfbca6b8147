# shellcheck shell=bash
# images.sh: the container images of the tests, as docker-archive files that podman, docker and containerd load.
# They are put together from Debian packages and from the Python registry; neither holds a driver library.
# Sourced by engines.sh.
#
#   img/busybox.tar  localhost/busybox:1   a static shell and its tools: an image without a loader
#   img/clients.tar  localhost/clients:1   Debian bookworm with python3 and the unmodified CUDA and NVML bindings
#
# Unpacked roots are kept beside the archives (root/clients), as a ready rootfs for tests that need no engine.

# Size matters: the interpreter with its standard library, glibc, and libstdc++ for compiled extension modules.
CLIENT_PACKAGES="base-files busybox-static dash libc-bin libstdc++6 libpython3.11-stdlib python3.11-minimal"

# What the images are made from; a change of it makes them anew.
stamp() { cat "$HERE/images.sh" "$PROJECT/tests/demo/clients/requirements.txt" | sha256sum | cut -c1-16; }

make_images() {
  mkdir -p "$ENGINES_DIR/img"
  [ "$(cat "$ENGINES_DIR/img/stamp" 2>/dev/null)" != "$(stamp)" ] || return 0
  rm -f "$ENGINES_DIR/img/stamp"
  make_clients
  make_busybox
  stamp > "$ENGINES_DIR/img/stamp"   # last: an interrupted build starts over
}

make_clients() {
  local root=$ENGINES_DIR/root/clients img=$ENGINES_DIR/img/clients.tar wants=$PROJECT/tests/demo/clients/requirements.txt
  local -a names; read -ra names <<<"$CLIENT_PACKAGES"
  install_root clients bookworm "${names[@]}"
  say "installing the unmodified clients from the Python registry"
  [ -x "$VENV/bin/pip" ] || die "no $VENV/bin/pip: run tests/setup.sh first"
  rm -rf "$root/opt/clients"; mkdir -p "$root/opt/clients"
  env -u APT_CONFIG "$VENV/bin/pip" install -q --disable-pip-version-check --root-user-action=ignore --no-compile \
    --target "$root/opt/clients" --python-version 3.11 --implementation cp --abi cp311 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any --only-binary=:all: \
    -r "$wants" </dev/null || die "pip could not install $wants"
  ln -sf python3.11 "$root/usr/bin/python3"
  link_tools "$root"
  mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/root"
  echo root:x:0:0:root:/root:/bin/sh > "$root/etc/passwd"
  ( cd "$root" && ldconfig -r . 2>/dev/null )
  pack "$root" "$img" localhost/clients:1 '"PATH=/usr/sbin:/usr/bin:/sbin:/bin","PYTHONPATH=/opt/clients","PYTHONDONTWRITEBYTECODE=1"'
}

make_busybox() {
  local root=$ENGINES_DIR/root/busybox img=$ENGINES_DIR/img/busybox.tar bb=$ENGINES_DIR/root/clients/usr/bin/busybox
  rm -rf "$root"; mkdir -p "$root/bin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
  cp "$bb" "$root/bin/busybox"
  link_tools "$root"
  echo root:x:0:0:root:/:/bin/sh > "$root/etc/passwd"
  pack "$root" "$img" localhost/busybox:1 '"PATH=/bin"'
}

# link_tools ROOT: every tool of busybox that the root has not got already.
link_tools() {
  local tool
  for tool in $("$1/bin/busybox" --list); do [ -e "$1/bin/$tool" ] || [ -e "$1/sbin/$tool" ] || ln -s busybox "$1/bin/$tool"; done
}

# pack ROOT OUT.tar NAME:TAG ENV-JSON: one reproducible layer, its configuration and the manifest.
pack() {
  local root=$1 out=$2 name=$3 env=$4 w id
  w=$(mktemp -d "$ENGINES_DIR/pack.XXXXXX")
  tar -C "$root" --numeric-owner --owner=0 --group=0 --mtime=@0 --sort=name --exclude=./.complete -cf "$w/layer.tar" .
  id=$(sha256sum "$w/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":[%s],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z"}]}' \
    "$env" "$id" > "$w/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" > "$w/manifest.json"
  tar -C "$w" -cf "$out.new" manifest.json config.json layer.tar
  mv "$out.new" "$out"
  rm -rf "$w"
}
