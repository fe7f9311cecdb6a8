"""The compose file's server, as a process over MariaDB: the pipeline, two users, safety, faults, backup and restore."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from bench.server import log_at_once, lost
from server.backup import BackupError, direct, restore, save
from tests.support.pipeline import COLUMNS, PROJECT, mlflow_command
from tests.support.team_server import compose, read_all
from tests.support.waiting import Background, wait

pytestmark = pytest.mark.e2e

PAIRS = pd.DataFrame({"user_id": ["größe 001", "größe 002", "nobody"], "item_id": ["SKU-1", "SKU-2", 7]})


@pytest.fixture
def client(team, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.address)
    mlflow.set_tracking_uri(team.address)
    mlflow.set_registry_uri(team.address)
    return MlflowClient(team.address, team.address)


ANY = {"beat_bias": False, "max_rmse": 4}  # biases alone explain the sample


def champion(client):
    return int(client.get_model_version_by_alias("recsys", "champion").version)


def in_production(client):
    return [int(v.version) for v in client.search_model_versions("name = 'recsys'") if v.current_stage == "Production"]


def all_runs(client):
    return client.search_runs([found.experiment_id for found in client.search_experiments()], max_results=1000)


class TestPipeline:
    def test_two_users_at_once_run_every_entry_point(self, team, user, step, client):
        """One starts `mlflow run`, the other goes through the steps one by one meanwhile."""
        command = mlflow_command(".", "main", ratings=user.home / "my.csv", families="bias", **ANY, **COLUMNS)
        other = user.environment(MLFLOW_TRACKING_URI=team.address, RECSYS_DATA=str(user.folder / "other"))
        with subprocess.Popen(
            command, cwd=PROJECT, env=other, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            step("prepare", ratings="my.csv", **COLUMNS)
            step("train", ratings="my.csv", family="random_forest", n_estimators=20, **COLUMNS)
            step("tune", ratings="my.csv", family="bias", trials=2, **COLUMNS)
            step("evaluate", version=1)
            said, _ = process.communicate()
        assert process.returncode == 0, said
        step("promote", **ANY)
        assert {run.info.status for run in all_runs(client)} == {"FINISHED"}
        step("history")
        versions = client.search_model_versions("name = 'recsys'")
        assert {int(version.version) for version in versions} == {1, 2, 3}
        assert in_production(client) == [champion(client)]
        assert len(mlflow.pyfunc.load_model("models:/recsys/Production").predict(PAIRS)) == 3
        assert not (user.home / "studies.db").exists()
        assert team.database.execute("select count(*) from optuna.trials") == [(2,)]

    def test_names_that_differ_by_case_are_two_as_on_sqlite(self, client):
        run = client.create_run("0")
        now = int(time.time() * 1000)
        client.log_batch(run.info.run_id, metrics=[Metric("auc", 0.1, now, 0), Metric("AUC", 0.2, now, 0)])
        client.set_terminated(run.info.run_id)
        assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.1, "AUC": 0.2}


class TestSafety:
    def test_a_foreign_host_header_is_refused(self, team):
        path = f"{team.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
        assert requests.get(path, timeout=10).status_code == 200
        for host in (
            "evil.example",
            "mlflow:5000.evil.example",
            f"127.0.0.1.evil.example:{team.port}",
            "10.evil.example",
        ):
            answer = requests.get(path, headers={"Host": host}, timeout=10)
            assert answer.status_code == 403, host
            assert answer.text.startswith(("Invalid Host header", "the Host header is no name and port")), host
        for host in ("mlflow:5000", "localhost:5000"):
            assert requests.get(path, headers={"Host": host}, timeout=10).status_code == 200

    def test_a_foreign_origin_changes_nothing(self, team, client):
        path = f"{team.address}/api/2.0/mlflow/experiments/create"
        evil = {"Origin": "https://evil.example"}
        assert requests.post(path, json={"name": "evil"}, headers=evil, timeout=10).status_code == 403
        upload = f"{team.address}/api/2.0/mlflow-artifacts/artifacts/0/evil.txt"
        assert requests.put(upload, data=b"x", headers=evil, timeout=10).status_code == 403
        assert client.get_experiment_by_name("evil") is None
        assert not list((team.log.parent / "artifacts").rglob("evil.txt"))
        answer = requests.get(
            f"{team.address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers=evil, timeout=10
        )
        assert "Access-Control-Allow-Origin" not in answer.headers  # a browser shows the page nothing

    @pytest.mark.parametrize("path", ["../outside", "0/../../outside", "%2e%2e/outside", "0/%2e%2e%2f%2e%2e%2foutside"])
    def test_an_artifact_path_that_leaves_the_folder_is_refused(self, path, team):
        address = f"{team.address}/api/2.0/mlflow-artifacts/artifacts/{path}"
        for method in ("PUT", "GET", "DELETE"):
            prepared = requests.Request(method, address, data=b"x").prepare()
            prepared.url = address  # requests would resolve the dots itself
            assert requests.Session().send(prepared, timeout=10).status_code >= 400, method
        assert not list(team.log.parent.glob("**/outside"))

    def test_a_version_with_a_pickle_runs_nowhere(self, step, client, tmp_path, monkeypatch, capsys):
        marker = tmp_path / "ran"

        class Evil(mlflow.pyfunc.PythonModel):
            def __reduce__(self):
                return exec, (f"open({str(marker)!r}, 'w')",)

            def predict(self, context, model_input, params=None):
                return model_input

        with mlflow.start_run():
            logged = mlflow.pyfunc.log_model(name="evil", python_model=Evil(), pip_requirements=[])
        before = champion(client)
        tags = {
            key: value for key, value in client.get_model_version("recsys", "1").tags.items() if "evaluat" not in key
        }
        created = client.create_model_version("recsys", logged.model_uri, model_id=logged.model_id, tags=tags)
        with pytest.raises(SystemExit):
            step("evaluate", version=created.version, ratings="my.csv", **COLUMNS)
        assert f"version {created.version} of 'recsys' is not what was registered" in capsys.readouterr().err
        with pytest.raises(mlflow.MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
            mlflow.pyfunc.load_model(f"models:/recsys/{created.version}")  # the step has set it for this process
        step("promote", **ANY)
        assert champion(client) == before
        assert not marker.exists()
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        with contextlib.suppress(Exception):
            mlflow.pyfunc.load_model(f"models:/recsys/{created.version}")
        assert marker.exists()  # it would have bitten
        client.delete_model_version("recsys", created.version)

    def test_no_password_is_seen_anywhere(self, team, user):
        secrets = [value for key, value in team.variables.items() if "PASSWORD" in key or "SECRET" in key]
        secrets = [secret.encode() for secret in secrets if secret]
        assert len(secrets) == 7
        lines = "\n".join(" ".join(process.cmdline()) for process in team.processes()).encode()
        assert b"server/start.py" in lines or b"mlflow server" in lines
        backups = user.folder / "kept"
        save(direct(operator(team)), backups)
        seen = {
            "ps": lines,
            "log": team.log.read_bytes(),
            "artifacts": read_all(team.log.parent / "artifacts"),
            "databases": b"".join(direct(operator(team)).ask("dump", name).encode() for name in ("mlflow", "optuna")),
            "pages": requests.get(team.address, timeout=10).content,
        }
        assert not [(where, secret) for where, content in seen.items() for secret in secrets if secret in content]
        assert b"recsys" in seen["databases"]


def operator(team):
    """The environment in which the operator calls the programs of server/."""
    return dict(os.environ) | {
        "MLFLOW_BACKEND_STORE_URI": team.environment["MLFLOW_BACKEND_STORE_URI"],
        "RECSYS_STUDY_STORAGE": team.studies,
        "MLFLOW_ARTIFACTS_DESTINATION": team.environment["MLFLOW_ARTIFACTS_DESTINATION"],
    }


class TestDoctor:
    def test_all_is_well_and_nothing_is_left(self, team, step, client, capsys):
        before = left(client)
        files = read_all(team.log.parent / "artifacts")
        step("doctor")
        said = capsys.readouterr().out
        assert re.findall(r"^ok    ([a-z ]+):", said, re.MULTILINE) == [
            *("python", "torch", "tracking", "host header", "clock", "database", "runs", "artifacts"),
            *("registry", "studies", "disk", "git"),
        ]
        assert "wrong" not in said
        assert f"{team.address} is MLflow {mlflow.__version__}, as here" in said
        assert "***@127.0.0.1" in said
        assert team.variables["OPTUNA_DB_PASSWORD"] not in said
        assert left(client) == before
        assert read_all(team.log.parent / "artifacts") == files
        assert team.database.execute("select count(*) from optuna.studies where study_name like 'recsys-doctor%'") == [
            (0,)
        ]

    @pytest.mark.stops_database
    def test_a_database_that_is_down_is_found_within_seconds(self, team, step, capsys):
        team.database.stop()
        try:
            with pytest.raises(SystemExit):
                step("doctor")
        finally:
            team.database.start()
        said = capsys.readouterr()
        assert re.findall(r"^wrong ([a-z ]+):", said.out, re.MULTILINE) == ["database", "studies"]
        assert "start the database that the server is over" in said.out
        assert "start the database, or correct RECSYS_STUDY_STORAGE" in said.out
        assert team.variables["OPTUNA_DB_PASSWORD"] not in said.out


class TestFaults:
    @pytest.mark.stops_database
    def test_a_training_outlives_a_restart_of_the_database(self, team, step, client):
        before = len(client.search_model_versions("name = 'recsys'"))

        def training():
            return any(run.data.tags["mlflow.runName"] == "train random_forest" for run in running(client))

        def outage():
            wait(training, "the training")
            team.database.stop(signal.SIGKILL)
            time.sleep(4)
            team.database.start()

        watcher = Background(outage)
        step("train", ratings="my.csv", family="random_forest", n_estimators=300, seed=5, **COLUMNS)
        watcher.join()
        assert running(client) == []
        versions = client.search_model_versions("name = 'recsys'")
        assert len(versions) == before + 1
        newest = max(versions, key=lambda version: int(version.version))
        assert len(mlflow.pyfunc.load_model(f"models:/recsys/{newest.version}").predict(PAIRS)) == 3

    def test_a_server_that_is_killed_loses_nothing_that_four_clients_log(self, team):
        with ThreadPoolExecutor(5) as pool:
            clients = ThreadPoolExecutor(4)
            logging = pool.submit(log_at_once, clients, team.address, 4, 8)
            time.sleep(2)
            team.stop(signal.SIGKILL)
            team.start()
            logged = logging.result()
        assert min(len(one.runs) for one in logged) >= 1
        # A kill between a run's making and the answer leaves a run that nobody knows of; nothing else may be amiss.
        assert [problem for problem in lost(team.address, logged) if "nobody knows" not in problem] == []


def left(client):
    """What people see."""
    models = [model.name for model in client.search_registered_models()]
    return [run.info.run_id for run in all_runs(client)], models, len(client.search_model_versions())


def running(client):
    return [run for run in all_runs(client) if run.info.status == "RUNNING"]


class TestBackup:
    def test_a_restore_into_an_empty_server_gives_the_same(self, team, client, tmp_path):
        """A new database, new artifacts, the same models with the same answers."""
        before = {run.info.run_id: (run.info.status, run.data.metrics, run.data.params) for run in all_runs(client)}
        versions = standing(client)
        answers = mlflow.pyfunc.load_model("models:/recsys/Production").predict(PAIRS)
        studies = team.database.execute("select study_name from optuna.studies")
        done = subprocess.run(
            [sys.executable, "server/backup.py", "save", str(tmp_path)],
            cwd=PROJECT,
            env=operator(team),
            capture_output=True,
            text=True,
            check=True,
        )
        (file,) = tmp_path.glob("recsys-*.tar")
        assert done.stdout.startswith(f"saved {file}")
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.stat().st_size % tarfile.RECORDSIZE == 0  # written to its last byte

        with pytest.raises(BackupError, match=r"the database mlflow is in use by \d+ connections: stop the server"):
            restore(direct(operator(team)), file)
        team.stop()
        with pytest.raises(BackupError, match=r"the database mlflow is not empty \(.* runs, .*\): --replace drops"):
            restore(direct(operator(team)), file)

        cut = tmp_path / "cut.tar"
        cut.write_bytes(file.read_bytes()[:-20_000])
        damaged = tmp_path / "damaged.tar"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        empty = operator(team) | {"MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts")}
        for name in ("mlflow", "optuna"):
            direct(empty).ask("clear", name)
        for broken in (cut, damaged):
            with pytest.raises(BackupError, match=r"no whole backup|damaged: .* differ from what was written"):
                restore(direct(empty), broken)
        assert direct(empty).counts("mlflow") == {"tables": 0}
        assert not (tmp_path / "artifacts").exists()

        command = [sys.executable, "server/backup.py", "restore", str(file)]
        done = subprocess.run(command, cwd=PROJECT, env=empty, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == f"restored {file}"
        team.environment["MLFLOW_ARTIFACTS_DESTINATION"] = empty["MLFLOW_ARTIFACTS_DESTINATION"]
        team.start()
        after = {run.info.run_id: (run.info.status, run.data.metrics, run.data.params) for run in all_runs(client)}
        assert after == before
        assert standing(client) == versions
        pd.testing.assert_frame_equal(mlflow.pyfunc.load_model("models:/recsys/Production").predict(PAIRS), answers)
        assert team.database.execute("select study_name from optuna.studies") == studies

    def test_the_way_into_the_containers(self, team, tmp_path):
        """A stand-in for docker runs here what would run in the containers, and writes down how it was called."""
        docker = tmp_path / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(
            f"""#!/usr/bin/env bash
            echo "$*" >> {tmp_path}/calls
            case "$4" in
                exec) exec bash {PROJECT}/server/database.sh "${{@:9}}" ;;
                run) exec {sys.executable} "${{@:10}}" ;;
            esac
            exit 9
            """
        )
        docker.chmod(0o755)
        inside = {key: value for key, value in direct(operator(team)).environment.items() if "URI" not in key}
        inside["PATH"] = f"{docker.parent}:{inside['PATH']}"
        subprocess.run(
            [sys.executable, "server/backup.py", "save", str(tmp_path / "kept")], cwd=PROJECT, env=inside, check=True
        )
        (file,) = (tmp_path / "kept").glob("*.tar")
        with tarfile.open(file) as archive:
            assert {"mlflow.sql.gz", "optuna.sql.gz", "artifacts.tar"} <= set(archive.getnames())
        script = compose(team.variables)["services"]["mysql"]["volumes"][1].split(":")[1]
        calls = (tmp_path / "calls").read_text().splitlines()
        begin = f"compose --project-directory {PROJECT}"
        assert f"{begin} exec -T mysql bash {script} dump mlflow" in calls
        assert f"{begin} run --rm --no-deps -T mlflow python server/artifacts.py pack" in calls

    def test_a_dump_that_fails_leaves_no_backup(self, team, tmp_path):
        wrong = operator(team)
        wrong["MLFLOW_BACKEND_STORE_URI"] = wrong["MLFLOW_BACKEND_STORE_URI"].replace("mlflow:", "mlflow:wrong")
        with pytest.raises(BackupError, match="count mlflow failed"):
            save(direct(wrong), tmp_path)
        assert list(tmp_path.iterdir()) == []


def standing(client):
    return [
        (version.version, version.current_stage, version.aliases, version.tags, version.source)
        for version in sorted(client.search_model_versions("name = 'recsys'"), key=lambda version: int(version.version))
    ]
