"""The runs of the steps: each says who ran which code."""

import os
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

from recsys.tracking.provenance import provenance
from steps import PROJECT

if TYPE_CHECKING:
    from recsys.tracking.runs import Run


@cache
def made_by() -> dict[str, str]:
    """The tags of the project's checkout and of the person."""
    return provenance(PROJECT)


def name_own_run(name: str) -> None:
    """Name the run that `mlflow run` made for a step that records nothing; without one, do nothing."""
    from recsys.tracking import runs

    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        runs.name_run(run_id, name)


def open_run(name: str, **tags: str) -> "AbstractContextManager[Run]":
    """An MLflow run of a step, with these tags and those of `made_by`."""
    from recsys.tracking import runs

    return runs.start_run(name, made_by() | tags)
