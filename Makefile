.DEFAULT_GOAL := help
SHELL := bash
PYTHON := .venv/bin/python
TEST_PROCESSES ?= 2
# In the order of the files: by their numbers of tests the whole runs, few and long, would all be last, one after another.
PYTEST := $(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
SOURCES := pipeline components transform trainer schemas kubeflow tests benchmarks examples setup.py

.PHONY: help setup browser run test test-unit lint format lock kubeflow-local \
	bench-ingest bench-quality bench-speed bench-continuous bench-analyzer-cache bench-evaluate bench-serving \
	bench-startup bench-synthetic bench-pipeline bench-beam bench-exchange

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "%-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv from the lock file of the stack that fits this machine
	@requirements/setup.sh

run: setup ## run the whole pipeline on MovieLens-100K
	@.venv/bin/ctr data movielens
	@.venv/bin/ctr run

browser: ## install Chromium, which the report's tests need, if there is none
	@requirements/browser.sh

test: setup browser ## run the tests
	@$(PYTEST)

test-unit: setup browser ## run the tests but for the whole runs
	@$(PYTEST) --ignore tests/e2e

lint: setup ## ruff, mypy, import-linter
	@.venv/bin/ruff check $(SOURCES)
	@.venv/bin/ruff format --check $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: setup ## let ruff put the sources in shape
	@.venv/bin/ruff check --fix $(SOURCES)
	@.venv/bin/ruff format $(SOURCES)

bench-ingest: setup ## speed and memory of the ingestion, beside TFX's CsvExampleGen and Parquet executor
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.ingest

bench-quality: setup ## AUC and log loss on MovieLens-100K, beside three peers
	@benchmarks/setup.sh
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.quality

bench-speed: setup ## training speed by the size of the table, beside three peers
	@benchmarks/setup.sh
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.speed

bench-continuous: setup ## ten days of MovieLens-100K: from scratch each day beside warm start
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.continuous

bench-analyzer-cache: setup ## Transform of a window that has moved by a day, with and without what was found before
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.analyzer_cache

bench-evaluate: setup ## speed of the evaluation, beside TFMA's own metrics alone
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.evaluate

bench-serving: setup ## latency and examples/s of the exported model, beside plain Keras and parsing alone
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.serving

bench-beam: setup ## the pipeline's Beam steps in one process and in one for each core
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.beam_workers

bench-startup: setup ## `ctr run` with nothing to do, beside importing TensorFlow and TFX
	@$(PYTHON) -m benchmarks.startup

bench-synthetic: setup ## speed and memory of `ctr data synthetic`
	@$(PYTHON) -m benchmarks.synthetic

bench-pipeline: setup ## the whole pipeline at three sizes, beside a plain TFX pipeline
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.pipeline

bench-exchange: setup ## what two workers' exchange of a step's gradients costs
	@TF_CPP_MIN_LOG_LEVEL=3 $(PYTHON) -m benchmarks.exchange

kubeflow-local: setup ## the pipeline in real containers on this machine's Docker engine; see kubeflow/README.md
	@kubeflow/local.sh

lock: ## bring both lock files up to date with setup.py
	@requirements/setup.sh lock
