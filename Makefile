# Needs make and Python 3.11 or newer; everything else is installed into .venv from the lock files.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
SMOKE := build/smoke
PYTEST_ARGS ?=
TYPED := $(wildcard replicator syncer/app.py syncer/chalicelib migrate infra tests/servers tests/conftest.py)
FORMATTED := $(wildcard replicator syncer/app.py syncer/chalicelib migrate infra tests)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test lint check package image deploy destroy migrate-task bench lock fmt clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## make .venv with everything the other commands need

# An explicit interpreter check first: what pip says about a wrong one is a page long.
$(READY): pyproject.toml requirements/dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: '$(PYTHON)' not found; install Python 3.11, 3.12 or 3.13, or say make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "make: Python 3.11, 3.12 or 3.13 is needed, '$(PYTHON)' is $$($(PYTHON) --version 2>&1); say make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --require-hashes -r requirements/dev.txt
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## show a migration and a live mirror between two local servers
	$(PY) -m tests.demo

test: $(READY) ## run the tests (make test PYTEST_ARGS="-k decide -x")
	$(PY) -m pytest $(PYTEST_ARGS)

lint: $(READY) ## format, style, types and import rules, without changing a file
	$(PY) -m ruff format --check $(FORMATTED)
	$(PY) -m ruff check $(FORMATTED)
	$(PY) -m mypy $(TYPED)
	$(VENV)/bin/lint-imports

check: lint test ## all that must pass before a change is accepted
	$(MAKE) package

package: $(READY) ## build the wheel and try it in a clean environment
	rm -rf $(SMOKE)
	$(PY) -m build --no-isolation --outdir $(SMOKE)/dist .
	$(PY) -m venv $(SMOKE)/venv
	$(SMOKE)/venv/bin/python -m pip install --quiet --require-hashes -r requirements/run.txt
	$(SMOKE)/venv/bin/python -m pip install --quiet --no-deps $(SMOKE)/dist/*.whl
	cd $(SMOKE) && venv/bin/replicator --version && venv/bin/replicator --help
	mkdir -p dist && cp $(SMOKE)/dist/* dist/

image: ## build the container image of migrate
	@docker info >/dev/null 2>&1 || { echo "make: the image needs a running Docker ('docker info' fails)" >&2; exit 1; }
	docker build -f migrate/Dockerfile -t bucket-replicator:dev .

# What is given on make's command line, NAME=VALUE, is in the environment of what it runs; docs/AWS.md lists the names.
deploy: $(READY) ## make or update the mirror at AWS (SOURCE_BUCKET=... TARGET_BUCKET=... DRY_RUN=1)
	@$(PY) -m infra.deploy

destroy: $(READY) ## remove the mirror at AWS, and none of your buckets (SOURCE_BUCKET=... FORCE=1)
	@$(PY) -m infra.destroy

migrate-task: $(READY) ## start a migration on Fargate, of a mirror that was deployed with IMAGE=...
	@$(PY) -m infra.task

bench: $(READY) ## measure speed and memory against local servers
	$(PY) -m tests.benchmarks.run

fmt: $(READY) ## put the code into the format that check asks for
	$(PY) -m ruff format $(FORMATTED)
	$(PY) -m ruff check --fix $(FORMATTED)

# To change a dependency: edit pyproject.toml, run `make lock`, read the difference, commit both. Without an edit it
# only fills gaps: `make lock LOCK_ARGS=--upgrade` moves everything to the newest versions, and
# `make lock LOCK_ARGS="--upgrade-package click"` one of them. uv comes from the lock itself; with no .venv that works,
# any other will do: `make lock UV=uv`. Three more things pin versions of their own: tests/servers/swift.py names the
# version of swift that requirements/swift.txt locks, requirements/checkov.txt has all of checkov's own, which do not go
# together with ours, and syncer/requirements.txt is what Lambda gets.
UV ?= $(VENV)/bin/uv
LOCK_ARGS ?=
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(LOCK_ARGS)

lock: $(if $(filter $(VENV)/%,$(UV)),$(READY)) ## write the lock files in requirements/ again, from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --group dev --output-file requirements/dev.txt
	echo 'swift==2.38.3' | $(COMPILE) --no-annotate --output-file requirements/swift.txt -
	echo 'checkov==3.3.30' | $(COMPILE) --no-annotate --output-file requirements/checkov.txt -

clean: ## remove what the other commands made
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
