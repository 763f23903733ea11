# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is
# touched but the per-user cache, where `make runtime` keeps Dapr.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PYTHON ?= python3
FAST := $(wildcard tests/tour tests/unit tests/property tests/contract tests/crash tests/wiring)
LINTED := $(wildcard src tests benchmarks agents orchestrator registry examples)

.PHONY: help install runtime run demo stop status logs fmt check test-fast test test-chaos bench docs

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed ## Fill .venv with everything (brings its own uv; does nothing when up to date)

.venv/.installed: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11 or missing; install Python 3.11 or newer, or say make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@# --inexact: what uv did not install (itself, pip) stays
	$(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode --all-extras --all-groups
	@touch $@

runtime: install ## Make sure a Dapr is here: found, downloaded or built (into the per-user cache)
	@$(BIN)/perdure dev runtime

run: install ## Run everything in the foreground; Ctrl-C ends it and leaves nothing behind
	@$(BIN)/perdure dev up

demo: install runtime ## See a turn and a sensor run survive kills, within a minute
	@$(BIN)/perdure demo

stop: install ## End what `make run` started
	@$(BIN)/perdure dev down

status: install ## Show what runs and whether it is ready
	@$(BIN)/perdure dev status

logs: install ## Follow what all processes write
	@$(BIN)/perdure dev logs --follow

fmt: install ## Format the code and fix what can be fixed
	$(BIN)/ruff format $(LINTED)
	$(BIN)/ruff check --fix $(LINTED)

check: install ## Lint, format, types, import floors, dependencies
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

test-fast: install ## What needs neither network nor Dapr; at most a minute
	$(PYTEST) -q -m "not sidecar and not chaos and not node" $(FAST)

test: install runtime ## Everything needed to trust a change, with a short sample of chaos
	PERDURE_CHAOS_KILLS=4 $(PYTEST) -q

test-chaos: install runtime ## The long kill tests: many random kills of real processes
	PERDURE_CHAOS_KILLS=100 $(PYTEST) -q -m chaos --timeout 1800

bench: install runtime ## The speed marks, beside the bare floor, in one run
	$(BIN)/python -m benchmarks

docs: install ## Run every example of README and docs
	$(PYTEST) -q -k "readme or docs" tests/wiring
