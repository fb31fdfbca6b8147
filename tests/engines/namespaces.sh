# shellcheck shell=bash
# shellcheck disable=SC2153  # NAME comes from engines.sh
# namespaces.sh: the machine an engine believes in. Its root is an overlay over the unpacked packages, entered by
# pivot_root (runtimes pivot again and need a real root mount); /dev, /run and /tmp are its own, so a device node or a
# spec in there is invisible outside; its cgroups hang below one folder of ours. Killing its PID 1 ends everything in it.
# Nothing here touches this machine's own mounts. Sourced by engines.sh.

V1_CONTROLLERS="cpu cpuacct cpuset memory devices freezer blkio pids"

# cgroups_at DIR: the kernel's hierarchies, always in a private mount namespace. v2 may be the hybrid one, without
# cpu, memory and pids; a machine without any v2 mount still lets us mount it.
cgroups_at() {
  local c
  if [ "$CG" = v2 ]; then mount -t cgroup2 cgroup2 "$1"; return; fi
  mount -t tmpfs -o mode=755 tmpfs "$1"
  for c in $V1_CONTROLLERS; do mkdir "$1/$c"; mount -t cgroup -o "$c" cgroup "$1/$c"; done
}

# PID 1 of the new pid namespace, still on this machine's root: joins its own cgroup, then hides what is above it.
ns_first() {
  local hostpid _ c f m=$ST/cg
  read -r hostpid _ < /proc/self/stat   # the outer /proc is still mounted, so this is the pid as seen outside
  echo "$hostpid" > "$ST/pid.tmp"
  hostname "${NAME}"
  mkdir -p "$m"; cgroups_at "$m"
  if [ "$CG" = v2 ]; then
    mkdir -p "$m/$NAME/init"; echo 0 > "$m/$NAME/cgroup.procs"
  else
    for c in $V1_CONTROLLERS; do
      mkdir -p "$m/$c/$NAME"
      if [ "$c" = cpuset ]; then for f in cpuset.cpus cpuset.mems; do cat "$m/$c/$f" > "$m/$c/$NAME/$f"; done; fi
      echo 0 > "$m/$c/$NAME/cgroup.procs"
    done
  fi
  export ENGINES_CGMNT=$m
  exec unshare --cgroup "$SELF" _ns2 "$E"
}

# In a cgroup namespace whose root is our own cgroup: builds the root, enters it and stays as its reaper.
ns_second() {
  local root=$ST/root p
  [ "$CG" != v2 ] || echo 0 > "$ENGINES_CGMNT/$NAME/init/cgroup.procs"
  umount -R "$ENGINES_CGMNT"
  mkdir -p "$root" "$ST/upper" "$ST/work" "$ST/data"
  mount -t overlay overlay -o "lowerdir=$ENGINES_DIR/root/engine-$KIND-$SUITE,upperdir=$ST/upper,workdir=$ST/work" "$root"
  mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"; mount -t tmpfs tmpfs "$root/tmp"
  make_dev "$root/dev"
  cgroups_at "$root/sys/fs/cgroup"
  # Engine state on the real file system: an overlay cannot be the upper layer of an overlay.
  for p in $(engine_state); do mkdir -p "$ST/data/$p" "$root/var/lib/$p"; mount --bind "$ST/data/$p" "$root/var/lib/$p"; done
  bind_all "$root"
  mkdir -p "$root/etc/cdi" "$root/run/cdi" "$root/run/lock" "$root/old"
  ln -sf /proc/self/mounts "$root/etc/mtab"; : > "$root/etc/resolv.conf"; echo "127.0.0.1 localhost $NAME" > "$root/etc/hosts"
  cd "$root" || exit 1; pivot_root . old; cd /; umount -l /old
  ip link set lo up
  cp "$ST/pid.tmp" "$ST/pid"
  exec /bin/bash -c 'trap : TERM; while :; do sleep 3600 & wait; done' "engines-init-$NAME"
}

make_dev() {
  local dev=$1 n a b name
  mount -t tmpfs -o mode=755 tmpfs "$dev"
  for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
    IFS=: read -r name a b <<<"$n"; mknod -m 666 "$dev/$name" c "$a" "$b"
  done
  mkdir "$dev/pts" "$dev/shm" "$dev/mqueue"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$dev/pts"; ln -s pts/ptmx "$dev/ptmx"
  mount -t tmpfs shm "$dev/shm"; mount -t mqueue mqueue "$dev/mqueue"
  ln -s /proc/self/fd "$dev/fd"
  for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "$dev/${n#*:}"; done
}

