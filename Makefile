# `make demo` and `make test` set everything up from an empty machine: Debian or the like, Python 3.11+, an index of packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEMO := $(VENV)/.ready-demo
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help demo test check fix docs web release clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(READY_DEMO) ## the whole path on handwritten digits: train, compress, export, verify
	$(BIN)/squeezenet demo -o demo

# One process for each core; a file of tests stays in one process, so that its fixtures are made once.
test: $(READY) ## all tests; one: .venv/bin/python -m pytest tests/test_spec.py -k bypass
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

check: $(READY) ## format, lint, types, sizes of files and functions, every page against its sources
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/make_docs.py --check

fix: $(READY) ## repair format and what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## fill the tables and command pages of README and docs/, build the site
	$(BIN)/python tools/make_docs.py
	$(BIN)/mkdocs build --quiet --strict

# The page's engine: the bytes that are checked in, and what they were built with.
WEB := src/squeezenet/exports/web
web: ## build the page's engine; needs Debian's clang-19 and lld-19
	csrc/web/build.sh $(WEB)/engine.wasm $(WEB)/relaxed.wasm
	chmod -x $(WEB)/engine.wasm $(WEB)/relaxed.wasm
	printf '{"clang": "%s", "sha256": "%s"}\n' "$$(clang-19 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')" \
		"$$(cat $(WEB)/engine.wasm $(WEB)/relaxed.wasm | sha256sum | cut -d' ' -f1)" > $(WEB)/engine.json

# The constraints hold the direct dependencies at the versions that were tested.
SOURCES := pyproject.toml constraints.txt setup.py $(wildcard csrc/*)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What training, compressing and exporting need.
$(READY_DEMO): $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[train]'
	touch $@

# That, and what tests, checks and documentation need.
$(READY): $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[dev]'
	touch $@ $(READY_DEMO)

release: $(READY) ## build sdist and wheel, check both in clean environments, name what to tag
	$(BIN)/python tools/release.py

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist demo site .pytest_cache .mypy_cache .ruff_cache
