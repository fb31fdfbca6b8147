# shellcheck shell=bash
# podman.sh: what podman needs to run in the namespaces of namespaces.sh. Sourced by engines.sh.

engine_packages() { echo podman runc conmon; }
engine_state() { echo containers; }

# No CAP_SYS_RESOURCE on bare virtual machines: podman's own default limits cannot be set there. No network is given
# to containers, and no pids controller may be present.
engine_configure() {
  enter bash -s <<'X'
mkdir -p /etc/containers
cat > /etc/containers/containers.conf <<'Y'
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "none"
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
Y
printf '[storage]\ndriver="overlay"\ngraphroot="/var/lib/containers/storage"\nrunroot="/run/containers/storage"\n' > /etc/containers/storage.conf
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /etc/containers/policy.json
X
}

engine_version() {
  enter podman --version
  enter runc --version | sed -n 1p
}
