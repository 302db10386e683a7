# `make` prints this help. Every target sets up .venv by itself; the demo without what only tests and docs need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
READY := $(VENV)/.ready
STORE ?= runs
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-system test-slow check format docs notebooks bench clean

help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv and install everything, versions pinned

demo: $(RUNNABLE) ## Fill up a few long-tailed digits by a backbone that knows more of them; train classifiers, report
	$(BIN)/minority augment digits-pretrained --store $(STORE)

test: $(READY) ## Run the tests (some minutes); coverage of minority/ and datasets/ must be 90 %
	$(BIN)/python -m pytest -m "not slow and not system and not realdata" $(PARALLEL) --cov --cov-report=term --cov-fail-under=90

test-system: $(READY) ## Run the tests of whole runs, with servers, workers, browsers and real image sets (half an hour)
	$(BIN)/python -m pytest -m "(system or realdata) and not slow" $(PARALLEL)

test-slow: $(READY) ## Run all tests, the long ones too
	$(BIN)/python -m pytest

check: $(READY) ## Lint, formatting, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

format: $(READY) ## Mend formatting and what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation's pages into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: $(READY) ## Run the notebooks (2 min); one of them reads what `minority augment digits` left in STORE
	STORE=$(abspath $(STORE)) $(BIN)/jupyter execute --startup_timeout=300 examples/notebooks/*.ipynb

bench: $(READY) ## Print yield and downstream gain of the digits preset (20 min; benchmarks/README.md has the other tables)
	$(BIN)/python -m benchmarks.digits --store $(STORE)/benchmark

clean: ## Remove .venv and caches; published runs stay
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info

$(RUNNABLE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $(RUNNABLE)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(RUNNABLE) $(READY)
