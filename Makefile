# The habits of the house: `make demo`, `make test`, and what they are made of.
PYTHON ?= python3
HYPOTHESIS_PROFILE ?= dev
export HYPOTHESIS_PROFILE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types docs bench clean

help:
	@echo "make demo    verify three theorems on FrozenLake; table on the screen, files in results/demo"
	@echo "make test    layers, lint and tests, then the quick tests again without the compiler"
	@echo "make lint    layers and lint only"
	@echo "make types   mypy on the library"
	@echo "make docs    build the documentation into docs/_build/html"
	@echo "make bench   race the library against its peers"
	@echo "make clean   remove everything that was built or installed here"

demo: $(VENV)/installed
	$(BIN)/theoryrl verify ucbvi.regret ucbvi.optimism dp.lp-duality --mdp gymnasium:FrozenLake-v1 --out results/demo

# The second run takes the kernels as plain Python: it debugs what the compiler hides, out-of-range indices first of all.
test: lint
	$(BIN)/python -m pytest -n auto
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n auto -m "not slow"

lint: $(VENV)/installed-test
	$(BIN)/lint-imports
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/jupyter_execute
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

# One stamp per set of packages: pip runs again only when pyproject.toml changes, so everything else works offline.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: theoryrl needs Python 3.11 or newer; name one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): theoryrl needs Python 3.11 or newer; name one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[$*]'
	@touch $(VENV)/installed $@
