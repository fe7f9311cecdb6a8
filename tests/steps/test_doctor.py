"""What doctor finds, against servers that answer as broken ones do."""

import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.diagnostics import checks
from steps.doctor import doctor
from steps.support.entrypoint import run_step
from tests.support.services import free_port

PROJECT = Path(__file__).resolve().parent.parent.parent
OURS = "3.17.2"


@contextmanager
def answering(version=(200, OURS), search=(200, "{}"), foreign=(403, "Invalid Host header"), date=None):
    """A server of these answers to /version, to a search, and to a search under a foreign name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = version if self.path == "/version" else search
            if self.headers["Host"].endswith("example"):
                status, text = foreign
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "text", "remedy"),
    [
        (
            {"version": (200, "3.16.9")},
            "is MLflow 3.16.9, this is 3.17.2; the server is older",
            "up to date the server",
        ),
        ({"version": (200, "3.100.0")}, "the server is newer", "bring up to date this clone"),
        ({"version": (404, "")}, "answers 404 to /version: that is no MLflow server", "MLFLOW_TRACKING_URI"),
        ({"search": (401, "")}, "wants a login", "MLFLOW_TRACKING_USERNAME"),
        ({}, "is MLflow 3.17.2, as here", ""),
    ],
)
def test_the_server_and_its_version(answers, text, remedy):
    with answering(**answers) as uri:
        found = checks.check_server(uri, OURS, None)
    assert text in found.text
    assert remedy in found.remedy
    assert found.is_ok == (not remedy)


def test_the_rule_for_host_headers():
    with answering() as uri:
        assert checks.check_hosts(uri, None).is_ok
    with answering(search=(403, "Invalid Host header - possible DNS rebinding attack detected")) as uri:
        name = uri.removeprefix("http://")
        assert checks.check_hosts(uri, None).remedy == f"add {name} to ALLOWED_HOSTS in its .env, and make up"
    with answering(foreign=(200, "{}")) as uri:
        assert "any web page can read it" in checks.check_hosts(uri, None).text


def test_the_clocks():
    with answering(date="Mon, 02 Nov 2026 10:00:00 GMT") as uri:
        then = datetime(2026, 11, 2, 10, tzinfo=UTC)
        assert checks.check_clock(uri, then + timedelta(seconds=5)).text == "the server's clock is 5 s behind ours"
        assert checks.check_clock(uri, then + timedelta(seconds=5)).is_ok
        wrong = checks.check_clock(uri, then - timedelta(minutes=3))
        assert wrong.text == "the server's clock is 180 s ahead of ours"
        assert "timedatectl" in wrong.remedy


def test_python_and_pins(tmp_path):
    assert checks.check_python((3, 11), PROJECT / "requirements.txt").is_ok
    assert "3.12, 3.11 is needed" in checks.check_python((3, 12), PROJECT / "requirements.txt").text
    pins = tmp_path / "requirements.txt"
    pins.write_text("# pins\npytest==0.0.1\nno-such-package==1.2  # why\n")
    text = checks.check_python((3, 11), pins).text
    assert "no-such-package missing instead of 1.2" in text
    assert "instead of 0.0.1" in text


def test_disk(tmp_path, monkeypatch):
    assert checks.check_disk({"data": tmp_path / "not" / "yet"}).is_ok
    monkeypatch.setattr(checks, "_FREE_GB", 1e9)
    assert str(tmp_path) in checks.check_disk({"data": tmp_path}).remedy


def test_git():
    tags = {"git_commit": "0123456789abcdef", "git_dirty": "false"}
    assert checks.check_git(tags).text == "commit 0123456789ab, nothing uncommitted"
    assert "uncommitted changes" in checks.check_git(tags | {"git_dirty": "true"}).text
    assert "no git checkout" in checks.check_git({"git_commit": "unknown", "git_dirty": "unknown"}).text


@pytest.mark.usefixtures("in_process")
def test_a_check_asks_a_server_twice_and_what_follows_as_often_as_before(store, monkeypatch, capsys):
    asked = []

    def note_limits(trace):
        asked.append([os.environ.get(f"MLFLOW_HTTP_REQUEST_{name}") for name in ("MAX_RETRIES", "TIMEOUT")])
        raise OSError("the check fails")

    monkeypatch.setattr("recsys.diagnostics.probes.Trace.write_metric", note_limits)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(SystemExit):
        run_step("doctor", doctor, [f"--folder={store.home}"], connected=False)
    assert "the check fails" in capsys.readouterr().out
    assert asked == [["1", "5"]]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.usefixtures("in_process")
def test_a_server_that_is_gone_ends_the_checks_that_need_it_and_no_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("RECSYS_STUDY_STORAGE", f"mysql+pymysql://optuna:geheim@127.0.0.1:{free_port()}/optuna")
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run_step("doctor", doctor, [f"--folder={tmp_path}"], connected=False)
    assert ended.value.code == 1
    said = capsys.readouterr()
    checks = [line.split(":")[0] for line in said.out.splitlines() if not line.startswith(" ")]
    assert checks == ["ok    python", "ok    torch", "wrong tracking", "wrong studies", "ok    disk", "ok    git"]
    assert "start it (make up, make server), or correct or unset MLFLOW_TRACKING_URI" in said.out
    assert "mysql+pymysql://optuna:***@127.0.0.1" in said.out
    assert "geheim" not in said.out
    assert said.err == "error: doctor: 2 of the checks above found something wrong\n"


@pytest.mark.usefixtures("in_process")
def test_a_store_of_one_s_own(store, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("RECSYS_DATA", str(store.data))
    monkeypatch.delenv("RECSYS_STUDY_STORAGE", raising=False)
    run_step("doctor", doctor, [f"--folder={store.home}"], connected=False)
    said = capsys.readouterr().out
    assert "wrong" not in said
    assert store.runs() == []
    assert store.client.search_registered_models() == []
    assert list(store.home.iterdir()) == []  # no studies.db was made
