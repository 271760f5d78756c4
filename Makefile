# make up: everything on this machine.  make test: every check and test.  make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := local planning board dev
ENV := $(VENV)/.wattstream-env

# Each process would compile its imports again: 2.3 s of CPU for a worker, else 0.9.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env up down check format test clients lock docs clean
.DEFAULT_GOAL := help

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

env: $(ENV) ## the environment alone: .venv, from requirements.lock, every file held against its hash

# The lock brings uv, which installs the 2 GB in seconds where pip needs minutes; pip only fetches uv, by the lock's hash.
# Wheels only: a source would be built with packages that no hash holds.
$(ENV): requirements.lock pyproject.toml
	@python=; for candidate in $(PYTHON) python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "WattStream needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)."; \
	  echo "Install one (Debian: apt install python3 python3-venv), or name it: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.12"; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c '' 2>/dev/null && ! $$python -m venv --clear $(VENV); then \
	  echo "$$python can't make a virtual environment: install its venv module (Debian: apt install python3-venv)."; \
	  exit 1; \
	fi
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/uv --version 2>/dev/null | grep -qF "$$(sed -n 's/^uv==\([^ ]*\).*/\1/p' $(VENV)/uv.lock) " \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --only-binary :all: requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# exec, so that Ctrl-C reaches one process, which says itself how it ended.
up: $(ENV) ## start everything; ARGS="--no-simulate" passes flags on; Ctrl-C stops it
	@exec $(BIN)/wattstream up $(ARGS)

down: $(ENV) ## stop what `wattstream up --detach` started
	@exec $(BIN)/wattstream down $(ARGS)

check: $(ENV) ## formatting, lint, types, and the arrows between the packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo --no-cache

format: $(ENV) ## mend formatting and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# End-to-end tests wait half of their time, so one process more than there are cores; each needs about 1.5 GB. A file stays
# in one, with its broker and engine; in their own order, as the long files come last by xdist's.
TESTERS = $(shell $(BIN)/python -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
test: check ## check, then all tests, on a real broker, engine and browser
	$(BIN)/pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder $(ARGS)

clients: $(ENV) ## the tests of ClickHouse's Python client on the embedded server; SUITE= its repository's folder
	CLICKHOUSE_CONNECT_SUITE="$(SUITE)" $(BIN)/pytest -rP tests/e2e/test_clients.py

lock: $(ENV) ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml $(addprefix --extra ,$(EXTRAS)) --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file requirements.lock

docs: $(ENV) ## write the pages that are made from the code: data dictionary, settings, commands
	$(BIN)/python -m pipelines.reference

clean: ## remove the environment and what checks leave; the data in .wattstream stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache test-artefacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
