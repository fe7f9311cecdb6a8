"""The runs of steps."""

import mlflow

from steps.support.runs import name_own_run


def test_the_run_that_mlflow_made_for_a_step_that_records_nothing_is_named(store, monkeypatch):
    mlflow.set_tracking_uri(store.uri)
    made = mlflow.MlflowClient().create_run("0").info.run_id
    name_own_run("history")  # not by `mlflow run`: there is none
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    name_own_run("history")
    assert [run.info.run_name for run in store.runs()] == ["history"]
