# Ambit. `make demo` shows what it does, `make test` proves it; both set up a fresh Debian 12 machine by themselves.
PYTHON := .venv/bin/python
ARGS ?=
COMPILED := tests/hbone tests/identity tests/policy tests/plan tests/worker tests/waypoint  # run on the sources, then on build/compiled

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kubernetes cluster cluster-down test test-compiled kubernetes conformance test-kernels lint types bench soak scale clean

help:                 ## what can be made
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p;s/^\([a-z-]*\):  *## /  make \1\t/p' Makefile | expand -t 26

setup:                ## install Debian packages, link kernel headers, make .venv
	@deploy/setup.sh

demo: setup           ## the whole story on a two-node mesh of this machine
	@$(PYTHON) -m cli.demo

demo-kubernetes:      ## the same story on a real two-node Kubernetes; the first time compiles it: 5 to 15 minutes
	@deploy/setup.sh buildah mmdebstrap
	@$(PYTHON) -m cli.demo.kubernetes

cluster: setup        ## a Kubernetes for development: prints its kubeconfig (tests/cluster/README.md)
	@$(PYTHON) -m tests.cluster up

cluster-down: setup   ## ends it
	@$(PYTHON) -m tests.cluster down

test: setup perf/build/load lint types $(if $(ARGS),,kubernetes)  ## everything: lint, types, all tests (root and namespaces included)
	@$(PYTHON) -m pytest $(ARGS)
	@$(if $(ARGS),true,echo "The tests of the byte path once more, compiled" && $(MAKE) --no-print-directory test-compiled)

test-compiled: setup  ## tests of the byte path, on its compiled copy
	@PYTHONPATH=$(CURDIR)/build/compiled:$(CURDIR) PYTHONSAFEPATH=1 $(PYTHON) -m pytest -q --import-mode=append -p tests.compiled.only $(COMPILED)

kubernetes: setup     ## compile what tests of Kubernetes need: 10 to 20 minutes, once; without a Go toolchain it says so
	@$(PYTHON) -m tests.cluster build && deploy/setup.sh buildah mmdebstrap && \
	  $(PYTHON) -m tests.kube.artifacts && $(PYTHON) -m tests.conformance.artifacts || [ $$? = 3 ]

conformance: setup    ## the upstream Gateway API suite against Ambit on a real Kubernetes; the report goes to docs/conformance
	@deploy/setup.sh buildah mmdebstrap
	@$(PYTHON) -m tests.cluster build && $(PYTHON) -m tests.conformance $(ARGS)

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

scale: setup          ## the controller with 1,000 Services and 10,000 pods on a real API server (perf/README.md)
	@$(PYTHON) -m perf.scale $(ARGS)

soak: setup perf/build/load  ## fifteen minutes of half load: memory flat, nothing left behind; ARGS="--minutes 1" to choose
	@$(PYTHON) -m perf.soak $(ARGS)

perf/build/load: $(wildcard perf/load/*.[ch]) | setup
	@mkdir -p $(@D) && $(CC) -O2 -Wall -Wextra -Wno-sign-compare -o $@ $(filter %.c,$^)

clean:                ## end a local mesh and forget what was built
	@[ ! -x .venv/bin/ambit ] || .venv/bin/ambit local down
	@rm -rf .venv build perf/build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
