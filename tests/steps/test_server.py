"""The whole pipeline against a tracking server: what works on a file must work over HTTP."""

import subprocess

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from pipeline import COLUMNS, PROJECT, new_store, serving, step_command, write_sample

pytestmark = pytest.mark.e2e


def test_main_against_a_server_promotes_a_model_that_loads_over_http(tmp_path, shared, monkeypatch):
    store = new_store(tmp_path / "store", shared)
    write_sample(store.home / "my.csv")
    with serving(store, "server", "--artifacts-destination", str(tmp_path / "artifacts")) as address:
        command = step_command(
            "main", folder=store.home, ratings="my.csv", families="bias,random_forest", beat_bias=False, **COLUMNS
        )
        environment = store.environment(MLFLOW_TRACKING_URI=address)
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert address not in done.stdout  # MLflow's own lines would bury the table

        client = MlflowClient(address, address)
        assert {run.info.status for run in client.search_runs(["0"])} == {"FINISHED"}
        stages = {int(v.version): v.current_stage for v in client.search_model_versions("name = 'recsys'")}
        champion = int(client.get_model_version_by_alias("recsys", "champion").version)
        assert {number for number, stage in stages.items() if stage == "Production"} == {champion}
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(address)
        try:
            model = mlflow.pyfunc.load_model("models:/recsys@champion")
        finally:
            mlflow.set_tracking_uri(before)
        assert len(model.predict(pd.DataFrame({"user_id": ["nobody"], "item_id": [7]}))) == 1
