PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: figures smoke test lint bench readme check-readme clean

figures: $(INSTALLED)  ## every figure at its published settings, into figures/
	$(BIN)/python -m experiments

smoke: $(INSTALLED)  ## every figure at toy size, into build/smoke/
	$(BIN)/python -m experiments --quick --out build/smoke

test: $(INSTALLED)  ## tests and doctests; PYTEST_FLAGS=--cov adds coverage
	$(BIN)/python -m pytest -n auto $(PYTEST_FLAGS)

lint: $(INSTALLED)  ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.benchmarks  ## measures the tables and the figure of benchmarks/README.md again
	$(BIN)/python benchmarks/report.py

.venv/.benchmarks: $(INSTALLED)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

readme: $(INSTALLED)  ## the README's table and seconds, from `make figures smoke` at one clean revision
	$(BIN)/python -m experiments --readme

check-readme: $(INSTALLED)  ## fails if the README's table was stale, having brought it up to date
	$(BIN)/python -m experiments --check-readme

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlrazor needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build
