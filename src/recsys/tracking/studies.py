"""The runs of a study in MLflow: one parent, one child a trial. The second room of MLflow tracking."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from recsys.errors import InputError
from recsys.runtime.interruption import interruptible, uninterrupted
from recsys.settings import to_text
from recsys.tracking import runs
from recsys.tracking.pages import all_pages

STUDY_KEY = "study_key"
TRIAL = "trial"
STATE = "trial_state"
WORKER = "worker"
_LARGEST_BATCH = 1000  # of metrics, as the server takes them
_PAGE = 500


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it goes on record; times in milliseconds, curves by name as (step, value)."""

    number: int
    state: str
    start: int
    end: int
    config: Mapping[str, object]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@uninterrupted()
def find_or_make_parent(key: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of a study's parent run; to be called by one process at a time, so that there is one."""
    client = MlflowClient()
    experiment = _experiment()
    found = client.search_runs([experiment], f"tags.{STUDY_KEY} = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(experiment, run_name=name, tags={**tags, STUDY_KEY: key})
    return str(made.info.run_id)


@uninterrupted()
def has_run(run_id: str) -> bool:
    """Whether the tracking server or database in use holds a run that is not deleted."""
    try:
        return str(MlflowClient().get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException:
        return False


@uninterrupted()
def log_once(run_id: str, values: Mapping[str, object]) -> None:
    """Log parameters that a run has not got yet."""
    known = MlflowClient().get_run(run_id).data.params
    params = [Param(name, to_text(value)) for name, value in values.items() if name not in known]
    MlflowClient().log_batch(run_id, params=params)


@uninterrupted()
def adopt(parent: str) -> None:
    """Make the active run a child of a study's."""
    mlflow.set_tag(MLFLOW_PARENT_RUN_ID, parent)


@uninterrupted()
def resume_status(run_id: str) -> None:
    """Show a run as running again."""
    MlflowClient().update_run(run_id, status="RUNNING")


@uninterrupted()
def end(run_id: str, status: str) -> None:
    """End a run, whatever it ended with before."""
    MlflowClient().set_terminated(run_id, status)


@contextmanager
def resumed(run_id: str) -> Iterator[runs.Run]:
    """The study's run as the active one: what is logged and opened inside belongs to it. Its status stays RUNNING."""
    with uninterrupted():
        mlflow.start_run(run_id=run_id, nested=mlflow.active_run() is not None)
        opened = runs.Run(run_id)
        try:
            with interruptible():
                yield opened
            opened.flush()
        finally:
            mlflow.end_run("RUNNING")


@uninterrupted()
def record_trial(parent: str, record: TrialRecord, into: str | None = None) -> str:
    """Write a trial's child run, in three calls; `into` names one that was begun and not ended."""
    client = MlflowClient()
    if into is None:
        tags = {MLFLOW_PARENT_RUN_ID: parent, TRIAL: str(record.number), STATE: record.state, **record.tags}
        experiment = _experiment_of(parent)
        made = client.create_run(experiment, record.start, tags=tags, run_name=f"trial {record.number}")
        into = str(made.info.run_id)
    metrics = [Metric(name, value, record.end, 0) for name, value in record.metrics.items()]
    for name, curve in record.curves.items():
        metrics += [Metric(name, value, record.end, step) for step, value in curve]
    params = [Param(name, to_text(value)) for name, value in record.config.items()]
    client.log_batch(into, metrics=metrics[:_LARGEST_BATCH], params=params)
    for start in range(_LARGEST_BATCH, len(metrics), _LARGEST_BATCH):
        client.log_batch(into, metrics=metrics[start : start + _LARGEST_BATCH])
    client.set_terminated(into, "FAILED" if record.state == "FAIL" else "FINISHED", record.end)
    return into


@uninterrupted()
def reconcile(parent: str, records: Sequence[TrialRecord], alive: Sequence[str]) -> None:
    """See to it that every trial has exactly one ended run, and that no run of a worker that died is left running."""
    client = MlflowClient()
    children = _children(parent)
    by_trial: dict[str, list[Run]] = {}
    for child in children:
        if STATE in child.data.tags:
            by_trial.setdefault(child.data.tags[TRIAL], []).append(child)
        elif child.info.status == "RUNNING" and child.data.tags.get(WORKER) not in (None, *alive):
            client.set_terminated(child.info.run_id, "KILLED")
    for record in records:
        tried = sorted(by_trial.get(str(record.number), []), key=lambda run: run.info.status == "RUNNING")
        if not tried:
            record_trial(parent, record)
        elif not RunStatus.is_terminated(RunStatus.from_string(tried[0].info.status)):
            record_trial(parent, record, into=tried[0].info.run_id)
        for doubled in tried[1:]:
            client.delete_run(doubled.info.run_id)


@uninterrupted()
def read_json(run_id: str, path: str) -> Any:
    """A JSON document among a run's artifacts; raises InputError where there is none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder))
            return json.loads(text.read_text(encoding="utf-8"))
    except (MlflowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"parameter 'from_run': a run with {path} is needed, as `tune` leaves one, got {run_id!r} ({reason})"
        ) from None


def tracking_uri() -> str:
    """Where runs go."""
    return str(mlflow.get_tracking_uri())


def _children(parent: str) -> list[Run]:
    wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    experiments = [_experiment_of(parent)]
    return all_pages(MlflowClient().search_runs, experiment_ids=experiments, filter_string=wanted, max_results=_PAGE)


@cache
def _experiment_of(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.experiment_id)


def _experiment() -> str:
    active = mlflow.active_run()
    if active is None:
        raise ValueError("a study's run is made from within a run, whose experiment it shares")
    return str(active.info.experiment_id)
