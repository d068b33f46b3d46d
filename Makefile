# Ambit. `make demo` shows what it does, `make test` proves it; both set up a fresh Debian 12 machine by themselves.
PYTHON := .venv/bin/python
ARGS ?=
COMPILED := tests/hbone tests/identity tests/policy tests/plan tests/worker  # run on build/compiled

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kernels lint types bench soak clean

help:                 ## what can be made
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p;s/^\([a-z-]*\):  *## /  make \1\t/p' Makefile | expand -t 22

setup:                ## install Debian packages, link kernel headers, make .venv
	@deploy/setup.sh

demo: setup           ## the whole story on a two-node mesh of this machine
	@$(PYTHON) -m cli.demo

test: setup perf/build/load lint types  ## everything: lint, types, all tests (root and namespaces included)
	@$(PYTHON) -m pytest $(ARGS)

test-kernels: setup   ## the capture on Debian 12's own kernel, emulated
	@tests/kernels/fetch.sh
	@$(PYTHON) -m pytest tests/kernels $(ARGS)

lint: setup           ## ruff and the import rule
	@.venv/bin/ruff check --quiet . && .venv/bin/ruff format --quiet --check . && echo "ruff: clean"
	@report=$$(.venv/bin/lint-imports --no-logo 2>&1) && echo "imports: one direction" || { echo "$$report"; exit 1; }

types: setup          ## mypy, strict
	@.venv/bin/mypy

bench: setup perf/build/load  ## byte path against Envoy; CASE="rr crr" SYSTEM="ambit envoy" to choose (perf/README.md)
	@$(PYTHON) -m perf.bench $(addprefix --case=,$(CASE)) $(addprefix --system=,$(SYSTEM)) $(ARGS)

soak: setup perf/build/load  ## fifteen minutes of half load: memory flat, nothing left behind; ARGS="--minutes 1" to choose
	@$(PYTHON) -m perf.soak $(ARGS)

perf/build/load: $(wildcard perf/load/*.[ch])
	@command -v $(CC) >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; }
	@mkdir -p $(@D) && $(CC) -O2 -Wall -Wextra -Wno-sign-compare -o $@ $(filter %.c,$^)

clean:                ## end a local mesh and forget what was built
	@[ ! -x .venv/bin/ambit ] || .venv/bin/ambit local down
	@rm -rf .venv build perf/build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
