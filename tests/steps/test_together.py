"""Several people at once over one new store."""

import subprocess
import sys

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tests.support.pipeline import COLUMNS, PROJECT, write_sample

pytestmark = pytest.mark.e2e


def test_three_trainings_that_make_the_store_together_register_three_versions(tmp_path, monkeypatch):
    write_sample(tmp_path / "my.csv")
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    columns = [f"--{name}={value}" for name, value in COLUMNS.items()]
    command = [
        sys.executable,
        "-m",
        "steps.train",
        f"--folder={tmp_path}",
        "--ratings=my.csv",
        "--family=bias",
        *columns,
    ]
    together = [
        subprocess.Popen([*command, f"--seed={seed}"], cwd=PROJECT, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    errors = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], errors
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {version.version for version in client.search_model_versions("name = 'recsys'")} == {1, 2, 3}
    every = [found.experiment_id for found in client.search_experiments()]
    assert {run.info.status for run in client.search_runs(every)} == {"FINISHED"}
    assert len(list((tmp_path / "data" / "prepared").iterdir())) == 1


def test_a_dataset_that_another_run_records_at_the_same_moment_is_recorded_all_the_same(step, store, monkeypatch):
    write_sample(store.home / "my.csv")
    log_input, failures = mlflow.log_input, [MlflowException("UNIQUE constraint failed: datasets.name")] * 2

    def overtaken(*arguments, **options):
        if failures:
            raise failures.pop()
        log_input(*arguments, **options)

    monkeypatch.setattr(mlflow, "log_input", overtaken)
    step("train", family="bias", ratings="my.csv", **COLUMNS)
    assert not failures
    assert len(store.run_named("train bias").inputs.dataset_inputs) == 1
