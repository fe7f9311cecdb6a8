"""An sqlite store moved to MariaDB, without a server."""

import contextlib
import os
import sqlite3
import time

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from server import migrate
from server.backup import BackupError, direct
from steps.support.command import find_program
from steps.support.entrypoint import run_step
from tests.support.pipeline import COLUMNS, new_store, options, write_sample

pytestmark = pytest.mark.e2e
PAIRS = pd.DataFrame({"user_id": ["größe 001", "nobody"], "item_id": ["SKU-1", 7]})


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory, shared):
    """A store in which a version was trained and promoted."""
    store = new_store(tmp_path_factory.mktemp("lived") / "store", shared)
    write_sample(store.home / "my.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setenv("RECSYS_DATA", str(store.data))
        for step, parameters in (
            ("train", {"ratings": "my.csv", "family": "bias", **COLUMNS}),
            ("promote", {"beat_bias": False, "max_rmse": 4}),
        ):
            run_step(step, find_program(step), options(folder=store.home, **parameters))
    extra = store.client.create_experiment("zweites Experiment", artifact_location=str(store.folder / "elsewhere"))
    run = store.client.create_run(extra)
    now = int(time.time() * 1000)
    store.client.log_batch(run.info.run_id, metrics=[Metric("loss", float("nan"), now, k) for k in range(2500)])
    store.client.log_text(run.info.run_id, "größe", "notes/größe.txt")
    return store


@pytest.fixture
def target(mariadb, tmp_path, monkeypatch):
    """An empty database and a folder for artifacts, as the environment of the operator."""

    def target(collation="utf8mb4_bin"):
        uri = mariadb.new_database("moved")
        mariadb.execute(f"alter database moved collate {collation}")
        monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", uri)
        monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", str(tmp_path / "artifacts"))
        monkeypatch.delenv("RECSYS_STUDY_STORAGE", raising=False)
        return direct(os.environ), uri

    return target


def everywhere(client):
    return [experiment.experiment_id for experiment in client.search_experiments()]


def everything(client):
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    versions = client.search_model_versions("name = 'recsys'")
    return (
        sorted((e.experiment_id, e.name) for e in client.search_experiments()),
        {
            r.info.run_id: (
                r.info.status,
                r.info.start_time,
                r.data.params,
                r.data.tags,
                sorted((key, str(value)) for key, value in r.data.metrics.items()),
            )
            for r in runs
        },
        [(v.version, v.current_stage, v.aliases, v.tags, v.source, v.creation_timestamp) for v in versions],
        {
            m.model_id: (m.name, sorted((one.key, one.value, one.dataset_digest) for one in m.metrics or []))
            for m in client.search_logged_models(everywhere(client))
        },
    )


def test_runs_metrics_artifacts_versions_stages_and_aliases_arrive(lived_in, target, tmp_path, monkeypatch, capsys):
    _, uri = target()
    migrate.main([str(lived_in.folder / "mlflow.db")])
    said = capsys.readouterr().out
    assert "model_versions: 1\n" in said
    assert "metrics: " in said
    files = [
        path for place in ("artifacts", "elsewhere") for path in (lived_in.folder / place).rglob("*") if path.is_file()
    ]
    assert f"rows and {len(files)} artifacts; " in said

    client = MlflowClient(uri, uri)
    assert everything(client) == everything(lived_in.client)
    # Without a server that resolves mlflow-artifacts:, the folder it serves is looked into.
    artifacts = tmp_path / "artifacts"
    extra = client.get_experiment_by_name("zweites Experiment").experiment_id
    (run,) = client.search_runs([extra])
    assert run.info.artifact_uri == f"mlflow-artifacts:/{extra}/{run.info.run_id}/artifacts"
    assert (artifacts / extra / run.info.run_id / "artifacts/notes/größe.txt").read_text() == "größe"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2500
    (model,) = client.search_logged_models(everywhere(client))
    assert model.artifact_location.startswith("mlflow-artifacts:/0/models/m-")
    moved = artifacts / model.artifact_location.removeprefix("mlflow-artifacts:/")
    answers = mlflow.pyfunc.load_model(str(moved)).predict(PAIRS)
    original = mlflow.pyfunc.load_model(lived_in.client.get_logged_model(model.model_id).artifact_location)
    pd.testing.assert_frame_equal(answers, original.predict(PAIRS))

    with pytest.raises(SystemExit, match=r"the server is not empty \(.*1 model_versions"):
        migrate.main([str(lived_in.folder / "mlflow.db")])


def test_names_that_are_one_on_the_server_are_named_before_anything_is_written(lived_in, target, tmp_path):
    server, uri = target("utf8mb4_general_ci")
    store = tmp_path / "mlflow.db"
    store.write_bytes((lived_in.folder / "mlflow.db").read_bytes())
    client = MlflowClient(f"sqlite:///{store}", f"sqlite:///{store}")
    client.create_registered_model("RecSys")
    with pytest.raises(BackupError, match=r"registered_models: \('.*'.*\) and .* are one on this server"):
        migrate.migrate(store, server, uri)
    assert server.counts("mlflow") == {"tables": server.counts("mlflow")["tables"]} | dict.fromkeys(
        ("experiments", "runs", "logged_models", "registered_models", "model_versions"), 0
    )
    assert not (tmp_path / "artifacts").exists()
    # A database that tells them apart takes both.
    counts, _ = migrate.migrate(store, *target())
    assert counts["registered_models"] == 2


def test_a_store_of_another_mlflow_is_refused(lived_in, target, tmp_path):
    old = tmp_path / "old.db"
    old.write_bytes((lived_in.folder / "mlflow.db").read_bytes())
    with contextlib.closing(sqlite3.connect(old)) as database, database:
        database.execute("update alembic_version set version_num = '97727af70f4d'")
    server, uri = target()
    with pytest.raises(BackupError, match=rf"mlflow db upgrade sqlite:///{old}"):
        migrate.migrate(old, server, uri)
    assert server.counts("mlflow") == {"tables": 0}


def test_a_file_that_is_not_there(target):
    target()
    with pytest.raises(SystemExit, match="no such file: FROM=path/to/mlflow"):
        migrate.main(["nowhere.db"])


def test_an_upgrade_says_what_it_did_and_refuses_a_newer_database(target, mariadb, capsys):
    from server import upgrade

    target()
    upgrade.main()
    assert "now: revision none to" in capsys.readouterr().out
    upgrade.main()
    assert "already" in capsys.readouterr().out
    mariadb.execute("update moved.alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(SystemExit, match="revision ffffffffffff\\) are of a newer MLflow than"):
        upgrade.main()
