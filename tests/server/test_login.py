"""The profiles auth and s3 together: accounts, what they may do, and artifacts in a bucket."""

import logging
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import boto3
import mlflow
import pandas as pd
import pytest
import requests
from mlflow.server.auth.client import AuthServiceClient
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.tracking import MlflowClient
from moto.server import ThreadedMotoServer

from server import accounts
from server.backup import direct, restore, save
from tests.support.pipeline import COLUMNS, PROJECT
from tests.support.services import free_port
from tests.support.team_server import team_server

pytestmark = pytest.mark.e2e

ADMIN = ("admin", "a long password of mine")
ROLES = {"reader": "a password to read", "member": "a password to work"}


@pytest.fixture(scope="module")
def bucket():
    """The address of an S3 store."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    store.start()
    yield "http://{}:{}".format(*store.get_host_and_port())
    store.stop()


@pytest.fixture(scope="module")
def team(mariadb, bucket, tmp_path_factory):
    chosen = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "ARTIFACTS_DESTINATION": "s3://team/artifacts",
        "S3_ENDPOINT": bucket,
        "ALLOWED_HOSTS": "127.0.0.1:*,mlflow.example.org",
        "ALLOWED_ORIGINS": "https://mlflow.example.org",
    }
    with team_server(mariadb, tmp_path_factory.mktemp("team"), "mlflow-auth", **chosen) as server:
        yield server


@pytest.fixture
def log_in(team, monkeypatch):
    """Makes this process somebody's."""

    def log_in(name, password):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", team.address)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        mlflow.set_tracking_uri(team.address)
        mlflow.set_registry_uri(team.address)
        return MlflowClient(team.address, team.address)

    return log_in


