# Everything a developer, a user and CI run. `make` alone lists the targets.
#
# CPU or CUDA: the lock pins PyTorch's version and leaves its build open. pip takes the build of the indexes that it
# is set up with; a plain set-up on Linux gets the CUDA build (gigabytes). For the CPU build, or another CUDA, name
# the wheel index of PyTorch's "Get started" page:   make setup PIP_OPTIONS="--index-url URL --extra-index-url URL"
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PIP_OPTIONS ?=
HOST ?= 127.0.0.1
PORT ?= 8080
DATA ?= data
JOBS ?= 2
FUZZ ?= --count 100000 --seed 1

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.lipcert-installed
PROGRAMS := certifier service tests benchmarks examples deploy
# One thread per process: the test runner already uses every core, and spinning threads slow each other down.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help setup serve demo check format lint types imports test check-slow faults fuzz corpus docs image-check lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s%s\n", $$1, $$2}' Makefile

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Lipcert needs Python 3.11 or newer; name one with PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "No virtual environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c requirements.lock -e '.[dev]'
	@touch $@

setup: $(INSTALLED)  ## make the virtual environment with the locked versions

serve: setup  ## start the server on HOST:PORT with its data in DATA
	$(BIN)/lipcert serve --host $(HOST) --port $(PORT) --data $(DATA)

demo: setup  ## start a server, certify the example model, print a prediction with its radius
	$(BIN)/python examples/demo.py

check: format lint types imports test  ## what has to pass before every commit

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: setup
	PYTHONPATH=. $(BIN)/lint-imports

test: setup
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

check-slow: setup  ## the tests that take minutes
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m slow --timeout 3000

faults: setup  ## seed faults into the code and show that the tests catch each of them
	$(TEST_ENVIRONMENT) $(BIN)/python -m tests.faults

fuzz: setup  ## feed the library a hundred thousand mutated models; FUZZ="--count 1000 --seed 7" chooses others
	$(TEST_ENVIRONMENT) $(BIN)/python -m tests.fuzzing $(FUZZ)

corpus: setup  ## certify or refuse every shared model and write docs/corpus.md
	$(BIN)/python -m benchmarks.corpus

docs: setup  ## write the pages that are generated from the code
	$(BIN)/python -m service.documentation docs

image-check:  ## build the Dockerfile and serve a certificate from the image, with or without a Docker engine
	deploy/image-check.sh

lock:  ## resolve the newest versions that pyproject.toml allows and write requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet $(PIP_OPTIONS) -e '.[dev]'
	deploy/write-lock.sh build/lock/bin/python requirements.lock

clean:  ## remove what the Makefile built, the virtual environment included
	rm -rf build dist $(VENV) *.egg-info .pytest_cache .ruff_cache .import_linter_cache
