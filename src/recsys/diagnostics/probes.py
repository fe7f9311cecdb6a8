"""Probes of the tools behind the pipeline: each writes something, reads it back and takes it away again.

The one module beside a tool's own that may use it: what is probed is the way to the tool, not the pipeline.
"""

import tempfile
import uuid
from pathlib import Path

import mlflow
from mlflow.entities import Metric
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from recsys.runtime.interruption import uninterrupted

_NAME = "recsys-doctor"
_CONTENT = "written by make doctor"


def torch_device() -> str:
    """The device that training takes by default."""
    import torch

    if torch.cuda.is_available():
        return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"
    return f"torch {torch.__version__} on the CPU, {torch.get_num_threads()} threads"


def mlflow_version() -> str:
    """The version of MLflow here."""
    return str(mlflow.__version__)


class Trace:
    """A run for the probes to write to; deleted at the end, as far as MLflow deletes runs: it becomes invisible."""

    @uninterrupted()
    def __init__(self) -> None:
        self._client = MlflowClient()
        self.run = self._client.create_run("0", tags={"mlflow.runName": _NAME})

    @uninterrupted()
    def write_metric(self) -> None:
        """Write a number to the database and read it back."""
        run_id = self.run.info.run_id
        self._client.log_batch(run_id, metrics=[Metric("probe", 0.5, 1, 0)])
        if self._client.get_run(run_id).data.metrics != {"probe": 0.5}:
            raise ValueError("a number that was written is not read back")

    @uninterrupted()
    def write_artifact(self) -> None:
        """Write an artifact, read it back and delete it."""
        path = f"{_NAME}.txt"
        self._client.log_text(self.run.info.run_id, _CONTENT, path)
        with tempfile.TemporaryDirectory() as folder:
            read = Path(self._client.download_artifacts(self.run.info.run_id, path, folder)).read_text(encoding="utf-8")
        get_artifact_repository(self.run.info.artifact_uri).delete_artifacts(path)  # type: ignore[no-untyped-call]
        if read != _CONTENT:
            raise ValueError("an artifact that was written is not read back")

    @uninterrupted()
    def write_registry(self) -> None:
        """Register a model with a version and an alias, and delete it."""
        name = f"{_NAME}-{uuid.uuid4().hex[:8]}"
        self._client.create_registered_model(name)
        try:
            version = self._client.create_model_version(name, self.run.info.artifact_uri, self.run.info.run_id)
            self._client.set_registered_model_alias(name, "probe", version.version)
            if self._client.get_model_version_by_alias(name, "probe").version != version.version:
                raise ValueError("an alias that was set is not read back")
        finally:
            self._client.delete_registered_model(name)

    @uninterrupted()
    def close(self) -> None:
        """Delete the run."""
        self._client.set_terminated(self.run.info.run_id)
        self._client.delete_run(self.run.info.run_id)


@uninterrupted()
def study_storage(storage: str) -> None:
    """Make a study in Optuna's storage and delete it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"{_NAME}-{uuid.uuid4().hex[:8]}"
    optuna.create_study(study_name=name, storage=storage).set_user_attr("probe", True)
    optuna.delete_study(study_name=name, storage=storage)
