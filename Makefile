# `make demo` and `make test` set everything up from an empty machine: Debian or the like, Python 3.11+, an index of packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check fix docs clean

demo: $(READY)
	$(BIN)/squeezenet demo -o demo

test: $(READY)
	$(BIN)/python -m pytest

# Format, lint, types, and the README against its sources.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/make_readme.py --check

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python tools/make_cli_docs.py
	$(BIN)/python tools/make_readme.py

# The constraints hold the direct dependencies at the versions that were tested.
$(READY): pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
