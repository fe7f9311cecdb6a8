# Serving: what answers for the champion, without what trains. Built from the project's folder.
FROM python:3.11.13-slim-bookworm@sha256:86adf8dbadc3d6e82ee5dd2c74bec2e1c2467cdad47886280501df722372d2e1

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ENV GIT_PYTHON_REFRESH=quiet MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /srv/recsys
COPY requirements.txt ./
COPY server/serve-requirements.lock server/
COPY src/recsys/serving/requirements.lock src/recsys/serving/
RUN pip install --require-hashes -r server/serve-requirements.lock -r src/recsys/serving/requirements.lock
COPY src src
COPY registry registry
COPY steps steps
COPY server/healthcheck.py server/

RUN useradd --uid 10001 --user-group --create-home recsys && install -d -o recsys -g recsys /data
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["python", "-m", "steps.serve"]
