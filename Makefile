# One vocabulary for people and CI. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3.11
VENV := $(CURDIR)/.venv
READY := $(VENV)/.ready
export PATH := $(VENV)/bin:$(PATH)
PORT ?= 5000

.DEFAULT_GOAL := help
.PHONY: help env run test check format docs ui bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

env: $(READY)  ## make .venv with the pinned packages

$(READY): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed, this is %d.%d: make PYTHON=path/to/python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $(READY)

run: env  ## the whole pipeline on MovieLens 100K: prepare, train, evaluate, promote
	mlflow run . --env-manager local

test: env  ## all tests
	python -m pytest

check: env  ## lint, types, documentation and architecture
	ruff check .
	ruff format --check .
	mypy
	python -m pytest tests/test_architecture.py tests/test_reference.py

format: env  ## let ruff put the code in order
	ruff check --fix .
	ruff format .

docs: env  ## write MLproject and the tables of docs/steps.md from the code
	python docs/reference.py

ui: env  ## the MLflow UI over what was written here, on 127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port $(PORT)

bench: env  ## measure: preparing, training, scoring; other libraries beside ours
	PYTHONPATH=src python -m bench

clean:  ## remove caches, not results
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
