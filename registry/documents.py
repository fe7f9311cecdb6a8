"""JSON documents about a version, kept among the artifacts of the run that trained it.

A list of versions is read whole and often: its tags hold what lists are filtered by, and what takes kilobytes is here.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from recsys.runtime.interruption import uninterrupted

FOLDER = "version"
_HELD = 1_000  # documents in memory, some tens of kB each


@uninterrupted()
def keep(run_id: str, name: str, content: Mapping[str, Any]) -> None:
    """Keep a document under a name, in place of an earlier one; raises InputError where the run is gone."""
    try:
        MlflowClient().log_text(run_id, json.dumps(content), f"{FOLDER}/{name}")
    except MlflowException as error:
        if not run_id or error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise InputError(
                f"run {run_id or 'none'}, which trained the version, is gone from MLflow: what is measured of the "
                "version cannot be kept; train it again"
            ) from None
        raise
    _read.cache_clear()


@uninterrupted()
def find(run_id: str, name: str) -> dict[str, Any] | None:
    """The document of that name; None where there is none, or the process that wrote it died over it."""
    if not run_id:
        return None
    try:
        return json.loads(_read(mlflow.get_tracking_uri(), run_id, name))  # type: ignore[no-any-return]
    except (_MissingError, json.JSONDecodeError):
        return None


class _MissingError(Exception):
    pass


@lru_cache(maxsize=_HELD)  # one that is there says the same as long as the version stands; none may come
def _read(_uri: str, run_id: str, name: str) -> str:
    client, path = MlflowClient(), f"{FOLDER}/{name}"
    try:
        run = client.get_run(run_id)
        if path not in {found.path for found in client.list_artifacts(run_id, FOLDER)}:
            raise _MissingError
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise _MissingError from None
        raise
    return str(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}"))
