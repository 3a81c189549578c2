# `make` alone prints the commands. Each of them makes .venv first if it is missing or out of date.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := 26.3

RUN := .venv/bin/python -m
# A file's tests in one process; files in the order of their names, so that the long ones don't come last.
PYTEST := .venv/bin/pytest --dist loadfile --no-loadscope-reorder
CODE := shared functions dev benchmarks tests

# Apache Kafka is fetched by Maven and runs on a JDK; without them its tests are left out, and that is said. What takes
# minutes and asks no broker is not run on it once more.
JAVA := $(shell command -v java >/dev/null && command -v mvn >/dev/null && echo found)

# A Kubernetes API server is built by Go, within TWOFOLD_GO_BUDGET_S; where it can't be, one line says so, and `$$cluster`
# leaves its tests out. From here on only the cache is used.
CLUSTER = cluster=''; $(RUN) dev.kubernetes || { test $$? = 3 || exit 1; cluster='not go'; }; export TWOFOLD_GO_BUDGET_S=0

# The cluster whose pods are watched, only if it is said here: the shell's variable may lead to any.
WATCHED = $(if $(filter command,$(word 1,$(origin KUBECONFIG))),--kubeconfig $(KUBECONFIG))

OPTIONS = $(if $(BROKER),--broker $(BROKER)) $(if $(JSON),--json $(JSON)) $(if $(KEEP),--keep)

FAULT_OPTIONS = $(if $(BROKER),--broker $(BROKER)) $(if $(JSON),--json $(JSON)) $(if $(SEED),--seed $(SEED)) \
	$(if $(EVENTS),--events $(EVENTS)) $(if $(FAULTS),--faults $(FAULTS))

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help demo dev test test-all mutants check render bench bench-full faults format

help: ## print this list
	@echo 'Usage: make COMMAND [NAME=VALUE...]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/made ## publish 1,000 events and compare what the servers hold (JSON=FILE, KEEP=1, BROKER=tansu|apache)
	@$(RUN) dev demo $(OPTIONS)

dev: .venv/made ## run the whole stack on this machine until Ctrl-C (BROKER=tansu|apache, KUBECONFIG=FILE)
	@$(RUN) dev up $(if $(BROKER),--broker $(BROKER)) $(WATCHED)

test: .venv/made ## the tests that need nothing but Python and PyPI, in under 5 minutes
	@$(PYTEST) -n 3 tests -m 'not java and not apache and not go and not slow'

test-all: .venv/made ## every test, and the contract and flow tests once more on Apache Kafka (needs a JDK 17, Maven, Go)
ifeq ($(JAVA),found)
	@$(CLUSTER); $(PYTEST) -n 2 tests -m "$$cluster"
	@echo 'Once more, on Apache Kafka:'
	@$(PYTEST) -n 2 tests/contract tests/flow --ignore tests/flow/test_memory.py --ignore tests/flow/test_api.py --broker apache
else
	@$(CLUSTER); $(PYTEST) -n 2 tests -m "not java and not apache$${cluster:+ and $$cluster}"
	@echo 'Left out, since java or mvn is not here: the tests on Apache Kafka (apt-get install openjdk-17-jdk-headless maven).'
endif
	@$(RUN) dev mutants --in-turn

mutants: .venv/made ## break each guarantee in a copy, and show the test that notices (NAMES="'...' '...'" for some)
	@$(RUN) dev mutants $(NAMES)

check: .venv/made ## lint, format, types, import direction, manifests, and a test for every guarantee
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/mypy $(CODE)
	@.venv/bin/lint-imports --no-logo
	@$(RUN) dev.manifests check
	@$(RUN) dev.markers

render: .venv/made ## the Kubernetes manifests of both overlays as one stream of YAML (OVERLAY=local|production); asks no cluster
	@$(RUN) dev.manifests render $(OVERLAY)

bench: .venv/made ## measure beside the naive way and the limit, in one run (JSON=FILE; with wrk, where it is there)
	@$(RUN) benchmarks $(if $(JSON),--json $(JSON))

bench-full: .venv/made ## measure what takes minutes: queries of 1,000,000 events beside 10,000, in one run (JSON=FILE)
	@$(RUN) benchmarks.full $(if $(JSON),--json $(JSON))

faults: .venv/made ## lose nothing while everything breaks, at random moments (JSON=FILE, SEED=, EVENTS=, FAULTS=, BROKER=tansu|apache)
	@$(RUN) dev faults $(FAULT_OPTIONS)

format: .venv/made ## put the code into the one format and mend what ruff can
	@.venv/bin/ruff check --fix $(CODE)
	@.venv/bin/ruff format $(CODE)

# What the machine must have, each by name; then the environment, exactly as constraints.txt says.
.venv/made: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is missing: apt-get install python3 python3-venv, or make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is not Python 3.11 or newer.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'The venv module of $(PYTHON) is missing: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; from dev.preflight import Machine, machine_complaints; \
		sys.exit("\n".join(machine_complaints(Machine.this())) or None)'
	@echo 'Making .venv from pyproject.toml and constraints.txt (a minute or two the first time) ...'
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install --quiet --disable-pip-version-check pip==$(PIP)
	@$(RUN) pip install --quiet --disable-pip-version-check -e '.[kafka,auth,pods,cli]' --group dev -c constraints.txt
	@touch $@
