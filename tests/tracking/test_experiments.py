"""The experiment that runs belong to."""

import mlflow
import pytest

from recsys.errors import InputError
from recsys.tracking import experiments, runs
from tests.support.pipeline import Store, new_store

KIND = ("mlflow.experimentKind", "custom_model_development")


@pytest.fixture
def store(tmp_path, tmp_path_factory, monkeypatch) -> Store:
    store = new_store(tmp_path / "store", tmp_path_factory.getbasetemp())
    mlflow.set_tracking_uri(store.uri)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return store


def begun(store, monkeypatch, experiment="0", **tags):
    """What `mlflow run` leaves to the step that it starts."""
    run = store.client.create_run(experiment, tags=tags, run_name="gifted-owl-12").info.run_id
    store.client.log_param(run, "ratings", "'my file.csv'")
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return run


def used(store):
    """A store whose default experiment has a run of somebody else."""
    store.client.set_terminated(store.client.create_run("0", run_name="theirs").info.run_id)


def test_the_default_experiment_takes_the_name_while_it_is_unused(store, monkeypatch):
    before = begun(store, monkeypatch)
    experiments.enter("shop a", given=False)
    with runs.start_run("train bias") as run:
        assert run.run_id == before
    found = store.client.get_experiment("0")
    assert found.name == "shop a"
    assert KIND in found.tags.items()
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    experiments.enter("shop a", given=False)
    with runs.start_run("two"):
        pass
    assert [run.info.experiment_id for run in store.runs()] == ["0", "0"]


def test_runs_belong_to_the_experiment_of_their_name_which_is_marked_as_training(store):
    used(store)
    for _ in range(2):
        experiments.enter("shop a", given=False)
        with runs.start_run("one"):
            pass
    found = store.client.get_experiment_by_name("shop a")
    assert KIND in found.tags.items()
    assert found.artifact_location == str(store.folder / "artifacts" / "shop_a")
    assert [run.info.experiment_id for run in store.runs()] == [found.experiment_id] * 2 + ["0"]
    assert store.client.get_experiment("0").name == "Default"


@pytest.mark.parametrize(("experiment", "tags"), [("theirs", {}), ("0", {"mlflow.parentRunId": "a"}), ("0", {})])
def test_a_run_that_mlflow_run_began_keeps_its_number(experiment, tags, store, monkeypatch):
    used(store)
    number = experiment if experiment == "0" else store.client.create_experiment(experiment)
    before = begun(store, monkeypatch, number, **tags)
    experiments.enter("recsys", given=False)
    with runs.start_run("train bias") as run:
        assert run.run_id == before
    assert store.client.get_experiment_by_name("recsys") is None


def test_it_goes_on_in_an_experiment_that_is_given(store, monkeypatch):
    used(store)
    before = begun(store, monkeypatch, **{"mlflow.project.entryPoint": "train"})
    experiments.enter("recsys", given=True)
    with runs.start_run("train bias") as run:
        assert run.run_id != before
    now = store.run_named("train bias")
    assert now.info.experiment_id == store.client.get_experiment_by_name("recsys").experiment_id
    assert now.data.params == {"ratings": "'my file.csv'"}
    assert now.data.tags["mlflow.project.entryPoint"] == "train"
    old = store.client.get_run(before)
    assert (old.info.status, old.info.lifecycle_stage) == ("FINISHED", "deleted")
    assert old.data.tags[experiments.MOVED_TO] == now.info.run_id


def test_the_experiment_named_in_the_environment_is_kept_unless_another_is_given(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    store.client.create_experiment("theirs")
    experiments.enter("recsys", given=False)
    assert experiments.entered() is None
    assert store.client.get_experiment_by_name("recsys") is None
    experiments.enter("mine", given=True)
    assert experiments.entered() == store.client.get_experiment_by_name("mine").experiment_id


def test_a_deleted_experiment_is_refused_with_what_to_type(store):
    number = store.client.create_experiment("gone")
    store.client.delete_experiment(number)
    with pytest.raises(
        InputError, match=rf"'gone' was deleted; type `mlflow experiments restore --experiment-id {number}"
    ):
        experiments.enter("gone", given=False)
