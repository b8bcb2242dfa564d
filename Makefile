# Everything goes into .venv in this checkout. `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
BIN := .venv/bin
# The demo keeps its workspace, and Prefect its runs, inside the checkout.
DEMO := $(CURDIR)/.demo
# How tests are shared among processes: tests/conftest.py says which stay together, and their order.
SHARED := --dist loadgroup --no-loadscope-reorder

.PHONY: demo test faults demo-test bench lint install clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is older: run make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: export COVERS_HOME = $(DEMO)/covers
demo: export PREFECT_HOME = $(DEMO)/prefect
demo: install
	@mkdir -p $(DEMO)
	$(BIN)/covers demo

test: install
	$(BIN)/python -m pytest --ignore tests/faults --ignore tests/demo --ignore tests/first_hour --numprocesses auto --maxprocesses 4 $(SHARED)

# Ends with what became of the faults.
faults: install
	$(BIN)/python -m pytest tests/faults --numprocesses auto --maxprocesses 2 $(SHARED)

# Tests what README says about the demo, runs its main job from an installed wheel, and types what
# a newcomer types in the first hour.
demo-test: demo
	$(BIN)/python -m pytest tests/demo tests/first_hour

# BENCH="aggregation searching" for some of them.
bench: .venv/bench
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .demo
