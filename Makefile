# One vocabulary for people and CI. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3.11
VENV := $(CURDIR)/.venv
READY := $(VENV)/.ready
DEVELOPING := $(VENV)/.ready-dev
export PATH := $(VENV)/bin:$(PATH)
# What images of containers set: each of the hundreds of processes that the tests start would compile all of ours again.
export PYTHONDONTWRITEBYTECODE :=
PORT ?= 5000
# One lock each, beside it, with the hashes of every file that pip may take.
LISTS := requirements.txt server/requirements.txt server/serve-requirements.txt registry/requirements.txt
LOCK := uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-annotate --no-header
LISTS += $(wildcard src/recsys/*/*requirements.txt) pipelines/requirements.txt

.DEFAULT_GOAL := help
COMPOSE := docker compose
.PHONY: help env run pipeline demo test test-unit check format docs site transcripts ui serve watch server doctor up down logs backup restore upgrade migrate-to-server lock sbom bench bench-smoke clean docker

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 19

env: $(READY)  ## make .venv with the pinned packages that the steps need, and the command recsys

# Says what pip does, a line a package: it takes minutes.
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check
TOLD = | sed -un 's/^Collecting \([^ ;]*\).*/  \1/p; s/^Installing collected packages.*/  unpacking them/p'
$(READY) $(DEVELOPING): SHELL := /bin/bash
$(READY) $(DEVELOPING): .SHELLFLAGS := -o pipefail -c

$(READY): requirements.txt src/recsys/serving/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed, this is %d.%d: make PYTHON=path/to/python3.11" % sys.version_info[:2])'
	@echo "making .venv, some minutes and 2 GB, once: the packages of requirements.txt"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt $(TOLD)
	@$(PIP) --quiet --no-deps --editable .
	@touch $(READY)
	@echo "made .venv; source .venv/bin/activate puts recsys and mlflow on the PATH"

$(DEVELOPING): $(READY) requirements-dev.txt server/requirements.txt registry/requirements.txt src/recsys/export/requirements.txt src/recsys/monitoring/requirements.txt src/recsys/feature_store/requirements.txt
	@echo "adding the packages of requirements-dev.txt, for tests and checks"
	@$(PIP) -r requirements-dev.txt $(TOLD)
	@touch $(DEVELOPING)

run: env  ## the whole pipeline on MovieLens 100K: prepare, train, evaluate, promote
	@python -m steps.main

demo: env  ## the whole cycle in minutes: served, tried, judged, drifted, retrained; SPEED=1 to watch it, PICTURE=demo.svg to draw it
	@python -m demo $(if $(SPEED),--speed=$(SPEED)) $(if $(PICTURE),--picture=$(PICTURE))

test: $(DEVELOPING)  ## all tests, two files at a time
	python -m pytest -n 2 --dist loadfile

test-unit: $(DEVELOPING)  ## the tests that need nothing but their own process: about a minute on two cores
	python -m pytest -n 2 --dist loadfile --tier unit --durations=10

check: $(DEVELOPING)  ## lint, types, security, architecture, and the documentation with what it shows
	ruff check .
	ruff format --check .
	mypy
	bandit --quiet --configfile pyproject.toml --recursive src registry steps pipelines server
	python -m pytest tests/test_architecture.py tests/test_reference.py
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	python docs/transcripts.py --check

format: $(DEVELOPING)  ## let ruff put the code in order
	ruff check --fix .
	ruff format .

docs: $(DEVELOPING)  ## write MLproject, the tables of docs/steps.md and the drawing of docs/architecture.md from the code
	python docs/reference.py

site: $(DEVELOPING)  ## the documentation as web pages, in site/
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

transcripts: $(DEVELOPING)  ## run the commands whose output the documentation shows, and write what they print
	python docs/transcripts.py

pipeline: env  ## compile the pipeline of Kubeflow into kubeflow-pipeline.yaml; needs pipelines/requirements.txt
	python -m steps.pipeline --where=compile

ui: env  ## the MLflow UI over what was written here, on 127.0.0.1:5000
	@echo "open http://127.0.0.1:$(PORT)/#/experiments/0/runs?workflowType=machine_learning"
	@mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port $(PORT)

serve: env  ## answer lists and scores from the champion of mlflow.db, on 127.0.0.1:8000
	@exec python -m steps.serve --port=$(if $(filter file,$(origin PORT)),8000,$(PORT))

watch:  ## Prometheus and Alertmanager over `make serve`, on 127.0.0.1:9090 and 9093, from Debian's packages
	@exec $(PYTHON) server/watch.py

server: $(DEVELOPING)  ## a team's server on the MySQL of MLFLOW_BACKEND_STORE_URI, without containers
	@exec env MLFLOW_PORT=$(PORT) python server/start.py

doctor: env  ## check this set-up, and say what is wrong and what to type
	@python -m steps.doctor

up: docker  ## a team's server in containers: MLflow on MySQL, on 127.0.0.1:5000
	@$(PYTHON) server/make_env.py
	$(COMPOSE) up --build --detach --wait
	@echo "next: export MLFLOW_TRACKING_URI=http://127.0.0.1:$$(sed -n 's/^MLFLOW_PUBLISHED_PORT=//p' .env)"

down: docker  ## stop the containers; the data stays
	$(COMPOSE) down

logs: docker  ## what the containers say
	$(COMPOSE) logs --follow --tail=100

backup:  ## both databases and the artifacts into one dated file in backups/
	@$(PYTHON) server/backup.py save

restore:  ## FILE=backups/….tar into an empty server
	@$(PYTHON) server/backup.py restore "$(FILE)"

upgrade: $(DEVELOPING)  ## migrate the database of MLFLOW_BACKEND_STORE_URI to this MLflow; make backup before
	@python server/upgrade.py

migrate-to-server: $(DEVELOPING)  ## FROM=mlflow.db: an sqlite store into the empty database of MLFLOW_BACKEND_STORE_URI
	@python server/migrate.py "$(if $(FROM),$(FROM),mlflow.db)"

lock: $(DEVELOPING)  ## write the lock of every list of packages: their versions and the hashes of their files
	$(LOCK) --output-file requirements.lock requirements.txt
	for list in $(filter-out requirements.txt,$(LISTS)); do $(LOCK) --constraint requirements.lock --output-file $${list%.txt}.lock $$list || exit; done

sbom: $(DEVELOPING)  ## a bill of materials (CycloneDX) of every lock, in sbom/
	mkdir -p sbom
	for list in $(LISTS); do cyclonedx-py requirements --output-reproducible --output-file sbom/$$(echo $${list%.txt} | tr / -).json $${list%.txt}.lock || exit; done

docker:
	@$(COMPOSE) version >/dev/null 2>&1 || { echo "error: docker with its plugin compose (2.20 or newer) is needed; without containers: make server" >&2; exit 1; }

bench: $(DEVELOPING)  ## measure: preparing, training, scoring, promotion, tuning, the server; other libraries beside ours
	PYTHONPATH=src python -m bench

bench-smoke: $(DEVELOPING)  ## warn of what has become a third slower against a loop that stays; seconds, and no failure
	@PYTHONPATH=src python -m bench.smoke

clean:  ## remove caches, not results
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
