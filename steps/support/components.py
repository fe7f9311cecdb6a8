"""What the components of a Kubeflow pipeline call: our steps, on a dataset that came as a folder.

A component is a program of its own. A step that fails ends it with one sentence and a status that Kubeflow sees.
"""

import json
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recsys.data import dataset as datasets
from recsys.data.movielens import KNOWN, obtain
from recsys.data.readers.files import digest_files, find_files
from recsys.settings import to_text
from steps.support.entrypoint import data_folder, given_path, run_step
from steps.support.parameters import StepName

if TYPE_CHECKING:
    from recsys.data.dataset import Dataset

_RUN = "RECSYS_PIPELINE_RUN"
HERE = "RECSYS_PIPELINE_PROCESS"
"""Environment variable of a component on this machine: the process that runs the pipeline."""
_POLL_SECONDS = 1.0
_CONTEXT = "MLFLOW_RUN_CONTEXT"  # MLflow's own: tags of every run that the process begins
UNDEFINED = sys.float_info.max
"""An error that is undefined: Kubeflow carries no NaN, and nothing is below this."""


class Measures(NamedTuple):
    """What a pipeline goes by."""

    rmse: float
    mae: float
    auc: float
    five_point_rmse: float
    """As the guard max_rmse counts; 0 where there are no ratings, and so no error of them."""
    recorded: dict[str, float]
    """All that are finite, by name."""


def fingerprint(ratings: str, folder: str) -> str:
    """The digest of the bytes of a ratings file, fetched where it goes by a name; not of its path."""
    found: list[str] = []

    def read(_: object) -> None:
        known = ratings in KNOWN
        source = obtain(ratings, data_folder() / "downloads") if known else given_path(folder, ratings, "ratings")
        found.append(digest_files(find_files(source.absolute())))

    _run("prepare", read, {"ratings": ratings, "folder": folder}, connected=False)
    return found[0]


def prepare(given: Mapping[str, object], place: str) -> dict[str, Any]:
    """Prepare a dataset and put it into a folder: digest, dataset_size, feature_count."""
    from steps.prepare import prepare as step

    dataset: Dataset = _run("prepare", step, given)
    shutil.copytree(dataset.folder, Path(place, dataset.digest))
    manifest = dataset.manifest
    return {
        "digest": dataset.digest,
        "dataset_size": int(manifest["ratings"]),
        "feature_count": len(manifest["features"]),
    }


def train(place: str, given: Mapping[str, object]) -> int:
    """Train a family on the dataset of a folder; the number of the version."""
    from steps.train import train as step

    with _dataset(place) as dataset:
        prepared = dataset.preparation.model_dump()
        version = _run("train", lambda parameters, config: step(parameters, config, dataset), prepared | dict(given))
    return int(version.number)


def evaluate(place: str, given: Mapping[str, object]) -> Measures:
    """Measure a version on the test rows of the dataset of a folder."""
    from steps.evaluate import evaluate as step

    with _dataset(place) as dataset:
        version = _run("evaluate", step, given)
        found = version.metrics_on(dataset.test_digest) or {}
        return measures(found, dataset.scale, dataset.implicit)


def measures(found: Mapping[str, float], scale: tuple[float, float], implicit: bool) -> Measures:
    """The measures that a pipeline goes by, each finite."""
    finite = {name: value for name, value in found.items() if math.isfinite(value)}
    rmse = finite.get("rmse", UNDEFINED)
    five_point = 0.0 if implicit else rmse if rmse == UNDEFINED else rmse * _FIVE_POINT_RANGE / (scale[1] - scale[0])
    return Measures(rmse, finite.get("mae", UNDEFINED), finite.get("auc", 0.0), five_point, finite)


_FIVE_POINT_RANGE = 4.0


def promote(place: str, given: Mapping[str, object]) -> tuple[int, bool, str]:
    """Decide on the test rows of the dataset of a folder: the champion (0: none), whether it is new, and why."""
    from steps.promote import promote as step

    with _dataset(place):
        decision = _run("promote", step, given)
    return decision.winner or 0, bool(decision.changes), decision.reason


def deploy(given: Mapping[str, object], settings: Mapping[str, Any], place: str) -> None:
    """Write the manifests of a version for KServe into a folder, and give the cluster its InferenceService if asked.

    Args:
        settings: `export`, what the manifests say, and `apply`.
    """
    from pipelines import cluster
    from steps.export import write_manifests

    def write(parameters: Any) -> None:
        service = write_manifests(parameters, Path(place))
        if settings["apply"]:
            print(f"applied: {cluster.apply(service, parameters.namespace)}")

    _run("export", write, {**given, **settings["export"], "format": "kserve"})


def tell(job: str, state: str, problem: str, given: Mapping[str, object]) -> None:
    """Record how a pipeline ended in a run of its own: FAILED where it failed, with the message."""

    def record(_: object) -> None:
        from steps.support.runs import open_run

        class PipelineFailedError(Exception):
            pass

        try:
            with open_run(f"pipeline {job.rpartition('/')[2]}", pipeline_state=state) as run:
                said = f"pipeline of {given['model_name']}: {state.lower()}{f': {problem}' if problem else ''}"
                print(said)
                run.describe(said)
                if state != "SUCCEEDED":
                    raise PipelineFailedError(said)
        except PipelineFailedError:
            pass  # the run says so; this component has done its work

    _run("pipeline", record, given)


def _run(name: StepName, step: Callable[..., Any], given: Mapping[str, object], *, connected: bool = True) -> Any:
    """Run a step as its command line would, and return what it returns."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # of the run that started the pipeline here, not of this component
    if run := os.environ.get(_RUN):
        tags = json.loads(os.environ.get(_CONTEXT, "{}")) | {"kubeflow_run": run}
        os.environ[_CONTEXT] = json.dumps(tags)
    if (process := os.environ.get(HERE, "")).isdigit():
        threading.Thread(target=end_with, args=(int(process),), daemon=True).start()
    found: list[Any] = []
    arguments = [f"--{name}={to_text(value)}" for name, value in given.items()]
    run_step(name, lambda *parameters: found.append(step(*parameters)), arguments, connected=connected)
    return found[0]


def end_with(process: int) -> None:
    """Stop this component once the process that runs the pipeline is gone: nobody would take what it makes."""
    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(_POLL_SECONDS)


@contextmanager
def _dataset(place: str) -> Iterator["Dataset"]:
    """The one dataset in a folder, found by the steps as if it had been prepared here."""
    with tempfile.TemporaryDirectory() as data:
        Path(data, "prepared").symlink_to(Path(place).absolute())
        os.environ["RECSYS_DATA"] = data
        yield datasets.newest_dataset(Path(place))