bind_all() {
  local root=$1 p
  local -a paths; IFS=: read -ra paths <<<"$BIND"
  for p in "$ST" "$ENGINES_DIR/img" ${paths[@]+"${paths[@]}"}; do
    [ -e "$p" ] || die "ENGINES_BIND: no $p on this machine"
    if [ -d "$p" ]; then mkdir -p "$root$p"; else mkdir -p "$root${p%/*}"; : > "$root$p"; fi
    mount --rbind "$p" "$root$p"
  done
}

alive() {
  local p
  p=$(cat "$ST/pid" 2>/dev/null) || return 1
  tr '\0' ' ' 2>/dev/null < "/proc/$p/cmdline" | grep -q "engines-init-$NAME"
}

# enter CMD...: all namespaces, the engine's own cgroup, and nothing of the caller's environment.
enter() {
  alive || die "$NAME is not started"
  # shellcheck disable=SC2016  # expanded inside
  nsenter -t "$(cat "$ST/pid")" -m -u -i -n -p -C -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    LANG=C.UTF-8 PODMAN_IGNORE_CGROUPSV1_WARNING=1 \
    bash -c 'if [ -d /sys/fs/cgroup/init ]; then echo 0 > /sys/fs/cgroup/init/cgroup.procs
             else for c in /sys/fs/cgroup/*/; do echo 0 > "$c/cgroup.procs"; done; fi; exec "$@"' enter "$@"
}

wait_for() { local i; for i in $(seq 150); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }

do_start() {
  if alive; then say "$NAME already runs"; return; fi
  [ -e "$ENGINES_DIR/root/engine-$KIND-$SUITE/.complete" ] || die "install $E first"
  [ ! -d "$ST" ] || do_stop
  mkdir -p "$ST"
  printf 'E=%q CG=%q\n' "$E" "$CG" > "$ST/engine"
  local t0 bg; t0=$(date +%s%N)
  setsid unshare --mount --pid --fork --ipc --uts --net --propagation private "$SELF" _ns "$E" </dev/null >"$ST/ns.log" 2>&1 &
  bg=$!
  wait_for alive || { cat "$ST/ns.log" >&2; kill "$bg" 2>/dev/null || true; do_stop; die "$NAME: no namespaces"; }
  engine_configure || { do_stop; die "$NAME: could not be configured"; }
  say "$NAME started in $(( ($(date +%s%N) - t0) / 1000000 )) ms: $(engine_version | tr '\n' ' ')"
}

do_stop() {
  local p
  if alive; then
    p=$(cat "$ST/pid"); kill -KILL "$p"   # PID 1 gone: the kernel kills all the rest
    wait_for bash -c "! kill -0 $p" || say "$NAME: pid $p does not end"
  fi
  [ -d "$ST" ] || return 0
  unshare --mount --propagation private "$SELF" _rmcg "$E"
  rm -rf --one-file-system "$ST"
  say "$NAME stopped"
}

remove_cgroups() {
  local m=$ST/cg d
  mkdir -p "$m"; cgroups_at "$m"
  for d in "$m/$NAME" "$m"/*/"$NAME"; do
    [ -d "$d" ] || continue
    # shellcheck disable=SC2016  # expanded inside
    wait_for bash -c 'find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$1" ]' x "$d" || say "cgroup $d is still there"
  done
}

# v2 without cpu, memory, pids (hybrid machines): a runtime wrapper drops the limits that it cannot express and keeps
# the device rules. Prints the runtime to use.
runtime_for() {
  if [ "$CG" != v2 ] || enter grep -qw cpu /sys/fs/cgroup/cgroup.controllers; then echo "$1"; return; fi
  enter bash -s "$1" <<'X'
mkdir -p /usr/local/sbin; cat > /usr/local/sbin/nolimit-$1 <<'Y'
#!/bin/bash
real=${0##*-} bundle=. verb= a=("$@")
for ((i = 0; i < $#; i++)); do
  case ${a[i]} in
    --bundle|-b) bundle=${a[i+1]} ;; --bundle=*) bundle=${a[i]#*=} ;; create|run|update) verb=${verb:-${a[i]}} ;;
  esac
done
[ "$verb" != update ] || exit 0
if [ -n "$verb" ]; then
  c=$(jq -c 'if .linux.resources then .linux.resources |= with_entries(select(.key == "devices")) else . end' "$bundle/config.json") \
    && printf %s "$c" > "$bundle/config.json"
fi
exec "$real" "$@"
Y
chmod +x /usr/local/sbin/nolimit-$1; echo /usr/local/sbin/nolimit-$1
X
}
