#!/bin/bash
# make test: all stages, or those named as arguments, with the time of each and a summary at the end.
#
# Every stage runs even when an earlier one failed, so that one run tells everything; the exit status is that of the
# whole. A stage whose prerequisite is missing on this machine is skipped loudly, and fails when CI=true.
# shellcheck disable=SC2329  # stages are called by name
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
VENV=${VGPU_VENV:-$PWD/target/tools/venv}
export VGPU_VENV=$VENV VGPU_DIST=${VGPU_DIST:-$PWD/target/dist}
export CARGO_TERM_PROGRESS_WHEN=never

STAGES=(setup scripts format dist lints codegen artifacts dependencies unit suites oracle containers)
SUMMARY=() FAILED=0

# Container tests have their own stage: they share one engine and are worth seeing apart.
# A suite is a file tests/NAME.rs of a package, or a folder tests/NAME/ with a main.rs.
suites() { git ls-files '*/tests/*.rs' | sed -n -e 's#^\(.*/\)\?tests/\([^/]*\)\.rs$#\2#p' -e 's#^\(.*/\)\?tests/\([^/]*\)/main\.rs$#\2#p' | sort -u; }
container_suites() { suites | grep -E '^(engine_.*|demo)$'; }
other_suites() { suites | grep -vE '^(engine_.*|demo)$'; }
as_options() { sed 's/^/--test /' | tr '\n' ' '; }
skip() { echo "SKIPPED: $*" >&2; [ "${CI:-}" != true ] || { echo "and CI=true: a skipped stage is a failure" >&2; return 1; }; return 77; }

# What is fetched is fetched here, so that no later stage waits for a network.
stage_setup() {
  local verb
  tests/setup.sh || return 1
  [ "$(id -u)" = 0 ] || return 0
  for verb in "install podman" images driver; do
    # shellcheck disable=SC2086  # a verb and its argument
    tests/engines/engines.sh $verb >/dev/null || return 1
  done
}
stage_scripts() { "$VENV/bin/shellcheck" -x .ci/run tests/*.sh tests/engines/*.sh tests/demo/*.sh; }
stage_format() { cargo fmt --all --check; }
stage_dist() { tests/dist.sh; }
stage_lints() { cargo clippy -q --workspace --all-targets --locked -- -D warnings; }
stage_codegen() {
  LIBCLANG_PATH=$(echo "$VENV"/lib/python3*/site-packages/clang/native) \
    cargo run -q --locked -p xtask --features codegen -- codegen --check --headers "$VENV"
}
stage_artifacts() { tests/artifacts.sh; }
stage_dependencies() { tests/dependencies.sh; }
stage_unit() { cargo test --workspace --locked --lib --bins --no-fail-fast; }
stage_suites() {
  local -a options; read -ra options <<<"$(other_suites | as_options)"
  [ ${#options[@]} -gt 0 ] || { echo "no suites found: is this a git checkout?" >&2; return 1; }
  cargo test --workspace --locked --no-fail-fast "${options[@]}"
}
# Outside the workspace: its lock file and its build are its own.
stage_oracle() { cargo test -q --locked --manifest-path tests/cdi-oracle/Cargo.toml --target-dir target/cdi-oracle; }
stage_containers() {
  [ "$(id -u)" = 0 ] || { skip "container tests need root"; return; }
  unshare --mount --pid --fork true 2>/dev/null || { skip "container tests need namespaces (unshare is refused here)"; return; }
  local -a options; read -ra options <<<"$(container_suites | as_options)"
  cargo test --workspace --locked --no-fail-fast "${options[@]}"
}

run_stage() {
  local name=$1 t0=$SECONDS rc=0 verdict
  printf '\n== %s\n' "$name"
  "stage_$name" </dev/null || rc=$?
  case $rc in 0) verdict=ok ;; 77) verdict=SKIPPED ;; *) verdict=FAILED; FAILED=1 ;; esac
  SUMMARY+=("$(printf '%-14s %-8s %5d s' "$name" "$verdict" $((SECONDS - t0)))")
}

for name in "${@:-${STAGES[@]}}"; do
  declare -F "stage_$name" >/dev/null || { echo "test: no stage $name; there are: ${STAGES[*]}" >&2; exit 2; }
  run_stage "$name"
done
printf '\n== summary\n'
printf '%s\n' "${SUMMARY[@]}"
if [ $FAILED = 0 ]; then echo "all passed in $SECONDS s"; else echo "FAILED in $SECONDS s"; fi
exit $FAILED
