# kbroker. `make` lists what there is; `make run` and `make test` need nothing prepared.
#
# The environment lives in .venv. Targets depend on stamps inside it, never on the folder: a `python3 -m venv` that
# failed leaves half a folder behind.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

# The system's Python first: it is built with profile-guided optimisation, many others are not (25 % slower).
PYTHON ?= $(shell for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$python >/dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	&& echo $$python && break; done)

# ARGS goes to `kbroker start` and to `make compat`/`make bench`; PYTEST_ARGS to every pytest run.
ARGS ?=
PYTEST_ARGS ?=
# PEER=kafka runs the compat scenarios against Apache Kafka instead.
PEER ?= kbroker
# Seconds after which a stage of `make test` is given up.
UNIT_LIMIT ?= 600
FAULTS_LIMIT ?= 600
COMPAT_LIMIT ?= 2700

# ON=compiled runs the broker, unit, faults and compat on the build of `make compiled`, not on the sources.
ON ?= source

# Exact versions of every dependency; /dev/null takes the newest.
CONSTRAINTS ?= constraints.txt

COMPILED := .cache/compiled
COMPILED_STAMP := $(COMPILED)/.made
CAN_COMPILE = $(shell command -v cc >/dev/null && $(BIN)/python -c 'import os, sysconfig; \
	print(os.path.exists(sysconfig.get_path("include") + "/Python.h") or "")' 2>/dev/null)
ifeq ($(ON),compiled)
BUILT := $(COMPILED_STAMP)
ON_BUILD := env PYTHONPATH=$(CURDIR)/$(COMPILED)/lib
KBROKER := $(ON_BUILD) $(BIN)/python -P -m kbroker
PYTEST := $(ON_BUILD) KBROKER_TESTS_ON=compiled $(BIN)/python -P -m pytest -o "pythonpath=$(COMPILED)/lib ."
else
KBROKER := $(BIN)/kbroker
PYTEST := $(BIN)/python -m pytest
endif
# One process per core; PYTEST_ARGS="-n 0" runs all in one.
SPREAD := -n auto --dist worksteal
# macOS has no timeout(1); there each test's own limit must do.
LIMIT := $(shell command -v timeout >/dev/null && echo timeout -k 10)

# Stages print one after the other, also under `make -j`.
.NOTPARALLEL:

.PHONY: help run test style format types unit compiled faults compat bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="--port 9093" is passed to the broker, PYTEST_ARGS="-k fetch" to pytest, PYTHON=... picks the Python'

run: $(RUN_STAMP) $(BUILT)  ## install what the broker needs and start it on 127.0.0.1:9092 (ARGS="--data-dir DIR ...")
	@exec $(KBROKER) start $(ARGS)

test: style types unit  ## install everything and run the whole suite
	@if [ -n "$(CAN_COMPILE)" ]; then $(MAKE) --no-print-directory ON=compiled unit faults compat; else \
		echo 'NOT TESTED: the compiled build; it needs a C compiler and Python headers (apt-get install gcc python3-dev)'; \
		$(MAKE) --no-print-directory faults compat; fi

style: $(DEV_STAMP)  ## ruff (lint and layout) and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: $(DEV_STAMP)  ## lay the code out as `make style` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV_STAMP)  ## mypy --strict, for Linux and for macOS
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin

unit: $(DEV_STAMP) $(BUILT)  ## the tests that need nothing but Python (ON=compiled: of that build)
	$(if $(LIMIT),$(LIMIT) $(UNIT_LIMIT)) $(PYTEST) tests --ignore=tests/compat --ignore=tests/faults $(SPREAD) $(PYTEST_ARGS)

compiled: $(COMPILED_STAMP)  ## the path of a Produce, a Fetch and a commit as extensions, as in a wheel (needs a C compiler)

faults: $(DEV_STAMP) $(BUILT)  ## processes killed, stopped, without space on the disk (KBROKER_FAULT_KILLS=100)
	$(if $(LIMIT),$(LIMIT) $(FAULTS_LIMIT)) $(PYTEST) tests/faults -rs $(PYTEST_ARGS)

compat: $(DEV_STAMP) $(BUILT)  ## stock clients against the broker; one that is not installed is a visible skip (PEER=kafka)
	KBROKER_COMPAT_PEER=$(PEER) $(if $(LIMIT),$(LIMIT) $(COMPAT_LIMIT)) $(PYTEST) tests/compat -rs $(PYTEST_ARGS)

bench: $(COMPILED_STAMP)  ## kbroker, compiled, and Apache Kafka in turn, as ratios (needs Java; ARGS=--source: not compiled)
	$(BIN)/python -m bench $(ARGS)

clean:  ## remove the environment, caches and build results
	@chmod -R u+w .cache 2>/dev/null || true
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo 'kbroker needs Python 3.11 or newer; install one and say: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'kbroker needs Python 3.11 or newer; $(PYTHON) is older' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo 'installing python3-venv'; \
			{ apt-get install -qq -y python3-venv || { apt-get update -qq && apt-get install -qq -y python3-venv; }; } >/dev/null; \
		else \
			echo 'Python cannot make virtual environments here; run: sudo apt-get install -y python3-venv' >&2; exit 1; \
		fi; }
	@# a half-made or foreign environment is made anew, a working one is kept
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo '$(PYTHON) -m venv $(VENV)'; $(PYTHON) -m venv --clear $(VENV); }
	@# Debian's pip is older than dependency groups
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(RUN_STAMP): $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --group dev
	@touch $@

$(COMPILED_STAMP): $(DEV_STAMP) packaging/compile.py $(shell find kbroker -name '*.py')
	@[ -n "$(CAN_COMPILE)" ] || { echo 'the build needs a C compiler and Python headers: apt-get install gcc python3-dev' >&2; exit 1; }
	rm -rf $(COMPILED)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m hatchling build -t wheel -d $(COMPILED)/wheel
	$(BIN)/python -m pip install --quiet --no-deps --target $(COMPILED)/lib $(COMPILED)/wheel/*.whl
	@touch $@
