"""Training by the code of another commit of this clone: in a folder of its own, into a store of its own."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.models.base.storage import DESCRIPTION
from recsys.settings import to_text
from steps import PROJECT

_SECRET = ("RECSYS_SIGNING_KEY", "RECSYS_VERIFY_KEY")


def has_commit(commit: str) -> bool:
    """Whether this clone has a commit."""
    return _git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def train_by_commit(commit: str, given: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> Path:
    """Train by the code of a commit, in a folder that is empty; where the recommender was saved.

    Args:
        given: the parameters of `train`, by the names of that commit.
        settings: those of the family.

    Raises:
        InputError: with its last words, if that training fails.
    """
    code = folder / "code"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit).stdout)) as archive:
        archive.extractall(code, filter="data")
    config = folder / "config.json"
    config.write_text(json.dumps(dict(settings)), encoding="utf-8")
    parameters = {**given, "folder": str(folder), "params": str(config), "from_run": ""}
    command = [sys.executable, "-m", "steps.train"]
    command += [f"--{name}={to_text(value)}" for name, value in parameters.items()]
    dropped = (*_SECRET, "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_") and name not in dropped}
    environment = kept | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-500:]
        raise InputError(f"by the code of commit {commit[:12]} it cannot be trained ({said}); pass -P code=here")
    found = [path.parent for path in folder.rglob(DESCRIPTION)]
    if not found:
        raise InputError(f"the code of commit {commit[:12]} saved no recommender; pass -P code=here")
    return found[0]


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=False)
