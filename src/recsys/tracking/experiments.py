"""Which experiment a step's runs belong to."""

import re
from contextlib import suppress

import mlflow
from mlflow.entities import Experiment, Param, Run, RunTag, ViewType
from mlflow.environment_variables import MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME, MLFLOW_RUN_ID
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from recsys.runtime.interruption import uninterrupted

# Where `mlflow run` begins a run that it was given no experiment for.
DEFAULT, _DEFAULT_NAME = "0", "Default"
_KIND = "mlflow.experimentKind"
_TRAINING = "custom_model_development"  # what it is for, as MLflow marks it
MOVED_TO = "moved_to"  # on a run that `mlflow run` began: the run that the step went on in

_entered: dict[str, str] = {}  # by store, the experiment of this process


@uninterrupted()
def enter(name: str, *, given: bool) -> None:
    """Let the runs of this process belong to an experiment, which is made if there is none of that name.

    MLflow's default experiment takes the name while it is unused, so that a run that `mlflow run` has begun there is
    where it should be. Otherwise such a run stays where it is unless the experiment is `given`: then it goes on as a
    new one there, and the old one is deleted, as far as MLflow deletes runs. An experiment that the caller has chosen
    for MLflow stays too, unless `given`.

    Raises:
        InputError: if the experiment was deleted.
    """
    client, begun = MlflowClient(), MLFLOW_RUN_ID.get()  # type: ignore[no-untyped-call]
    if begun:
        run = client.get_run(begun)
        if run.info.experiment_id == DEFAULT:
            _name_default(client, name, begun)
        if not given:
            _entered.pop(mlflow.get_tracking_uri(), None)
            return
    elif not given and (MLFLOW_EXPERIMENT_NAME.get() or MLFLOW_EXPERIMENT_ID.get() not in (None, DEFAULT)):  # type: ignore[no-untyped-call]
        _entered.pop(mlflow.get_tracking_uri(), None)
        return
    experiment = str(_find_or_make(client, name).experiment_id)
    _entered[mlflow.get_tracking_uri()] = experiment
    if begun and run.info.experiment_id != experiment:
        MLFLOW_RUN_ID.set(_moved(client, run, experiment))  # type: ignore[no-untyped-call]


def _name_default(client: MlflowClient, name: str, begun: str | None) -> None:
    """Give MLflow's default experiment a name of ours, where no run stands in it but the one that has just begun."""
    with suppress(MlflowException):  # it was deleted, or this account may not name it
        if client.get_experiment(DEFAULT).name != _DEFAULT_NAME or client.get_experiment_by_name(name):
            return
        runs = client.search_runs([DEFAULT], run_view_type=ViewType.ALL, max_results=2)
        if {run.info.run_id for run in runs} <= {begun}:
            client.rename_experiment(DEFAULT, name)
            client.set_experiment_tag(DEFAULT, _KIND, _TRAINING)


def entered() -> str | None:
    """The experiment that this process has entered; None: MLflow's choice."""
    return _entered.get(mlflow.get_tracking_uri())


def _find_or_make(client: MlflowClient, name: str) -> Experiment:
    _name_default(client, name, None)
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