def endpoints():
    """Every method and path that the server knows, with something in place of its parameters."""
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import get_endpoints

    found = {(method, path) for path, _, methods in get_endpoints() for method in methods}
    found |= {(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()}
    return sorted((method, re.sub(r"<[^>]*>|\{[^}]*\}", "0", path)) for method, path in found)


def test_without_credentials_every_path_answers_401(team):
    with requests.Session() as session:
        answers = {
            (method, path): session.request(method, team.address + path, timeout=10, allow_redirects=False).status_code
            for method, path in endpoints()
        }
    assert len(answers) > 300
    assert ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0") in answers
    assert {path for (_, path), status in answers.items() if status != 401} == {
        "/api/3.0/mlflow/server-info",  # which kinds of storage there are
        "/ajax-api/3.0/mlflow/server-info",
    }
    wrong = requests.get(f"{team.address}/api/2.0/mlflow/experiments/get", auth=("admin", "wrong"), timeout=10)
    assert wrong.status_code == 401
    assert requests.get(f"{team.address}/health", timeout=10).status_code == 200


def test_behind_a_proxy_the_public_name_is_let_in_and_no_other(team):
    path = f"{team.address}/ajax-api/2.0/mlflow/runs/create"
    name, page = "mlflow.example.org", "https://mlflow.example.org"
    for host, origin, status in ((name, page, 200), ("evil.example", page, 403), (name, "https://evil.example", 403)):
        headers = {"Host": host, "Origin": origin}
        answer = requests.post(path, json={"experiment_id": "0"}, headers=headers, auth=ADMIN, timeout=10)
        assert answer.status_code == status, (host, origin, answer.text)


def test_who_guesses_passwords_is_braked_and_who_is_at_work_is_not(team):
    path = f"{team.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert requests.get(path, auth=ADMIN, timeout=60).status_code == 200
    answers = [requests.get(path, auth=("admin", f"guess {number}"), timeout=60) for number in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses
    assert int(answers[statuses.index(429)].headers["Retry-After"]) >= 1
    assert requests.get(path, auth=ADMIN, timeout=60).status_code == 200
    assert stat.S_IMODE(Path(team.environment["RECSYS_SERVER_ACCOUNTS"]).stat().st_mode) == 0o600


def test_no_account_makes_an_experiment_outside_the_artifact_root(team, log_in):
    log_in(*ADMIN)
    AuthServiceClient(team.address).create_user("nobody", "a password without a role")
    client = log_in("nobody", "a password without a role")
    for place in ("/tmp/outside", "s3://team/elsewhere"):
        with pytest.raises(mlflow.MlflowException, match="kept by this server"):
            client.create_experiment("outside", artifact_location=place)
    assert client.create_experiment("inside")


def test_accounts_do_what_they_may_and_no_more(team, user, step, log_in, bucket, monkeypatch, capsys):
    log_in(*ADMIN)
    admin = AuthServiceClient(team.address)
    for name, password in ROLES.items():
        admin.create_user(name, password)
    role = admin.create_role("default", "member")
    for kind in ("experiment", "registered_model"):
        admin.add_role_permission(role.id, kind, "*", "EDIT")
    admin.assign_role("member", role.id)

    def refuse(*_):
        raise AssertionError("a client went to the S3 store itself")

    monkeypatch.setattr(HttpArtifactRepository, "_get_presigned_download_url", refuse)
    monkeypatch.setattr(HttpArtifactRepository, "create_multipart_upload", refuse, raising=False)
    member = log_in("member", ROLES["member"])
    step("train", ratings="my.csv", family="bias", **COLUMNS)
    step("promote", beat_bias=False, max_rmse=4)  # biases alone explain the sample
    assert member.get_model_version_by_alias("recsys", "champion").version == "1"
    keys = objects(bucket, "artifacts/")
    assert any(key.endswith("recommender.json") for key in keys)

    reader = log_in("reader", ROLES["reader"])
    assert [version.current_stage for version in reader.search_model_versions("name = 'recsys'")] == ["Production"]
    pairs = pd.DataFrame({"user_id": ["größe 001"], "item_id": ["SKU-1"]})
    assert len(mlflow.pyfunc.load_model("models:/recsys/Production").predict(pairs)) == 1
    forbidden = [
        lambda: reader.set_registered_model_alias("recsys", "champion", "1"),
        lambda: reader.transition_model_version_stage("recsys", "1", "Archived"),
        lambda: reader.set_model_version_tag("recsys", "1", "auc", "1"),
        lambda: reader.delete_model_version("recsys", "1"),
        lambda: reader.create_run("0"),
        lambda: reader.log_text(
            reader.search_runs([reader.get_experiment_by_name("recsys").experiment_id])[0].info.run_id, "x", "evil.txt"
        ),
    ]
    for attempt in forbidden:
        with pytest.raises((mlflow.MlflowException, requests.HTTPError), match=r"(?i)permission denied"):
            attempt()
    with pytest.raises(SystemExit):
        step("promote")
    assert "error: promote: MLflow: " in (said := capsys.readouterr().err)
    assert "Permission denied" in said
    log_in(*ADMIN)
    assert member.get_model_version_by_alias("recsys", "champion").version == "1"
    assert objects(bucket, "artifacts/") == keys
    secrets = [
        *ROLES.values(),
        ADMIN[1],
        team.variables["S3_SECRET_KEY"],
        team.variables["MLFLOW_FLASK_SERVER_SECRET_KEY"],
    ]
    assert not [secret for secret in secrets if secret in team.log.read_text()]
    assert not [secret for secret in secrets if secret in str([process.cmdline() for process in team.processes()])]


def test_a_backup_holds_the_accounts_and_the_bucket(team, bucket, tmp_path, monkeypatch):
    environment = dict(os.environ) | team.environment | {"RECSYS_DATA": "s3://team/data"}
    dataset = {f"data/prepared/{'d' * 32}/{name}" for name in ("manifest.json", "users.parquet", "train/part.parquet")}
    for key in dataset:
        store(bucket).put_object(Bucket="team", Key=key, Body=key.encode())
    file = save(direct(environment), tmp_path / "backups")
    team.stop()
    empty = environment | {
        "RECSYS_SERVER_ACCOUNTS": str(tmp_path / "new" / "accounts.db"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://team/restored",
        "RECSYS_DATA": "s3://team/restored-data",
    }
    direct(empty).ask("clear", "mlflow")
    restore(direct(empty), file)
    assert objects(bucket, "restored/") == {
        key.replace("artifacts/", "restored/", 1) for key in objects(bucket, "artifacts/")
    }
    assert objects(bucket, "restored-data/") == {f"restored-{key}" for key in dataset}
    moved = shutil.copy(team.environment["RECSYS_SERVER_ACCOUNTS"], tmp_path / "before.db")
    names = [users(path) for path in (moved, empty["RECSYS_SERVER_ACCOUNTS"])]
    assert names[0] == names[1]
    assert {name for name, _ in names[1]} == {"admin", "nobody", *ROLES}


def test_no_accounts_are_no_file(tmp_path):
    assert accounts.dump(tmp_path / "none.db") == b""
    accounts.load(tmp_path / "none.db", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_the_administrator_s_password_does_not_start(team):
    done = subprocess.run(
        [sys.executable, "server/start.py"],
        cwd=PROJECT,
        env=dict(os.environ) | team.environment | {"MLFLOW_AUTH_ADMIN_PASSWORD": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: server: MLFLOW_AUTH_ADMIN_PASSWORD: a password of at least 12 characters")


def users(path):
    import sqlite3

    with sqlite3.connect(path) as database:
        return set(database.execute("select username, password_hash from users"))


def store(endpoint):
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )


def objects(endpoint, prefix):
    found = store(endpoint).list_objects_v2(Bucket="team", Prefix=prefix).get("Contents", [])
    return {item["Key"] for item in found}
