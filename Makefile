PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: figures smoke test lint readme check-readme clean

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

readme: $(INSTALLED)  ## the README's table, from the records in figures/
	$(BIN)/python -m experiments --readme

check-readme: $(INSTALLED)  ## fails if the README's table is stale
	cp README.md .venv/README.before
	$(BIN)/python -m experiments --readme
	cmp .venv/README.before README.md

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlrazor needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build
