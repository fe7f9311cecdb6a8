"""Runs of MLflow: their parameters, metrics, figures and datasets, and logged models."""

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.data.dataset import Dataset as MlflowDataset
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils import requirements_utils
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from recsys.data.dataset import Dataset
from recsys.models.base.recommender import Recommender
from recsys.runtime.interruption import interruptible, is_stop, uninterrupted
from recsys.serving.dependencies import find_dependencies
from recsys.serving.pyfunc_model import ARTIFACT, NAMES, signature
from recsys.settings import Settings, to_text
from recsys.tracking import experiments
from recsys.tracking.left_running import owner_tags, signs_of_life
from recsys.tracking.pages import all_pages
from recsys.tracking.request_limits import request_limits
from recsys.tracking.retry import retry_mlflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLUSH_SECONDS = 1.0
_PASSING_RETRIES = 2
_DPI = 110
_MODULES = "_MODULES_TO_PACKAGES"  # MLflow's own, None until it has looked
_NAME, _NOTE = "mlflow.runName", "mlflow.note.content"  # MLflow's own tags
_MODEL = "recsys.serving.pyfunc_model"


class Run:
    """An MLflow run that is under way. Numbers are collected and sent in batches."""

    def __init__(self, run_id: str, goes_on: bool = False) -> None:
        self.run_id = run_id
        self.goes_on = goes_on  # after an interruption: some numbers are logged already
        self._client = MlflowClient()
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def log_parameters(self, settings: Settings) -> None:
        """Log parameters, less those that `mlflow run` has logged already: a second value would be refused."""
        self.log_values(settings.model_dump())

    @uninterrupted()
    def log_values(self, values: Mapping[str, object]) -> None:
        """Log parameters that are no settings object; those logged already are left out here too."""
        known = self._client.get_run(self.run_id).data.params
        parameters = [Param(name, to_text(value)) for name, value in values.items() if name not in known]
        self._client.log_batch(self.run_id, params=parameters)

    @uninterrupted()
    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log final numbers."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(key, value, now, 0) for key, value in values.items()])

    @uninterrupted()
    def log_model_metrics(self, values: Mapping[str, float], model_id: str, dataset: Dataset) -> None:
        """Log final numbers on the run and on a logged model, with the dataset they were measured on."""
        mlflow.log_metrics(dict(values), run_id=self.run_id, model_id=model_id, dataset=_input(dataset))

    def log_progress(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one epoch; they are sent about once a second."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(key, value, now, step) for key, value in values.items()]
        if time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    @uninterrupted()
    def flush(self) -> None:
        """Send what `log_progress` still holds."""
        for start in range(0, len(self._waiting), 1000):  # the server's limit a batch
            self._client.log_batch(self.run_id, metrics=self._waiting[start : start + 1000])
        self._waiting = []
        self._sent = time.monotonic()

    @uninterrupted()
    def progress_steps(self, name: str) -> set[int]:
        """The steps at which a number was logged already."""
        return {metric.step for metric in self._client.get_metric_history(self.run_id, name)}

    @uninterrupted()
    def log_figures(self, figures: "Mapping[str, Figure]", folder: str = "plots") -> None:
        """Log figures as images, by file name."""
        from recsys.figures import lay_out  # matplotlib takes half a second to import

        for name, figure in figures.items():
            lay_out(figure, _DPI)
            mlflow.log_figure(figure, f"{folder}/{name}", save_kwargs={"dpi": _DPI})

    @uninterrupted()
    def log_table(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as CSV."""
        mlflow.log_text(table.to_csv(index=False), path)

    @uninterrupted()
    def log_json(self, content: Any, path: str) -> None:
        """Log a JSON document."""
        mlflow.log_dict(content, path)

    @uninterrupted()
    def log_text(self, text: str, path: str) -> None:
        """Log a text."""
        mlflow.log_text(text, path)

    @uninterrupted()
    def log_file(self, path: Path) -> None:
        """Log a file under its own name."""
        mlflow.log_artifact(str(path))

    @uninterrupted()
    def log_folder(self, folder: Path, path: str) -> str:
        """Log the files of a folder; returns the URI by which they are found."""
        mlflow.log_artifacts(str(folder), path)
        return f"runs:/{self.run_id}/{path}"

    @uninterrupted()
    def log_dataset(self, dataset: Dataset, context: str) -> None:
        """Record which dataset the run worked on, and as what ("training", "test")."""
        # Another run may make the same dataset's row at this moment; MLflow itself does not try again.
        retry_mlflow(mlflow.log_input)(_input(dataset), context=context)

    @uninterrupted()
    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the run."""
        mlflow.set_tags(dict(tags))

    @uninterrupted()
    def describe(self, description: str, name: str | None = None) -> None:
        """Set the description that the UI shows above a run, and another name than it began with."""
        mlflow.set_tags({_NOTE: description} | ({_NAME: name} if name else {}))

    @uninterrupted()
    def log_recommender(self, recommender: Recommender, requirements: Path, names: Mapping[str, str]) -> str:
        """Log a recommender as an MLflow model with the code that reads it; returns the logged model's id.

        Args:
            requirements: the requirements.txt whose pins the model is given.
            names: of user_id, item_id and timestamp in the ratings learnt from, where they are others.
        """
        knowledge = recommender.knowledge
        needed = find_dependencies([_MODEL, f"recsys.models.{recommender.family}"])
        ids = {"user_id": knowledge.user_ids[:2], "item_id": knowledge.item_ids[:2]}
        example = pd.DataFrame({names.get(name, name): values for name, values in ids.items()})
        with tempfile.TemporaryDirectory() as temporary, _without_byte_code(), _without_search():
            folder = Path(temporary) / ARTIFACT
            write_recommender(recommender, folder, names)
            package = Path(temporary) / "recsys"
            for below, path in needed.files.items():
                (package / below).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, package / below)
            info = mlflow.pyfunc.log_model(
                name=ARTIFACT,
                python_model=str(package / "serving" / "pyfunc_model.py"),
                artifacts={ARTIFACT: str(folder)},
                code_paths=[str(package)],
                signature=signature(names),
                input_example=example,
                pip_requirements=_pins(requirements, needed.distributions),
                params={name: to_text(value) for name, value in recommender.config.model_dump().items()},
                model_type=recommender.family,
            )
        return str(info.model_id)


@contextmanager
def _without_byte_code() -> Iterator[None]:
    """Have Python keep no byte code: MLflow tries a model before it keeps all that lies in its folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _without_search() -> Iterator[None]:
    """Have MLflow not look through the files of all installed packages for their modules.

    It asks for them only where a package that is required has no version, which it then reads from the module.
    """
    before = getattr(requirements_utils, _MODULES, None)
    setattr(requirements_utils, _MODULES, before or {})
    try:
        yield
    finally:
        setattr(requirements_utils, _MODULES, before)


def write_recommender(recommender: Recommender, folder: Path, names: Mapping[str, str]) -> None:
    """Write what a logged model keeps of a training; `names` as in `log_recommender`."""
    recommender.save(folder)
    if names:
        (folder / NAMES).write_text(json.dumps(names), encoding="utf-8")


@contextmanager
def start_run(name: str, tags: Mapping[str, str] | None = None, run_id: str | None = None) -> Iterator[Run]:
    """Open an MLflow run: the one that `mlflow run` made for this process, a child of the active one, or a new one.

    It ends FINISHED, FAILED with the message in the tag `error`, or KILLED where the process was told to stop. A stop
    arrives inside the block, and cuts off neither the run's beginning nor its end.

    Args:
        run_id: of a run that has ended and goes on.
    """
    with uninterrupted():
        active = mlflow.start_run(run_id, experiments.entered(), nested=mlflow.active_run() is not None)
        status = "FINISHED"
        opened = Run(active.info.run_id, run_id is not None)
        try:
            mlflow.set_tags({_NAME: name, **owner_tags(), **(tags or {})})
            with signs_of_life(opened.run_id), interruptible():
                yield opened
            opened.flush()
        except BaseException as error:
            status = "KILLED" if is_stop(error) else "FAILED"
            if status == "FAILED":
                with in_passing():
                    mlflow.set_tag("error", f"{type(error).__name__}: {error}"[:5000])
            raise
        finally:
            with nullcontext() if status == "FINISHED" else in_passing():
                mlflow.end_run(status)


@uninterrupted()
def name_run(run_id: str, name: str) -> None:
    """Give a run another name."""
    MlflowClient().set_tag(run_id, _NAME, name)


@contextmanager
def in_passing() -> Iterator[None]:
    """Try to record how a run ended, briefly, and go on: a server that is gone must not hide why the run ended."""
    with request_limits(_PASSING_RETRIES), suppress(MlflowException):
        yield


@uninterrupted()
def add_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on a run that may have ended."""
    for key, value in tags.items():
        MlflowClient().set_tag(run_id, key, value)


@uninterrupted()
def end_abandoned(run_id: str) -> None:
    """Show a run whose process was killed, and the runs below it, as killed, where they are shown as running."""
    client = MlflowClient()
    with suppress(MlflowException):
        parent = client.get_run(run_id)
        below = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"
        children = all_pages(client.search_runs, experiment_ids=[parent.info.experiment_id], filter_string=below)
        for run in (parent, *children):
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")


@uninterrupted()
def can_go_on(run_id: str) -> bool:
    """Whether there is such a run here that may be opened again."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


@uninterrupted()
def tags_of(run_id: str) -> dict[str, str]:
    """The tags of a run; empty where there is no such run here."""
    try:
        return dict(MlflowClient().get_run(run_id).data.tags) if run_id else {}
    except MlflowException:
        return {}


@uninterrupted()
def find_runs(tags: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Id and tags of all runs, in whatever experiment, that carry these tags."""
    client = MlflowClient()
    experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = all_pages(client.search_runs, experiment_ids=experiments, filter_string=wanted)
    return [(run.info.run_id, dict(run.data.tags)) for run in runs]


@uninterrupted()
def read_json(run_id: str, path: str) -> dict[str, Any] | None:
    """A JSON document among the artifacts of a run; None where there is none."""
    client = MlflowClient()
    if path not in {found.path for found in client.list_artifacts(run_id)}:
        return None
    content: dict[str, Any] = mlflow.artifacts.load_dict(f"{client.get_run(run_id).info.artifact_uri}/{path}")
    return content


def _input(dataset: Dataset) -> MlflowDataset:
    name = Path(dataset.preparation.ratings).name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it finds two names for the one kind of source
        source = resolve_dataset_source(str(dataset.folder))
    return MetaDataset(source, name=name, digest=dataset.digest)  # type: ignore[abstract]  # mlflow's own oversight


def _pins(requirements: Path, distributions: Collection[str]) -> list[str]:
    lines = (line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.split("==")[0] in distributions]
