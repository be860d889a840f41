# Each command does the whole set-up from nothing: .venv is built first where it is missing or out of date.
PYTHON ?= python3
WORKERS ?= 2
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
QUICKSTART_DIR ?= runs/quickstart
# One thread a worker: more of them than cores slow the suite down. No test may look for a model or data set online.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/pytest -n $(WORKERS)

.PHONY: quickstart test test-slow test-oldest lint clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed-test
	$(BIN)/dlfa quickstart --output-dir $(QUICKSTART_DIR) --overwrite

test: $(VENV)/.installed-test
	$(PYTEST)

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

# torch 2.11 is there with CUDA only: gigabytes.
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$*]'
	touch $@

# seqeval has no wheel, and pip before 23.1, which Python 3.10 brings, cannot build it.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "DLFA needs Python 3.10 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23.1'
