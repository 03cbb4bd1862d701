PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SERVICES := .venv-services
SERVICES_INSTALLED := $(SERVICES)/.installed

# Most of these tests wait: more of them than there are cores go side by side.
SIDE_BY_SIDE := --numprocesses 6 --dist worksteal
# These watch the clock, so that nothing runs beside them.
ONE_BY_ONE := tests/unit/polling/test_small_delays.py tests/unit/polling/test_small_failures.py

.PHONY: help install lint format types test test-unit test-e2e services test-crash cancel-matrix cancel-selection \
	sequences schedules outages demo airflow bench bench-triggerer bench-ends bench-mass soak build package-check clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-16s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## make .venv with everything in it

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

test: $(INSTALLED) ## every test, the ones in a real Airflow included
	$(BIN)/coverage erase
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report= --ignore tests/e2e --ignore-glob '*/test_small_*'
	$(BIN)/python -m pytest --cov --cov-append --cov-report= $(ONE_BY_ONE) tests/e2e
	$(BIN)/coverage report

test-unit: $(INSTALLED) ## the quick ones: no Airflow processes
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/unit tests/contract --ignore-glob '*/test_small_*'
	$(BIN)/python -m pytest $(ONE_BY_ONE)

test-e2e: $(INSTALLED) ## only the ones in a real Airflow
	$(BIN)/python -m pytest tests/e2e

# Celery, Playwright and the database drivers are for these alone, the project does not depend on them.
$(SERVICES_INSTALLED): pyproject.toml tests/harness/services.txt
	$(PYTHON) -m venv $(SERVICES)
	$(SERVICES)/bin/python -m pip install --quiet --upgrade pip uv
	$(SERVICES)/bin/uv pip install --quiet --python $(SERVICES)/bin/python --editable '.[dev]' --requirement tests/harness/services.txt
	@touch $@

services: $(SERVICES_INSTALLED) ## PostgreSQL, Redis and Chromium, for what follows; root on Debian
	$(SERVICES)/bin/python -m tests.harness.services

test-crash: services ## on PostgreSQL: workers killed at every step, and answers that no database takes
	$(SERVICES)/bin/python -m pytest -m crash tests/e2e

cancel-matrix: services ## every way to cancel, clear and kill, the racy ones 20 times: about three hours
	$(SERVICES)/bin/python -m tests.cancel $(ARGS)

cancel-selection: services ## the part of it that every change has to pass
	$(SERVICES)/bin/python -m tests.cancel --selection

sequences: $(INSTALLED) ## ten thousand sequences of answers, and every fault in every place of every answer: about ten minutes
	CAPY_SEQUENCES=10000 CAPY_FUZZ=all $(BIN)/python -m pytest tests/property/test_sequences.py tests/property/test_answers_fuzzed.py

schedules: $(INSTALLED) ## ten thousand worlds of waits that share a poll, each beside the same alone: about ten minutes
	CAPY_SCHEDULES=10000 $(BIN)/python -m pytest --numprocesses 2 tests/property/test_as_well_off_as_alone.py

outages: services ## Capy gone for 1, 5 and 30 minutes under every way of waiting; ARGS=--write keeps it in RELIABILITY.md
	$(SERVICES)/bin/python -m tests.outages $(ARGS)

demo: $(INSTALLED) ## a real Airflow, the emulator, three DAGs, one summary
	$(BIN)/python -m tests.demo $(ARGS)

airflow: $(INSTALLED) ## the same, with the UI left up until Ctrl-C
	$(BIN)/python -m tests.demo --stay $(ARGS)

bench: $(INSTALLED) ## what waiting and importing cost, beside the peers: about 20 minutes, ARGS=--quick for two
	$(BIN)/python -m tests.bench $(ARGS)

bench-triggerer: services ## a thousand waits in a real triggerer on PostgreSQL, beside as many that only sleep
	$(SERVICES)/bin/python -m tests.bench.real $(ARGS)

bench-ends: services ## what the listener of run ends costs API server and scheduler, on and off: about 15 minutes
	$(SERVICES)/bin/python -m tests.bench.ends $(ARGS)

bench-mass: services ## a run of a thousand deferred waits, cancelled: when each thread was asked to stop
	$(SERVICES)/bin/python -m tests.bench.mass $(ARGS)

soak: services ## LocalExecutor and Celery under a stream of run ends: no hang, zombie or leak; about half an hour
	$(SERVICES)/bin/python -m tests.bench.soak $(ARGS)

build: $(INSTALLED) ## wheel and sdist into dist/
	$(BIN)/python -m build --installer uv

package-check: $(INSTALLED) ## build wheel and sdist, install each into a clean environment, and use it there
	$(BIN)/python -m tests.package

clean: ## forget the environment and every result
	rm -rf $(VENV) $(SERVICES) .venv-bench .airflow dist .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* .hypothesis
