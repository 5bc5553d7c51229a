# Two commands prove the program on a fresh machine with Python 3.11 or newer: make demo, make test.
# Neither needs a network beyond the package index.

PYTHON ?= python3
BIN := .venv/bin
# Idle OpenMP threads that spin double the CPU time of small models.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow test-bf16 test-shapes lint types format reference benchmarks clean

demo: .venv/installed
	$(BIN)/forecast train metro-traffic --register metro-traffic --alias champion
	$(BIN)/forecast predict models:/metro-traffic@champion metro-traffic --out next-day.csv
	@echo
	@head -4 next-day.csv
	@echo "...  the next day, hour by hour: $(CURDIR)/next-day.csv"
	@echo
	$(BIN)/forecast registry list

# Two workers, one thread each; docs/testing.md says what is slow and what may be changed:
# make test WORKERS=4 PYTEST='tests/series -x'.
WORKERS ?= 2
PYTEST_RUN := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: .venv/test
	$(PYTEST_RUN) -m "not slow" $(PYTEST)

test-slow: .venv/test
	$(PYTEST_RUN) -m slow $(PYTEST)

test-bf16: .venv/test
	FORECAST_PRECISION=bf16 $(PYTEST_RUN) -m bf16 $(PYTEST)

# Shapes and types of every call of a model, checked as it is made.
test-shapes: .venv/test
	$(PYTEST_RUN) --jaxtyping-packages=forecast.models,forecast.layers,forecast.kernels,forecast.batch,beartype.beartype tests/models $(PYTEST)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# cli/REFERENCE.md and cli/completions are written by the program itself and held to it by a test.
reference: .venv/test
	$(BIN)/python -m forecast.cli.reference cli

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "forecast needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ .venv/installed

.venv/dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/test .venv/installed

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis next-day.csv
