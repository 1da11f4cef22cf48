# make demo, make test and the rest; everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint hooks ui setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/spikeseg demo --storage demo

# Two processes: one takes the tests that start Ray or a browser, one after the other.
test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

hooks: $(STAMP)
	$(BIN)/pre-commit install

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

ui: $(STAMP)
	$(BIN)/spikeseg ui --storage $(if $(STORAGE),$(STORAGE),demo)

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
