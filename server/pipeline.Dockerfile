# The pipeline: any entry point inside the server's network. Built from the project's folder.
FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ENV GIT_PYTHON_REFRESH=quiet MPLCONFIGDIR=/tmp/matplotlib

# PyTorch comes with CUDA by default; an index that has its CPU build makes the image several GB smaller, once
# `make lock` has been run with that index (UV_EXTRA_INDEX_URL), so that its hashes are known.
ARG PIP_EXTRA_INDEX_URL=""

WORKDIR /srv/recsys
COPY requirements.txt requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
# KUBEFLOW=yes: also what a component of Kubeflow Pipelines needs
ARG KUBEFLOW=""
COPY requirements.txt ./
COPY pipelines/requirements.txt pipelines/
RUN if [ -n "$KUBEFLOW" ]; then pip install -r pipelines/requirements.txt -c requirements.txt; fi
COPY MLproject python_env.yaml conda.yaml ./
COPY src src
COPY registry registry
COPY steps steps
COPY pipelines pipelines
COPY server/healthcheck.py server/

RUN useradd --uid 10001 --user-group --create-home recsys && install -d -o recsys -g recsys /data
USER 10001:10001
ENTRYPOINT ["mlflow", "run", ".", "--env-manager", "local"]
