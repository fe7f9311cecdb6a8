"""Whether the files of a version are those that were registered: looked at before anything in them is used."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.tracking import MlflowClient

from recsys.errors import InputError, in_one_line
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Recommender
from recsys.runtime.interruption import uninterrupted
from recsys.serving.integrity import STATEMENT, check_folder, check_statement, write_statement
from recsys.serving.pyfunc_model import ARTIFACT, read_names
from registry.signing import check_signature, sign
from registry.versions import PROVENANCE, Version


@uninterrupted()
def seal(model_id: str, made: Mapping[str, Any]) -> dict[str, str]:
    """State the digests of a logged model's files beside them, and sign them where there is a key.

    Returns the tag by which its version knows the statement.

    Args:
        made: how it was made, a predicate in the words of SLSA's provenance.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=temporary))
        _remove_compiled(folder)
        digest = write_statement(folder, made)
        signature = sign(folder)
        for path in (folder / STATEMENT, *([signature] if signature else [])):
            MlflowClient().log_model_artifact(model_id, str(path))
    return {PROVENANCE: digest}


def _remove_compiled(folder: Path) -> None:
    """Remove byte code: it is no file of a version, and Python would run it in place of one."""
    for compiled in folder.rglob("__pycache__"):
        shutil.rmtree(compiled)


@uninterrupted()
def fetch_checked(version: Version, folder: Path) -> tuple[Path, int]:
    """Copy all files of a version into a folder and compare them with the digests registered; imports none of them.

    Returns where they are, and how many were compared: 0 for a version of an earlier release, which states none.

    Raises:
        InputError: if one was altered, is missing or was added, or the files cannot be had.
    """
    try:
        place = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=str(folder)))
    except Exception as error:  # what a missing file raises depends on the store
        raise InputError(_away(version, "its files", error)) from error
    if not any(path.is_file() for path in place.rglob("*")):  # of a folder that is away MLflow makes an empty one
        raise InputError(_away(version, "its files"))
    _remove_compiled(place)
    stated = version.tags.get(PROVENANCE)
    try:
        check_signature(place)
        return place, 0 if stated is None else check_folder(place, stated)
    except InputError as error:
        raise InputError(
            f"version {version.number} of {version.name!r} is not what was registered: {error}; none of it was used: "
            "find out who changed it, and train it again"
        ) from None


@uninterrupted()
def fetch_statement(version: Version, folder: Path) -> Path:
    """Copy the statement of a version alone into a folder, compared with the digest registered; returns the folder.

    Raises:
        InputError: if the version has none, or it is not the one registered.
    """
    stated = version.tags.get(PROVENANCE)
    if stated is None:
        raise InputError(f"version {version.number} of {version.name!r} states no digests (an earlier release's)")
    try:
        uri = f"{_location(version)}/{STATEMENT}"
        place = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:  # what a missing file raises depends on the store
        raise InputError(_away(version, f"its {STATEMENT}", error)) from error
    check_statement(place.read_bytes(), stated)
    return place.parent


def _location(version: Version) -> str:
    """Where the files of a version are kept."""
    if not version.model_id:
        return version.source
    return str(MlflowClient().get_logged_model(version.model_id).artifact_location)


def _away(version: Version, what: str, error: Exception | None = None) -> str:
    """The refusal of a version whose files, or one of them, are not where they were logged, or not to be had now."""
    try:
        place = _location(version)
    except Exception:  # the registry is away too
        place = version.source
    return (
        f"version {version.number} of {version.name!r} cannot be loaded: {what} cannot be had from {place}; bring back "
        "to that place what was logged there (a project that was moved: docs/server.md, To another folder or machine), "
        "start the server or store that keeps it, or train it again" + (f" ({in_one_line(error)})" if error else "")
    )


def read_parameters(version: Version) -> dict[str, Any]:
    """The parameters of `train` that a version was made with, as its statement says; empty for one without statement.

    Raises:
        InputError: if the statement is not the one registered, or cannot be had.
    """
    if PROVENANCE not in version.tags:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        content = (fetch_statement(version, Path(folder)) / STATEMENT).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(content)["predicate"]["buildDefinition"]["externalParameters"]
    return found


def check_version(version: Version) -> int:
    """Compare a version's files with the digests registered; their number. Raises InputError as `fetch_checked`."""
    with tempfile.TemporaryDirectory() as folder:
        return fetch_checked(version, Path(folder))[1]


def load_version(version: Version) -> Recommender:
    """Load a version's recommender, once its files are seen to be those registered; raises as `load_named_version`."""
    return load_named_version(version)[0]


@uninterrupted()
def load_named_version(version: Version) -> tuple[Recommender, dict[str, str]]:
    """Load a recommender likewise, with what its columns were called in the ratings learnt from.

    Raises:
        InputError: if it is not one of ours, was altered or is damaged.
    """
    if version.family is None:
        raise InputError(f"version {version.number} of {version.name!r} was not registered by recsys (no tag 'family')")
    with tempfile.TemporaryDirectory() as folder:
        place, _ = fetch_checked(version, Path(folder))
        try:
            saved = place / "artifacts" / ARTIFACT
            return load_recommender(saved), read_names(saved)
        except Exception as error:  # what a damaged or missing file raises depends on the library that reads it
            raise InputError(
                f"version {version.number} of {version.name!r} cannot be loaded ({in_one_line(error)}); train it again"
            ) from error
