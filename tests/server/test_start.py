"""What the server is started with, and what it refuses to start with."""

import os
import stat
from configparser import ConfigParser
from pathlib import Path

import pytest

from server import start
from tests.support.services import free_port

URI = "mysql+pymysql://mlflow:geheim%21@db:3306/mlflow"
GIVEN = {"MLFLOW_BACKEND_STORE_URI": URI}


def test_the_command_line_holds_no_secret():
    given = GIVEN | {"MLFLOW_AUTH_ADMIN_PASSWORD": "a long password", "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
    line = " ".join(start.command(start.checked(given | {"RECSYS_SERVER_LOGIN": "true"})))
    assert "--app-name recsys-login" in line
    assert not [secret for secret in ("geheim", "a long password", " key", "mysql") if secret in line]


def test_empty_variables_count_as_not_given():
    settings = start.checked(GIVEN | {"MLFLOW_PORT": "", "MLFLOW_S3_ENDPOINT_URL": ""})
    assert settings["MLFLOW_PORT"] == "5000"
    assert "MLFLOW_S3_ENDPOINT_URL" not in settings
    line = start.command(settings)
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--allowed-hosts") + 1] == "localhost:*,127.0.0.1:*,mlflow:5000"
    assert "--cors-allowed-origins" not in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MLFLOW_BACKEND_STORE_URI": ""}, "MLFLOW_BACKEND_STORE_URI: the database's URL is needed"),
        ({"MLFLOW_BACKEND_STORE_URI": "mysql://mlflow:geheim@db/x"}, r"mysql\+pymysql:// is needed, got mysql://"),
        ({"MLFLOW_BACKEND_STORE_URI": "mysql+pymysql://mlflow:geheim@db"}, "a host and a database's name are needed"),
        ({"MLFLOW_PORT": "http"}, "MLFLOW_PORT: a whole number from 1 is needed, got 'http'"),
        ({"MLFLOW_WORKERS": "0"}, "MLFLOW_WORKERS: a whole number from 1 is needed, got '0'"),
        ({"RECSYS_SERVER_LOGIN": "yes"}, "RECSYS_SERVER_LOGIN: true or false is needed, got 'yes'"),
        ({"RECSYS_SERVER_LOGIN": "true"}, "MLFLOW_AUTH_ADMIN_PASSWORD: a password of at least 12 characters"),
        (
            {"RECSYS_SERVER_LOGIN": "true", "MLFLOW_AUTH_ADMIN_PASSWORD": "x" * 12},
            "MLFLOW_FLASK_SERVER_SECRET_KEY: a random text is needed",
        ),
    ],
)
def test_a_wrong_setting_is_named_without_its_secret(changes, message):
    with pytest.raises(start.WrongSettings, match=message) as told:
        start.checked(GIVEN | changes)
    assert "geheim" not in str(told.value)


def test_a_database_that_does_not_answer_is_told_without_its_password():
    port = free_port()
    with pytest.raises(start.WrongSettings, match=rf"no database answers at 127.0.0.1:{port} after 0 s") as told:
        start.wait_for_database(f"mysql+pymysql://mlflow:geheim@127.0.0.1:{port}/mlflow", seconds=0)
    assert "geheim" not in str(told.value)


def test_the_login_s_file_is_ours_alone_and_keeps_percent_signs(tmp_path):
    accounts = tmp_path / "100%" / "accounts.db"
    accounts.parent.mkdir()
    accounts.touch(0o644)  # as an earlier release left it
    path = Path(start.login_settings(str(accounts), "1"))
    try:
        assert stat.S_IMODE(accounts.stat().st_mode) == 0o600
        assert start.login_settings(str(accounts), "1") == str(path)  # a second start replaces it
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == os.getuid()
        config = ConfigParser()
        config.read(path)
        assert config["mlflow"]["database_uri"] == f"sqlite:///{accounts}"
        assert config["mlflow"]["default_permission"] == "READ"
    finally:
        path.unlink()
