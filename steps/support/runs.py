"""The runs of the steps: each says who ran which code."""

import os
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import TYPE_CHECKING

from recsys.tracking.provenance import provenance
from steps import PROJECT

if TYPE_CHECKING:
    from recsys.tracking.runs import Run


_PASSING_SECONDS = 10


@cache
def made_by() -> dict[str, str]:
    """The tags of the project's checkout and of the person."""
    return provenance(PROJECT)


def name_own_run(name: str) -> None:
    """Name the run that `mlflow run` made for a step that records nothing; without one, do nothing."""
    from recsys.tracking import runs

    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        runs.name_run(run_id, name)


@cache
def _end_left_running() -> None:
    """Once a process. A server that fails over it fails over the run that follows, and that is told."""
    from recsys.tracking.left_running import end_left_running
    from recsys.tracking.request_limits import request_limits

    with suppress(Exception), request_limits(2, _PASSING_SECONDS):
        if ended := end_left_running():
            runs = "1 run was" if len(ended) == 1 else f"{len(ended)} runs were"
            print(f"note: {runs} left RUNNING by processes that are gone; the status is KILLED now")


def open_run(name: str, **tags: str) -> "AbstractContextManager[Run]":
    """An MLflow run of a step, with these tags and those of `made_by`; the first of a process ends those left over."""
    from recsys.tracking import runs

    _end_left_running()
    return runs.start_run(name, made_by() | tags)
