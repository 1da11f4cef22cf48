# make demo, make test and the rest; everything lives in .venv.
PYTHON ?= python3
VENV := .venv
LOCK := build/lock
PEERS := build/peers
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all test-peers lint lock hooks ui setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/spikeseg demo --storage demo

# Two processes: one takes the tests that start Ray or a browser, one after the other.
test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

# NeuroBench and SpikingJelly over our networks, in an environment of their own: without their
# dependencies (torchvision among them), but for the two that they import.
test-peers:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e .
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt \
	  neurobench==2.3.0 spikingjelly==2.0.0 snntorch loguru
	$(PEERS)/bin/python tests/peers/count_with_peers.py --check

hooks: $(STAMP)
	$(BIN)/pre-commit install

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The newest versions that pyproject.toml allows, without builds (+cpu) and without where they came
# from. Afterwards: make test. One package alone: edit its line in constraints.txt.
lock:
	rm -rf $(LOCK)
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --disable-pip-version-check --quiet -e ".[dev]"
	$(LOCK)/bin/python -m pip list --format=freeze --exclude-editable --exclude pip \
	  | sed 's/+.*//' | LC_ALL=C sort -f > constraints.txt
	rm -rf $(LOCK)

ui: $(STAMP)
	$(BIN)/spikeseg ui --storage $(if $(STORAGE),$(STORAGE),demo)

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
