"""Which experiment a step's runs belong to."""

import os
import re
from contextlib import suppress

import mlflow
from mlflow.entities import Experiment, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from recsys.errors import InputError
from recsys.runtime.interruption import uninterrupted

DEFAULT = "0"  # MLflow's own, where `mlflow run` begins a run that it was given no experiment for
_KIND = "mlflow.experimentKind"
_TRAINING = "custom_model_development"  # so that the UI opens at runs and not at traces
_RUN = "MLFLOW_RUN_ID"
MOVED_TO = "moved_to"  # on a run that `mlflow run` began: the run that the step went on in

_entered: dict[str, str] = {}  # by store, the experiment of this process


@uninterrupted()
def enter(name: str, *, given: bool) -> None:
    """Let the runs of this process belong to an experiment, which is made if there is none of that name.

    A run that `mlflow run` has begun for this process in another experiment goes on as a new one there; the old one is
    deleted, as far as MLflow deletes runs. An experiment that the caller has chosen for MLflow stays, unless `given`.

    Raises:
        InputError: if the experiment was deleted.
    """
    client, begun = MlflowClient(), os.environ.get(_RUN)
    if begun:
        run = client.get_run(begun)
        chosen = run.info.experiment_id != DEFAULT or MLFLOW_PARENT_RUN_ID in run.data.tags
    else:
        # `mlflow run` leaves the number of the default one to processes that a step starts.
        by_number = os.environ.get("MLFLOW_EXPERIMENT_ID", DEFAULT)
        chosen = bool(os.environ.get("MLFLOW_EXPERIMENT_NAME")) or by_number != DEFAULT
    if chosen and not given:
        _entered.pop(mlflow.get_tracking_uri(), None)
        return
    experiment = str(_find_or_make(client, name).experiment_id)
    _entered[mlflow.get_tracking_uri()] = experiment
    if begun and run.info.experiment_id != experiment:
        os.environ[_RUN] = _moved(client, run, experiment)


def entered() -> str | None:
    """The experiment that this process has entered; None: MLflow's choice."""
    return _entered.get(mlflow.get_tracking_uri())


def _find_or_make(client: MlflowClient, name: str) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            made = client.create_experiment(name, _beside_default(client, name), tags={_KIND: _TRAINING})
            return client.get_experiment(made)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or not (found := client.get_experiment_by_name(name)):
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"parameter 'experiment': {name!r} was deleted; type `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or pass another name"
        )
    if _KIND not in found.tags:
        with suppress(MlflowException):  # one who may only write runs
            client.set_experiment_tag(found.experiment_id, _KIND, _TRAINING)
    return found


def _beside_default(client: MlflowClient, name: str) -> str | None:
    """Where the artifacts go without a server: MLflow would take the folder of this process, which is the project's."""
    if mlflow.get_tracking_uri().startswith("http"):
        return None
    try:
        place = str(client.get_experiment(DEFAULT).artifact_location)
    except MlflowException:
        return None
    folder = re.sub(r"[^\w.-]", "_", name)
    return f"{place.rpartition('/')[0]}/{folder}"


def _moved(client: MlflowClient, old: Run, experiment: str) -> str:
    """A run in another experiment with what `mlflow run` wrote on the one that it began."""
    new = client.create_run(experiment, old.info.start_time, dict(old.data.tags), old.info.run_name)
    parameters = [Param(key, value) for key, value in old.data.params.items()]
    client.log_batch(new.info.run_id, params=parameters)
    begun = old.info.run_id
    client.log_batch(begun, tags=[RunTag(MOVED_TO, str(new.info.run_id))])
    client.set_terminated(begun)
    with suppress(MlflowException):  # on a server with accounts, one who may only write runs
        client.delete_run(begun)
    return str(new.info.run_id)
