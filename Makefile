# `make` alone prints the commands. Each command first makes .venv if it is missing or out of date.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := 26.3

RUN := .venv/bin/python -m
# The tests of a file run in one process. The files run in the order of their names, so that long files do not come last.
PYTEST := .venv/bin/pytest --dist loadfile --no-loadscope-reorder
CODE := shared functions dev benchmarks tests

# Maven fetches Apache Kafka, and a JDK runs it. Without them, `make test-all` leaves its tests out and prints a line.
# Long tests that use no broker do not run again on Apache Kafka.
JAVA := $(shell command -v java >/dev/null && command -v mvn >/dev/null && echo found)

# Go builds a Kubernetes API server within TWOFOLD_GO_BUDGET_S. If the build fails, it prints one line, and `$$cluster`
# leaves the tests out. The budget of 0 makes the tests use only the cache.
CLUSTER = cluster=''; $(RUN) tests.kubernetes || { test $$? = 3 || exit 1; cluster='not go'; }; export TWOFOLD_GO_BUDGET_S=0

# The cluster with the watched pods. Only the command line counts: the shell's KUBECONFIG may name any cluster.
WATCHED = $(if $(filter command,$(word 1,$(origin KUBECONFIG))),--kubeconfig $(KUBECONFIG))

# PORTS=fixed: the same addresses at each start. Without it, two stacks can run side by side.
FIXED = $(if $(PORTS),$(if $(filter fixed,$(PORTS)),--fixed-ports,$(error PORTS can only be `fixed`)))

OPTIONS = $(if $(BROKER),--broker $(BROKER)) $(if $(JSON),--json $(JSON)) $(if $(KEEP),--keep) $(FIXED)

FAULT_OPTIONS = $(if $(BROKER),--broker $(BROKER)) $(if $(JSON),--json $(JSON)) $(if $(SEED),--seed $(SEED)) \
	$(if $(EVENTS),--events $(EVENTS)) $(if $(FAULTS),--faults $(FAULTS))

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help demo dev token test test-all mutants check render bench bench-full faults format

help: ## print this list
	@echo 'Usage: make COMMAND [NAME=VALUE...]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/made ## publish 1,100 events and compare the contents of the servers (JSON=FILE, KEEP=1, PORTS=fixed, BROKER=tansu|apache)
	@$(RUN) dev demo $(OPTIONS)

dev: .venv/made ## run the whole stack on this machine until Ctrl-C (PORTS=fixed, BROKER=tansu|apache, KUBECONFIG=FILE)
	@$(RUN) dev up $(if $(BROKER),--broker $(BROKER)) $(FIXED) $(WATCHED)

token: .venv/made ## print a token for the running stack (SUB=ann, ROLES='events:publish audit:read'; default: a service with all roles)
	@$(RUN) dev token $(if $(SUB),--sub '$(SUB)') $(if $(ROLES),--roles '$(ROLES)')

test: .venv/made .venv-newest-sdk/made ## run the tests that need only Python and PyPI, in under 5 minutes
	@$(PYTEST) -n 3 tests -m 'not java and not apache and not go and not slow'

test-all: .venv/made .venv-newest-sdk/made ## run every test, and the contract and flow tests again on Apache Kafka (needs a JDK 17, Maven, Go)
ifeq ($(JAVA),found)
	@$(CLUSTER); $(PYTEST) -n 2 tests -m "$$cluster"
	@echo 'Again, on Apache Kafka:'
	@$(PYTEST) -n 2 tests/contract tests/flow --ignore tests/flow/test_memory.py --ignore tests/flow/test_api.py --broker apache
else
	@$(CLUSTER); $(PYTEST) -n 2 tests -m "not java and not apache$${cluster:+ and $$cluster}"
	@echo 'The tests on Apache Kafka are left out, because java or mvn is missing: apt-get install openjdk-17-jdk-headless maven'
endif
	@$(RUN) dev mutants --in-turn

mutants: .venv/made ## break each guarantee in a copy, and show the test that notices (NAMES="'...' '...'" for some)
	@$(RUN) dev mutants $(NAMES)

check: .venv/made ## check lint, format, types, import direction, manifests, and a test for every guarantee
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/mypy $(CODE)
	@.venv/bin/lint-imports --no-logo
	@$(RUN) dev.manifests check
	@$(RUN) tests.markers

render: .venv/made ## print the Kubernetes manifests of an overlay as YAML, without a cluster (OVERLAY=local|production)
	@$(RUN) dev.manifests render $(OVERLAY)

bench: .venv/made ## compare the functions with naive functions and a limit, in one run (JSON=FILE; uses wrk if it is installed)
	@$(RUN) benchmarks $(if $(JSON),--json $(JSON))

bench-full: .venv/made ## compare queries over 1,000,000 events with queries over 10,000, in one run (JSON=FILE)
	@$(RUN) benchmarks.full $(if $(JSON),--json $(JSON))

faults: .venv/made ## show that no event is lost while servers and processes fail (JSON=FILE, SEED=, EVENTS=, FAULTS=, BROKER=tansu|apache)
	@$(RUN) dev faults $(FAULT_OPTIONS)

format: .venv/made ## format the code, and repair the errors that ruff can repair
	@.venv/bin/ruff check --fix $(CODE)
	@.venv/bin/ruff format $(CODE)

# Name the missing parts of the machine, then make the environment from constraints.txt. A lock lets one make do it.
.venv/made: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is missing: apt-get install python3 python3-venv, or make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is not Python 3.11 or newer.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'The venv module of $(PYTHON) is missing: apt-get install python3-venv' >&2; exit 1; }
	@command -v flock >/dev/null || { echo 'flock is missing: apt-get install util-linux' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; from dev.preflight import Machine, machine_complaints; \
		sys.exit("\n".join(machine_complaints(Machine.this())) or None)'
	@exec 9>.venv.lock; flock -n 9 || { echo 'Another make is making .venv. Waiting for it ...'; flock 9; }; \
	if test -e $@ && test ! pyproject.toml -nt $@ && test ! constraints.txt -nt $@; then exit 0; fi; \
	echo 'Making .venv from pyproject.toml and constraints.txt (a minute or two the first time) ...'; \
	$(PYTHON) -m venv .venv && \
	$(RUN) pip install --quiet --disable-pip-version-check pip==$(PIP) && \
	$(RUN) pip install --quiet --disable-pip-version-check -e '.[kafka,auth,pods,cli]' --group dev -c constraints.txt || { \
		echo 'pip could not install the packages. This step needs the network: PyPI, or a mirror in PIP_INDEX_URL.' >&2; exit 1; }; \
	touch $@

# The newest CloudEvents SDK judges the product's messages. functions-framework holds the SDK of .venv at 1.12.
.venv-newest-sdk/made: tests/newest_sdk/requirements.txt | .venv/made
	@echo 'Making .venv-newest-sdk from $< ...'; \
	$(PYTHON) -m venv --clear .venv-newest-sdk && \
	.venv-newest-sdk/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< || { \
		echo 'pip could not install the packages. This step needs the network: PyPI, or a mirror in PIP_INDEX_URL.' >&2; exit 1; }; \
	touch $@
