# Two commands: `make demo` and `make test`. Each sets up all it needs.
#
#   make demo VENV=                 use PYTHON as it is (it has everything already; nothing is installed)
#   make test PYTHON=python3.12     make .venv from another interpreter
#   make test WORKERS=0             one test process

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
GALLERY = causal alibi softcap gemma2_local prefix_lm dropped

ifeq ($(strip $(VENV)),)
PY := $(PYTHON)
READY :=
export PYTHONPATH := $(CURDIR)
else
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
endif

# Two test processes on two cores: each keeps to one thread.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest $(if $(filter-out 0,$(WORKERS)),-n $(WORKERS))

.PHONY: help setup demo test lint format test-cpu test-compiled test-slow test-gpu gallery gallery-check clean

help:
	@echo "make demo | test | lint | format | test-slow | test-gpu | gallery | gallery-check | clean"

setup: $(READY)

demo: $(READY)
	$(PY) demo/run.py

test: lint test-cpu test-compiled

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict attngen

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Triton's interpreter is chosen when triton is imported, and breaks its compiler: two processes.
test-cpu: $(READY)
	TRITON_INTERPRET=1 $(PYTEST) -m "not slow and not gpu and not compiled"

test-compiled: $(READY)
	TRITON_INTERPRET=0 $(PYTEST) -m "compiled and not slow and not gpu"

test-slow: $(READY)
	TRITON_INTERPRET=1 $(PYTEST) -m "slow and not gpu and not compiled"
	TRITON_INTERPRET=0 $(PYTEST) -m "slow and compiled and not gpu"

test-gpu: $(READY)
	TRITON_INTERPRET=0 $(PY) -m pytest -m gpu -n auto

gallery: $(READY)
	$(PY) -m attngen build $(GALLERY) -o generated

gallery-check: $(READY)
	$(PY) -m pytest -q tests/test_gallery.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist demo-output

# Rebuilt only when the pins or the package's own metadata change.
$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "attngen needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements/dev.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
