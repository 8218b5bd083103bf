# Everything from a machine with Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install quickstart test soak lint audit bench
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(INSTALLED)  ## make .venv with the pinned packages

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

quickstart: $(INSTALLED)  ## train SGD and GD on embedded data and compare them
	$(BIN)/python -m janus_pl.quickstart

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest -q

soak: $(INSTALLED)  ## the tests that take long: runs killed anywhere, several processes, fresh ones
	$(BIN)/python -m pytest -q -m soak

audit: $(INSTALLED)  ## known vulnerabilities of the pinned packages; asks a database online
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement requirements.lock --no-deps

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## side-by-side timings, printed as ratios
	$(BIN)/python -m benchmarks.run
