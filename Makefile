# Thin over cargo and the scripts of tests/; `make` alone prints what there is.
SHELL := /bin/bash
VENV := $(CURDIR)/target/tools/venv

.PHONY: help setup build dist demo test check bless codegen bench torture deny clean

help: ## print these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install what the build and the tests need beyond Rust
	@tests/setup.sh

build: ## compile everything for this machine, unoptimised
	@cargo build --workspace --locked

dist: setup ## what gets installed, in target/dist (limiter with a glibc 2.17 floor, static hook)
	@tests/dist.sh

demo: ## two containers with a slice of a GPU each, side by side; works without a GPU
	@tests/demo/demo.sh

test: ## format, lints, unit, golden, black-box and container tests; ONLY="stage ..." for some
	@tests/test.sh $(ONLY)

check: setup ## format, lints and generated code only
	@tests/test.sh format lints codegen scripts

bless: ## accept the present output as the golden files
	@VGPU_BLESS=1 cargo test -q --workspace --locked --test 'golden*'

codegen: setup ## regenerate the entry points from the CUDA and NVML headers
	@LIBCLANG_PATH=$$(echo $(VENV)/lib/python3*/site-packages/clang/native) \
	  cargo run -q --locked -p xtask --features codegen -- codegen

bench: dist ## measure: a table, and target/bench.json; ONLY=name for one
	@cargo run -q --locked --release -p vgpu-tests --bin bench -- $(ONLY)

torture: dist ## the kill tests and the ledger's model in full: 100,000 kills, hours; VGPU_KILLS=n for others
	@VGPU_KILLS=$${VGPU_KILLS:-100000} cargo test --locked --release -p vgpu-tests --test torture -- --nocapture
	@cargo test --locked --release -p vgpu-region -- --ignored --nocapture

deny: ## licences, sources and duplicates of the dependencies (needs cargo-deny in PATH)
	@command -v cargo-deny >/dev/null || { echo "no cargo-deny in PATH: cargo install --locked cargo-deny" >&2; exit 1; }
	@cargo-deny --locked check licenses bans sources

clean: ## remove what was built and every unpacked engine
	@tests/engines/engines.sh clean 2>/dev/null || true
	@cargo clean -q
