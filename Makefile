# Set-up and the main jobs. Each target says what it does; a step that is up to date is skipped.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := $(VENV)/.light
READY := $(VENV)/.ready
# One process a core, four at most (each needs 2.5 GB), with one thread of its own
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow check docs site web clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{ printf "make %-7s %s\n", $$1, $$2 }'

setup: $(READY)  ## make .venv with the package (editable) and every extra
	@echo "setup: $(VENV) is up to date"

# What colorizing needs, and the demo's photos: no torch
$(LIGHT): pyproject.toml constraints.txt
	@echo "setup: making $(VENV) with the package"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + "; give another: make setup PYTHON=python3.12")'
	@set -e; start=$$(date +%s); \
	$(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'; \
	echo "$$(($$(date +%s) - start)) s, $$(du -sm $(VENV) | cut -f1) MB" > $@

$(READY): $(LIGHT)
	@echo "setup: adding every extra to $(VENV) (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

demo: $(LIGHT)  ## colorize real photos with the shipped models: pictures and a table in demo/
	@echo "demo: colorizing real photos with the shipped models; results go to demo/"
	$(BIN)/python examples/demo.py demo
	$(BIN)/python examples/hints.py demo/strokes.png
	@echo "demo: the whole set-up took $$(cat $(LIGHT))"

test: setup  ## run the tests (offline, on a CPU)
	@echo "test: running the tests"
	$(PARALLEL) -m "not slow"

slow: setup  ## run the slow tests: every experiment at its quick budget, a training killed again and again
	@echo "slow: running the slow tests"
	$(BIN)/python -m pytest -m slow

check: setup  ## lint, formatting, types, layers
	@echo "check: lint"
	$(BIN)/ruff check .
	@echo "check: formatting"
	$(BIN)/ruff format --check .
	@echo "check: types"
	$(BIN)/mypy
	@echo "check: layers"
	$(BIN)/lint-imports

docs: setup  ## make docs/cli.md from the commands
	$(BIN)/python docs/site/command_line.py > docs/cli.md

web: setup  ## make the page that colorizes in the visitor's tab, in web/
	$(BIN)/chromatune site web

site: setup  ## make the documentation site in site/
	@echo "site: making site/"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove .venv, caches, builds, demo/ and site/
	@echo "clean: removing $(VENV), caches, builds, demo/ and site/"
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo site
	find src tests recipes benchmarks studies examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
